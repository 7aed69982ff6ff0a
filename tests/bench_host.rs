//! How long a plan and the drift of a large host take, in memory: 16 PFs with 128 VFs each.

#![expect(
    clippy::unwrap_used,
    reason = "a made-up host that is wrong ends the test"
)]

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Instant};

use iommu::{bdf::Bdf, topology::Mac};
use narrows::{
    spec::host::{HostSpec, Mbps, Profiles, Safety, Vlan},
    sriov::{
        Anchor, KindFacts, NicAttributes, NicFacts, Observed, PfFacts, Records, VfFacts, desired,
        drift, plan,
    },
};

fn pf(bus: u8) -> PfFacts {
    let own = Mac([0x52, 0x54, 0, 0xff, 0, bus]);
    let vf = |index: u8| VfFacts {
        index: u32::from(index),
        bdf: Bdf::new(0, bus + 1, index / 8, index % 8).unwrap(),
        driver: None,
        driver_override: None,
        group: Some(u32::from(bus) << 8 | u32::from(index)),
        group_size: 1,
        interfaces: Vec::new(),
        nic: Some(NicAttributes {
            vlan: Some(Vlan::NONE),
            spoofchk: Some(false),
            trust: Some(true),
            min_tx: Some(Mbps(0)),
            max_tx: Some(Mbps(0)),
            ..NicAttributes::default()
        }),
    };
    PfFacts {
        bdf: Bdf::new(0, bus, 0, 0).unwrap(),
        anchor: Anchor::Mac(own),
        vendor: 0x15b3,
        device: 0x101d,
        driver: Some("mlx5_core".to_owned()),
        numa: None,
        root: "pci0000:00".to_owned(),
        total: 128,
        count: 128,
        is_probed: Some(false),
        group: None,
        kind: KindFacts::Nic(NicFacts {
            interface: Some(format!("eth{bus}")),
            port: Some(0),
            is_up: true,
            has_carrier: true,
            link: Some(Mbps(100_000)),
            eswitch: None,
            address: Some(own),
        }),
        vfs: (0..128).map(vf).collect(),
    }
}

fn host() -> (Observed, HostSpec) {
    let buses = (0..16u8).map(|at| 2 + at * 2);
    let mut text = String::from("[[pool]]\nname = \"t\"\nkind = \"nic\"\nvlan = 5\n");
    let mut pfs = BTreeMap::new();
    for pf in buses.map(pf) {
        let bdf = pf.bdf;
        writeln!(
            text,
            "[[pf]]\nbdf = \"{bdf}\"\nvfs = 128\npools = {{ t = \"0-127\" }}"
        )
        .unwrap();
        pfs.insert(bdf, pf);
    }
    let observed = Observed {
        pfs,
        ..Observed::default()
    };
    (
        observed,
        HostSpec::parse(Path::new("host.toml"), &text).unwrap(),
    )
}

#[test]
#[ignore = "prints times: for a release build"]
#[expect(clippy::print_stdout, reason = "the times are what it is for")]
fn plan_and_drift_of_2048_vfs() {
    let (observed, spec) = host();
    let profiles = Profiles::built_in();
    let records = Records {
        seed: Some([7; 16]),
        ..Records::default()
    };
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let wanted = desired(&spec, &observed, &records, &profiles).unwrap();
        let plan = plan(&observed, &wanted, &records, &profiles, Safety::default());
        let planned = start.elapsed();
        let start = Instant::now();
        let found = drift(&observed, &wanted, &records, &profiles);
        // Spoof check, trust and address, and a reset that no record knows of.
        assert_eq!((plan.steps.len(), found.len()), (2048 * 4, 2048 * 3));
        times.push((planned, start.elapsed()));
    }
    times.sort();
    let (planned, drifted) = times[times.len() / 2];
    println!("2048 VFs: plan {planned:?}, drift {drifted:?} (median of 20)");
}
