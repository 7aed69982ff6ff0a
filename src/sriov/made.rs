//! Machines, files and a small executor for the tests of this folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use iommu::{bdf::Bdf, topology::Mac};

use super::{
    Anchor, Desired, Flexible, Hands as _, HostPlan, KindFacts, Namespace, NamespaceId,
    NamespaceRecord, NamespaceState, NicFacts, NvmeCan, NvmeFacts, Observed, PfFacts, PfRecords,
    Records, Resource, Secondary, Seen, Step, Undo, VfRecord, VfState, desired, model::Machine,
    plan,
};
use crate::{
    error::Report,
    spec::host::{HostSpec, Mbps, Profiles, Safety},
};

pub(super) const BOOT: &str = "boot-1";

pub(super) fn bdf(bus: u8) -> Bdf {
    Bdf::new(0, bus, 0, 0).unwrap()
}

/// A NIC's port `ethBUS`, up, at 10 Gbit/s.
pub(super) fn nic(bus: u8, driver: &str, ids: (u16, u16), total: u32) -> PfFacts {
    let own = Mac([0x52, 0x54, 0, 0xff, 0, bus]);
    pf(
        bus,
        driver,
        ids,
        total,
        Anchor::Mac(own),
        KindFacts::Nic(NicFacts {
            interface: Some(format!("eth{bus}")),
            port: Some(0),
            is_up: true,
            has_carrier: true,
            link: Some(Mbps(10_000)),
            eswitch: None,
            address: Some(own),
        }),
    )
}

fn pf(
    bus: u8,
    driver: &str,
    (vendor, device): (u16, u16),
    total: u32,
    anchor: Anchor,
    kind: KindFacts,
) -> PfFacts {
    PfFacts {
        bdf: bdf(bus),
        anchor,
        vendor,
        device,
        driver: Some(driver.to_owned()),
        numa: Some(0),
        root: "pci0000:00".to_owned(),
        total,
        count: 0,
        is_probed: Some(true),
        group: Some(u32::from(bus)),
        kind,
        vfs: Vec::new(),
    }
}

pub(super) fn igb(bus: u8) -> PfFacts {
    nic(bus, "igb", (0x8086, 0x10c9), 7)
}

/// An emulated drive `nvmeBUS` with 16 secondary controllers, its own namespace 1, and 2 to 5 that nobody has.
pub(super) fn nvme(bus: u8) -> PfFacts {
    let resource = |total, most| Resource {
        total,
        assigned: 0,
        to_primary: 0,
        private: 3,
        most,
        granularity: 1,
    };
    let namespace = |nsid: u32| Namespace {
        size: 16 << 20,
        block: 512,
        metadata: 0,
        protection: 0,
        is_shared: false,
        id: NamespaceId::Nguid(format!("{bus:02x}{nsid:030x}")),
        attached: BTreeSet::from_iter((nsid == 1).then_some(0)),
        block_device: (nsid == 1).then(|| format!("nvme{bus}n1")),
    };
    pf(
        bus,
        "nvme",
        (0x1b36, 0x0010),
        16,
        Anchor::Serial(format!("drive-{bus}")),
        KindFacts::Nvme(NvmeFacts {
            controller: format!("nvme{bus}"),
            cntlid: 0,
            serial: format!("drive-{bus}"),
            model: "QEMU NVMe Ctrl".to_owned(),
            subnqn: "nqn.lab".to_owned(),
            capacity: 1 << 40,
            unallocated: 1 << 39,
            can: NvmeCan {
                manage: true,
                attach: true,
                virt: true,
                format: true,
                ..NvmeCan::default()
            },
            flexible: Some(Flexible {
                vq: resource(64, 4),
                vi: resource(32, 2),
            }),
            secondaries: (1..=16)
                .map(|cntlid| Secondary {
                    cntlid,
                    vf: 0,
                    is_online: false,
                    queues: 0,
                    vectors: 0,
                })
                .collect(),
            namespaces: (1..=5).map(|nsid| (nsid, namespace(nsid))).collect(),
        }),
    )
}

pub(super) fn machine(pfs: impl IntoIterator<Item = PfFacts>) -> Machine {
    Machine::new(Observed {
        pfs: pfs.into_iter().map(|pf| (pf.bdf, pf)).collect(),
        boot: BOOT.to_owned(),
        nodes: vec![0],
        ..Observed::default()
    })
}

pub(super) fn spec(text: &str) -> HostSpec {
    let read = HostSpec::parse(Path::new("host.toml"), text);
    read.unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

pub(super) fn seeded() -> Records {
    Records {
        seed: Some([7; 16]),
        ..Records::default()
    }
}

pub(super) fn wanted(
    text: &str,
    machine: &Machine,
    records: &Records,
) -> Result<Desired, Vec<Report>> {
    desired(&spec(text), &machine.now, records, &Profiles::built_in())
}

pub(super) fn planned(machine: &Machine, desired: &Desired, records: &Records) -> HostPlan {
    let profiles = Profiles::built_in();
    plan(&machine.now, desired, records, &profiles, Safety::default())
}

/// Carries a plan out as `vf::apply` does, records what it saw, and takes everything back at the first fault.
pub(super) fn carry_out(
    machine: &mut Machine,
    records: &mut Records,
    desired: &Desired,
    plan: &HostPlan,
) -> Result<(), String> {
    if let Some(refusal) = plan.refusals.first() {
        return Err(refusal.what.clone());
    }
    let mut undo: Vec<Undo> = Vec::new();
    let mut kept = records.clone();
    for step in &plan.steps {
        match machine.carry_out(step, &mut |_| ()) {
            Ok(seen) => {
                undo.push(match seen {
                    Seen::Namespace(nsid) => step.undo_of_namespace(nsid),
                    Seen::AsAsked | Seen::Function(_) => step.undo(),
                });
                remember(machine, &mut kept, step, seen);
            }
            Err(fault) => {
                machine.fail_at = None;
                take_back(machine, undo);
                return Err(fault.to_string());
            }
        }
    }
    for pf in desired.pfs.values().filter(|pf| pf.restored.is_none()) {
        for vf in pf.vfs.iter().filter(|vf| vf.pool.is_some()) {
            if let Some(record) = entry(machine, &mut kept, pf.bdf).vfs.get_mut(&vf.index) {
                record.mac = vf.rest.mac;
                record.pool.clone_from(&vf.pool);
            }
        }
    }
    *records = kept;
    Ok(())
}

fn take_back(machine: &mut Machine, undo: Vec<Undo>) {
    for one in undo.into_iter().rev() {
        let steps = match one {
            Undo::Steps(steps) => steps,
            Undo::Nothing | Undo::Impossible(_) => continue,
        };
        for step in steps {
            let done = machine.carry_out(&step, &mut |_| ());
            done.unwrap_or_else(|fault| panic!("{step} cannot be taken back: {fault}"));
        }
    }
}

fn entry<'a>(machine: &Machine, records: &'a mut Records, pf: Bdf) -> &'a mut PfRecords {
    let anchor = machine.now.pfs[&pf].anchor.clone();
    records.pfs.entry(pf).or_insert_with(|| PfRecords {
        anchor,
        boot: BOOT.to_owned(),
        vfs: BTreeMap::new(),
        namespaces: BTreeMap::new(),
    })
}

fn remember(machine: &Machine, records: &mut Records, step: &Step, seen: Seen) {
    let of_pf = entry(machine, records, step.pf());
    match (step, seen) {
        (Step::Destroy { .. }, _) => {
            for record in of_pf.vfs.values_mut() {
                record.state = VfState::Absent;
            }
        }
        (Step::Reset { index, .. }, Seen::Function(bdf)) => {
            of_pf.vfs.insert(*index, record(bdf, VfState::Clean));
        }
        (Step::NamespaceCreate { name, pf, .. }, Seen::Namespace(nsid)) => {
            let id = machine.now.pfs[pf].nvme().unwrap().namespaces[&nsid]
                .id
                .clone();
            let made = NamespaceRecord {
                id,
                name: name.clone(),
                state: NamespaceState::Clean,
                since: "2026-01-01T00:00:00Z".to_owned(),
                is_made: true,
                erase: None,
                is_shared: false,
                last_guest: None,
                format: None,
            };
            of_pf.namespaces.insert(nsid, made);
        }
        (Step::NamespaceDelete { nsid, .. }, _) => {
            of_pf.namespaces.remove(nsid);
        }
        _ => {}
    }
}

pub(super) fn record(bdf: Bdf, state: VfState) -> VfRecord {
    VfRecord {
        bdf,
        state,
        since: "2026-01-01T00:00:00Z".to_owned(),
        pool: None,
        mac: None,
        lease: None,
    }
}
