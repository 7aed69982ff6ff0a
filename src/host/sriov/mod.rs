//! PFs, their VFs, and who uses them: what is read before anything is changed.
//!
//! Few reads a VF: a host has thousands. What cannot be read is told, never left out.

pub mod controller;
mod disks;
mod logins;
mod managers;
mod netplan;
mod nvme;
mod pf;
#[cfg(test)]
mod sriov_test;
mod uses;

use std::collections::{BTreeMap, BTreeSet};

use iommu::{error::IommuError, sysfs::SysRoot, topology::Mac};

use super::{read::parse_list, unread};
use crate::{
    error::Report,
    sriov::{InventoryHost, InventoryIommu, Observed, Unread},
};

pub use self::pf::{attributes_of, namespace_devices};

/// Reads the machine under `root`. Needs root for `NVMe` controllers and other users' processes; what it is not let
/// read is in [`Observed::unread`].
///
/// # Errors
///
/// `host-unreadable`: there is no sysfs. `machine-malformed`: the machine file holds too much.
pub fn read(root: &SysRoot) -> Result<Observed, Report> {
    let mut observed = read_devices(root)?;
    uses::read(root, &mut observed);
    managers::read(root, &mut observed);
    Ok(observed)
}

/// Reads PFs and VFs alone: what belongs into a machine file.
///
/// # Errors
///
/// As of [`read`].
pub fn read_devices(root: &SysRoot) -> Result<Observed, Report> {
    let mut observed = Observed::default();
    pf::read_all(root, &mut observed).map_err(|error| unread(&error))?;
    let boot = root.read_text_if_any("proc/sys/kernel/random/boot_id");
    observed.boot = note(&mut observed.unread, boot)
        .flatten()
        .unwrap_or_default();
    let nodes = root.read_text_if_any("sys/devices/system/node/online");
    let nodes = note(&mut observed.unread, nodes).flatten();
    observed.nodes = nodes.and_then(|text| parse_list(&text)).unwrap_or_default();
    observed.macs = read_macs(root, &mut observed)?;
    Ok(observed)
}

/// What the inventory tells of the host as a whole.
///
/// # Errors
///
/// `host-unreadable`.
pub fn read_host(root: &SysRoot) -> Result<InventoryHost, Report> {
    const IOMMUS: &str = "sys/class/iommu";
    let text = |place: &str| {
        let read = root.read_text_if_any(place);
        read.map_err(|error| unread(&error))
    };
    let units = root.list(IOMMUS).map_err(|error| unread(&error))?;
    // All of a host are of one maker, who has a folder of its own in each.
    let iommu = units.first().map(|unit| {
        let is_of = |maker: &str| root.exists(format!("{IOMMUS}/{unit}/{maker}"));
        match (is_of("intel-iommu"), is_of("amd-iommu")) {
            (true, _) => InventoryIommu::Intel,
            (false, true) => InventoryIommu::Amd,
            (false, false) => InventoryIommu::Other,
        }
    });
    Ok(InventoryHost {
        name: text("proc/sys/kernel/hostname")?,
        kernel: text("proc/sys/kernel/osrelease")?,
        iommu,
    })
}

/// Addresses of all interfaces but those of the VFs.
fn read_macs(root: &SysRoot, observed: &mut Observed) -> Result<BTreeSet<Mac>, Report> {
    let of_vfs: BTreeSet<&str> = observed
        .pfs
        .values()
        .flat_map(|pf| &pf.vfs)
        .flat_map(|vf| vf.interfaces.iter().map(String::as_str))
        .collect();
    let names = root.list("sys/class/net").map_err(|error| unread(&error))?;
    let mut macs = BTreeSet::new();
    let mut failed = Vec::new();
    for name in names.iter().filter(|name| !of_vfs.contains(name.as_str())) {
        let place = format!("sys/class/net/{name}/address");
        match root.read_text_if_any(&place) {
            // InfiniBand's are longer, and loopback's is of zeros.
            Ok(text) => macs.extend(text.and_then(|text| text.parse::<Mac>().ok())),
            Err(error) => failed.push(error),
        }
    }
    macs.retain(|mac| !mac.is_zero());
    observed.unread.extend(failed.iter().map(missing));
    Ok(macs)
}

/// What could not be read, where it concerns all.
fn missing(error: &IommuError) -> Unread {
    let place = if let IommuError::Sysfs { path, .. } | IommuError::Malformed { path, .. } = error {
        path.display().to_string()
    } else {
        error.to_string()
    };
    Unread {
        place,
        reason: error.to_string(),
        bdf: None,
    }
}

fn note<T>(unread: &mut Vec<Unread>, read: Result<T, IommuError>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            unread.push(missing(&error));
            None
        }
    }
}

/// For each interface, those that it is made of: `bond0` of `eth0` and `eth1`. Through all levels, itself included.
fn made_of(root: &SysRoot, interface: &str) -> Result<BTreeSet<String>, IommuError> {
    let mut all = BTreeSet::new();
    let mut next = vec![interface.to_owned()];
    while let Some(name) = next.pop() {
        if !all.insert(name.clone()) {
            continue;
        }
        let entries = root.list(format!("sys/class/net/{name}"))?;
        next.extend(
            entries
                .iter()
                .filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned)),
        );
    }
    Ok(all)
}

/// The interfaces of PFs and VFs, with the function of each.
fn interfaces(observed: &Observed) -> BTreeMap<String, iommu::bdf::Bdf> {
    let mut all = BTreeMap::new();
    for pf in observed.pfs.values() {
        if let Some(name) = pf.nic().and_then(|nic| nic.interface.clone()) {
            all.insert(name, pf.bdf);
        }
        for vf in &pf.vfs {
            all.extend(vf.interfaces.iter().map(|name| (name.clone(), vf.bdf)));
        }
    }
    all
}
