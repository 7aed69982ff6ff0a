//! A machine of one NIC and one drive that obeys as far as it is told to, and its state folder.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs,
    path::PathBuf,
};

use iommu::topology::VlanProto;

use super::{erasing::mark, *};
use crate::{
    spec::host::{Eraser, Mbps, Vlan},
    sriov::{
        Anchor, AttributeValue, Holder, KindFacts, LeasedNamespace, Namespace, NamespaceFormat,
        NamespaceId, NamespaceState, NicAttributes, NicFacts, NvmeCan, NvmeFacts, Observed,
        PfFacts, PfRecords, ResourceKind, Secondary, Seen, VfFacts, VfRecord, VfState,
    },
    state::{State, now},
};

pub(super) fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

pub(super) fn nic() -> Bdf {
    bdf("0000:01:00.0")
}

pub(super) fn disk() -> Bdf {
    bdf("0000:02:00.0")
}

pub(super) fn holder() -> Holder {
    Holder {
        pid: 7,
        start: 8,
        boot: "boot".to_owned(),
    }
}

/// A machine that obeys, as far as it is told to, and counts what it is asked.
pub(super) struct Machine {
    pub(super) observed: RefCell<Observed>,
    /// Steps that are carried out before the process dies; `None`: it lives.
    pub(super) left: Cell<Option<usize>>,
    /// Steps of this kind are said to be done, and are not.
    pub(super) ignores: Option<fn(&Step) -> bool>,
    /// The steps that it refuses.
    pub(super) fails: Option<fn(&Step) -> bool>,
    /// What was erased.
    pub(super) erased: RefCell<Vec<u32>>,
    pub(super) asked: Cell<usize>,
}

pub(super) fn pf(bdf: Bdf, kind: KindFacts, vf: &str) -> PfFacts {
    let is_nic = matches!(kind, KindFacts::Nic(_));
    PfFacts {
        bdf,
        anchor: Anchor::Slot(bdf),
        vendor: 0x8086,
        device: 1,
        driver: Some("igb".to_owned()),
        numa: None,
        root: "pci0000:00".to_owned(),
        total: 7,
        count: 1,
        is_probed: Some(false),
        group: Some(1),
        kind,
        vfs: vec![VfFacts {
            index: 0,
            bdf: self::bdf(vf),
            driver: None,
            driver_override: None,
            group: Some(2),
            group_size: 1,
            interfaces: Vec::new(),
            nic: is_nic.then(rest),
        }],
    }
}

pub(super) fn rest() -> NicAttributes {
    NicAttributes {
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        vlan: Some(Vlan::NONE),
        spoofchk: Some(true),
        trust: Some(false),
        min_tx: Some(Mbps(0)),
        max_tx: Some(Mbps(0)),
        ..NicAttributes::default()
    }
}

pub(super) fn leased() -> NicAttributes {
    NicAttributes {
        vlan: Some(Vlan {
            id: 101,
            qos: 0,
            proto: VlanProto::Dot1Q,
        }),
        max_tx: Some(Mbps(500)),
        ..rest()
    }
}

impl Machine {
    pub(super) fn new() -> Self {
        let namespace = |attached: &[u16]| Namespace {
            size: 16 << 20,
            block: 512,
            metadata: 0,
            protection: 0,
            is_shared: false,
            id: NamespaceId::None,
            attached: attached.iter().copied().collect::<BTreeSet<u16>>(),
            block_device: None,
        };
        let nvme = NvmeFacts {
            controller: "nvme0".to_owned(),
            cntlid: 0,
            serial: "S".to_owned(),
            model: "M".to_owned(),
            subnqn: "N".to_owned(),
            capacity: 0,
            unallocated: 0,
            can: NvmeCan {
                attach: true,
                virt: true,
                format: true,
                ..NvmeCan::default()
            },
            flexible: None,
            secondaries: vec![Secondary {
                cntlid: 1,
                vf: 1,
                is_online: true,
                queues: 3,
                vectors: 2,
            }],
            namespaces: [(1, namespace(&[0])), (2, namespace(&[]))].into(),
        };
        let port = NicFacts {
            interface: Some("eth0".to_owned()),
            port: Some(0),
            is_up: true,
            has_carrier: true,
            link: Some(Mbps(1000)),
            eswitch: None,
            address: None,
        };
        let mut observed = Observed::default();
        for pf in [
            pf(nic(), KindFacts::Nic(port), "0000:01:10.0"),
            pf(disk(), KindFacts::Nvme(nvme), "0000:02:00.1"),
        ] {
            observed.pfs.insert(pf.bdf, pf);
        }
        Self {
            observed: RefCell::new(observed),
            left: Cell::new(None),
            ignores: None,
            fails: None,
            erased: RefCell::default(),
            asked: Cell::new(0),
        }
    }

    pub(super) fn nvme<T>(&self, f: impl FnOnce(&mut NvmeFacts) -> T) -> T {
        let mut observed = self.observed.borrow_mut();
        match &mut observed.pfs.get_mut(&disk()).unwrap().kind {
            KindFacts::Nvme(nvme) => f(nvme),
            KindFacts::Nic(_) | KindFacts::Other => panic!("no NVMe"),
        }
    }

    pub(super) fn vf(&self) -> NicAttributes {
        self.observed.borrow().pfs[&nic()].vfs[0].nic.unwrap()
    }

    pub(super) fn attached(&self, nsid: u32) -> Vec<u16> {
        self.nvme(|nvme| nvme.namespaces[&nsid].attached.iter().copied().collect())
    }

    pub(super) fn set(&self, to: AttributeValue) {
        let mut observed = self.observed.borrow_mut();
        let vf = &mut observed.pfs.get_mut(&nic()).unwrap().vfs[0];
        let nic = vf.nic.as_mut().unwrap();
        match to {
            AttributeValue::Spoofchk(on) => nic.spoofchk = Some(on),
            AttributeValue::Trust(on) => nic.trust = Some(on),
            AttributeValue::QueryRss(on) => nic.query_rss = Some(on),
            AttributeValue::Mac(mac) => nic.mac = mac,
            AttributeValue::Vlan(vlan) => nic.vlan = Some(vlan),
            AttributeValue::Rate { min, max } => {
                (nic.min_tx, nic.max_tx) = (Some(min), Some(max));
            }
            AttributeValue::State(state) => nic.state = Some(state),
        }
    }

    fn obey(&self, step: &Step) -> Result<(), &'static str> {
        let secondary =
            |f: &mut dyn FnMut(&mut Secondary)| self.nvme(|nvme| f(&mut nvme.secondaries[0]));
        match step {
            Step::Attribute { to, .. } => self.set(*to),
            Step::Offline { .. } => {
                secondary(&mut |s| (s.is_online, s.queues, s.vectors) = (false, 0, 0))
            }
            Step::Assign { resource, to, .. } => secondary(&mut |s| match resource {
                ResourceKind::Queues => s.queues = *to,
                ResourceKind::Vectors => s.vectors = *to,
            }),
            Step::Reset { .. } => {}
            Step::Online { .. } => secondary(&mut |s| s.is_online = true),
            Step::Attach { nsid, cntlid, .. } => self.nvme(|nvme| {
                let attached = &mut nvme.namespaces.get_mut(nsid).unwrap().attached;
                match attached.is_empty() {
                    true => attached.insert(*cntlid).then_some(()).ok_or("1/18"),
                    false => Err("1/19"),
                }
            })?,
            Step::Detach { nsid, cntlid, .. } => self.nvme(|nvme| {
                let attached = &mut nvme.namespaces.get_mut(nsid).unwrap().attached;
                attached.remove(cntlid).then_some(()).ok_or("1/1A")
            })?,
            Step::Erase { nsid, block, .. } => {
                if self.attached(*nsid) != [0] {
                    return Err("0/02");
                }
                self.nvme(|nvme| {
                    let namespace = nvme.namespaces.get_mut(nsid).unwrap();
                    // Metadata take a part of the medium: without them it is as large as before.
                    (namespace.size, namespace.block) = (16 << 20, *block);
                    namespace.metadata = 0;
                });
                self.erased.borrow_mut().push(*nsid);
            }
            Step::Link { .. }
            | Step::Autoprobe { .. }
            | Step::Unbind { .. }
            | Step::Bind { .. }
            | Step::Destroy { .. }
            | Step::Create { .. }
            | Step::NamespaceCreate { .. }
            | Step::NamespaceDelete { .. } => panic!("no lease needs {step:?}"),
        }
        Ok(())
    }
}

impl Hands for Machine {
    fn carry_out(&mut self, step: &Step, _: &mut dyn FnMut(Percent)) -> Result<Seen, StepFault> {
        self.asked.set(self.asked.get() + 1);
        if self.ignores.is_some_and(|ignores| ignores(step)) {
            return Ok(Seen::AsAsked);
        }
        let fails = self.fails.is_some_and(|fails| fails(step));
        let obeyed = if fails { Err("6/00") } else { self.obey(step) };
        obeyed.map_err(|evidence| StepFault {
            doing: "it".to_owned(),
            evidence: evidence.to_owned(),
            is_busy: false,
            is_ignored: false,
        })?;
        // It dies when the step is done and nothing else is: what comes next finds that.
        match self.left.get() {
            Some(1) => panic!("crash"),
            left => self.left.set(left.map(|left| left - 1)),
        }
        Ok(Seen::AsAsked)
    }

    fn observe(&mut self) -> Result<Observed, Report> {
        Ok(self.observed.borrow().clone())
    }
}

/// A state folder in which both VFs are clean.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> (Self, State) {
        let folder =
            std::env::temp_dir().join(format!("narrows-lease-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        let state = State::new(&folder);
        for (pf, vf) in [(nic(), "0000:01:10.0"), (disk(), "0000:02:00.1")] {
            let clean = |records: &mut PfRecords| {
                "boot".clone_into(&mut records.boot);
                let record = VfRecord {
                    bdf: bdf(vf),
                    state: VfState::Clean,
                    since: now(),
                    pool: None,
                    mac: None,
                    lease: None,
                };
                records.vfs.insert(0, record);
                Ok(())
            };
            state.change_pf(pf, &Anchor::Slot(pf), clean).unwrap();
        }
        (Self(folder), state)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) fn nic_terms() -> LeaseTerms {
    LeaseTerms {
        pool: "tenant-a".to_owned(),
        vf: bdf("0000:01:10.0"),
        pf: nic(),
        anchor: Anchor::Slot(nic()),
        index: 0,
        interface: Some("eth0".to_owned()),
        controller: None,
        cntlid: None,
        keep: false,
        rest: rest(),
        leased: leased(),
        no_mac: false,
        resources: None,
        namespaces: Vec::new(),
        erase: Eraser::Auto,
        accept: Vec::new(),
    }
}

pub(super) fn disk_terms() -> LeaseTerms {
    LeaseTerms {
        pool: "fast-a".to_owned(),
        vf: bdf("0000:02:00.1"),
        pf: disk(),
        anchor: Anchor::Slot(disk()),
        interface: None,
        controller: Some("nvme0".to_owned()),
        cntlid: Some(1),
        rest: NicAttributes::default(),
        leased: NicAttributes::default(),
        resources: Some((3, 2)),
        namespaces: vec![LeasedNamespace {
            nsid: 2,
            id: NamespaceId::None,
            format: NamespaceFormat {
                size: 16 << 20,
                block: 512,
                metadata: 0,
                protection: 0,
            },
            is_shared: false,
        }],
        ..nic_terms()
    }
}

pub(super) fn record(state: &State, terms: &LeaseTerms) -> (VfState, Option<String>) {
    let read = |records: &mut PfRecords| {
        let record = &records.vfs[&0];
        Ok((record.state, record.lease.as_ref().map(|l| l.guest.clone())))
    };
    state.change_pf(terms.pf, &terms.anchor, read).unwrap()
}

pub(super) fn of_namespace(state: &State) -> NamespaceState {
    let read = |records: &mut PfRecords| Ok(records.namespaces[&2].state);
    state
        .change_pf(disk(), &Anchor::Slot(disk()), read)
        .unwrap()
}

pub(super) fn give(machine: &mut Machine, state: &State, terms: &LeaseTerms) -> Vec<String> {
    give_back(machine, state, "web", terms, &mut |_| {})
}

pub(super) fn run(machine: &mut Machine, state: &State, terms: &LeaseTerms) -> Vec<String> {
    claim(state, "web", &holder(), terms).unwrap();
    take(machine, state, "web", terms).unwrap();
    bound(state, terms).unwrap();
    give(machine, state, terms)
}

pub(super) fn dirty(state: &State, nsid: u32, guest: Option<&str>) {
    let wanted = LeasedNamespace {
        nsid,
        ..disk_terms().namespaces[0].clone()
    };
    let mark = |records: &mut PfRecords| {
        mark(records, &wanted, NamespaceState::Dirty, guest);
        Ok(())
    };
    state
        .change_pf(disk(), &Anchor::Slot(disk()), mark)
        .unwrap();
}

pub(super) fn records(machine: &mut Machine, state: &State, boot: &str) -> crate::sriov::Records {
    let mut observed = machine.observe().unwrap();
    boot.clone_into(&mut observed.boot);
    state.records(&observed).unwrap()
}
