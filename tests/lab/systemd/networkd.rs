//! VFs that systemd itself makes and sets: `systemd-udevd` by a `.link`, `systemd-networkd` by a `.network`. Narrows
//! leaves them alone, or takes them over where the host file says so.

use std::{fs, os::unix::fs::MetadataExt, thread, time::Instant};

use super::{PATIENCE, Unit, property};
use crate::{
    guest::GuestFile,
    host,
    vf::{document, expect, oracle, write},
};

const MAC: &str = "02:4e:59:00:00:07";
const COUNT: u32 = 3;
const LINK: &str = "10-nic.link";
const NETWORK: &str = "10-nic.network";
const ETC: &str = "/etc/systemd/network";
/// Where programs put theirs that write such files, as netplan does.
const RUN: &str = "/run/systemd/network";

/// Writes what systemd is to do with the NIC into a folder.
fn declare(folder: &str) {
    let interface = host::fact("NIC_IF");
    fs::create_dir_all(folder).unwrap();
    fs::write(
        format!("{folder}/{LINK}"),
        format!("[Match]\nOriginalName={interface}\n\n[Link]\nSR-IOVVirtualFunctions={COUNT}\n"),
    )
    .unwrap();
    fs::write(
        format!("{folder}/{NETWORK}"),
        format!(
            "[Match]\nName={interface}\n\n[Network]\nAddress=10.9.0.1/24\nLinkLocalAddressing=no\n\
             IPv6AcceptRA=no\n\n[SR-IOV]\nVirtualFunction=0\nVLANId=77\nMACAddress={MAC}\n"
        ),
    )
    .unwrap();
}

fn host_file(is_adopting: bool) -> String {
    let adopt = if is_adopting { "adopt = true\n" } else { "" };
    format!(
        "apiVersion = \"v1alpha1\"\n[[pool]]\nname = \"tenant\"\nkind = \"nic\"\nvlan = 101\n\
         [[pf]]\ninterface = \"{}\"\nvfs = {COUNT}\n{adopt}pools = {{ tenant = \"0-{}\" }}\n",
        host::fact("NIC_IF"),
        COUNT - 1
    )
}

fn folder() -> String {
    format!("/sys/bus/pci/devices/{}", host::fact("NIC_PF"))
}

/// The VFs that are there, each by its address and its folder's number, which no other function ever has.
fn vfs() -> Vec<(String, u64)> {
    let of = |index: u32| {
        let path = fs::canonicalize(format!("{}/virtfn{index}", folder())).ok()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((name, fs::metadata(&path).ok()?.ino()))
    };
    (0..8).map_while(of).collect()
}

/// Has the kernel's event of the interface come again, which udev answers by the `.link`.
fn trigger() {
    host::shell(&format!(
        "udevadm trigger --action=add --settle /sys/class/net/{}",
        host::fact("NIC_IF")
    ));
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < PATIENCE,
            "{what}\n{}\n{}",
            oracle::link(0),
            host::shell("journalctl --no-pager -o cat -u systemd-networkd -u systemd-udevd")
        );
        thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// VF 0 is as the `.network` says.
fn is_networkds() -> bool {
    let link = oracle::link(0);
    link.contains(MAC) && link.contains("vlan 77")
}

/// The states of the NIC's VFs, as `narrows vf ls` says.
fn states() -> Vec<String> {
    let listed = document(0, &["vf", "ls", "--json"]);
    let nic = host::fact("NIC_PF");
    let rows = listed["vfs"].as_array().unwrap().iter();
    rows.filter(|row| row["pf"] == nic.as_str())
        .map(|row| row["state"].as_str().unwrap().to_owned())
        .collect()
}

/// Whether a plan without `adopt` is refused, with the file that has the NIC.
#[track_caller]
fn refused(source: &str) {
    let before = oracle::dump();
    for verb in ["plan", "apply"] {
        let said = expect(3, &["host", verb, write(&host_file(false))]);
        assert!(
            said.err.contains("error[managed-elsewhere]") && said.err.contains(source),
            "{source} is not named:\n{}",
            said.err
        );
    }
    assert_eq!(oracle::dump(), before);
}

/// As it was before this test: `lab-vfs` has made two.
fn put_back() {
    host::shell(
        "systemctl --no-ask-password stop systemd-networkd.service systemd-networkd.socket systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket",
    );
    for folder in [ETC, RUN] {
        for file in [LINK, NETWORK] {
            fs::remove_file(format!("{folder}/{file}")).ok();
        }
    }
    host::shell(&format!(
        "cd {}; echo 0 > sriov_numvfs; echo 0 > sriov_drivers_autoprobe; echo 2 > sriov_numvfs",
        folder()
    ));
}

#[test]
#[ignore = "needs a lab host"]
fn vfs_of_systemd_are_left_alone_unless_they_are_adopted_and_then_not_made_anew() {
    host::shell(&format!(
        "cd {}; echo 0 > sriov_numvfs; echo 1 > sriov_drivers_autoprobe",
        folder()
    ));
    host::shell(
        "grep -q systemd-network /etc/passwd || {\n\
         echo 'systemd-network:x:998:998::/:/bin/false' >> /etc/passwd\n\
         echo 'systemd-network:x:998:' >> /etc/group; }",
    );
    declare(ETC);
    host::shell("systemctl --no-ask-password start systemd-udevd.service");
    trigger();
    assert_eq!(vfs().len(), 3, "udev has not made the VFs");
    host::shell("systemctl --no-ask-password start systemd-networkd.service");
    until("networkd does not set VF 0", is_networkds);
    let (made, before) = (vfs(), oracle::dump());

    refused(&format!("{ETC}/{LINK}"));
    refused(&format!("{ETC}/{NETWORK}"));

    let file = write(&host_file(true));
    let plan = expect(2, &["host", "plan", file]);
    assert!(!plan.out.contains("destroy"), "{}", plan.out);
    expect(0, &["host", "apply", file]);
    assert_eq!(vfs(), made, "the VFs are others");
    assert_eq!(states(), ["clean"; 3]);
    assert!(!is_networkds(), "{}", oracle::link(0));
    expect(0, &["host", "plan", file]);

    let guest = GuestFile::small("adopted", "lspci").pool("tenant");
    let unit = Unit::of("adopted", &guest);
    assert!(unit.systemctl("start"), "{}", unit.journal());
    unit.until("the guest does not end", || unit.is_over());
    let journal = unit.journal();
    assert!(journal.contains("driver=igbvf"), "{journal}");
    assert!(journal.contains("is given back"), "{journal}");
    assert_eq!(vfs(), made);
    assert_eq!(states(), ["clean"; 3]);

    // What networkd does to its VF when it begins anew is drift, which the next apply puts right.
    host::shell("systemctl --no-ask-password restart systemd-networkd.service");
    until("networkd does not set VF 0 again", is_networkds);
    let status = expect(2, &["host", "status"]);
    assert!(status.out.contains("vlan"), "{}", status.out);
    expect(0, &["host", "apply", file]);
    assert!(!is_networkds(), "{}", oracle::link(0));

    expect(0, &["host", "release"]);
    assert_eq!(vfs(), made, "the VFs are others");
    assert_eq!(oracle::dump(), before, "the release");
    assert_eq!(
        property("systemd-networkd.service", "ActiveState"),
        "active"
    );

    // The same from where other programs put them.
    for file in [LINK, NETWORK] {
        fs::remove_file(format!("{ETC}/{file}")).unwrap();
    }
    declare(RUN);
    refused(&format!("{RUN}/{LINK}"));
    refused(&format!("{RUN}/{NETWORK}"));
    put_back();
}
