use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};

use iommu::{bdf::Bdf, sysfs::SysRoot};

use super::{InUse, ProcessId, State, vf::FILE_LIMIT};
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Anchor, Event, Holder, KindFacts, Lease, NamespaceId, NamespaceRecord, NamespaceState,
        Observed, PfFacts, PfRecords, Unread, VfFacts, VfState,
    },
};

const PF: &str = "0000:01:00.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn vf(index: u32) -> Bdf {
    bdf(&format!("0000:01:10.{index}"))
}

fn anchor() -> Anchor {
    Anchor::Serial("one".to_owned())
}

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("narrows-vfs-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        Self(folder)
    }

    fn state(&self) -> State {
        State::new(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn observed(boot: &str, anchor: Anchor) -> Observed {
    let facts = PfFacts {
        bdf: bdf(PF),
        anchor,
        vendor: 0,
        device: 0,
        driver: None,
        numa: None,
        root: String::new(),
        total: 7,
        count: 0,
        is_probed: None,
        group: None,
        kind: KindFacts::Other,
        vfs: Vec::new(),
    };
    Observed {
        pfs: [(bdf(PF), facts)].into(),
        boot: boot.to_owned(),
        ..Observed::default()
    }
}

/// Changes the PF's records, in boot 1.
fn change<T>(
    state: &State,
    f: impl FnOnce(&mut PfRecords) -> Result<T, Report>,
) -> Result<T, Report> {
    state.change_pf(bdf(PF), &anchor(), |kept| {
        kept.enter("boot-1", false, "t");
        f(kept)
    })
}

fn clean(kept: &mut PfRecords, index: u32) -> Result<VfState, Report> {
    kept.step(index, vf(index), Event::Created, "t")?;
    kept.step(index, vf(index), Event::ResetSeen, "t")
}

fn lease(guest: &str, keep: bool) -> Lease {
    Lease {
        guest: guest.to_owned(),
        keep,
        since: "t".to_owned(),
        run: None,
        terms: crate::sriov::LeaseTerms::plain(vf(0), vf(0), 0),
    }
}

/// Takes VF 0 for `guest`, if nobody has it.
fn take(state: &State, guest: &str) -> Result<VfState, Report> {
    change(state, |kept| {
        let taken = kept.step(0, vf(0), Event::Leased, "t")?;
        match kept.vfs.get_mut(&0) {
            Some(record) if record.lease.is_none() => record.lease = Some(lease(guest, false)),
            other => panic!("{other:?}"),
        }
        kept.step(0, vf(0), Event::Bound, "t")?;
        Ok(taken)
    })
}

fn file() -> String {
    format!("vfs/{PF}.json")
}

fn is_private(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0
}

#[test]
fn eight_change_one_file_and_nothing_is_lost() {
    const EACH: u32 = 20;
    let folder = Folder::new("race");
    let state = folder.state();
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8 {
            let (state, barrier) = (&state, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for at in 0..EACH {
                    let index = number * EACH + at;
                    change(state, |kept| kept.step(index, vf(0), Event::Created, "t")).unwrap();
                }
            });
        }
    });
    let records = state.records(&observed("boot-1", anchor())).unwrap();
    assert_eq!(records.pfs[&bdf(PF)].vfs.len(), 8 * EACH as usize);
    assert!(is_private(&folder.0.join(file())) && is_private(&folder.0.join("vfs")));
}

#[test]
fn eight_want_one_vf_and_one_gets_it() {
    let folder = Folder::new("one");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let barrier = Barrier::new(8);
    let taken: Vec<Result<VfState, Report>> = thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|number| {
                let (state, barrier) = (&state, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    take(state, &format!("guest-{number}"))
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(taken.iter().filter(|result| result.is_ok()).count(), 1);
    for report in taken.into_iter().filter_map(Result::err) {
        assert_eq!(report.id, ErrorId::RecordMismatch);
    }
}

#[test]
fn change_that_fails_changes_nothing() {
    let folder = Folder::new("fails");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let before = fs::read(folder.0.join(file())).unwrap();
    let failed = change(&state, |kept| {
        clean(kept, 1)?;
        kept.step(1, vf(1), Event::Bound, "t")
    });
    assert!(failed.unwrap_err().to_string().contains("it is clean"));
    assert_eq!(fs::read(folder.0.join(file())).unwrap(), before);
}

#[test]
fn damaged_file_is_refused_until_it_is_forgotten_by_name() {
    let folder = Folder::new("damaged");
    let state = folder.state();
    let path = folder.0.join(file());
    change(&state, |kept| clean(kept, 0)).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let long = " ".repeat(usize::try_from(FILE_LIMIT).unwrap()) + &good;
    let bad = [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace("\"since\"", "\"sinse\""),
        good.replace("\"clean\"", "\"cleaner\""),
        good.replace("\"pf\": \"0000:01:00.0\"", "\"pf\": \"0000:02:00.0\""),
        long,
    ];
    for text in bad {
        assert_ne!(text, good);
        fs::write(&path, &text).unwrap();
        let records = state.records(&observed("boot-1", anchor())).unwrap();
        assert!(records.pfs.is_empty());
        let report = &records.unusable[&bdf(PF)];
        assert_eq!(report.id, ErrorId::VfStateDamaged);
        assert!(report.fix.contains("narrows vf forget 0000:01:00.0"));
        let report = change(&state, |_| Ok(())).unwrap_err();
        assert_eq!(report.id, ErrorId::VfStateDamaged);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "it is not touched"
        );
    }
    assert!(!state.is_forgotten(bdf(PF), &anchor()));
    let now = observed("boot-1", anchor());
    let lost = state.lost_with(bdf(PF), &now).unwrap();
    assert!(lost[0].contains("nobody can read"), "{lost:?}");
    let report = forget(&state, &now, &[]).unwrap_err();
    assert_eq!(report.id, ErrorId::PlanStale, "nobody has agreed to it");
    let moved = forget(&state, &now, &lost).unwrap();
    assert!(fs::read_to_string(moved).unwrap().ends_with(&good));
    // Of which card it was, nobody can tell.
    assert!(state.is_forgotten(bdf(PF), &anchor()));
    assert!(state.is_forgotten(bdf(PF), &Anchor::Serial("two".to_owned())));
    assert!(
        state
            .records(&observed("boot-1", anchor()))
            .unwrap()
            .pfs
            .is_empty()
    );
    let report = forget(&state, &now, &[]).unwrap_err();
    assert_eq!(report.id, ErrorId::NeverApplied);
}

#[test]
fn leased_vf_is_not_forgotten() {
    let folder = Folder::new("leased");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    take(&state, "web").unwrap();
    let now = observed("boot-1", anchor());
    let report = forget(&state, &now, &[]).unwrap_err();
    assert_eq!(report.id, ErrorId::VfInUse);
    assert!(report.to_string().contains("guest web"));
    assert_eq!(state.forget_host().unwrap_err().id, ErrorId::VfInUse);
}

/// Forgets the PF; again where another test's child has the host's lock for a moment.
fn forget(state: &State, now: &Observed, agreed: &[String]) -> Result<PathBuf, Report> {
    loop {
        match state.forget_pf(bdf(PF), now, agreed) {
            Err(report) if report.id == ErrorId::HostBusy => thread::yield_now(),
            done => return done,
        }
    }
}

/// VF 0, which a guest keeps, and a namespace with its data.
fn kept(state: &State, run: Option<Holder>) {
    change(state, |kept| {
        clean(kept, 0)?;
        kept.step(0, vf(0), Event::Leased, "t")?;
        kept.vfs.get_mut(&0).unwrap().lease = Some(Lease {
            run,
            ..lease("web", true)
        });
        let namespace = NamespaceRecord {
            id: NamespaceId::None,
            name: "a".to_owned(),
            state: NamespaceState::Dirty,
            since: "t".to_owned(),
            is_made: false,
            erase: None,
            is_shared: false,
            last_guest: Some("web".to_owned()),
            format: None,
        };
        kept.namespaces.insert(2, namespace);
        Ok(())
    })
    .unwrap();
}

#[test]
fn lease_of_an_exchanged_card_is_lost_with_a_word() {
    let folder = Folder::new("exchanged");
    let state = folder.state();
    kept(&state, None);
    let other = Anchor::Serial("two".to_owned());
    let is_refused = |anchor: Anchor, id: ErrorId| {
        let report = state.lost_with(bdf(PF), &observed("boot-1", anchor));
        assert_eq!(report.unwrap_err().id, id);
    };
    // The card is there: the lease can be returned.
    is_refused(anchor(), ErrorId::VfInUse);
    is_refused(Anchor::Slot(bdf(PF)), ErrorId::FactsUnread);

    let now = observed("boot-1", other.clone());
    let lost = state.lost_with(bdf(PF), &now).unwrap();
    assert!(lost[0].contains("guest web: VF 0"), "{lost:?}");
    assert!(
        lost[1].contains("namespace 2 (a) may have data of web"),
        "{lost:?}"
    );
    assert_eq!(lost.len(), 2);
    let report = forget(&state, &now, &lost[..1]).unwrap_err();
    assert_eq!(report.id, ErrorId::PlanStale);
    forget(&state, &now, &lost).unwrap();
    let records = state.records(&now).unwrap();
    assert!(records.unusable.is_empty() && records.pfs.is_empty());

    // The marker is about the card that was there, and no later one takes it away.
    assert!(state.is_forgotten(bdf(PF), &anchor()));
    assert!(!state.is_forgotten(bdf(PF), &other));
    state
        .change_pf(bdf(PF), &other, |kept| clean(kept, 0))
        .unwrap();
    forget(&state, &now, &[]).unwrap();
    assert!(state.is_forgotten(bdf(PF), &anchor()) && state.is_forgotten(bdf(PF), &other));
    assert!(!state.is_forgotten(bdf(PF), &Anchor::Serial("three".to_owned())));
    for unknown in ["", "{"] {
        fs::write(folder.0.join(format!("vfs/{PF}.forgotten")), unknown).unwrap();
        assert!(state.is_forgotten(bdf(PF), &Anchor::Serial("three".to_owned())));
    }
}

#[test]
fn card_in_another_slot_is_not_a_new_one() {
    let folder = Folder::new("moved");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let mut now = observed("boot-2", anchor());
    let mut facts = now.pfs.remove(&bdf(PF)).unwrap();
    facts.bdf = bdf("0000:09:00.0");
    now.pfs.insert(facts.bdf, facts.clone());
    let report = &state.records(&now).unwrap().unusable[&facts.bdf];
    assert_eq!(report.id, ErrorId::RecordMismatch);
    assert!(report.fix.contains("put the card back at 0000:01:00.0"));
    assert!(!state.is_forgotten(facts.bdf, &anchor()));
    let lost = state.lost_with(bdf(PF), &now).unwrap();
    forget(&state, &now, &lost).unwrap();
    assert!(state.records(&now).unwrap().unusable.is_empty());
    assert!(state.is_forgotten(facts.bdf, &anchor()), "wherever it is");
    state.recall(facts.bdf, &anchor()).unwrap();
    assert!(!state.is_forgotten(facts.bdf, &anchor()));
    assert!(!state.is_forgotten(bdf(PF), &anchor()));
}

#[test]
fn lease_of_a_run_that_lives_is_never_forgotten() {
    let folder = Folder::new("alive");
    let state = folder.state();
    let own = ProcessId::of(&SysRoot::default(), std::process::id());
    let ProcessId { pid, start } = own.unwrap().unwrap();
    let boot = "boot-1".to_owned();
    kept(&state, Some(Holder { pid, start, boot }));
    let now = observed("boot-1", Anchor::Serial("two".to_owned()));
    let report = state.lost_with(bdf(PF), &now).unwrap_err();
    assert_eq!(report.id, ErrorId::VfInUse);
    // A run without a record of it is known by its lock.
    let run = InUse::take(&state, vf(0), "web").unwrap();
    fs::write(folder.0.join(file()), "{").unwrap();
    let mut now = observed("boot-1", anchor());
    now.pfs.get_mut(&bdf(PF)).unwrap().vfs.push(VfFacts {
        index: 0,
        bdf: vf(0),
        driver: None,
        driver_override: None,
        group: None,
        group_size: 1,
        interfaces: Vec::new(),
        nic: None,
    });
    let report = state.lost_with(bdf(PF), &now).unwrap_err();
    assert_eq!(report.id, ErrorId::VfInUse);
    drop(run);
    assert_eq!(state.lost_with(bdf(PF), &now).unwrap().len(), 1);
}

#[test]
fn nothing_is_forgotten_while_the_host_is_changed() {
    let folder = Folder::new("busy");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let now = observed("boot-1", anchor());
    let lock = state.lock_host("apply").unwrap();
    let report = state.forget_pf(bdf(PF), &now, &[]).unwrap_err();
    assert_eq!(report.id, ErrorId::HostBusy);
    drop(lock);
    // Another test's child may have the descriptor for a moment.
    while state.forget_pf(bdf(PF), &now, &[]).is_err() {
        thread::yield_now();
    }
}

#[test]
fn another_card_in_the_slot_is_refused() {
    let folder = Folder::new("card");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let other = Anchor::Serial("two".to_owned());
    let records = state.records(&observed("boot-1", other.clone())).unwrap();
    assert!(records.pfs.is_empty());
    let report = &records.unusable[&bdf(PF)];
    assert_eq!(report.id, ErrorId::RecordMismatch);
    assert!(report.to_string().contains("two"), "{report}");
    assert!(state.change_pf(bdf(PF), &other, |_| Ok(())).is_err());
}

#[test]
fn card_that_does_not_tell_itself_is_not_another_one() {
    let folder = Folder::new("slot");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let unread = Anchor::Slot(bdf(PF));
    let mut now = observed("boot-1", unread.clone());
    now.unread.push(Unread {
        place: "nvme0".to_owned(),
        reason: "identify failed: EIO".to_owned(),
        bdf: Some(bdf(PF)),
    });
    let records = state.records(&now).unwrap();
    let report = &records.unusable[&bdf(PF)];
    assert_eq!(report.id, ErrorId::FactsUnread);
    let text = report.to_string();
    assert!(
        text.contains("cannot be told") && text.contains("identify failed: EIO"),
        "{text}"
    );
    assert!(!text.contains("forget"), "{text}");
    let report = state.change_pf(bdf(PF), &unread, |_| Ok(())).unwrap_err();
    assert_eq!(report.id, ErrorId::FactsUnread);
    // It is the same as before once it answers again.
    let records = state.records(&observed("boot-1", anchor())).unwrap();
    assert!(records.unusable.is_empty() && records.pfs.contains_key(&bdf(PF)));
}

#[test]
fn trouble_of_one_pf_is_its_own() {
    let folder = Folder::new("own");
    let state = folder.state();
    change(&state, |kept| clean(kept, 0)).unwrap();
    let other = bdf("0000:00:00.0");
    fs::write(folder.0.join(format!("vfs/{other}.json")), "{").unwrap();
    let records = state.records(&observed("boot-1", anchor())).unwrap();
    assert_eq!(records.pfs[&bdf(PF)].vfs[&0].state, VfState::Clean);
    assert_eq!(records.unusable[&other].id, ErrorId::VfStateDamaged);
    // The file that cannot be read comes first, and hides no VF of the other.
    assert_eq!(state.mark_freed(vf(0)).unwrap(), Some(VfState::Created));
}

#[test]
fn another_boot_has_no_vfs_but_kept_leases_and_namespaces() {
    let folder = Folder::new("boot");
    let state = folder.state();
    let namespace = NamespaceRecord {
        id: NamespaceId::None,
        name: "a".to_owned(),
        state: NamespaceState::Dirty,
        since: "t".to_owned(),
        is_made: false,
        erase: None,
        is_shared: false,
        last_guest: Some("web".to_owned()),
        format: None,
    };
    change(&state, |kept| {
        for index in 0..3 {
            clean(kept, index)?;
        }
        for (index, keep) in [(0, true), (1, false)] {
            kept.step(index, vf(index), Event::Leased, "t")?;
            kept.vfs.get_mut(&index).unwrap().lease = Some(lease("web", keep));
        }
        kept.namespaces.insert(2, namespace.clone());
        Ok(())
    })
    .unwrap();
    let same = state.records(&observed("boot-1", anchor())).unwrap();
    assert_eq!(same.pfs[&bdf(PF)].vfs[&2].state, VfState::Clean);

    let other = state.records(&observed("boot-2", anchor())).unwrap();
    let kept = &other.pfs[&bdf(PF)];
    assert!(kept.vfs.values().all(|vf| vf.state == VfState::Absent));
    let leases: Vec<bool> = kept.vfs.values().map(|vf| vf.lease.is_some()).collect();
    assert_eq!(leases, [true, false, false]);
    assert_eq!(kept.namespaces[&2], namespace);

    // One that cannot be told is not another one.
    let unknown = state.records(&observed("", anchor())).unwrap();
    assert_eq!(unknown.pfs[&bdf(PF)], same.pfs[&bdf(PF)]);

    // Of a controller, what did not come back clean stays so.
    let mut kept = same.pfs[&bdf(PF)].clone();
    kept.enter("boot-2", true, "t");
    let states: Vec<VfState> = kept.vfs.values().map(|vf| vf.state).collect();
    assert_eq!(states, [VfState::Absent, VfState::Leased, VfState::Absent]);
}

#[test]
fn lease_ends_with_what_it_was_about() {
    let path = |keep, events: &[Event]| {
        let mut kept = PfRecords::new(anchor(), "boot-1".to_owned());
        clean(&mut kept, 0).unwrap();
        kept.step(0, vf(0), Event::Leased, "t").unwrap();
        kept.vfs.get_mut(&0).unwrap().lease = Some(lease("web", keep));
        for event in events {
            kept.step(0, vf(0), *event, "t").unwrap();
        }
        let record = kept.vfs.remove(&0).unwrap();
        (record.state, record.lease.is_some())
    };
    use Event::{Bound, Created, Ended, Erased, Failed, Gone, Rested, RestedDirty, RestedKept};
    for (keep, events, expected) in [
        (false, &[Bound, Ended, Rested][..], (VfState::Clean, false)),
        (
            false,
            &[Bound, Ended, RestedDirty],
            (VfState::Sanitising, true),
        ),
        (
            false,
            &[Bound, Ended, RestedDirty, Erased],
            (VfState::Clean, false),
        ),
        (true, &[Bound, Ended, RestedKept], (VfState::Leased, true)),
        (true, &[Gone, Created], (VfState::Created, true)),
        (false, &[Gone], (VfState::Absent, false)),
        // Whose data is on it is to be known still.
        (false, &[Bound, Failed], (VfState::Quarantined, true)),
    ] {
        assert_eq!(path(keep, events), expected, "{events:?}");
    }
}

#[test]
fn seed_is_made_once() {
    let folder = Folder::new("seed");
    let state = folder.state();
    assert_eq!(state.records(&Observed::default()).unwrap().seed, None);
    let seed = state.seed().unwrap();
    assert_eq!(folder.state().seed().unwrap(), seed);
    assert_eq!(
        state.records(&Observed::default()).unwrap().seed,
        Some(seed)
    );
    let path = folder.0.join("host/seed");
    assert!(is_private(&path));
    for bad in ["", "12", "zz", &"0".repeat(33)] {
        fs::write(&path, bad).unwrap();
        assert_eq!(state.seed().unwrap_err().id, ErrorId::StateDamaged);
    }
}

#[test]
fn host_is_remembered_until_it_is_forgotten() {
    let folder = Folder::new("host");
    let state = folder.state();
    assert!(state.baseline().unwrap().is_none() && state.applied().unwrap().is_none());
    state.forget_host().unwrap();
    let before = observed("boot-1", anchor());
    state.set_baseline(&before).unwrap();
    state.set_applied(Path::new("host.toml"), "a = 1").unwrap();
    state.seed().unwrap();
    assert_eq!(state.baseline().unwrap().unwrap(), before);
    let applied = state.applied().unwrap().unwrap();
    assert_eq!(
        (applied.file, applied.text),
        (PathBuf::from("host.toml"), "a = 1".to_owned())
    );
    fs::write(folder.0.join("host/applied.json"), "{").unwrap();
    assert_eq!(state.applied().unwrap_err().id, ErrorId::StateDamaged);

    change(&state, |kept| clean(kept, 0)).unwrap();
    state.forget_host().unwrap();
    assert!(state.baseline().unwrap().is_none() && state.applied().unwrap().is_none());
    assert!(!folder.0.join(file()).exists());
    assert_eq!(state.records(&before).unwrap().seed, None);
}

#[test]
fn many_share_the_host_and_who_changes_it_is_alone() {
    let folder = Folder::new("lock");
    let state = folder.state();
    let (one, other) = (state.share_host().unwrap(), state.share_host().unwrap());
    assert_eq!(state.lock_host("apply").unwrap_err().id, ErrorId::HostBusy);
    drop((one, other));
    // Another test's child may have the descriptors for a moment.
    let lock = loop {
        if let Ok(lock) = state.lock_host("apply") {
            break lock;
        }
        thread::yield_now();
    };
    for refused in [state.lock_host("release"), state.share_host()] {
        let text = refused.unwrap_err().to_string();
        let who = format!("narrows apply, process {}", std::process::id());
        assert!(text.contains(&who), "{text}");
    }
    drop(lock);
}
