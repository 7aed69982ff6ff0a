//! What the machines that are written by hand have in common: ports, and cards that several of them have.

use crate::{
    config::{Config, VfPlace},
    host::Function,
};

pub(crate) const NIC: u32 = 0x02_0000;
pub(crate) const BRIDGE: u32 = 0x06_0400;
pub(crate) const NVME: u32 = 0x01_0802;

/// How the kernel came to its groups.
pub(crate) const GROUPS: &str =
    "Groups as drivers/iommu/iommu.c (v6.12), pci_device_group, makes them.";

/// What a port is set to where it has Access Control Services and an IOMMU is on: validation, both redirections,
/// forwarding; all but direct translated requests of what it can.
pub(crate) const ACS: (u16, u16) = (0x005f, 0x001d);

pub(crate) fn function<'a>(path: &[&'a str], ids: (u16, u16, u32), config: Config) -> Function<'a> {
    Function {
        path: path.to_vec(),
        ids,
        config,
        group: 0,
        node: 0,
        driver: None,
        bars: Vec::new(),
        resets: "",
        link: None,
        physfn: None,
        sriov: None,
    }
}

/// A port of type `port` with the driver `pcieport`; with Access Control Services where `acs` is true.
pub(crate) fn port<'a>(
    path: &[&'a str],
    (vendor, device): (u16, u16),
    (port, buses): (u8, [u8; 3]),
    (group, node): (u32, i32),
    acs: bool,
) -> Function<'a> {
    let config = Config::bridge(vendor, device, buses)
        .power(0x40)
        .msi(0x50, 0)
        .express(0x80, port, 4, 16)
        .aer(0x100);
    let config = match acs {
        true => config.acs(0x148, ACS.0, ACS.1),
        false => config,
    };
    Function {
        group,
        node,
        driver: Some("pcieport"),
        link: Some(("16.0 GT/s PCIe", "16")),
        ..function(path, (vendor, device, BRIDGE), config)
    }
}

pub(crate) const ROOT_PORT: u8 = 4;
pub(crate) const UPSTREAM: u8 = 5;
pub(crate) const DOWNSTREAM: u8 = 6;

/// The address `index` functions above that of the first, by routing id.
pub(crate) fn address(bus: u8, first: u16, index: u16) -> String {
    let id = (u16::from(bus) << 8) + first + index;
    format!("0000:{:02x}:{:02x}.{}", id >> 8, id >> 3 & 0x1f, id & 7)
}

/// A family of Intel's 10G controllers: its ids, and the layout of its space.
pub(crate) struct Ixgbe {
    pub(crate) pf: u16,
    pub(crate) vf: u16,
    pub(crate) subsystem: u16,
}

/// 82599: VFs begin 128 routing ids above their PF and are two apart, so that the ports' VFs interleave.
pub(crate) fn ixgbe_pf<'a>(
    kind: &Ixgbe,
    path: &[&'a str],
    vfs: u16,
    bars: u64,
    acs: bool,
) -> Function<'a> {
    let place = VfPlace {
        first: 0x80,
        stride: 2,
        device: kind.vf,
        bars: vec![(0, bars + 0x100_0000), (3, bars + 0x110_0000)],
    };
    let config = Config::endpoint(0x8086, kind.pf, NIC, 1)
        .multi_function()
        .subsystem(0x8086, kind.subsystem)
        .power(0x40)
        .msi(0x50, 0)
        .msix(0x70, 64, (4, 0), (4, 0x2000))
        .express(0xa0, 0, 2, 8)
        .aer(0x100)
        .ari(0x150)
        .sriov(0x160, 64, vfs, &place);
    let config = match acs {
        true => config.acs(0x1d0, 0, 0),
        false => config,
    };
    Function {
        driver: Some("ixgbe"),
        bars: vec![(0, bars, 0x8_0000), (4, bars + 0x8_0000, 0x4000)],
        resets: "bus",
        link: Some(("5.0 GT/s PCIe", "8")),
        sriov: Some((63, u32::from(vfs))),
        ..function(path, (0x8086, kind.pf, NIC), config)
    }
}

pub(crate) fn ixgbe_vf<'a>(
    kind: &Ixgbe,
    path: &[&'a str],
    pf: &[&'a str],
    bars: u64,
    index: u64,
) -> Function<'a> {
    let config = Config::vf(NIC, 1)
        .msix(0x70, 3, (3, 0), (3, 0x2000))
        .express(0xa0, 0, 2, 8)
        .aer(0x100)
        .ari(0x150);
    Function {
        bars: vec![
            (0, bars + 0x100_0000 + index * 0x4000, 0x4000),
            (3, bars + 0x110_0000 + index * 0x4000, 0x4000),
        ],
        resets: "flr",
        physfn: Some(pf.to_vec()),
        ..function(path, (0x8086, kind.vf, NIC), config)
    }
}

pub(crate) const X520: Ixgbe = Ixgbe {
    pf: 0x10fb,
    vf: 0x10ed,
    subsystem: 0x0003,
};
