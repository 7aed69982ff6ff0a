use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Barrier,
    thread,
};

use iommu::topology::VlanProto;

use super::{erasing::mark, *};
use crate::{
    error::ErrorId,
    spec::host::{Eraser, Mbps, Vlan},
    sriov::{
        Anchor, AttributeValue, Event, Holder, KindFacts, LeasedNamespace, Namespace,
        NamespaceFormat, NamespaceId, NamespaceState, NicAttributes, NicFacts, NvmeCan, NvmeFacts,
        Observed, PfFacts, PfRecords, ResourceKind, Secondary, Seen, Unread, VfFacts, VfRecord,
        VfState, to_leased,
    },
    state::{Identity, Record, State, now},
    vf::{finish_leases, recover::unfinished},
};

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn nic() -> Bdf {
    bdf("0000:01:00.0")
}

fn disk() -> Bdf {
    bdf("0000:02:00.0")
}

fn holder() -> Holder {
    Holder {
        pid: 7,
        start: 8,
        boot: "boot".to_owned(),
    }
}

/// A machine that obeys, as far as it is told to, and counts what it is asked.
struct Machine {
    observed: RefCell<Observed>,
    /// Steps that are carried out before the process dies; `None`: it lives.
    left: Cell<Option<usize>>,
    /// Steps of this kind are said to be done, and are not.
    ignores: Option<fn(&Step) -> bool>,
    /// The steps that it refuses.
    fails: Option<fn(&Step) -> bool>,
    /// What was erased.
    erased: RefCell<Vec<u32>>,
    asked: Cell<usize>,
}

fn pf(bdf: Bdf, kind: KindFacts, vf: &str) -> PfFacts {
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

fn rest() -> NicAttributes {
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

fn leased() -> NicAttributes {
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
    fn new() -> Self {
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

    fn nvme<T>(&self, f: impl FnOnce(&mut NvmeFacts) -> T) -> T {
        let mut observed = self.observed.borrow_mut();
        match &mut observed.pfs.get_mut(&disk()).unwrap().kind {
            KindFacts::Nvme(nvme) => f(nvme),
            KindFacts::Nic(_) | KindFacts::Other => panic!("no NVMe"),
        }
    }

    fn vf(&self) -> NicAttributes {
        self.observed.borrow().pfs[&nic()].vfs[0].nic.unwrap()
    }

    fn attached(&self, nsid: u32) -> Vec<u16> {
        self.nvme(|nvme| nvme.namespaces[&nsid].attached.iter().copied().collect())
    }

    fn set(&self, to: AttributeValue) {
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
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> (Self, State) {
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

fn nic_terms() -> LeaseTerms {
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

fn disk_terms() -> LeaseTerms {
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

fn record(state: &State, terms: &LeaseTerms) -> (VfState, Option<String>) {
    let read = |records: &mut PfRecords| {
        let record = &records.vfs[&0];
        Ok((record.state, record.lease.as_ref().map(|l| l.guest.clone())))
    };
    state.change_pf(terms.pf, &terms.anchor, read).unwrap()
}

fn of_namespace(state: &State) -> NamespaceState {
    let read = |records: &mut PfRecords| Ok(records.namespaces[&2].state);
    state
        .change_pf(disk(), &Anchor::Slot(disk()), read)
        .unwrap()
}

fn give(machine: &mut Machine, state: &State, terms: &LeaseTerms) -> Vec<String> {
    give_back(machine, state, "web", terms, &mut |_| {})
}

fn run(machine: &mut Machine, state: &State, terms: &LeaseTerms) -> Vec<String> {
    claim(state, "web", &holder(), terms).unwrap();
    take(machine, state, "web", terms).unwrap();
    bound(state, terms).unwrap();
    give(machine, state, terms)
}

#[test]
fn a_vf_is_as_leased_while_a_guest_has_it_and_at_rest_afterwards() {
    let (_folder, state) = Folder::new("life");
    let mut machine = Machine::new();
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
    take(&mut machine, &state, "web", &terms).unwrap();
    assert_eq!(machine.vf(), leased());
    assert_eq!(machine.asked.get(), 2, "what is so already is not set");
    bound(&state, &terms).unwrap();
    assert_eq!(record(&state, &terms).0, VfState::InUse);
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.vf(), rest());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.asked.get(), 4, "the second return does nothing");
}

#[test]
fn a_namespace_is_attached_for_the_guest_and_erased_after_it() {
    let (_folder, state) = Folder::new("nvme");
    let mut machine = Machine::new();
    let terms = disk_terms();
    // The primary controller was reset, and somebody left a foreign namespace attached.
    machine.nvme(|nvme| {
        (
            nvme.secondaries[0].is_online,
            nvme.secondaries[0].queues,
            nvme.secondaries[0].vectors,
        ) = (false, 0, 0);
        nvme.namespaces.get_mut(&1).unwrap().attached = [1].into();
    });
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    assert_eq!(
        (machine.attached(1), machine.attached(2)),
        (vec![], vec![1])
    );
    let secondary = machine.nvme(|nvme| nvme.secondaries[0]);
    assert!(secondary.is_online && (secondary.queues, secondary.vectors) == (3, 2));
    assert_eq!(of_namespace(&state), NamespaceState::Dirty);
    bound(&state, &terms).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.attached(2), Vec::<u16>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(of_namespace(&state), NamespaceState::Clean);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_kept_lease_erases_nothing_and_is_nobody_elses() {
    let (_folder, state) = Folder::new("kept");
    let mut machine = Machine::new();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    assert!(machine.erased.borrow().is_empty());
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
    let other = claim(&state, "db", &holder(), &terms).unwrap_err();
    assert_eq!(other.id, ErrorId::LeaseForeign);
    assert!(other.what.contains("web"), "{other:?}");
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    let returned = return_lease(&mut machine, &state, terms.vf, &mut |_| {});
    assert_eq!(returned, Ok("web".to_owned()));
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_claim_in_a_boot_that_cannot_be_told_is_refused() {
    let (_folder, state) = Folder::new("no-boot");
    let unknown = Holder {
        boot: String::new(),
        ..holder()
    };
    let terms = nic_terms();
    let report = claim(&state, "web", &unknown, &terms).unwrap_err();
    assert_eq!(report.id, ErrorId::HostUnreadable);
    let report = check_free(&state, "web", "", &terms).unwrap_err();
    assert_eq!(report.id, ErrorId::HostUnreadable);
}

#[test]
fn of_eight_claims_of_one_vf_one_succeeds_and_the_others_are_told_by_whom() {
    let (_folder, state) = Folder::new("race");
    for round in 0..20 {
        let start = Barrier::new(8);
        let claims: Vec<Result<(), Report>> = thread::scope(|scope| {
            let claim = |number: usize| {
                let (state, start) = (&state, &start);
                scope.spawn(move || {
                    start.wait();
                    claim(state, &format!("guest-{number}"), &holder(), &nic_terms())
                })
            };
            let threads: Vec<_> = (0..8).map(claim).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..8).filter(|number| claims[*number].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let winner = format!("guest-{}", winners[0]);
        for refused in claims.into_iter().filter_map(Result::err) {
            assert_eq!(refused.id, ErrorId::LeaseForeign);
            assert!(refused.what.contains(&winner), "{refused:?}");
        }
        let evidence = give_back(
            &mut Machine::new(),
            &state,
            &winner,
            &nic_terms(),
            &mut |_| {},
        );
        assert_eq!(evidence, Vec::<String>::new());
    }
}

#[test]
fn a_lease_that_was_cut_off_after_any_step_is_given_back_whole() {
    for terms in [nic_terms(), disk_terms()] {
        for at in 1.. {
            let (_folder, state) = Folder::new("cut");
            let mut machine = Machine::new();
            machine.left.set(Some(at));
            let cut = catch_unwind(AssertUnwindSafe(|| run(&mut machine, &state, &terms)));
            machine.left.set(None);
            assert_eq!(
                give(&mut machine, &state, &terms),
                Vec::<String>::new(),
                "step {at}"
            );
            assert_eq!(record(&state, &terms), (VfState::Clean, None), "step {at}");
            assert_eq!(
                (machine.vf(), machine.attached(2)),
                (rest(), vec![]),
                "step {at}"
            );
            if terms.controller.is_some() {
                assert_eq!(of_namespace(&state), NamespaceState::Clean, "step {at}");
                assert!(machine.erased.borrow().contains(&2), "step {at}");
            }
            // And it can be leased again.
            assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
            if cut.is_ok() {
                assert!(at > 4, "there are more steps than {at}");
                break;
            }
        }
    }
}

#[test]
fn a_vf_whose_reset_failed_is_not_clean_before_it_was_released_and_reset() {
    let (_folder, state) = Folder::new("quarantined");
    let mut machine = Machine::new();
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let found = vec!["VFIO_DEVICE_RESET failed".to_owned()];
    let why = Record::new(terms.vf, Identity::default(), "not clean", found, "web");
    state.put_into_quarantine(&why).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Quarantined, None));
    assert_eq!(
        state.mark_freed(terms.vf).unwrap(),
        Some(VfState::Created),
        "released"
    );
    state.release(terms.vf, None).unwrap();
    let refused = claim(&state, "db", &holder(), &terms).unwrap_err();
    assert_eq!(refused.id, ErrorId::PoolExhausted);
    assert_eq!(refused.fix, "narrows host apply");
    let reset = Step::Reset {
        pf: nic(),
        index: 0,
        vf: Some(terms.vf),
    };
    let observed = machine.observe().unwrap();
    let seen = Seen::Function(terms.vf);
    crate::vf::marks::after(&mut machine, &state, &observed, &reset, seen).unwrap();
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn what_does_not_come_to_rest_is_evidence_and_stays_dirty() {
    let (_folder, state) = Folder::new("ignored");
    let mut machine = Machine::new();
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.ignores = Some(|step| {
        matches!(
            step,
            Step::Attribute {
                to: AttributeValue::Vlan(_),
                ..
            }
        )
    });
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("not at rest"), "{evidence:?}");
    assert_eq!(
        record(&state, &terms),
        (VfState::Dirty, Some("web".to_owned()))
    );
    machine.ignores = None;
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_driver_that_ignores_an_attribute_keeps_the_guest_from_starting() {
    let (_folder, state) = Folder::new("deaf");
    let mut machine = Machine::new();
    machine.ignores = Some(|step| matches!(step, Step::Attribute { .. }));
    let terms = nic_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    let report = take(&mut machine, &state, "web", &terms).unwrap_err();
    assert_eq!(report.id, ErrorId::StepNotDone);
}

/// A guest with a namespace that it gives another format.
fn reformatting(machine: &mut Machine, state: &State, terms: &LeaseTerms) {
    claim(state, "web", &holder(), terms).unwrap();
    take(machine, state, "web", terms).unwrap();
    bound(state, terms).unwrap();
    machine.nvme(|nvme| {
        let namespace = nvme.namespaces.get_mut(&2).unwrap();
        (namespace.size, namespace.block) = (15 << 20, 4096);
    });
}

#[test]
fn a_format_that_the_guest_has_changed_is_restored_whatever_is_erased() {
    for erase in [
        Eraser::Auto,
        Eraser::Format,
        Eraser::Overwrite,
        Eraser::None,
    ] {
        let (_folder, state) = Folder::new("format");
        let mut machine = Machine::new();
        let terms = LeaseTerms {
            erase,
            ..disk_terms()
        };
        reformatting(&mut machine, &state, &terms);
        let evidence = give(&mut machine, &state, &terms);
        assert_eq!(evidence, Vec::<String>::new(), "{erase:?}");
        let is = machine.nvme(|nvme| nvme.namespaces[&2].format());
        assert_eq!(is, terms.namespaces[0].format, "{erase:?}");
        assert_eq!(record(&state, &terms), (VfState::Clean, None));
        assert_eq!(machine.attached(2), Vec::<u16>::new());
    }
}

#[test]
fn a_format_that_cannot_be_restored_is_evidence() {
    for (can_format, ignores, says) in [
        (false, false, "nothing restores"),
        (true, true, "should have 16777216 bytes in blocks of 512"),
    ] {
        let (_folder, state) = Folder::new("unformatted");
        let mut machine = Machine::new();
        let terms = disk_terms();
        reformatting(&mut machine, &state, &terms);
        machine.nvme(|nvme| nvme.can.format = can_format);
        machine.ignores = ignores.then_some(|step| matches!(step, Step::Erase { .. }));
        let evidence = give(&mut machine, &state, &terms);
        assert!(evidence[0].contains(says), "{evidence:?}");
        assert!(evidence[0].contains("in blocks of 4096"), "{evidence:?}");
        assert_eq!(of_namespace(&state), NamespaceState::Sanitising);
    }
}

#[test]
fn a_namespace_in_another_format_than_declared_goes_to_no_guest() {
    let (_folder, state) = Folder::new("declared");
    let mut machine = Machine::new();
    let terms = disk_terms();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 4096);
    claim(&state, "web", &holder(), &terms).unwrap();
    let report = take(&mut machine, &state, "web", &terms).unwrap_err();
    assert!(report.why[0].contains("in blocks of 4096"), "{report:?}");
    // It was another's format also for one who is to keep it; what he has made of it later he has again.
    let kept = LeaseTerms {
        keep: true,
        ..terms
    };
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 512);
    assert_eq!(
        give(&mut machine, &state, &disk_terms()),
        Vec::<String>::new()
    );
    assert_eq!(run(&mut machine, &state, &kept), Vec::<String>::new());
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 4096);
    claim(&state, "web", &holder(), &kept).unwrap();
    take(&mut machine, &state, "web", &kept).unwrap();
}

#[test]
fn a_namespace_whose_erase_fails_or_was_cut_off_is_not_left_to_the_host() {
    let (_folder, state) = Folder::new("half-erased");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.fails = Some(|step| matches!(step, Step::Erase { .. }));
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("not erased"), "{evidence:?}");
    assert_eq!(machine.attached(2), Vec::<u16>::new());
    // Killed in the middle of it: the primary controller has it.
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().attached = [0].into());
    machine.fails = None;
    let kept = LeaseTerms {
        erase: Eraser::None,
        ..terms
    };
    assert_eq!(give(&mut machine, &state, &kept), Vec::<String>::new());
    assert_eq!(machine.attached(2), Vec::<u16>::new());
    assert_eq!(record(&state, &kept), (VfState::Clean, None));
}

fn dirty(state: &State, nsid: u32, guest: Option<&str>) {
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

fn records(machine: &mut Machine, state: &State, boot: &str) -> crate::sriov::Records {
    let mut observed = machine.observe().unwrap();
    boot.clone_into(&mut observed.boot);
    state.records(&observed).unwrap()
}

#[test]
fn a_dirty_namespace_goes_to_nobody_not_even_to_one_of_its_last_guests_name() {
    let (_folder, state) = Folder::new("foreign-data");
    dirty(&state, 2, Some("db"));
    for guest in ["web", "db"] {
        let report = claim(&state, guest, &holder(), &disk_terms()).unwrap_err();
        assert_eq!(report.id, ErrorId::RecoverNeeded);
        assert!(report.why[0].contains("db"), "{report:?}");
    }
}

#[test]
fn a_dirty_namespace_that_is_nobodys_is_erased_by_its_record() {
    let (_folder, state) = Folder::new("ownerless");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    dirty(&state, 2, None);
    machine.nvme(|nvme| nvme.namespaces.get_mut(&1).unwrap().attached.clear());
    let kept = LeaseTerms {
        namespaces: vec![LeasedNamespace {
            nsid: 1,
            ..disk_terms().namespaces[0].clone()
        }],
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &kept), Vec::<String>::new());
    let told = erase_ownerless(&mut machine, &state, true, &mut |_| {}).unwrap();
    assert_eq!((told.0.len(), machine.erased.borrow().len()), (1, 0));
    let (steps, left) = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert_eq!((steps, left), (told.0, Vec::new()));
    assert_eq!(*machine.erased.borrow(), [2], "and not what a guest keeps");
    let again = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert_eq!(again, (Vec::new(), Vec::new()));
    assert_eq!(of_namespace(&state), NamespaceState::Clean);
}

#[test]
fn what_is_on_a_namespace_of_another_stays_dirty_when_a_vf_is_returned() {
    let (_folder, state) = Folder::new("anothers");
    let mut machine = Machine::new();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    dirty(&state, 1, Some("db"));
    let returned = return_lease(&mut machine, &state, terms.vf, &mut |_| {});
    assert_eq!(returned, Ok("web".to_owned()));
    assert_eq!(*machine.erased.borrow(), [2], "what the lease has");
    let records = records(&mut machine, &state, "boot");
    let one = &records.pfs[&disk()].namespaces[&1];
    assert_eq!(one.state, NamespaceState::Dirty);
}

/// A guest that has kept its data is started to keep it no more, and does not come so far as to run.
#[test]
fn a_start_that_fails_costs_a_guest_nothing_that_it_keeps() {
    let (_folder, state) = Folder::new("failed-start");
    let mut machine = Machine::new();
    let kept = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &kept), Vec::<String>::new());
    // It has formatted what it keeps.
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().block = 4096);
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert!(machine.erased.borrow().is_empty());
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
    // Once it has run it is as it wished.
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn what_one_has_alone_is_not_shared_and_what_was_shared_is_not_one_s_alone() {
    let (_folder, state) = Folder::new("shared");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().is_shared = true);
    let of = |index: u32, is_shared| {
        let mut terms = disk_terms();
        terms.namespaces[0].is_shared = is_shared;
        if index > 0 {
            (terms.vf, terms.index, terms.cntlid) = (bdf("0000:02:00.2"), index, Some(2));
        }
        terms
    };
    let second = |records: &mut PfRecords| {
        records.step(1, bdf("0000:02:00.2"), Event::Created, "t")?;
        records.step(1, bdf("0000:02:00.2"), Event::ResetSeen, "t")
    };
    let (pf, anchor) = (disk(), Anchor::Slot(disk()));
    state.change_pf(pf, &anchor, second).unwrap();
    claim(&state, "web", &holder(), &of(0, false)).unwrap();
    take(&mut machine, &state, "web", &of(0, false)).unwrap();
    let refused = claim(&state, "db", &holder(), &of(1, true)).unwrap_err();
    assert_eq!(refused.id, ErrorId::LeaseForeign);
    assert_eq!(
        give(&mut machine, &state, &of(0, false)),
        Vec::<String>::new()
    );
    // Both share it, and leave it: it is nobody's to erase, and nobody's alone.
    claim(&state, "web", &holder(), &of(0, true)).unwrap();
    take(&mut machine, &state, "web", &of(0, true)).unwrap();
    check_free(&state, "db", "boot", &of(1, true)).unwrap();
    let refused = check_free(&state, "db", "boot", &of(1, false)).unwrap_err();
    assert_eq!(refused.id, ErrorId::LeaseForeign);
    assert_eq!(
        give(&mut machine, &state, &of(0, true)),
        Vec::<String>::new()
    );
    let erased = machine.erased.borrow().len();
    let left = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert_eq!(
        (left, machine.erased.borrow().len()),
        ((vec![], vec![]), erased)
    );
    check_free(&state, "db", "boot", &of(1, true)).unwrap();
    let refused = check_free(&state, "db", "boot", &of(1, false)).unwrap_err();
    assert_eq!(refused.id, ErrorId::RecoverNeeded);
}

#[test]
fn what_is_nobodys_is_not_taken_from_a_controller_that_runs() {
    let (_folder, state) = Folder::new("busy");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    dirty(&state, 1, None);
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&1).unwrap().attached = [1].into());
    let (_, left) = erase_ownerless(&mut machine, &state, false, &mut |_| {}).unwrap();
    assert!(left[0].why[0].contains("controller 1"), "{left:?}");
    assert!(machine.erased.borrow().is_empty());
}

/// While one recovery erases, another finishes the next VF on its list, and a guest has it since.
#[test]
fn a_recovery_finishes_nothing_that_was_given_away_since_it_looked() {
    let (_folder, state) = Folder::new("stale");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let kept = LeaseTerms {
        keep: true,
        ..terms.clone()
    };
    let nic = nic_terms();
    claim(&state, "first", &holder(), &nic).unwrap();
    let mut finished = 0;
    finish_leases(&mut machine, &state, false, &mut |_, one| {
        finished += 1;
        assert_eq!(one.pf, nic.pf, "the second was finished by another");
        let mut other = Machine::new();
        other.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().attached = [1].into());
        assert_eq!(give(&mut other, &state, &terms), Vec::<String>::new());
        assert_eq!(run(&mut other, &state, &kept), Vec::<String>::new());
        Vec::new()
    })
    .unwrap();
    assert_eq!(finished, 1);
    assert_eq!(
        record(&state, &terms),
        (VfState::Leased, Some("web".to_owned()))
    );
}

#[test]
fn a_namespace_that_was_attached_before_is_erased_too() {
    let (_folder, state) = Folder::new("attached");
    let mut machine = Machine::new();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().attached = [1].into());
    assert_eq!(
        run(&mut machine, &state, &disk_terms()),
        Vec::<String>::new()
    );
    assert_eq!(*machine.erased.borrow(), [2]);
}

#[test]
fn a_namespace_that_another_controller_has_is_leased_only_as_shared() {
    let mut machine = Machine::new();
    machine.nvme(|nvme| {
        let namespace = nvme.namespaces.get_mut(&2).unwrap();
        (namespace.is_shared, namespace.attached) = (true, [5].into());
    });
    let mut terms = disk_terms();
    let why = to_leased(&terms, &machine.observe().unwrap()).unwrap_err();
    assert!(why.contains("controller 5"), "{why}");
    terms.namespaces[0].is_shared = true;
    assert!(to_leased(&terms, &machine.observe().unwrap()).is_ok());
}

#[test]
fn what_a_controller_does_not_tell_is_neither_leased_nor_at_rest() {
    let (_folder, state) = Folder::new("unread");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let one = Unread {
        place: "dev/nvme0".to_owned(),
        reason: "CNS 12h of namespace 2: 0/84".to_owned(),
        bdf: Some(disk()),
    };
    machine.observed.borrow_mut().unread.push(one);
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("does not tell all"), "{evidence:?}");
    assert_eq!(record(&state, &terms).0, VfState::Dirty);
    let refused = take(&mut machine, &state, "web", &terms).unwrap_err();
    assert!(refused.why[0].contains("0/84"), "{refused:?}");
    machine.observed.borrow_mut().unread.clear();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
}

/// The power is cut while the guest runs, and the next boot's apply makes the VFs again before anybody recovers.
#[test]
fn what_is_owed_to_the_next_guest_outlives_an_apply_after_a_reboot() {
    let (_folder, state) = Folder::new("owed");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let remade = |records: &mut PfRecords| {
        records.enter("next", true, "t");
        for event in [Event::Gone, Event::Created, Event::ResetSeen] {
            records.step(0, terms.vf, event, "t")?;
        }
        Ok(())
    };
    state.change_pf(disk(), &terms.anchor, remade).unwrap();
    assert_eq!(
        record(&state, &terms),
        (VfState::Clean, Some("web".to_owned()))
    );
    let later = Holder {
        boot: "next".to_owned(),
        ..holder()
    };
    for guest in ["web", "db"] {
        claim(&state, guest, &later, &terms).unwrap_err();
    }
    machine.observed.borrow_mut().boot = "next".to_owned();
    let found = unfinished(&records(&mut machine, &state, "next"), &|_| false);
    let evidence = finish(&mut machine, &state, &found[0], true, &mut |_| {}).unwrap();
    assert_eq!(evidence, Vec::<String>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
    assert_eq!(
        unfinished(&records(&mut machine, &state, "next"), &|_| false),
        []
    );
}

#[test]
fn a_kept_lease_is_returned_in_whichever_state_another_boot_has_left_its_vf() {
    let created = [Event::Created].as_slice();
    let clean = [Event::Created, Event::ResetSeen].as_slice();
    let failed = [Event::Created, Event::Failed].as_slice();
    for events in [&[], created, clean, failed] {
        let (_folder, state) = Folder::new("kept-boot");
        let mut machine = Machine::new();
        machine.observed.borrow_mut().boot = "next".to_owned();
        let terms = LeaseTerms {
            keep: true,
            ..disk_terms()
        };
        assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
        let remade = |records: &mut PfRecords| {
            records.enter("next", true, "t");
            for event in events {
                records.step(0, terms.vf, *event, "t")?;
            }
            Ok(())
        };
        state.change_pf(disk(), &terms.anchor, remade).unwrap();
        let returned = return_lease(&mut machine, &state, terms.vf, &mut |_| {});
        assert_eq!(returned, Ok("web".to_owned()), "{events:?}");
        assert_eq!(*machine.erased.borrow(), [2], "{events:?}");
        assert_eq!(record(&state, &terms), (VfState::Clean, None), "{events:?}");
    }
}

/// The record says that it ends before anything is done for that.
#[test]
fn the_return_of_a_kept_lease_that_was_cut_off_is_finished() {
    let (_folder, state) = Folder::new("cut-return");
    let mut machine = Machine::new();
    machine.observed.borrow_mut().boot = "boot".to_owned();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    machine.fails = Some(|step| matches!(step, Step::Erase { .. }));
    return_lease(&mut machine, &state, terms.vf, &mut |_| {}).unwrap_err();
    machine.fails = None;
    let found = unfinished(&records(&mut machine, &state, "boot"), &|_| false);
    let evidence = finish(&mut machine, &state, &found[0], true, &mut |_| {}).unwrap();
    assert_eq!(evidence, Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn a_kept_vf_with_other_namespaces_than_its_guest_keeps_is_not_leased() {
    let (_folder, state) = Folder::new("moved");
    let mut machine = Machine::new();
    let terms = LeaseTerms {
        keep: true,
        ..disk_terms()
    };
    assert_eq!(run(&mut machine, &state, &terms), Vec::<String>::new());
    let mut moved = terms.clone();
    moved.namespaces[0].nsid = 1;
    let refused = claim(&state, "web", &holder(), &moved).unwrap_err();
    assert_eq!(refused.id, ErrorId::LeaseForeign);
    assert!(refused.why[0].contains("namespace 2"), "{refused:?}");
}

#[test]
fn an_address_that_a_guest_has_set_is_not_there_for_the_next() {
    let (_folder, state) = Folder::new("no-mac");
    let mut machine = Machine::new();
    machine.set(AttributeValue::Mac(None));
    let mut terms = LeaseTerms {
        no_mac: true,
        ..nic_terms()
    };
    (terms.rest.mac, terms.leased.mac) = (None, None);
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    let own = Some("02:de:ad:be:ef:01".parse().unwrap());
    machine.set(AttributeValue::Mac(own));
    let verified = |tenancy| {
        let observed = machine.observed.borrow().clone();
        crate::vf::verify(|| Ok(observed), [&terms], tenancy)
    };
    verified(crate::vf::Tenancy::Begins).unwrap_err();
    verified(crate::vf::Tenancy::GoesOn).unwrap();
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(machine.vf().mac, None);
    // A driver that takes no address away: it is in quarantine.
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    machine.set(AttributeValue::Mac(own));
    machine.fails = Some(|step| matches!(step, Step::Attribute { .. }));
    let evidence = give(&mut machine, &state, &terms);
    assert!(evidence[0].contains("not at rest"), "{evidence:?}");
}

#[test]
fn a_format_with_metadata_is_another_format() {
    let (_folder, state) = Folder::new("metadata");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.nvme(|nvme| nvme.namespaces.get_mut(&2).unwrap().metadata = 8);
    let none = LeaseTerms {
        erase: Eraser::None,
        ..terms.clone()
    };
    assert_eq!(give(&mut machine, &state, &none), Vec::<String>::new());
    assert_eq!(*machine.erased.borrow(), [2]);
    let is = machine.nvme(|nvme| nvme.namespaces[&2].format());
    assert_eq!(is, terms.namespaces[0].format);
}

#[test]
fn a_namespace_that_is_gone_keeps_nobody_from_its_vf() {
    let (_folder, state) = Folder::new("deleted");
    let mut machine = Machine::new();
    let terms = disk_terms();
    claim(&state, "web", &holder(), &terms).unwrap();
    take(&mut machine, &state, "web", &terms).unwrap();
    bound(&state, &terms).unwrap();
    machine.nvme(|nvme| nvme.namespaces.remove(&2));
    assert_eq!(give(&mut machine, &state, &terms), Vec::<String>::new());
    assert_eq!(record(&state, &terms), (VfState::Clean, None));
}

#[test]
fn after_a_reboot_namespaces_are_erased_and_leases_end_unless_they_are_kept() {
    let (_folder, state) = Folder::new("boot");
    for (terms, is_erased) in [
        (disk_terms(), true),
        (
            LeaseTerms {
                keep: true,
                ..disk_terms()
            },
            false,
        ),
    ] {
        let mut machine = Machine::new();
        claim(&state, "web", &holder(), &terms).unwrap();
        take(&mut machine, &state, "web", &terms).unwrap();
        bound(&state, &terms).unwrap();
        // The power is cut: no VF, and the drive has kept what was attached.
        machine
            .observed
            .borrow_mut()
            .pfs
            .get_mut(&disk())
            .unwrap()
            .vfs
            .clear();
        let again = |machine: &mut Machine| {
            give_back_gone(machine, &state, "web", "next", &terms, &mut |_| {})
        };
        assert_eq!(again(&mut machine), Vec::<String>::new());
        assert_eq!(
            *machine.erased.borrow(),
            if is_erased { vec![2] } else { vec![] }
        );
        let lease = (!is_erased).then(|| "web".to_owned());
        assert_eq!(record(&state, &terms), (VfState::Absent, lease));
        assert_eq!(again(&mut machine), Vec::<String>::new(), "twice");
        assert!(machine.erased.borrow().len() <= 1);
        let clean = |records: &mut PfRecords| {
            "boot".clone_into(&mut records.boot);
            records.vfs.get_mut(&0).unwrap().state = VfState::Clean;
            Ok(())
        };
        state.change_pf(terms.pf, &terms.anchor, clean).unwrap();
    }
}
