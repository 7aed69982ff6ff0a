//! What the host itself, or another, uses is not taken away.

use std::process::Command;

use super::{applied, bare, expect, host_file, oracle, write};
use crate::host;

/// Whether `id` refuses the plan of the file, and `who` is named.
#[track_caller]
fn refused(file: &str, id: &str, who: &str) {
    let before = oracle::dump();
    let said = expect(3, &["host", "plan", file]);
    assert!(said.err.contains(&format!("error[{id}]")), "{}", said.err);
    assert!(said.err.contains(who), "{who} is not named:\n{}", said.err);
    let said = expect(3, &["host", "apply", file]);
    assert!(said.err.contains(&format!("error[{id}]")), "{}", said.err);
    assert_eq!(
        oracle::dump(),
        before,
        "a refused apply has changed the host"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn default_route_is_not_cut() {
    bare();
    let file = write(&host_file());
    let interface = host::fact("NIC_IF");
    host::shell(&format!(
        "/usr/bin/ip route replace default via 10.9.0.254 dev {interface}"
    ));
    refused(file, "pf-only-route", &interface);
    host::shell("/usr/bin/ip route del default");
    expect(2, &["host", "plan", file]);
}

/// What sshd tells the shell of a login is made up here: no sshd is on a lab host.
#[test]
#[ignore = "needs a lab host"]
fn login_through_the_pf_is_not_cut() {
    bare();
    let file = write(&host_file());
    let before = oracle::dump();
    let interface = host::fact("NIC_IF");
    let run = |local: &str, command: &str| {
        let connection = format!("10.9.0.2 40000 {local} 22");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        shell.env("SSH_CONNECTION", connection).output().unwrap()
    };
    let plan = format!("narrows host plan {file}");
    let apply = format!("narrows host apply {file}");
    // `sudo` takes the variable away: the shell above it has it. What follows keeps the shell there.
    let as_by_sudo = format!("env -u SSH_CONNECTION {plan}; exit $?");
    for command in [&plan, &apply, &as_by_sudo] {
        let output = run("10.9.0.1", command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{command}: {said}");
        assert!(said.contains("error[pf-login]"), "{command}: {said}");
        assert!(
            said.contains("the login from 10.9.0.2"),
            "{command}: {said}"
        );
        assert!(said.contains(&interface), "{command}: {said}");
    }
    assert_eq!(oracle::dump(), before);
    // Controls: a login through another interface, and one that the file accepts.
    let output = run("127.0.0.1", &plan);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let accepting = host_file().replace("vfs = 7\n", "vfs = 7\naccept = [\"pf-login\"]\n");
    let output = run(
        "10.9.0.1",
        &format!("narrows host plan {}", write(&accepting)),
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
#[ignore = "needs a lab host"]
fn mounted_namespace_is_not_taken_away() {
    bare();
    let file = write(&host_file());
    oracle::nvme("attach-ns", "-n 2 -c 0");
    let block = oracle::block(2);
    host::shell(&format!(
        "mke2fs -q {block} && mkdir -p /mnt && mount {block} /mnt"
    ));
    refused(file, "pf-mounted", "/mnt");
    host::shell("umount /mnt");
    // Open, but not mounted.
    let open = std::fs::File::open(&block).unwrap();
    refused(file, "namespace-open", "lab-tests");
    drop(open);
    expect(2, &["host", "plan", file]);
    expect(0, &["host", "apply", file]);
    assert!(
        !oracle::attached(2).contains(&0),
        "namespace 2 is still the host's"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn pf_of_another_manager_is_left_alone_unless_it_is_adopted() {
    bare();
    let interface = host::fact("NIC_IF");
    let file = write(&host_file());
    let network = "/etc/systemd/network/10-nic.link";
    host::shell("mkdir -p /etc/systemd/network");
    std::fs::write(
        network,
        format!("[Match]\nOriginalName={interface}\n\n[Link]\nSR-IOVVirtualFunctions=7\n"),
    )
    .unwrap();
    refused(file, "managed-elsewhere", network);
    // It makes them; Narrows takes them over.
    let pf = host::fact("NIC_PF");
    host::shell(&format!("echo 7 > /sys/bus/pci/devices/{pf}/sriov_numvfs"));
    let adopting = host_file().replace("vfs = 7\n", "vfs = 7\nadopt = true\n");
    expect(0, &["host", "apply", write(&adopting)]);
    assert!(oracle::link(0).contains("02:4e:57"), "{}", oracle::link(0));
    expect(0, &["host", "plan", write(&adopting)]);
    std::fs::remove_file(network).unwrap();
}

#[test]
#[ignore = "needs a lab host"]
fn pf_that_is_assigned_itself_is_refused() {
    applied();
    let pf = host::fact("NVME_PF");
    expect(0, &["host", "release"]);
    let file = write(&host_file());
    host::shell(&format!(
        "echo vfio-pci > /sys/bus/pci/devices/{pf}/driver_override; echo {pf} > /sys/bus/pci/devices/{pf}/driver/unbind; \
         echo {pf} > /sys/bus/pci/drivers_probe"
    ));
    let by_bdf = std::fs::read_to_string(file)
        .unwrap()
        .replace("serial = \"lab-sriov\"", &format!("bdf = \"{pf}\""));
    let said = super::narrows(&["host", "plan", write(&by_bdf)]);
    host::shell(&format!(
        "echo > /sys/bus/pci/devices/{pf}/driver_override; echo {pf} > /sys/bus/pci/devices/{pf}/driver/unbind; \
         echo {pf} > /sys/bus/pci/drivers_probe; sleep 3"
    ));
    assert_eq!(said.status, 3, "{}{}", said.out, said.err);
    assert!(said.err.contains("error[pf-assigned]"), "{}", said.err);
}
