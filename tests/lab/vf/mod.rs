//! VFs managed from a host file, on a lab host that has none at the start. iproute2 and nvme-cli are the oracles: what
//! Narrows says of itself proves nothing.

mod apply;
mod attacks;
mod cycles;
mod drift;
mod formats;
pub(crate) mod hostile;
mod interlocks;
mod leases;
pub(crate) mod oracle;
mod setup;

use std::{fs, process::Command};

use crate::host;

/// The host file of these tests, for this host.
pub(crate) fn host_file() -> String {
    include_str!("lab.toml").replace("INTERFACE", &host::fact("NIC_IF"))
}

/// Writes a host file, and gives its path.
pub(crate) fn write(text: &str) -> &'static str {
    fs::create_dir_all("/etc/narrows").unwrap();
    fs::write("/etc/narrows/host.toml", text).unwrap();
    "/etc/narrows/host.toml"
}

/// How `narrows` ended, and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `narrows`.
fn narrows(words: &[&str]) -> Said {
    let output = Command::new("narrows").args(words).output().unwrap();
    Said {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `narrows`, which must end with this status.
#[track_caller]
pub(crate) fn expect(status: i32, words: &[&str]) -> Said {
    let said = narrows(words);
    assert_eq!(
        said.status,
        status,
        "narrows {}:\n{}\n{}",
        words.join(" "),
        said.out,
        said.err
    );
    said
}

/// A host as after its boot, but for the PF's address: no VF, nothing remembered, no foreign attachment.
pub(crate) fn bare() {
    let (nic, nvme) = (host::fact("NIC_PF"), host::fact("NVME_PF"));
    let interface = host::fact("NIC_IF");
    for pf in [&nic, &nvme] {
        host::shell(&format!(
            "echo 0 > /sys/bus/pci/devices/{pf}/sriov_numvfs; \
             echo 1 > /sys/bus/pci/devices/{pf}/sriov_drivers_autoprobe"
        ));
    }
    host::shell("umount /mnt 2>/dev/null || true; rm -f /etc/systemd/network/10-nic.link");
    // What is mounted there stays.
    host::shell("rm -rf /var/lib/narrows/* /etc/narrows");
    for nsid in oracle::namespaces() {
        for controller in oracle::attached(nsid) {
            if controller != 0 {
                oracle::nvme("detach-ns", &format!("-n {nsid} -c {controller}"));
            }
        }
    }
    host::shell(&format!(
        "/usr/bin/ip address flush dev {interface}; /usr/bin/ip address replace 10.9.0.1/24 dev {interface}; /usr/bin/ip link set {interface} up"
    ));
}

/// A bare host that the host file was applied to.
pub(crate) fn applied() -> &'static str {
    bare();
    let file = write(&host_file());
    expect(0, &["host", "apply", file]);
    file
}

/// The address of a VF of the NIC, or of the NVMe controller.
fn vf(pf: &str, index: u32) -> String {
    let pf = host::fact(pf);
    let link = fs::read_link(format!("/sys/bus/pci/devices/{pf}/virtfn{index}")).unwrap();
    link.file_name().unwrap().to_string_lossy().into_owned()
}

/// The document that a verb prints with `--json`.
#[track_caller]
pub(crate) fn document(status: i32, words: &[&str]) -> serde_json::Value {
    let said = expect(status, words);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}:\n{}", said.out))
}
