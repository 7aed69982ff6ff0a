//! A machine with a NIC and an NVMe controller, a planner for it, and hands that die.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use iommu::{bdf::Bdf, topology::Mac};

use super::{Applied, Job, Planned, Shown, Verb, apply::run};
use crate::{
    error::Report,
    spec::host::Eraser,
    sriov::{
        Anchor, AttributeValue, Desired, DesiredNamespace, DesiredPf, DesiredVf, Flexible, Hands,
        HostPlan, KindFacts, NicAttributes, NicFacts, NvmeCan, NvmeFacts, Observed, Percent,
        PfFacts, Records, Resource, ResourceKind, Secondary, Seen, Step, StepFault, VfState,
        WithoutMac, model::Machine,
    },
    state::State,
};

pub(super) const NIC: &str = "0000:01:00.0";
pub(super) const NVME: &str = "0000:02:00.0";

pub(super) fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// A state folder of its own for each test, removed at the end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        Self::within(&std::env::temp_dir(), name)
    }

    pub(super) fn within(place: &Path, name: &str) -> Self {
        let folder = place.join(format!("narrows-vf-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub(super) fn state(&self) -> State {
        State::new(self.0.join("state"))
    }

    pub(super) fn journals(&self) -> usize {
        let entries = fs::read_dir(self.0.join("state/journal"));
        entries.map_or(0, |entries| {
            entries
                .filter(|entry| {
                    let name = entry.as_ref().unwrap().file_name();
                    !name.to_string_lossy().starts_with('.')
                })
                .count()
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn pf(bdf: Bdf, anchor: Anchor, kind: KindFacts) -> PfFacts {
    PfFacts {
        bdf,
        anchor,
        vendor: 0x8086,
        device: 0x10c9,
        driver: None,
        numa: None,
        root: "pci0000:00".to_owned(),
        total: 7,
        count: 0,
        is_probed: Some(true),
        group: Some(1),
        kind,
        vfs: Vec::new(),
    }
}

/// A host in the state of its boot.
pub(super) fn machine() -> Machine {
    let mac: Mac = "52:54:00:11:22:33".parse().unwrap();
    let nic = NicFacts {
        interface: Some("eth0".to_owned()),
        port: Some(0),
        is_up: false,
        has_carrier: false,
        link: None,
        eswitch: None,
        address: Some(mac),
    };
    let resource = |total, private| Resource {
        total,
        assigned: 0,
        to_primary: 0,
        private,
        most: 4,
        granularity: 1,
    };
    let nvme = NvmeFacts {
        controller: "nvme0".to_owned(),
        cntlid: 0,
        serial: "one".to_owned(),
        model: "drive".to_owned(),
        subnqn: String::new(),
        capacity: 1 << 40,
        unallocated: 1 << 40,
        can: NvmeCan {
            manage: true,
            attach: true,
            virt: true,
            format: true,
            ..NvmeCan::default()
        },
        flexible: Some(Flexible {
            vq: resource(28, 3),
            vi: resource(14, 17),
        }),
        secondaries: (1..=7)
            .map(|cntlid| Secondary {
                cntlid,
                vf: 0,
                is_online: false,
                queues: 0,
                vectors: 0,
            })
            .collect(),
        namespaces: BTreeMap::new(),
    };
    let (one, two) = (bdf(NIC), bdf(NVME));
    let pfs = [
        (one, pf(one, Anchor::Mac(mac), KindFacts::Nic(nic))),
        (
            two,
            pf(two, Anchor::Serial("one".to_owned()), KindFacts::Nvme(nvme)),
        ),
    ];
    Machine::new(Observed {
        pfs: pfs.into_iter().collect(),
        boot: "boot-1".to_owned(),
        ..Observed::default()
    })
}

fn mac_of(index: u32, generation: u8) -> Mac {
    format!("02:4e:57:00:{generation:02x}:{index:02x}")
        .parse()
        .unwrap()
}

/// A planner that knows just these two PFs: `count` VFs of each, MACs of a generation, a namespace.
pub(super) fn planner(
    count: u32,
    generation: u8,
) -> impl Fn(&Observed, &Records) -> Result<Planned, Vec<Report>> {
    move |observed, records| {
        let mut planned = Planned::default();
        for (pf, facts) in &observed.pfs {
            let steps = &mut planned.plan.steps;
            counted(steps, facts, count);
            let namespaces = match facts.nvme() {
                None => {
                    nic(steps, facts, count, generation);
                    Vec::new()
                }
                Some(nvme) => nvme_steps(steps, facts, nvme, count, records),
            };
            for index in 0..count {
                let is_clean = |state| !matches!(state, VfState::Absent | VfState::Created);
                let record = records.vf(*pf, index);
                if facts.count != count || record.is_none_or(|vf| !is_clean(vf.state)) {
                    let (pf, vf) = (*pf, None);
                    steps.push(Step::Reset { pf, index, vf });
                }
            }
            let wanted = wanted(facts, count, generation, namespaces);
            planned.desired.pfs.insert(*pf, wanted);
        }
        Ok(planned)
    }
}

fn counted(steps: &mut Vec<Step>, facts: &PfFacts, count: u32) {
    let (pf, is_nic) = (facts.bdf, facts.nic().is_some());
    let interface = is_nic.then(|| "eth0".to_owned());
    if count > 0 && facts.is_probed == Some(true) {
        let (from, to) = (true, false);
        steps.push(Step::Autoprobe { pf, from, to });
    }
    if facts.count == count {
        return;
    }
    if facts.count > 0 {
        let snapshot = facts.vfs.iter().filter_map(|vf| vf.nic).collect();
        steps.push(Step::Destroy {
            pf,
            count: facts.count,
            snapshot,
            interface: interface.clone(),
            drive: None,
        });
    }
    if count > 0 {
        let snapshot = Vec::new();
        steps.push(Step::Create {
            pf,
            count,
            snapshot,
            interface,
        });
    }
}

fn nic(steps: &mut Vec<Step>, facts: &PfFacts, count: u32, generation: u8) {
    if let Some(nic) = facts.nic()
        && !nic.is_up
        && count > 0
    {
        let (interface, up) = ("eth0".to_owned(), true);
        let pf = facts.bdf;
        steps.insert(0, Step::Link { pf, interface, up });
    }
    for index in 0..count {
        let was = facts.vfs.iter().find(|vf| vf.index == index);
        let was = was.filter(|_| facts.count == count);
        let from = was.map(|vf| AttributeValue::Mac(vf.nic.unwrap().mac));
        let to = AttributeValue::Mac(Some(mac_of(index, generation)));
        if from != Some(to) {
            steps.push(Step::Attribute {
                pf: facts.bdf,
                interface: "eth0".to_owned(),
                index,
                from,
                to,
                stays: false,
            });
        }
    }
}

fn nvme_steps(
    steps: &mut Vec<Step>,
    facts: &PfFacts,
    nvme: &NvmeFacts,
    count: u32,
    records: &Records,
) -> Vec<DesiredNamespace> {
    let pf = facts.bdf;
    let controller = || "nvme0".to_owned();
    for one in nvme.secondaries.iter().take(count as usize) {
        let cntlid = one.cntlid;
        if one.is_online && facts.count == count {
            continue;
        }
        for resource in [ResourceKind::Vectors, ResourceKind::Queues] {
            steps.push(Step::Assign {
                pf,
                controller: controller(),
                cntlid,
                resource,
                from: 0,
                to: 2,
            });
        }
        steps.push(Step::Online {
            pf,
            controller: controller(),
            cntlid,
        });
    }
    if count == 0 {
        return Vec::new();
    }
    let known = records.pfs.get(&pf).and_then(|kept| {
        let mut all = kept.namespaces.iter();
        all.find(|(_, record)| record.name == "a")
            .map(|(id, _)| *id)
    });
    if known.is_none() {
        steps.push(Step::NamespaceCreate {
            pf,
            controller: controller(),
            name: "a".to_owned(),
            size: 1 << 20,
            block: 512,
            shared: false,
        });
    }
    vec![DesiredNamespace {
        name: "a".to_owned(),
        nsid: known,
        size: Some(1 << 20),
        block: Some(512),
        is_shared: false,
        vfs: vec![0],
    }]
}

fn wanted(
    facts: &PfFacts,
    count: u32,
    generation: u8,
    namespaces: Vec<DesiredNamespace>,
) -> DesiredPf {
    let vf = |index| DesiredVf {
        index,
        pool: Some("pool".to_owned()),
        rest: NicAttributes {
            mac: facts.nic().map(|_| mac_of(index, generation)),
            ..NicAttributes::default()
        },
        without_mac: WithoutMac::default(),
        leased: NicAttributes::default(),
        resources: None,
        namespaces: Vec::new(),
        erase: Eraser::Auto,
        accept: Vec::new(),
    };
    DesiredPf {
        bdf: facts.bdf,
        place: None,
        profile: "test".to_owned(),
        count,
        up: true,
        is_probed: Some(false),
        adopt: false,
        eswitch: None,
        accept: Vec::new(),
        vfs: (0..count).map(vf).collect(),
        namespaces,
        restored: None,
    }
}

/// What a test asks for.
pub(super) struct Ask<'a> {
    pub(super) count: u32,
    pub(super) generation: u8,
    pub(super) verb: Verb,
    pub(super) shown: Option<Shown<'a>>,
    pub(super) stop_after: Option<usize>,
}

impl Ask<'_> {
    pub(super) fn of(count: u32, generation: u8) -> Self {
        Self {
            count,
            generation,
            verb: Verb::Apply,
            shown: None,
            stop_after: None,
        }
    }

    pub(super) fn run(self, hands: &mut dyn Hands, state: &State) -> Result<Applied, Vec<Report>> {
        let asked = Cell::new(0);
        let is_stopped = || {
            asked.set(asked.get() + 1);
            self.stop_after.is_some_and(|after| asked.get() > after)
        };
        let job = Job {
            planner: &planner(self.count, self.generation),
            shown: self.shown,
            verb: self.verb,
            file: (self.verb == Verb::Apply).then_some((Path::new("host.toml"), "text")),
            is_stopped: &is_stopped,
        };
        run(hands, state, &job, &mut |_| {})
    }
}

pub(super) fn plan(machine: &mut Machine, state: &State, count: u32, generation: u8) -> HostPlan {
    let observed = machine.observe().unwrap();
    let records = state.records(&observed).unwrap();
    planner(count, generation)(&observed, &records)
        .unwrap()
        .plan
}

pub(super) fn desired(machine: &mut Machine, state: &State, count: u32) -> Desired {
    let observed = machine.observe().unwrap();
    let records = state.records(&observed).unwrap();
    planner(count, 0)(&observed, &records).unwrap().desired
}

/// Where hands die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dies {
    /// Before the step of this number, from 0.
    Before(usize),
    /// After it.
    After(usize),
}

/// Hands whose process dies at a step: nothing of it goes on, and its locks are gone.
pub(super) struct Mortal<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) dies: Dies,
    pub(super) steps: usize,
}

impl Hands for Mortal<'_> {
    fn carry_out(
        &mut self,
        step: &Step,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<Seen, StepFault> {
        let this = self.steps;
        self.steps += 1;
        assert_ne!(self.dies, Dies::Before(this), "dies here");
        let seen = self.machine.carry_out(step, progress);
        assert_ne!(self.dies, Dies::After(this), "dies here");
        seen
    }

    fn observe(&mut self) -> Result<Observed, Report> {
        self.machine.observe()
    }
}

/// Runs until the hands die; whether they did.
pub(super) fn die(machine: &mut Machine, state: &State, ask: Ask<'_>, dies: Dies) -> bool {
    let mut hands = Mortal {
        machine,
        dies,
        steps: 0,
    };
    let run = std::panic::AssertUnwindSafe(|| ask.run(&mut hands, state).unwrap());
    std::panic::catch_unwind(run).is_err()
}

pub(super) fn ids(reports: &[Report]) -> BTreeSet<&'static str> {
    reports.iter().map(|report| report.id.name()).collect()
}
