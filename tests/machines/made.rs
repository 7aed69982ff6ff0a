//! The machines that are written by hand: shapes that the lab cannot show. Ids, capabilities and grouping follow the
//! documents that each names; no such hardware was looked at.

use narrows::host::machine::Machine;

use crate::{
    config::{Config, VfPlace},
    host::{Function, Host},
    parts::{
        DOWNSTREAM, GROUPS, Ixgbe, NIC, NVME, ROOT_PORT, UPSTREAM, X520, address, function,
        ixgbe_pf, ixgbe_vf, port,
    },
};

/// Every machine that is written by hand.
pub(crate) fn all() -> Vec<Machine> {
    vec![
        amd_host(),
        switch_without_acs(),
        shared_group(),
        identity_pf(),
        dual_port_100g(),
        sriov_nvme(),
    ]
}

fn amd_host() -> Machine {
    let mut host = Host::new(
        ["AuthenticAMD", "AMD EPYC 7543 32-Core Processor"],
        48,
        32,
        &[256],
    );
    host.amd(&[
        "0000:00:00.2",
        "0000:40:00.2",
        "0000:80:00.2",
        "0000:c0:00.2",
    ]);
    host.text(
        "proc/cmdline",
        "scrubbed ro quiet amd_iommu=force_isolation iommu.strict=1 mitigations=auto,nosmt",
    );
    host.interrupts(&[
        "PCI-MSI-0000:00:00.2 0-edge AMD-Vi",
        "IR-PCI-MSI-0000:40:01.1 0-edge PCIe PME, aerdrv",
        "IR-PCI-MSIX-0000:41:00.0 0-edge ens1f0-TxRx-0",
    ]);
    let above = "0000:40:01.1";
    host.function(&port(
        &[above],
        (0x1022, 0x1483),
        (ROOT_PORT, [0x40, 0x41, 0x41]),
        (30, 0),
        true,
    ));
    let bars = 0x180_0000_0000;
    for (index, pf) in ["0000:41:00.0", "0000:41:00.1"].iter().enumerate() {
        let offset = u16::try_from(index).unwrap();
        let path = [above, pf];
        let bars = bars + 0x1000_0000 * u64::from(offset);
        let group = 31 + u32::from(offset);
        host.function(&Function {
            group,
            ..ixgbe_pf(&X520, &path, 4, bars, true)
        });
        host.interface(&path, &format!("ens1f{index}"));
        for vf in 0..4 {
            let bdf = address(0x41, 0x80 + offset, 2 * vf);
            host.function(&Function {
                group: 33 + u32::from(2 * vf + offset),
                ..ixgbe_vf(&X520, &[above, &bdf], &path, bars, u64::from(vf))
            });
        }
    }
    host.machine(
        "amd-host",
        "an AMD EPYC host with four IOMMUs and a dual-port 10 GbE card with four VFs a port",
        &[
            "Intel 82599 datasheet (331520), chapters 9.3 and 9.4: capabilities, VF offset and stride, BARs.",
            "AMD IOMMU specification 48882: IVRS, extended feature register; Documentation/ABI/testing/sysfs-class-iommu-amd-iommu.",
            GROUPS,
        ],
    )
}

fn switch_without_acs() -> Machine {
    let mut host = Host::new(
        ["GenuineIntel", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"],
        52,
        32,
        &[128],
    );
    host.intel(4);
    host.text(
        "proc/cmdline",
        "scrubbed ro quiet intel_iommu=on iommu.strict=1",
    );
    host.interrupts(&[
        "DMAR-MSI 0-edge dmar0",
        "IR-PCI-MSI-0000:64:02.0 0-edge PCIe PME, aerdrv",
        "IR-PCI-MSIX-0000:67:00.0 1-edge ens2f0-TxRx-0",
    ]);
    let (root, up) = ("0000:64:02.0", "0000:65:00.0");
    host.function(&port(
        &[root],
        (0x8086, 0x347a),
        (ROOT_PORT, [0x64, 0x65, 0x68]),
        (50, 0),
        true,
    ));
    host.function(&port(
        &[root, up],
        (0x10b5, 0x8747),
        (UPSTREAM, [0x65, 0x66, 0x68]),
        (51, 0),
        false,
    ));
    for (index, down) in ["0000:66:08.0", "0000:66:10.0"].iter().enumerate() {
        let bus = 0x67 + u8::try_from(index).unwrap();
        let group = 52 + u32::try_from(index).unwrap();
        let bars = 0x220_0000_0000 + 0x1000_0000 * u64::from(bus);
        let above = [root, up, down];
        host.function(&port(
            &above,
            (0x10b5, 0x8747),
            (DOWNSTREAM, [0x66, bus, bus]),
            (group, 0),
            false,
        ));
        let pf = format!("0000:{bus:02x}:00.0");
        let pf_path = [root, up, down, &pf];
        let place = VfPlace {
            first: 0x10,
            stride: 1,
            device: 0x154c,
            bars: vec![(0, bars + 0x100_0000), (3, bars + 0x180_0000)],
        };
        let config = Config::endpoint(0x8086, 0x1572, NIC, 2)
            .subsystem(0x8086, 0x0008)
            .power(0x40)
            .msi(0x50, 0)
            .msix(0x70, 129, (3, 0), (3, 0x1000))
            .express(0xa0, 0, 3, 8)
            .aer(0x100)
            .ari(0x150)
            .sriov(0x160, 64, 2, &place)
            .acs(0x1b0, 0, 0);
        host.function(&Function {
            group,
            driver: Some("i40e"),
            bars: vec![(0, bars, 0x80_0000), (3, bars + 0x80_0000, 0x8000)],
            resets: "flr bus",
            link: Some(("8.0 GT/s PCIe", "8")),
            sriov: Some((64, 2)),
            ..function(&pf_path, (0x8086, 0x1572, NIC), config)
        });
        host.interface(&pf_path, &format!("ens{}f0", index + 2));
        for vf in 0..2 {
            let bdf = address(bus, 0x10, vf);
            let config = Config::vf(NIC, 2)
                .msix(0x70, 5, (3, 0), (3, 0x2000))
                .express(0xa0, 0, 3, 8)
                .aer(0x100)
                .ari(0x150);
            let index = u64::from(vf);
            host.function(&Function {
                group,
                bars: vec![
                    (0, bars + 0x100_0000 + index * 0x1_0000, 0x1_0000),
                    (3, bars + 0x180_0000 + index * 0x4000, 0x4000),
                ],
                resets: "flr",
                physfn: Some(pf_path.to_vec()),
                ..function(&[root, up, down, &bdf], (0x8086, 0x154c, NIC), config)
            });
        }
    }
    host.machine(
        "switch-without-acs",
        "two 10 GbE cards behind a PCIe switch whose downstream ports have no ACS: each port's devices share a group, \
         and the kernel does not see that the ports can talk past the IOMMU",
        &[
            "Intel X710 datasheet (332464): capabilities, VF offset and BARs; PEX 8747 data book: ids of the switch's ports.",
            GROUPS,
            "This kernel gives each downstream port a group of its own, though requests between the ports never reach the root port.",
        ],
    )
}

fn shared_group() -> Machine {
    let mut host = Host::new(
        ["GenuineIntel", "Intel(R) Xeon(R) CPU E3-1275 v6 @ 3.80GHz"],
        39,
        8,
        &[64],
    );
    host.intel(2);
    host.text(
        "proc/cmdline",
        "scrubbed ro quiet intel_iommu=on iommu.strict=1",
    );
    host.interrupts(&[
        "DMAR-MSI 0-edge dmar0",
        "IR-PCI-MSI-0000:00:17.0 0-edge ahci[0000:00:17.0]",
        "IR-PCI-MSIX-0000:01:00.0 0-edge enp1s0f0",
    ]);
    for (index, above) in ["0000:00:01.0", "0000:00:01.1"].iter().enumerate() {
        let bus = 1 + u8::try_from(index).unwrap();
        let mut root = port(
            &[above],
            (0x8086, 0x1901 + 4 * u16::try_from(index).unwrap()),
            (ROOT_PORT, [0, bus, bus]),
            (1, -1),
            false,
        );
        root.config = root.config.multi_function();
        host.function(&root);
    }
    let above = "0000:00:01.0";
    let bars = 0x40_0000_0000;
    for (index, pf) in ["0000:01:00.0", "0000:01:00.1"].iter().enumerate() {
        let offset = u16::try_from(index).unwrap();
        let path = [above, pf];
        let bars = bars + 0x100_0000 * u64::from(offset);
        let place = VfPlace {
            first: 0x80,
            stride: 4,
            device: 0x1520,
            bars: vec![(0, bars + 0x20_0000), (3, bars + 0x22_0000)],
        };
        let config = Config::endpoint(0x8086, 0x1521, NIC, 1)
            .multi_function()
            .subsystem(0x8086, 0x0002)
            .power(0x40)
            .msi(0x50, 0)
            .msix(0x70, 10, (3, 0), (3, 0x2000))
            .express(0xa0, 0, 2, 4)
            .aer(0x100)
            .ari(0x150)
            .sriov(0x160, 8, 2, &place)
            .acs(0x1d0, 0, 0);
        host.function(&Function {
            group: 1,
            node: -1,
            driver: Some("igb"),
            bars: vec![(0, bars, 0x10_0000), (3, bars + 0x10_0000, 0x4000)],
            resets: "flr bus",
            link: Some(("5.0 GT/s PCIe", "4")),
            sriov: Some((7, 2)),
            ..function(&path, (0x8086, 0x1521, NIC), config)
        });
        host.interface(&path, &format!("enp1s0f{index}"));
    }
    for (index, pf) in ["0000:01:00.0", "0000:01:00.1"].iter().enumerate() {
        let offset = u16::try_from(index).unwrap();
        let bars = bars + 0x100_0000 * u64::from(offset);
        for vf in 0..2 {
            let bdf = address(0x01, 0x80 + offset, 4 * vf);
            let config = Config::vf(NIC, 1)
                .msix(0x70, 3, (3, 0), (3, 0x2000))
                .express(0xa0, 0, 2, 4)
                .aer(0x100)
                .ari(0x150);
            let at = u64::from(vf) * 0x4000;
            host.function(&Function {
                group: 1,
                node: -1,
                bars: vec![
                    (0, bars + 0x20_0000 + at, 0x4000),
                    (3, bars + 0x22_0000 + at, 0x4000),
                ],
                resets: "flr",
                physfn: Some(vec![above, pf]),
                ..function(&[above, &bdf], (0x8086, 0x1520, NIC), config)
            });
        }
    }
    host.machine(
        "shared-group",
        "a workstation whose processor's PCIe ports are one multi-function device without ACS: all that is below them \
         is in one group",
        &[
            "Intel I350 datasheet (333015): capabilities and BARs; Intel 7th generation processor datasheet, volume 2: the ports' ids.",
            GROUPS,
        ],
    )
}

fn identity_pf() -> Machine {
    const X540: Ixgbe = Ixgbe {
        pf: 0x1528,
        vf: 0x1515,
        subsystem: 0x0001,
    };
    let mut host = Host::new(
        ["GenuineIntel", "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"],
        46,
        28,
        &[64, 64],
    );
    host.intel(2);
    host.group_type("identity");
    host.text("proc/cmdline", "scrubbed ro quiet intel_iommu=on iommu=pt");
    host.interrupts(&[
        "DMAR-MSI 0-edge dmar0",
        "IR-PCI-MSI-0000:00:02.0 0-edge PCIe PME, aerdrv",
        "IR-PCI-MSIX-0000:03:00.0 0-edge eno1-TxRx-0",
    ]);
    let above = "0000:00:02.0";
    host.function(&port(
        &[above],
        (0x8086, 0x6f04),
        (ROOT_PORT, [0, 3, 3]),
        (24, 0),
        true,
    ));
    let path = [above, "0000:03:00.0"];
    let bars = 0x38_0000_0000;
    host.function(&Function {
        group: 25,
        ..ixgbe_pf(&X540, &path, 2, bars, true)
    });
    host.interface(&path, "eno1");
    for vf in 0..2 {
        let bdf = address(0x03, 0x80, 2 * vf);
        host.function(&Function {
            group: 40 + u32::from(vf),
            ..ixgbe_vf(&X540, &[above, &bdf], &path, bars, u64::from(vf))
        });
    }
    host.machine(
        "identity-pf",
        "a host started with iommu=pt: its own devices, PFs among them, reach all of its memory",
        &[
            "Intel X540 datasheet (515827): capabilities, VF offset and stride, BARs.",
            "Documentation/admin-guide/kernel-parameters.txt (v6.12), iommu=pt; Documentation/ABI/testing/sysfs-kernel-iommu_groups.",
            GROUPS,
        ],
    )
}

fn dual_port_100g() -> Machine {
    let mut host = Host::new(
        [
            "GenuineIntel",
            "Intel(R) Xeon(R) Platinum 8468 CPU @ 2.10GHz",
        ],
        52,
        96,
        &[256, 256],
    );
    host.intel(8);
    host.text(
        "proc/cmdline",
        "scrubbed ro quiet intel_iommu=on iommu.strict=1 mitigations=auto,nosmt",
    );
    host.interrupts(&[
        "DMAR-MSI 0-edge dmar0",
        "IR-PCI-MSI-0000:16:01.0 0-edge PCIe PME, aerdrv",
        "IR-PCI-MSIX-0000:17:00.0 0-edge mlx5_async0@pci:0000:17:00.0",
    ]);
    // One card, wired to both processors: the first port's VFs are made on node 0, the second's on node 1.
    for (node, above, bus, first_group, first_vf, port_with_vfs) in [
        (0, "0000:16:01.0", 0x17_u8, 70, 2_u16, 0_u16),
        (1, "0000:b2:01.0", 0xb3_u8, 140, 0x81, 1),
    ] {
        let top = u8::from_str_radix(&above[5..7], 16).unwrap();
        host.function(&port(
            &[above],
            (0x8086, 0x352a),
            (ROOT_PORT, [top, bus, bus]),
            (first_group, node),
            true,
        ));
        let bars = 0x2000_0000_0000 + 0x1000_0000_0000 * u64::try_from(node).unwrap();
        for function_number in 0..2_u16 {
            let pf = format!("0000:{bus:02x}:00.{function_number}");
            let path = [above, pf.as_str()];
            let vfs = if function_number == port_with_vfs {
                64
            } else {
                0
            };
            let bars = bars + 0x10_0000_0000 * u64::from(function_number);
            let place = VfPlace {
                first: if function_number == 0 { 2 } else { 0x80 },
                stride: 1,
                device: 0x101c,
                bars: vec![(0, bars + 0x1_0000_0000)],
            };
            let config = Config::endpoint(0x15b3, 0x101b, NIC, 0)
                .multi_function()
                .subsystem(0x15b3, 0x0007)
                .power(0x40)
                .cap(0x48, 0x03, &[0, 0])
                .express(0x60, 0, 4, 16)
                .msix(0x9c, 64, (0, 0x2000), (0, 0x3000))
                .aer(0x100)
                .ari(0x150)
                .sriov(0x180, 127, vfs, &place)
                .acs(0x230, 0, 0)
                .ats(0x2a0);
            host.function(&Function {
                group: first_group + 1 + u32::from(function_number),
                node,
                driver: Some("mlx5_core"),
                bars: vec![(0, bars, 0x200_0000)],
                resets: "flr bus",
                link: Some(("16.0 GT/s PCIe", "16")),
                sriov: Some((127, u32::from(vfs))),
                ..function(&path, (0x15b3, 0x101b, NIC), config)
            });
            host.interface(
                &path,
                &format!("ens{}f{function_number}np{function_number}", node + 1),
            );
            for vf in 0..vfs {
                let bdf = address(bus, first_vf, vf);
                let config = Config::vf(NIC, 0)
                    .express(0x60, 0, 4, 16)
                    .msix(0x9c, 12, (0, 0x2000), (0, 0x3000))
                    .ari(0x150)
                    .ats(0x2a0);
                host.function(&Function {
                    group: first_group + 3 + u32::from(vf),
                    node,
                    bars: vec![(
                        0,
                        bars + 0x1_0000_0000 + 0x10_0000 * u64::from(vf),
                        0x10_0000,
                    )],
                    resets: "flr",
                    physfn: Some(path.to_vec()),
                    ..function(&[above, &bdf], (0x15b3, 0x101c, NIC), config)
                });
            }
        }
    }
    host.machine(
        "dual-port-100g",
        "a dual-port 100 GbE card wired to both processors of a server: 64 VFs on each, 128 in all, on two NUMA nodes",
        &[
            "NVIDIA ConnectX-6 adapter user manual, Socket Direct cards; MLNX_EN documentation, SR-IOV: 127 VFs a port, ARI.",
            GROUPS,
        ],
    )
}

fn sriov_nvme() -> Machine {
    let mut host = Host::new(
        ["AuthenticAMD", "AMD EPYC 9354 32-Core Processor"],
        52,
        32,
        &[384],
    );
    host.amd(&[
        "0000:00:00.2",
        "0000:40:00.2",
        "0000:80:00.2",
        "0000:c0:00.2",
    ]);
    host.text("proc/cmdline", "scrubbed ro quiet iommu.strict=1");
    host.interrupts(&[
        "PCI-MSI-0000:00:00.2 0-edge AMD-Vi",
        "IR-PCI-MSI-0000:c0:03.1 0-edge PCIe PME, aerdrv",
        "IR-PCI-MSIX-0000:c1:00.0 0-edge nvme0q0",
    ]);
    let above = "0000:c0:03.1";
    host.function(&port(
        &[above],
        (0x1022, 0x14ab),
        (ROOT_PORT, [0xc0, 0xc1, 0xc1]),
        (80, 0),
        true,
    ));
    let path = [above, "0000:c1:00.0"];
    let bars = 0x600_0000_0000;
    let place = VfPlace {
        first: 1,
        stride: 1,
        device: 0xa824,
        bars: vec![(0, bars + 0x10_0000)],
    };
    let config = Config::endpoint(0x144d, 0xa824, NVME, 0)
        .subsystem(0x144d, 0xa801)
        .power(0x40)
        .express(0x70, 0, 4, 4)
        .msix(0xb0, 130, (0, 0x4000), (0, 0x3000))
        .aer(0x100)
        .ari(0x168)
        .sriov(0x1b8, 32, 4, &place);
    host.function(&Function {
        group: 81,
        driver: Some("nvme"),
        bars: vec![(0, bars, 0x8000)],
        resets: "flr bus",
        link: Some(("16.0 GT/s PCIe", "4")),
        sriov: Some((32, 4)),
        ..function(&path, (0x144d, 0xa824, NVME), config)
    });
    host.controller(&path, "nvme0");
    for vf in 0..4 {
        let bdf = address(0xc1, 1, vf);
        let config = Config::vf(NVME, 0)
            .express(0x70, 0, 4, 4)
            .msix(0xb0, 9, (0, 0x4000), (0, 0x3000))
            .aer(0x100)
            .ari(0x168);
        host.function(&Function {
            group: 82 + u32::from(vf),
            bars: vec![(0, bars + 0x10_0000 + 0x8000 * u64::from(vf), 0x8000)],
            resets: "flr",
            physfn: Some(path.to_vec()),
            ..function(&[above, &bdf], (0x144d, 0xa824, NVME), config)
        });
    }
    host.machine(
        "sriov-nvme",
        "an NVMe drive with SR-IOV: four secondary controllers as VFs",
        &[
            "NVM Express base specification 2.0, chapter 8.26 (virtualization enhancements), and the PCIe transport specification.",
            "Ids of a Samsung PM1733-class drive; vectors and BAR sizes are typical ones.",
            GROUPS,
        ],
    )
}
