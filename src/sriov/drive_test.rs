//! Plans for drives: controllers, and namespaces with what guests have on them.

use super::plan_test::{LAB, applied, drive, ids, lab, words};
use super::{
    Hands as _, Lease, NamespaceId, Records, Step, Undo, drift,
    made::{self, planned, seeded, wanted},
    model::Machine,
};
use crate::spec::host::Profiles;

#[test]
fn after_an_error_of_the_drive_free_vfs_come_back_and_a_running_one_is_told() {
    let mut machine = lab();
    let (desired, mut records) = applied(&mut machine, LAB);
    machine.reset_primary(made::bdf(4));
    let plan = planned(&machine, &desired, &records);
    assert!(
        words(&plan).ends_with("set controller 1 of nvme4 online\n"),
        "{}",
        words(&plan)
    );
    let vf = machine.now.pfs[&made::bdf(4)].vfs[0].bdf;
    records.running.insert(vf, "db-1".to_owned());
    let plan = planned(&machine, &desired, &records);
    assert!(plan.is_empty(), "{}", words(&plan));
    assert_eq!(plan.held[0].what, "controller 1 of nvme4 is offline");
    let found = drift(&machine.now, &desired, &records, &Profiles::built_in());
    assert_eq!(found[0].guest.as_deref(), Some("db-1"));
}

#[test]
fn vfs_that_come_back_have_their_controllers_as_they_were() {
    let mut machine = lab();
    let (_, records) = applied(&mut machine, LAB);
    // One that is offline has resources too.
    let one = &mut drive(&mut machine).secondaries[1];
    assert!(!one.is_online);
    one.queues = 2;
    let before = drive(&mut machine).secondaries.clone();
    assert!(before[0].is_online);
    let other = LAB.replace("vfs = 1\n", "vfs = 2\n");
    let desired = wanted(&other, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    let mut steps = plan
        .steps
        .into_iter()
        .filter(|step| step.pf() == made::bdf(4));
    let destroy = steps
        .find(|step| matches!(step, Step::Destroy { .. }))
        .unwrap();
    machine.carry_out(&destroy, &mut |_| ()).unwrap();
    let Undo::Steps(back) = destroy.undo() else {
        panic!("{destroy}");
    };
    for step in &back {
        machine.carry_out(step, &mut |_| ()).unwrap();
    }
    assert_eq!(drive(&mut machine).secondaries, before);
    // The table of interrupts follows the vectors at a reset only.
    let at = |is: fn(&Step) -> bool| back.iter().position(is).unwrap();
    let reset = at(|step| matches!(step, Step::Reset { index: 0, .. }));
    assert!(at(|step| matches!(step, Step::Assign { .. })) < reset);
    assert!(reset < at(|step| matches!(step, Step::Online { .. })));
}

#[test]
fn namespaces_that_the_drive_shares_are_told_once() {
    let mut machine = lab();
    let mut text = LAB.to_owned();
    for nsid in 2..=5 {
        text.push_str(&format!(
            "[[pf.namespace]]\nname = \"n{nsid}\"\nnsid = {nsid}\nvfs = \"0\"\n"
        ));
        drive(&mut machine)
            .namespaces
            .get_mut(&nsid)
            .unwrap()
            .is_shared = true;
    }
    let desired = wanted(&text, &machine, &seeded()).unwrap();
    let plan = planned(&machine, &desired, &seeded());
    assert_eq!(ids(&plan.warnings), ["namespace-shared"]);
    assert!(
        plan.warnings[0].what.ends_with(": n2, n3, n4, n5"),
        "{plan:#?}"
    );
}

#[test]
fn a_namespace_that_an_erase_left_to_the_host_or_in_another_format_is_drift() {
    let mut machine = lab();
    let text = LAB.replace("nsid = 1", "size = \"1G\"");
    let (_, mut records) = applied(&mut machine, &text);
    let desired = wanted(&text, &machine, &records).unwrap();
    let profiles = Profiles::built_in();
    let of = |machine: &Machine, records: &Records| -> Vec<String> {
        let found = drift(&machine.now, &desired, records, &profiles);
        found.iter().map(ToString::to_string).collect()
    };
    assert_eq!(of(&machine, &records), Vec::<String>::new());
    let kept = records.pfs.get_mut(&made::bdf(4)).unwrap();
    let is = drive(&mut machine).namespaces.get_mut(&6).unwrap();
    kept.namespaces.get_mut(&6).unwrap().format = Some(is.format());
    assert_eq!(of(&machine, &records), Vec::<String>::new());
    let is = drive(&mut machine).namespaces.get_mut(&6).unwrap();
    is.block = 4096;
    is.attached.insert(0);
    assert_eq!(
        of(&machine, &records),
        [
            "0000:04:00.0: namespace a0 is 1073741824 bytes in blocks of 4096, should be 1073741824 bytes in blocks of 512",
            "0000:04:00.0: namespace a0 is attached to controllers 0, should be attached to guests' only"
        ]
    );
    let plan = planned(&machine, &desired, &records);
    assert_eq!(
        words(&plan),
        "take namespace 6 of nvme4 from controller 0\n"
    );
}

#[test]
fn a_namespace_made_by_narrows_and_named_no_more_is_erased_and_deleted() {
    let mut machine = lab();
    let text = LAB.replace("nsid = 1", "size = \"1G\"");
    let (_, mut records) = applied(&mut machine, &text);
    let made = records
        .pfs
        .get_mut(&made::bdf(4))
        .unwrap()
        .namespaces
        .get_mut(&6)
        .unwrap();
    made.state = super::NamespaceState::Dirty;
    let gone = LAB.replace(
        "[[pf.namespace]]\nname = \"a0\"\nnsid = 1\nvfs = \"0\"\n",
        "",
    );
    let desired = wanted(&gone, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    assert_eq!(
        words(&plan),
        "erase namespace 6 of nvme4 by a format\ndelete namespace 6 (a0) of nvme4\n"
    );
    assert!(
        plan.destroyed[0]
            .what
            .contains("deleted with all that is on it")
    );
    // Another namespace at that number is nobody's to delete.
    drive(&mut machine).namespaces.get_mut(&6).unwrap().id = NamespaceId::Nguid("f".repeat(32));
    assert!(planned(&machine, &desired, &records).is_empty());
}

#[test]
fn a_namespace_that_a_guest_keeps_is_neither_deleted_nor_given_to_another_vf() {
    let mut machine = lab();
    let text = LAB.replace("nsid = 1", "size = \"1G\"").replace(
        "vfs = 1\npools = { fast-a = \"0\" }",
        "vfs = 2\npools = { fast-a = \"0-1\" }",
    );
    let (_, mut records) = applied(&mut machine, &text);
    let drive = &machine.now.pfs[&made::bdf(4)];
    let (vf, id) = (
        drive.vfs[0].bdf,
        drive.nvme().unwrap().namespaces[&6].id.clone(),
    );
    let mut terms = super::LeaseTerms::plain(drive.bdf, vf, 0);
    terms.namespaces = vec![super::LeasedNamespace {
        nsid: 6,
        id,
        format: drive.nvme().unwrap().namespaces[&6].format(),
        is_shared: false,
    }];
    let kept = records.pfs.get_mut(&made::bdf(4)).unwrap();
    kept.namespaces.get_mut(&6).unwrap().state = super::NamespaceState::Dirty;
    kept.vfs.get_mut(&0).unwrap().lease = Some(Lease {
        guest: "web-1".to_owned(),
        keep: true,
        since: String::new(),
        run: None,
        terms,
    });
    let named = "[[pf.namespace]]\nname = \"a0\"\nsize = \"1G\"\nvfs = \"0\"\n";
    assert!(text.contains(named));
    let moved = named.replace("vfs = \"0\"", "vfs = \"1\"");
    for (instead, what) in [("", "is deleted"), (&moved, "goes to another VF")] {
        let desired = wanted(&text.replace(named, instead), &machine, &records).unwrap();
        let plan = planned(&machine, &desired, &records);
        assert_eq!(words(&plan), "", "{what}");
        let held = &plan.held[0];
        assert_eq!((held.vf, held.guest.as_str()), (vf, "web-1"));
        assert!(held.what.contains(what), "{held:?}");
    }
    let same = wanted(&text, &machine, &records).unwrap();
    assert_eq!(planned(&machine, &same, &records).held, []);
}
