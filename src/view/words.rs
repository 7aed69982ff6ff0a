//! Facts of a function in words, the same in text and pictures. What the host calls things is made [`printable`].

use iommu::topology::{Acs, Extended, Function, GroupId, Interrupts, PortType, Topology};

use super::{
    Scene,
    forest::{self, Branch},
};
use crate::error::printable;

/// What an operator calls a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vf,
    Pf,
    /// A port or bridge, by the words for it.
    Bridge(&'static str),
    Device,
}

impl Kind {
    pub(super) fn of(function: &Function) -> Self {
        if function.physfn.is_some() {
            return Self::Vf;
        }
        if function.sriov.is_some() {
            return Self::Pf;
        }
        let is_bridge = function.config.bridge.is_some() || function.class >> 8 == 0x0604;
        match (is_bridge, function.config.express.map(|e| e.port)) {
            (false, _) => Self::Device,
            (true, Some(port)) => Self::Bridge(port_words(port)),
            (true, None) => Self::Bridge("bridge"),
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Vf => "VF",
            Self::Pf => "PF",
            Self::Bridge(words) => words,
            Self::Device => "device",
        }
    }
}

fn port_words(port: PortType) -> &'static str {
    match port {
        PortType::RootPort => "root port",
        PortType::SwitchUpstream => "switch, upstream port",
        PortType::SwitchDownstream => "switch, downstream port",
        PortType::ToPciBridge => "bridge to PCI",
        PortType::FromPciBridge => "bridge from PCI",
        PortType::Endpoint
        | PortType::LegacyEndpoint
        | PortType::IntegratedEndpoint
        | PortType::EventCollector
        | PortType::Reserved(_) => "bridge",
    }
}

/// What a port says of Access Control Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AcsState {
    /// All that keeps the devices below apart is on.
    On,
    /// These are off, or there are none at all.
    Weak(String),
    /// Configuration space could not be read that far.
    NotRead,
}

impl AcsState {
    pub(super) fn words(&self) -> String {
        match self {
            Self::On => "ACS on".to_owned(),
            Self::Weak(words) => words.clone(),
            Self::NotRead => "ACS not read".to_owned(),
        }
    }
}

/// The ACS state of a port that requests pass on their way up; `None` for all other functions.
pub(super) fn acs(function: &Function) -> Option<AcsState> {
    let port = function.config.express?.port;
    if !matches!(port, PortType::RootPort | PortType::SwitchDownstream) {
        return None;
    }
    Some(match &function.config.extended {
        Extended::Unknown { .. } => AcsState::NotRead,
        Extended::Known(caps) => match caps.acs {
            None => AcsState::Weak("no ACS".to_owned()),
            Some(acs) => acs_state(acs),
        },
    })
}

/// The controls without which a request may reach a neighbour before it reaches the IOMMU.
const WANTED: [(u16, &str); 4] = [
    (Acs::SOURCE_VALIDATION, "source validation"),
    (Acs::REQUEST_REDIRECT, "request redirect"),
    (Acs::COMPLETION_REDIRECT, "completion redirect"),
    (Acs::UPSTREAM_FORWARDING, "upstream forwarding"),
];

fn acs_state(acs: Acs) -> AcsState {
    let is_off = |bit: u16| acs.control & bit == 0;
    let off: Vec<&str> = WANTED
        .iter()
        .filter(|(bit, _)| is_off(*bit))
        .map(|(_, words)| *words)
        .collect();
    if acs.control & Acs::DIRECT_TRANSLATED != 0 {
        return AcsState::Weak("ACS lets translated requests through".to_owned());
    }
    match off.len() {
        0 => AcsState::On,
        4 => AcsState::Weak("ACS off".to_owned()),
        _ => AcsState::Weak(format!("ACS without {}", off.join(", "))),
    }
}

/// How many share a function's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// It has no group: no IOMMU holds it back.
    None,
    /// It is alone in its group.
    Alone(GroupId),
    /// Its group has this many members.
    Shared(GroupId, usize),
}

pub(super) fn fence(topology: &Topology, function: &Function) -> Fence {
    match topology.group_of(function.bdf) {
        None => Fence::None,
        Some((id, group)) => match forest::members(group) {
            0 | 1 => Fence::Alone(id),
            count => Fence::Shared(id, count),
        },
    }
}

/// The groups of a run whose members are each alone: `33-36`, or `33 … 39` where others lie between.
pub(super) fn groups(branch: &Branch<'_>) -> String {
    let ids: Vec<u32> = branch
        .functions()
        .filter_map(|f| Some(f.group?.0))
        .collect();
    let are_neighbours = ids
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.checked_add(1) == Some(*b)));
    match (ids.as_slice(), are_neighbours) {
        ([], _) => String::new(),
        ([one], _) => one.to_string(),
        ([first, .., last], true) => format!("{first}-{last}"),
        ([first, .., last], false) => format!("{first} … {last}"),
    }
}

/// Name and ids: `Intel Corporation 82576 Gigabit [8086:10c9]`, or what is known of it.
pub(super) fn name(scene: &Scene<'_>, function: &Function) -> String {
    let Function { vendor, device, .. } = *function;
    let ids = format!("[{vendor:04x}:{device:04x}]");
    let maker = scene.names.vendor(vendor);
    printable(&match (maker, scene.names.device(vendor, device)) {
        (Some(maker), Some(device)) => format!("{} {device} {ids}", short(maker)),
        (Some(maker), None) => format!("{} {ids}", short(maker)),
        (None, _) => ids,
    })
}

/// What a port is: its kind, maker and ids. Their names say no more, at length.
pub(super) fn port(scene: &Scene<'_>, function: &Function, kind: &str) -> String {
    let Function { vendor, device, .. } = *function;
    printable(&match scene.names.vendor(vendor) {
        Some(maker) => format!("{kind}, {} [{vendor:04x}:{device:04x}]", short(maker)),
        None => format!("{kind}, [{vendor:04x}:{device:04x}]"),
    })
}

/// A maker's name without the words that every company has.
fn short(maker: &str) -> &str {
    let tails = [
        ", Inc.",
        " Inc.",
        " Corporation",
        " Electronics Co",
        " Co., Ltd.",
        " Co Ltd",
        " Technologies",
        " Ltd.",
        " / ",
    ];
    let cut = tails.iter().filter_map(|tail| maker.find(tail)).min();
    cut.and_then(|at| maker.get(..at)).unwrap_or(maker)
}

/// What sort of device a class code says it is; its number where it is none of the common ones.
///
/// *Source:* PCI Code and ID Assignment Specification r1.15 §1.
pub(super) fn class(function: &Function) -> String {
    let words = match function.class >> 8 {
        0x0100..=0x0105 | 0x0107 | 0x0180 => "storage controller",
        0x0106 => "SATA controller",
        0x0108 => "NVMe controller",
        0x0200 => "Ethernet controller",
        0x0207 => "InfiniBand controller",
        0x0280 => "network controller",
        0x0300..=0x0302 | 0x0380 => "display controller",
        0x0403 | 0x0401 => "audio device",
        0x0500 | 0x0580 => "memory controller",
        0x0502 => "CXL memory",
        0x0600 => "host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0680 => "bridge",
        0x0700..=0x0780 => "communication controller",
        0x0806 => "IOMMU",
        0x0807 => "event collector",
        0x0800..=0x0880 => "system peripheral",
        0x0c03 => "USB controller",
        0x0c05 => "SMBus",
        0x0c00..=0x0c80 => "serial bus controller",
        0x0b40 | 0x1000..=0x1080 => "coprocessor",
        0x1100..=0x1180 => "signal processing controller",
        0x1200 => "accelerator",
        0x0000..=0x00ff | 0xff00..=0xffff => "device",
        _ => return format!("class {:06x}", function.class),
    };
    words.to_owned()
}

/// The driver and what it makes of the device.
pub(super) fn driver(function: &Function) -> String {
    match (&function.driver, &function.vfio_cdev) {
        (Some(driver), Some(node)) => printable(&format!("{driver} ({node})")),
        (Some(driver), None) => printable(driver),
        (None, _) => "no driver".to_owned(),
    }
}

pub(super) fn interrupts(interrupts: &Interrupts) -> String {
    match interrupts {
        Interrupts::None => "no MSI".to_owned(),
        Interrupts::Msi { vectors } => format!("MSI {vectors}"),
        Interrupts::Msix { vectors, .. } => format!("MSI-X {vectors}"),
        Interrupts::Unknown { .. } => "interrupts not read".to_owned(),
    }
}

pub(super) fn resets(function: &Function) -> String {
    match function.reset_methods.as_slice() {
        [] => "no reset".to_owned(),
        methods => printable(&format!("reset {}", methods.join(" "))),
    }
}

/// Interfaces and controllers of the host that the function carries.
pub(super) fn carries(function: &Function) -> Vec<String> {
    let names = function.interfaces.iter().chain(&function.controllers);
    names.map(|name| printable(name)).collect()
}

/// The link: `8.0 GT/s x8`.
pub(super) fn link(function: &Function) -> Option<String> {
    let link = function.link.as_ref()?;
    let speed = link.speed.trim_end_matches(" PCIe");
    // A function within the root complex, or with nothing plugged in, has none to speak of.
    if speed.starts_with("Unknown") || link.width.trim_start_matches('x') == "0" {
        return None;
    }
    let width = link.width.trim_start_matches('x');
    Some(printable(&format!("{speed} x{width}")))
}

/// Whether VFIO holds it.
pub(super) fn is_vfio(function: &Function) -> bool {
    let driver = function.driver.as_deref().unwrap_or_default();
    driver == "vfio-pci" || driver.ends_with("-vfio-pci") || driver.ends_with("_vfio_pci")
}

/// The host's IOMMUs in words.
pub(super) fn iommus(topology: &Topology) -> String {
    use iommu::topology::IommuKind;
    let Some(first) = topology.iommus.first() else {
        return "no IOMMU".to_owned();
    };
    let kind = match first.kind {
        IommuKind::Intel { .. } => "VT-d",
        IommuKind::Amd { .. } => "AMD-Vi",
        IommuKind::Other => "IOMMU",
    };
    let names: Vec<&str> = topology
        .iommus
        .iter()
        .map(|unit| unit.name.as_str())
        .collect();
    printable(&format!("{kind} ({})", names.join(", ")))
}

/// The host in one line: kernel, IOMMUs, what they do, interfaces.
pub(super) fn host(topology: &Topology) -> String {
    use iommu::topology::Remapping;
    let mut words = Vec::new();
    words.extend(
        topology
            .host
            .kernel
            .as_ref()
            .map(|k| printable(&format!("Linux {k}"))),
    );
    words.push(iommus(topology));
    if !topology.iommus.is_empty() {
        words.push(
            match &topology.host.remapping {
                Remapping::On { .. } => "interrupts remapped",
                Remapping::Off { .. } => "interrupts NOT remapped",
                Remapping::Unknown => "interrupt remapping not known",
            }
            .to_owned(),
        );
    }
    if topology.has_iommufd {
        words.push("iommufd".to_owned());
    }
    if !topology.host.has_kvm {
        words.push("no KVM".to_owned());
    }
    words.join(", ")
}

/// How many of something: `1 VF`, `2 VFs`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
