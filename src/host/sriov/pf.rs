//! PFs and VFs, from sysfs and from what their drivers tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use iommu::{
    bdf::Bdf,
    bind::is_placeholder,
    error::{Errno, IommuError},
    sysfs::{Asked, SysRoot},
    topology::{self, Mac, VfPolicy, function_path},
};

use super::nvme;
use crate::{
    spec::host::{Eswitch, Mbps, Vlan},
    sriov::{
        Anchor, KindFacts, NicAttributes, NicFacts, NvmeFacts, Observed, PfFacts, Unread, VfFacts,
    },
    sys::rtnl,
};

const DEVICES: &str = "sys/bus/pci/devices";
/// No PF has more: a VF's number has 16 bits. A made-up machine may say anything.
const MOST_VFS: u32 = 0xffff;

/// The IOMMU group of each function of the bus, and how many are in it. A link is read once: there are thousands.
#[derive(Default)]
struct Groups {
    of: BTreeMap<Bdf, u32>,
    sizes: BTreeMap<u32, u32>,
}

/// Reads all functions with an SR-IOV capability.
pub(super) fn read_all(root: &SysRoot, observed: &mut Observed) -> Result<(), IommuError> {
    let names = root.list(DEVICES)?;
    let mut groups = Groups::default();
    for name in &names {
        // A group is counted by its functions' links: to list every group's folder takes four times as long.
        if let Some(group) = group_of(root, name)? {
            if let Ok(bdf) = name.parse() {
                groups.of.insert(bdf, group);
            }
            *groups.sizes.entry(group).or_default() += 1;
        }
    }
    // A VF has no VFs: those that a PF before them in the list has are not asked for the capability.
    let mut vfs = BTreeSet::new();
    for bdf in names.iter().filter_map(|name| name.parse::<Bdf>().ok()) {
        if vfs.contains(&bdf) || !root.exists(format!("{DEVICES}/{bdf}/sriov_totalvfs")) {
            continue;
        }
        match read(root, bdf, &groups, &mut observed.unread) {
            Ok(pf) => {
                vfs.extend(pf.vfs.iter().map(|vf| vf.bdf));
                observed.pfs.insert(bdf, pf);
            }
            // It was unplugged since the folder was listed.
            Err(_) if !root.exists(function_path(bdf)) => {}
            Err(error @ IommuError::LargeMachine { .. }) => return Err(error),
            Err(error) => observed
                .unread
                .push(unread(bdf, "sysfs", &error.to_string())),
        }
    }
    Ok(())
}

fn unread(bdf: Bdf, place: &str, reason: &str) -> Unread {
    Unread {
        place: place.to_owned(),
        reason: reason.to_owned(),
        bdf: Some(bdf),
    }
}

fn group_of(root: &SysRoot, name: &str) -> Result<Option<u32>, IommuError> {
    let link = root.read_link_name(format!("{DEVICES}/{name}/iommu_group"))?;
    Ok(link.and_then(|group| group.parse().ok()))
}

fn read(
    root: &SysRoot,
    bdf: Bdf,
    groups: &Groups,
    missing: &mut Vec<Unread>,
) -> Result<PfFacts, IommuError> {
    let folder = function_path(bdf);
    let number = |name: &str| -> Result<u32, IommuError> {
        let text = root.read_text(folder.join(name))?;
        let digits = text.trim_start_matches("0x");
        let radix = if digits.len() < text.len() { 16 } else { 10 };
        u32::from_str_radix(digits, radix).map_err(|_bad| malformed(root, bdf, name, &text))
    };
    let class = number("class")?;
    let driver = root.read_link_name(folder.join("driver"))?;
    let count = number("sriov_numvfs")?;
    let vfs = read_vfs(root, bdf, count, groups, missing)?;
    let mut pf = PfFacts {
        bdf,
        anchor: Anchor::Slot(bdf),
        vendor: low(number("vendor")?),
        device: low(number("device")?),
        numa: root
            .read_text_if_any(folder.join("numa_node"))?
            .and_then(|node| node.parse().ok()),
        root: root_of(root, &folder)?,
        total: number("sriov_totalvfs")?,
        count,
        is_probed: root
            .read_text_if_any(folder.join("sriov_drivers_autoprobe"))?
            .map(|text| text == "1"),
        group: groups.of.get(&bdf).copied(),
        kind: KindFacts::Other,
        driver,
        vfs,
    };
    match class >> 8 {
        code if code >> 8 == 0x02 => add_nic(root, &mut pf, missing)?,
        0x0108 => add_nvme(root, &mut pf, missing)?,
        _ => {}
    }
    Ok(pf)
}

/// Ids have 16 bits.
fn low(number: u32) -> u16 {
    u16::try_from(number & 0xffff).unwrap_or(u16::MAX)
}

fn malformed(root: &SysRoot, bdf: Bdf, name: &str, text: &str) -> IommuError {
    IommuError::Malformed {
        path: root.path(function_path(bdf).join(name)),
        text: text.to_owned(),
        wanted: "a number",
    }
}

/// The root bus, of `../../../devices/pci0000:00/0000:00:02.0/…`.
fn root_of(root: &SysRoot, folder: &Path) -> Result<String, IommuError> {
    let link = root.read_link(folder)?.unwrap_or_default();
    let top = link
        .iter()
        .map(|part| part.to_string_lossy())
        .find(|name| name.starts_with("pci"));
    Ok(top.unwrap_or_default().into_owned())
}

fn read_vfs(
    root: &SysRoot,
    pf: Bdf,
    count: u32,
    groups: &Groups,
    missing: &mut Vec<Unread>,
) -> Result<Vec<VfFacts>, IommuError> {
    let mut vfs = Vec::new();
    for index in 0..count.min(MOST_VFS) {
        let link = format!("{DEVICES}/{pf}/virtfn{index}");
        let Some(bdf) = root.read_link_name(&link)?.and_then(|n| n.parse().ok()) else {
            missing.push(unread(
                pf,
                &link,
                "no such link, though sriov_numvfs counts the VF",
            ));
            break;
        };
        vfs.push(read_vf(root, index, bdf, groups)?);
    }
    Ok(vfs)
}

fn read_vf(root: &SysRoot, index: u32, bdf: Bdf, groups: &Groups) -> Result<VfFacts, IommuError> {
    let folder = format!("{DEVICES}/{bdf}");
    let driver = root.read_link_name(format!("{folder}/driver"))?;
    let is_hosts = driver.as_deref().is_some_and(|name| !is_placeholder(name));
    let group = groups.of.get(&bdf).copied();
    Ok(VfFacts {
        index,
        bdf,
        // With a driver of the host's it says nothing that matters.
        driver_override: match is_hosts {
            true => None,
            false => topology::read_driver_override(root, bdf)?,
        },
        interfaces: match is_hosts {
            true => root.list(format!("{folder}/net"))?,
            false => Vec::new(),
        },
        driver,
        group,
        group_size: group
            .and_then(|id| groups.sizes.get(&id).copied())
            .unwrap_or(0),
        nic: None,
    })
}

fn add_nic(root: &SysRoot, pf: &mut PfFacts, missing: &mut Vec<Unread>) -> Result<(), IommuError> {
    let bdf = pf.bdf;
    let names = root.list(function_path(bdf).join("net"))?;
    let mut told = None;
    for name in &names {
        match attributes_of(root, name, bdf) {
            Ok(Some(table)) => {
                told = Some((name.clone(), table));
                break;
            }
            Ok(None) => {}
            Err(reason) => missing.push(unread(bdf, &format!("RTM_GETLINK {name}"), &reason)),
        }
    }
    let is_told = told.is_some();
    let (interface, table) = match told {
        Some((name, table)) => (Some(name), table),
        None => (names.first().cloned(), BTreeMap::new()),
    };
    for vf in &mut pf.vfs {
        vf.nic = table.get(&vf.index).copied();
    }
    // Of more than 300 VFs the kernel's list is cut off, without a word.
    let untold: Vec<u32> = pf
        .vfs
        .iter()
        .filter(|vf| vf.nic.is_none())
        .map(|vf| vf.index)
        .collect();
    if let (true, Some(first), Some(last)) = (is_told, untold.first(), untold.last()) {
        let reason = format!("nothing is told of VFs {first} to {last}");
        missing.push(unread(bdf, "IFLA_VFINFO_LIST", &reason));
    }
    let mut nic = match &interface {
        Some(name) => read_port(root, name)?,
        None => NicFacts {
            interface: None,
            port: None,
            is_up: false,
            has_carrier: false,
            link: None,
            eswitch: None,
            address: None,
        },
    };
    if let Some(name) = &interface {
        match ask_address(root, name) {
            Ok(mac) => {
                if let Some(mac) = mac.or(nic.address) {
                    pf.anchor = Anchor::Mac(mac);
                }
            }
            Err(error) => missing.push(unread(bdf, "IFLA_PERM_ADDRESS", &error.to_string())),
        }
    }
    match ask_eswitch(root, bdf) {
        Ok(mode) => nic.eswitch = mode,
        Err(error) => {
            missing.push(unread(bdf, "DEVLINK_CMD_ESWITCH_GET", &error.to_string()));
        }
    }
    pf.kind = KindFacts::Nic(nic);
    Ok(())
}

/// What is told of a port without asking for it.
fn read_port(root: &SysRoot, name: &str) -> Result<NicFacts, IommuError> {
    let folder = format!("sys/class/net/{name}");
    let text = |file: &str| match root.read_text_if_any(format!("{folder}/{file}")) {
        // Of an interface that is down.
        Err(IommuError::Sysfs { errno, .. }) if errno.raw() == libc::EINVAL => Ok(None),
        other => other,
    };
    let flags = text("flags")?.unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
    let speed: Option<u32> = text("speed")?.and_then(|speed| speed.parse().ok());
    Ok(NicFacts {
        interface: Some(name.to_owned()),
        port: text("dev_port")?.and_then(|port| port.parse().ok()),
        is_up: flags & 1 != 0,
        has_carrier: text("carrier")?.as_deref() == Some("1"),
        // Drivers that do not know say -1, in 32 bits or in 16.
        link: speed
            .filter(|mbps| ![0, 0xffff, u32::MAX].contains(mbps))
            .map(Mbps),
        eswitch: None,
        address: text("address")?
            .and_then(|address| address.parse::<Mac>().ok())
            .filter(|mac| !mac.is_zero()),
    })
}

fn ask_address(root: &SysRoot, name: &str) -> Result<Option<Mac>, IommuError> {
    let asked = Asked {
        call: "RTM_GETLINK",
        of: &Path::new("sys/class/net").join(name),
    };
    let place = Path::new("narrows/permanent-address").join(name);
    let told = root.ask(place, asked, || rtnl::permanent_address(name))?;
    Ok(told.and_then(|text| text.trim().parse().ok()))
}

fn ask_eswitch(root: &SysRoot, bdf: Bdf) -> Result<Option<Eswitch>, IommuError> {
    let asked = Asked {
        call: "DEVLINK_CMD_ESWITCH_GET",
        of: &function_path(bdf),
    };
    let place = Path::new("narrows/eswitch").join(bdf.to_string());
    let told = root.ask(place, asked, || rtnl::eswitch_mode(bdf))?;
    Ok(match told.as_deref().map(str::trim) {
        Some("legacy") => Some(Eswitch::Legacy),
        Some("switchdev") => Some(Eswitch::Switchdev),
        _ => None,
    })
}

/// What the interface of the PF `pf` tells of its VFs now, by index; `None` where it tells of none.
///
/// # Errors
/// Why that is not known: the interface is another function's, or the answer is none.
pub fn attributes_of(
    root: &SysRoot,
    interface: &str,
    pf: Bdf,
) -> Result<Option<BTreeMap<u32, NicAttributes>>, String> {
    let table = topology::read_vf_policies(root, interface, pf)?;
    Ok(table.map(|table| {
        table
            .into_iter()
            .map(|(i, p)| (i, attributes(&p)))
            .collect()
    }))
}

fn attributes(policy: &VfPolicy) -> NicAttributes {
    let small = |number: Option<u32>| number.and_then(|n| u16::try_from(n).ok());
    let vlan = small(policy.vlan).map(|id| Vlan {
        id,
        qos: small(policy.qos)
            .and_then(|qos| u8::try_from(qos).ok())
            .unwrap_or(0),
        proto: policy.vlan_proto.unwrap_or_default(),
    });
    NicAttributes {
        mac: policy.mac,
        vlan,
        spoofchk: policy.spoof_check,
        trust: policy.trusted,
        query_rss: policy.rss_query,
        state: policy.link,
        min_tx: policy.min_tx_mbps.map(Mbps),
        max_tx: policy.max_tx_mbps.map(Mbps),
    }
}

fn add_nvme(root: &SysRoot, pf: &mut PfFacts, missing: &mut Vec<Unread>) -> Result<(), IommuError> {
    let names = root.list(function_path(pf.bdf).join("nvme"))?;
    let Some(name) = names.first() else {
        return Ok(());
    };
    match nvme::read(root, name) {
        Ok((mut facts, refused)) => {
            for what in refused {
                missing.push(unread(pf.bdf, &format!("dev/{name}"), &what));
            }
            for (device, nsid) in namespace_devices(root, name)? {
                if let Some(namespace) = facts.namespaces.get_mut(&nsid) {
                    namespace.block_device = Some(device);
                }
            }
            pf.anchor = anchor(&facts, pf.bdf);
            pf.kind = KindFacts::Nvme(facts);
        }
        Err(reason) => missing.push(unread(pf.bdf, &format!("dev/{name}"), &reason)),
    }
    Ok(())
}

fn anchor(facts: &NvmeFacts, bdf: Bdf) -> Anchor {
    match facts.serial.is_empty() {
        true => Anchor::Slot(bdf),
        false => Anchor::Serial(facts.serial.clone()),
    }
}

/// The host's block devices of a controller's namespaces: name and id. The number in a name is not the id.
///
/// # Errors
/// `sysfs-io`.
pub fn namespace_devices(
    root: &SysRoot,
    controller: &str,
) -> Result<Vec<(String, u32)>, IommuError> {
    let mut devices = Vec::new();
    for name in root.list("sys/block")? {
        if !name.starts_with("nvme") {
            continue;
        }
        let Some(above) = root.read_link_name(format!("sys/block/{name}/device"))? else {
            continue;
        };
        // With several paths the device is the subsystem's, which has links to its controllers.
        let subsystem = format!("sys/class/nvme-subsystem/{above}/{controller}");
        if above != controller && !root.exists(subsystem) {
            continue;
        }
        match root.read_text_if_any(format!("sys/block/{name}/nsid")) {
            Ok(nsid) => devices.extend(nsid.and_then(|n| n.parse().ok()).map(|n| (name, n))),
            // It has just been detached.
            Err(IommuError::Sysfs { errno, .. }) if errno == Errno::new(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(devices)
}
