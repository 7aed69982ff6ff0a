//! Other programs that make VFs or bind them, by their files: one reader each. What a file means is taken widely: one
//! that may be about a PF counts as being about it.

use iommu::{bdf::Bdf, error::IommuError, sysfs::SysRoot};

use super::{missing, netplan};
use crate::sriov::{Managed, Observed, Unread};

/// What a file can name a function by.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) bdf: Bdf,
    pub(super) interface: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) driver: Option<String>,
    pub(super) is_pf: bool,
}

/// Devices that a file is about, each with the number of VFs that it is to have.
pub(super) type Found = Vec<(Bdf, Option<u32>)>;

/// One program's files.
struct Manager {
    name: &'static str,
    folders: &'static [&'static str],
    endings: &'static [&'static str],
    read: fn(&str, &str, &[Device]) -> Found,
}

/// *Source:* nm-settings-keyfile(5); netplan-yaml(5); systemd.link(5), systemd.network(5); driverctl(8); the operator's
/// `pkg/consts/constants.go`.
const MANAGERS: &[Manager] = &[
    Manager {
        name: "NetworkManager",
        folders: &[
            "etc/NetworkManager/system-connections",
            "run/NetworkManager/system-connections",
            "usr/lib/NetworkManager/system-connections",
        ],
        endings: &[""],
        read: network_manager,
    },
    Manager {
        name: "netplan",
        folders: &[
            "etc/netplan",
            "run/netplan",
            "lib/netplan",
            "usr/lib/netplan",
        ],
        endings: &[".yaml", ".yml"],
        read: netplan::read,
    },
    Manager {
        name: "systemd",
        folders: &[
            "etc/systemd/network",
            "run/systemd/network",
            "usr/local/lib/systemd/network",
            "usr/lib/systemd/network",
        ],
        endings: &[".link", ".network", ".conf"],
        read: systemd,
    },
    Manager {
        name: "driverctl",
        folders: &["etc/driverctl.d", "run/driverctl.d"],
        endings: &[""],
        read: driverctl,
    },
    Manager {
        name: "sriov-network-operator",
        folders: &["etc/sriov-operator"],
        endings: &[""],
        read: operator,
    },
];

const FILE_LIMIT: u64 = 1 << 20;
/// Drop-ins are in folders beside their file; the operator has one folder more.
const DEPTH: usize = 3;

pub(super) fn read(root: &SysRoot, observed: &mut Observed) {
    let devices = devices(observed);
    if devices.is_empty() {
        return;
    }
    for manager in MANAGERS {
        let mut files = Vec::new();
        for folder in manager.folders {
            if let Err(error) = find(root, folder, manager, DEPTH, &mut files) {
                observed.unread.push(failed(manager, &error));
            }
        }
        for file in files {
            let text = match root.read_bytes(&file, FILE_LIMIT) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) => {
                    observed.unread.push(failed(manager, &error));
                    continue;
                }
            };
            for (bdf, count) in (manager.read)(&file, &text, &devices) {
                observed.managers.push(Managed {
                    bdf,
                    manager: manager.name.to_owned(),
                    source: format!("/{file}"),
                    count,
                });
            }
        }
    }
}

fn failed(manager: &Manager, error: &IommuError) -> Unread {
    let unread = missing(error);
    Unread {
        reason: format!("a file of {}: {}", manager.name, unread.reason),
        ..unread
    }
}

/// The files of a folder and of those in it.
fn find(
    root: &SysRoot,
    folder: &str,
    manager: &Manager,
    depth: usize,
    files: &mut Vec<String>,
) -> Result<(), IommuError> {
    for name in root.list(folder)? {
        let path = format!("{folder}/{name}");
        // A link to nothing, or to /dev/null: switched off.
        if !root.exists(&path) {
            continue;
        }
        match root.read_bytes(&path, 1) {
            Err(error) if is_folder(&error) && depth > 1 => {
                find(root, &path, manager, depth - 1, files)?;
            }
            Err(error) if is_folder(&error) => {}
            _ if manager.endings.iter().any(|ending| name.ends_with(ending)) => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn is_folder(error: &IommuError) -> bool {
    matches!(error, IommuError::Sysfs { errno, .. } if errno.raw() == libc::EISDIR)
}

fn devices(observed: &Observed) -> Vec<Device> {
    let mut devices = Vec::new();
    for pf in observed.pfs.values() {
        let nic = pf.nic();
        devices.push(Device {
            bdf: pf.bdf,
            interface: nic.and_then(|nic| nic.interface.clone()),
            mac: nic.and_then(|nic| nic.address).map(|mac| mac.to_string()),
            driver: pf.driver.clone(),
            is_pf: true,
        });
        devices.extend(pf.vfs.iter().map(|vf| Device {
            bdf: vf.bdf,
            interface: vf.interfaces.first().cloned(),
            mac: None,
            driver: vf.driver.clone(),
            is_pf: false,
        }));
    }
    devices
}

/// The keys of a file with sections, `(section, key, value)` in their order; a section without keys has one of nothing.
fn keys(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.trim().clone_into(&mut section);
            keys.push((section.clone(), String::new(), String::new()));
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            keys.push((section.clone(), key, value));
        }
    }
    keys
}

fn value<'a>(keys: &'a [(String, String, String)], section: &str, key: &str) -> Option<&'a str> {
    let mut found = keys.iter().filter(|(s, k, _)| s == section && k == key);
    found.next_back().map(|(_, _, value)| value.as_str())
}

fn has(keys: &[(String, String, String)], section: &str) -> bool {
    keys.iter().any(|(s, _, _)| s == section)
}

/// A connection with `[sriov]` sets the count when it comes up, and takes all VFs away when it goes down.
fn network_manager(_: &str, text: &str, devices: &[Device]) -> Found {
    let keys = keys(text);
    if !has(&keys, "sriov") {
        return Vec::new();
    }
    let count = value(&keys, "sriov", "total-vfs").and_then(|count| count.parse().ok());
    let name = value(&keys, "connection", "interface-name");
    let mac = ["ethernet", "802-3-ethernet"]
        .iter()
        .find_map(|section| value(&keys, section, "mac-address"));
    let is_meant = |device: &&Device| {
        let by_name = name.is_none_or(|name| device.interface.as_deref() == Some(name));
        let by_mac = mac.is_none_or(|mac| {
            let own = device.mac.as_deref();
            own.is_some_and(|own| own.eq_ignore_ascii_case(mac))
        });
        device.is_pf && device.interface.is_some() && by_name && by_mac
    };
    let meant = devices.iter().filter(is_meant);
    meant.map(|device| (device.bdf, count)).collect()
}

/// `SR-IOVVirtualFunctions=` of a `.link` sets the count, `[SR-IOV]` of a `.link` or `.network` the attributes of VFs.
fn systemd(file: &str, text: &str, devices: &[Device]) -> Found {
    let keys = keys(text);
    let count = value(&keys, "Link", "SR-IOVVirtualFunctions");
    if count.is_none() && !has(&keys, "SR-IOV") {
        return Vec::new();
    }
    let count = count.and_then(|count| count.parse().ok());
    // A drop-in is matched by the file that it belongs to, which is not looked for.
    let is_open = file.ends_with(".conf");
    let is_meant = |device: &&Device| {
        let matches = keys.iter().filter(|(section, _, _)| section == "Match");
        let fits = |own: Option<&str>, globs: &str| match own {
            None => true,
            Some(own) => is_listed(own, globs),
        };
        device.is_pf
            && device.interface.is_some()
            && (is_open
                || matches
                    .into_iter()
                    .all(|(_, key, globs)| match key.as_str() {
                        "Name" | "OriginalName" => fits(device.interface.as_deref(), globs),
                        "MACAddress" | "PermanentMACAddress" => fits(
                            device.mac.as_deref(),
                            &globs.to_lowercase().replace('-', ":"),
                        ),
                        "Driver" => fits(device.driver.as_deref(), globs),
                        "Path" => fits(Some(&format!("pci-{}", device.bdf)), globs),
                        // What it says of the host, the type or a property is taken to be so.
                        _ => true,
                    }))
    };
    let meant = devices.iter().filter(is_meant);
    meant.map(|device| (device.bdf, count)).collect()
}

/// Whether a list of globs such as `eth* en?s0` names `own`; with `!` in front it names all others.
fn is_listed(own: &str, globs: &str) -> bool {
    let (is_inverted, globs) = match globs.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, globs),
    };
    let mut words = globs.split_whitespace();
    globs.trim().is_empty()
        || words.any(|glob| fits(own.as_bytes(), glob.as_bytes())) != is_inverted
}

/// `*` and `?`; a set in brackets fits every character.
pub(super) fn fits(text: &[u8], glob: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            fits(text, rest) || text.split_first().is_some_and(|(_, text)| fits(text, glob))
        }
        (Some((b'[', rest)), Some((_, text))) => {
            let end = rest.iter().position(|byte| *byte == b']');
            end.is_some_and(|end| fits(text, rest.get(end + 1..).unwrap_or_default()))
        }
        (Some((b'?', rest)), Some((_, text))) => fits(text, rest),
        (Some((glob, rest)), Some((byte, text))) => glob == byte && fits(text, rest),
        _ => false,
    }
}

/// One file for each device that is bound by hand at boot, named by its address: `0000:01:00.0`, `pci-0000:01:00.0`.
fn driverctl(file: &str, _: &str, devices: &[Device]) -> Found {
    let named = |device: &&Device| file.contains(&device.bdf.to_string());
    let meant = devices.iter().filter(named);
    meant.map(|device| (device.bdf, None)).collect()
}

/// Its state on the node: files named by a PF's address, and lists with addresses and interfaces.
fn operator(file: &str, text: &str, devices: &[Device]) -> Found {
    let mut words: Vec<&str> = text
        .split(|c: char| !(c.is_alphanumeric() || ":._-".contains(c)))
        .map(|word| word.trim_end_matches([':', '.']))
        .collect();
    words.extend(file.split('/'));
    let is_meant = |device: &&Device| {
        let address = device.bdf.to_string();
        let name = device.interface.as_deref();
        words
            .iter()
            .any(|word| *word == address || Some(*word) == name)
    };
    let meant = devices.iter().filter(is_meant);
    meant.map(|device| (device.bdf, None)).collect()
}

#[cfg(test)]
#[path = "managers_test.rs"]
mod tests;
