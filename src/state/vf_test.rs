use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};

use iommu::bdf::Bdf;

use super::State;
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Anchor, Event, KindFacts, Lease, NamespaceId, NamespaceRecord, NamespaceState, Observed,
        PfFacts, PfRecords, VfState,
    },
};

pub(super) const PF: &str = "0000:01:00.0";

pub(super) fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

pub(super) fn vf(index: u32) -> Bdf {
    bdf(&format!("0000:01:10.{index}"))
}

pub(super) fn anchor() -> Anchor {
    Anchor::Serial("one".to_owned())
}

/// A folder of its own for each test, removed at the end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("narrows-vfs-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        Self(folder)
    }

    pub(super) fn state(&self) -> State {
        State::new(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) fn observed(boot: &str, anchor: Anchor) -> Observed {
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
pub(super) fn change<T>(
    state: &State,
    f: impl FnOnce(&mut PfRecords) -> Result<T, Report>,
) -> Result<T, Report> {
    state.change_pf(bdf(PF), &anchor(), |kept| {
        kept.enter("boot-1", false, "t");
        f(kept)
    })
}

pub(super) fn clean(kept: &mut PfRecords, index: u32) -> Result<VfState, Report> {
    kept.step(index, vf(index), Event::Created, "t")?;
    kept.step(index, vf(index), Event::ResetSeen, "t")
}

pub(super) fn lease(guest: &str, keep: bool) -> Lease {
    Lease {
        guest: guest.to_owned(),
        keep,
        since: "t".to_owned(),
        run: None,
        terms: crate::sriov::LeaseTerms::plain(vf(0), vf(0), 0),
    }
}

/// Takes VF 0 for `guest`, if nobody has it.
pub(super) fn take(state: &State, guest: &str) -> Result<VfState, Report> {
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

pub(super) fn file() -> String {
    format!("vfs/{PF}.json")
}

pub(super) fn is_private(path: &Path) -> bool {
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
