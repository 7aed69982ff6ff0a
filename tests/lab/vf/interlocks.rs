//! What the host itself, or another, uses is not taken away.

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

#[test]
#[ignore = "needs a lab host"]
fn mounted_namespace_is_not_taken_away() {
    bare();
    let file = write(&host_file());
    host::shell("nvme attach-ns /dev/nvme0 -n 2 -c 0; sleep 1");
    let block = host::shell(
        "for b in /sys/block/nvme0n*; do [ \"$(cat $b/nsid)\" = 2 ] && basename $b; done",
    );
    let block = format!("/dev/{}", block.trim());
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
