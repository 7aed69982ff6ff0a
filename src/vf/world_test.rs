//! A host with guests that begin, end, are killed, and die half way, under host files that change and boots that end: what
//! `narrows run`, `recover`, `vf return` and `host apply` do with VFs, on the machine of the models, with the records of a
//! real state folder.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use iommu::{
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    fake::FakeHost,
    sysfs::SysRoot,
};

use super::{
    Job, Verb,
    cuts_test::{file, host, parsed},
    finish_leases,
    lease::{bound, claim, erase_ownerless, finish, give_back, give_back_gone, return_lease, take},
    machine_test::{Dies, Folder, Mortal, NIC, NVME, bdf},
    planning, recover_host, run,
};
use crate::{
    spec::{
        PoolWish,
        host::{HostSpec, Profiles},
    },
    sriov::{
        Hands as _, Holder, KindFacts, LeaseTerms, NvmeFacts, PoolsView, candidates, desired,
        model::Machine,
    },
    state::{Changes, Identity, InUse, Journal, Left, ProcessId, State, Taken},
};

/// No process has this id.
const NOBODY: ProcessId = ProcessId {
    pid: (1 << 22) + 1,
    start: 1,
};

/// A guest with a VF, as the process that runs it knows it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) guest: String,
    pub(super) terms: LeaseTerms,
    boot: String,
    /// `None` once its process is gone.
    pub(super) lock: Option<InUse>,
    /// What it is about to change: a file, until all is given back.
    journal: Journal,
}

impl Run {
    /// Its process is gone, and its journal is there.
    fn dies(&mut self) {
        self.lock = None;
        self.journal
            .update(|changes| changes.owner = NOBODY)
            .unwrap();
    }
}

/// The host.
pub(super) struct World {
    folder: Folder,
    pub(super) state: State,
    pub(super) machine: Machine,
    /// The file that was applied last.
    spec: HostSpec,
    profiles: Profiles,
    pub(super) runs: Vec<Run>,
    /// The terms that were on each lease when it was claimed.
    pub(super) granted: BTreeMap<(Bdf, u32), LeaseTerms>,
    /// How many leases there were: each is another tenancy.
    tenancies: u32,
    /// The tenancy of each lease on record.
    pub(super) tenants: BTreeMap<(Bdf, u32), String>,
    boots: u32,
    /// That file's number.
    pub(super) number: u8,
}

/// What has been found wrong.
pub(super) type Verdict = Result<(), String>;

impl World {
    /// A host to which the file of this number was applied.
    pub(super) fn new(name: &str, number: u8) -> Self {
        // Each change of a record is synced, which a disk takes its time for.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => Folder::within(memory, name),
            false => Folder::new(name),
        };
        let mut world = Self {
            state: folder.state(),
            folder,
            machine: host(),
            spec: parsed(&file(number)),
            profiles: Profiles::built_in(),
            runs: Vec::new(),
            granted: BTreeMap::new(),
            tenancies: 0,
            tenants: BTreeMap::new(),
            boots: 0,
            number,
        };
        world.apply(number, None);
        assert_eq!(world.machine.now.pfs[&bdf(NIC)].count, 3);
        world
    }

    /// Does `work` with hands that die at a step; `None` where they did.
    fn with<T>(
        machine: &mut Machine,
        dies: Option<Dies>,
        work: impl FnOnce(&mut Mortal<'_>) -> T,
    ) -> Option<T> {
        let dies = dies.unwrap_or(Dies::Before(usize::MAX));
        let mut hands = Mortal {
            machine,
            dies,
            steps: 0,
        };
        catch_unwind(AssertUnwindSafe(|| work(&mut hands))).ok()
    }

    /// `narrows host apply`: with this file from now on, unless it is refused.
    pub(super) fn apply(&mut self, number: u8, dies: Option<Dies>) {
        let text = file(number);
        let spec = parsed(&text);
        let planner = planning(&spec, &self.profiles);
        let job = Job {
            planner: &planner,
            shown: None,
            verb: Verb::Apply,
            file: Some((Path::new("host.toml"), &text)),
            is_stopped: &|| false,
        };
        let state = &self.state;
        let applied = Self::with(&mut self.machine, dies, |hands| {
            run(hands, state, &job, &mut |_| {})
        });
        if matches!(applied, Some(Ok(_))) {
            self.spec = parsed(&text);
            self.number = number;
        }
    }

    /// Asks `f` with what the host is, as the verbs read it.
    fn view<T>(&mut self, f: impl FnOnce(&PoolsView<'_>) -> T) -> Option<T> {
        let observed = self.machine.observe().ok()?;
        let records = self.state.records(&observed).ok()?;
        let desired = desired(&self.spec, &observed, &records, &self.profiles).ok()?;
        // Whose journal is there is not to be had before `recover`.
        let dead = self.runs.iter().filter(|run| run.lock.is_none());
        let withheld = dead
            .map(|run| (run.terms.vf, "it is not recovered".to_owned()))
            .collect();
        Some(f(&PoolsView {
            spec: &self.spec,
            desired: &desired,
            observed: &observed,
            records: &records,
            withheld: &withheld,
        }))
    }

    /// `narrows run`, up to the guest's first instruction. The steps of it count for `dies`.
    pub(super) fn start(
        &mut self,
        guest: &str,
        pool: &str,
        keep: bool,
        dies: Option<Dies>,
    ) -> Verdict {
        // Its name is taken, or its journal is there; or that of an apply, which is about all VFs here.
        if self.runs.iter().any(|run| run.guest == guest) || self.has_dead_apply() {
            return Ok(());
        }
        let wish = PoolWish {
            pool: pool.to_owned(),
            numa: None,
            home: None,
            min_link: None,
            keep,
        };
        let found = self.view(|view| candidates(guest, &wish, view, &[].into()));
        let Some(terms) = found
            .and_then(Result::ok)
            .and_then(|all| all.into_iter().next())
        else {
            return Ok(());
        };
        let Ok(lock) = InUse::take(&self.state, terms.vf, guest) else {
            return Ok(());
        };
        let (pf, index) = (terms.pf, terms.index);
        let had = self.lease_of(pf, index);
        let holder = Holder {
            pid: NOBODY.pid,
            start: NOBODY.start,
            boot: self.machine.now.boot.clone(),
        };
        if claim(&self.state, guest, &holder, &terms).is_err() {
            return Ok(());
        }
        if let Some(run) = self.runs.iter().find(|run| run.terms.vf == terms.vf) {
            return Err(format!(
                "{guest} has claimed {}, which {} has",
                terms.vf, run.guest
            ));
        }
        if had.is_none() {
            self.tenancies += 1;
            let tenant = format!("{guest}, lease {}", self.tenancies);
            self.tenants.insert((pf, index), tenant);
        }
        self.granted.insert((pf, index), terms.clone());
        if dies == Some(Dies::Before(0)) {
            // The journal is written after the claim.
            return Ok(());
        }
        let journal = self.journal(guest, &terms);
        let state = &self.state;
        let taken = Self::with(&mut self.machine, dies, |hands| {
            take(hands, state, guest, &terms)
        });
        let mut run = Run {
            guest: guest.to_owned(),
            boot: self.machine.now.boot.clone(),
            terms,
            lock: Some(lock),
            journal,
        };
        match taken {
            None => {
                run.dies();
                self.runs.push(run);
            }
            Some(Err(_)) => self.end(run, None),
            Some(Ok(())) => {
                bound(&self.state, &run.terms).map_err(|report| report.to_string())?;
                self.runs.push(run);
                self.first_instruction(guest)?;
                self.is_used(guest);
            }
        }
        Ok(())
    }

    /// Written down by this process, which is alive.
    fn journal(&self, guest: &str, terms: &LeaseTerms) -> Journal {
        let (pf, vf) = (terms.pf.to_string(), terms.vf.to_string());
        let place = self.folder.0.join("root");
        fs::remove_dir_all(&place).ok();
        let fake = FakeHost::new(place);
        let root = fake.pf(&pf, 12).vf(&vf, &pf, 13).write().unwrap();
        let taken = Taken {
            binding: Binding::plan(&root, terms.vf, VFIO_PCI).unwrap(),
            device: Identity::default(),
            before: None,
            lease: Some(terms.clone()),
        };
        let real = SysRoot::default();
        let owner = ProcessId::of(&real, std::process::id()).unwrap().unwrap();
        let boot = real.read_text("proc/sys/kernel/random/boot_id").unwrap();
        let changes = Changes::new(guest, owner, boot, vec![taken], None);
        Journal::begin(&self.state, changes).unwrap()
    }

    fn has_dead_apply(&self) -> bool {
        let nowhere = SysRoot::new("/nonexistent");
        let left = self.state.left_behind(&nowhere).unwrap_or_default();
        left.iter().any(|left| matches!(left, Left::Host(_)))
    }

    pub(super) fn lease_of(&self, pf: Bdf, index: u32) -> Option<String> {
        let records = self.state.records(&self.machine.now).ok()?;
        let lease = records.vf(pf, index)?.lease.clone()?;
        Some(lease.guest)
    }

    pub(super) fn nvme(&mut self) -> &mut NvmeFacts {
        match &mut self.machine.now.pfs.get_mut(&bdf(NVME)).unwrap().kind {
            KindFacts::Nvme(nvme) => nvme,
            KindFacts::Nic(_) | KindFacts::Other => panic!("no NVMe"),
        }
    }

    /// The guest ends by itself; the run gives its VF back, as long as it lives.
    pub(super) fn stop(&mut self, guest: &str, dies: Option<Dies>) {
        let is_it = |run: &Run| run.guest == guest && run.lock.is_some();
        if let Some(at) = self.runs.iter().position(is_it) {
            let run = self.runs.remove(at);
            self.end(run, dies);
        }
    }

    fn end(&mut self, mut run: Run, dies: Option<Dies>) {
        let state = &self.state;
        let returned = Self::with(&mut self.machine, dies, |hands| {
            give_back(hands, state, &run.guest, &run.terms, &mut |_| {})
        });
        if returned.is_some() {
            run.journal.remove().unwrap();
        } else {
            run.dies();
            self.runs.push(run);
        }
    }

    /// The run's processes are killed; its journal is there.
    pub(super) fn kill(&mut self, guest: &str) {
        for run in self.runs.iter_mut().filter(|run| run.guest == guest) {
            run.dies();
        }
    }

    /// The machine is switched off. Some drives keep what is attached to what.
    pub(super) fn reboot(&mut self, forgets: bool) {
        self.boots += 1;
        self.runs.iter_mut().for_each(Run::dies);
        for facts in self.machine.now.pfs.values_mut() {
            facts.count = 0;
            facts.vfs.clear();
            facts.is_probed = Some(true);
            if let KindFacts::Nic(nic) = &mut facts.kind {
                nic.is_up = false;
            }
        }
        self.machine.now.boot = format!("boot-{}", self.boots + 1);
        self.machine.reset_primary(bdf(NVME));
        let nvme = self.nvme();
        nvme.secondaries.iter_mut().for_each(|one| one.vf = 0);
        for (nsid, namespace) in &mut nvme.namespaces {
            if forgets {
                namespace.attached = (*nsid == 1).then_some(0).into_iter().collect();
            }
        }
    }

    fn is_there(&self, vf: Bdf) -> bool {
        let mut pfs = self.machine.now.pfs.values();
        pfs.any(|pf| pf.vfs.iter().any(|its| its.bdf == vf))
    }

    /// `narrows recover`: applies, then runs by their journals, then what no journal tells of.
    pub(super) fn recover(&mut self, dies: Option<Dies>) {
        let nowhere = SysRoot::new("/nonexistent");
        for left in self.state.left_behind(&nowhere).unwrap_or_default() {
            if let Left::Host(remains) = left {
                // What is left of it is for another time.
                let state = &self.state;
                recover_host(&mut self.machine, state, &remains, false, &mut |_| {}).ok();
            }
        }
        let dead = |run: &Run| run.lock.is_none();
        while let Some(at) = self.runs.iter().position(dead) {
            let run = self.runs.remove(at);
            let boot = self.machine.now.boot.clone();
            let is_there = run.boot == boot && self.is_there(run.terms.vf);
            let state = &self.state;
            let done = Self::with(&mut self.machine, dies, |hands| {
                let Run { guest, terms, .. } = &run;
                match is_there {
                    true => give_back(hands, state, guest, terms, &mut |_| {}),
                    false => give_back_gone(hands, state, guest, &boot, terms, &mut |_| {}),
                }
            });
            if done.is_none() {
                self.runs.push(run);
                return;
            }
            run.journal.remove().unwrap();
        }
        let (state, now) = (&self.state, self.machine.now.clone());
        Self::with(&mut self.machine, dies, |hands| {
            let finished = finish_leases(hands, state, false, &mut |hands, one| {
                let vfs = &now.pfs[&one.pf].vfs;
                let is_there = vfs.iter().any(|vf| vf.bdf == one.record.bdf);
                let _unfinished = finish(hands, state, one, is_there, &mut |_| {});
                Vec::new()
            });
            let erased = erase_ownerless(hands, state, false, &mut |_| {});
            (finished.is_ok(), erased.is_ok())
        });
    }

    /// `narrows vf return` of the VF of this index.
    pub(super) fn return_lease(&mut self, pf: Bdf, index: u32, dies: Option<Dies>) {
        let records = self.state.records(&self.machine.now).ok();
        let record = records.and_then(|records| records.vf(pf, index).cloned());
        let Some(vf) = record.filter(|vf| vf.lease.is_some()).map(|vf| vf.bdf) else {
            return;
        };
        if self.runs.iter().any(|run| run.terms.vf == vf) {
            return;
        }
        let state = &self.state;
        Self::with(&mut self.machine, dies, |hands| {
            return_lease(hands, state, vf, &mut |_| {}).is_ok()
        });
    }
}
