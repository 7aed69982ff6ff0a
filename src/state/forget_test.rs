//! Damaged records, exchanged cards, and what is forgotten of them.

use std::{fs, path::PathBuf, thread};

use iommu::sysfs::SysRoot;

use super::vf_test::{Folder, PF, anchor, bdf, change, clean, file, lease, observed, take, vf};
use super::{InUse, ProcessId, State, vf::FILE_LIMIT};
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Anchor, Event, Holder, Lease, NamespaceId, NamespaceRecord, NamespaceState, Observed,
        Unread, VfFacts, VfState,
    },
};

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
