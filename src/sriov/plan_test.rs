use super::refusal_test::nic;
use super::{
    Desired, HostPlan, KindFacts, Lease, Records, Step, Undo, VfState, drift, inventory,
    made::{self, carry_out, igb, machine, nvme, planned, seeded, wanted},
    model::Machine,
};
use crate::{
    error::{Exit, Report},
    spec::host::{Mbps, Profiles},
};

pub(super) const LAB: &str = r#"
[[pool]]
name = "tenant-a"
kind = "nic"
mac = { first = "02:4e:57:00:00:00", last = "02:4e:57:00:00:ff" }
vlan = 101
max_tx_rate = "500M"
[[pool]]
name = "tenant-b"
kind = "nic"
hold = "always"
vlan = 102
[[pool]]
name = "fast-a"
kind = "nvme"
queues = 3
accept = ["nvme-vf-manages"]
[[pf]]
interface = "eth2"
vfs = 2
pools = { tenant-a = "0", tenant-b = "1" }
[[pf.vf]]
index = "1"
mac = "52:54:00:00:01:04"
[[pf]]
serial = "drive-4"
vfs = 1
pools = { fast-a = "0" }
[[pf.namespace]]
name = "a0"
nsid = 1
vfs = "0"
"#;

pub(super) fn lab() -> Machine {
    let mut nic = igb(2);
    if let KindFacts::Nic(nic) = &mut nic.kind {
        (nic.is_up, nic.link) = (false, None);
    }
    machine([nic, nvme(4)])
}

pub(super) fn words(plan: &HostPlan) -> String {
    plan.steps.iter().map(|step| format!("{step}\n")).collect()
}

pub(super) fn ids(reports: &[Report]) -> Vec<String> {
    reports
        .iter()
        .map(|report| report.id.name().to_owned())
        .collect()
}

pub(super) fn applied(machine: &mut Machine, text: &str) -> (Desired, Records) {
    let mut records = seeded();
    let desired = wanted(text, machine, &records).unwrap();
    let plan = planned(machine, &desired, &records);
    carry_out(machine, &mut records, &desired, &plan).unwrap();
    (desired, records)
}

#[test]
fn the_labs_file_is_these_steps_in_this_order() {
    let machine = lab();
    let desired = wanted(LAB, &machine, &seeded()).unwrap();
    let plan = planned(&machine, &desired, &seeded());
    let golden = "\
set eth2 (0000:02:00.0) up
keep drivers of the host off new VFs of 0000:02:00.0
make 2 VFs of eth2 (0000:02:00.0)
VF 0 of eth2: spoofchk on
VF 0 of eth2: trust off
VF 0 of eth2: mac 02:4e:57:00:00:00
VF 1 of eth2: spoofchk on
VF 1 of eth2: trust off
VF 1 of eth2: mac 52:54:00:00:01:04
VF 1 of eth2: vlan 102
reset VF 0 of 0000:02:00.0
reset VF 1 of 0000:02:00.0
keep drivers of the host off new VFs of 0000:04:00.0
make 1 VFs of 0000:04:00.0
controller 1 of nvme4: vectors 0 -> 2
controller 1 of nvme4: queues 0 -> 3
reset VF 0 of 0000:04:00.0
set controller 1 of nvme4 online
take namespace 1 of nvme4 from controller 0
";
    assert_eq!(words(&plan), golden, "\n{}", words(&plan));
    assert_eq!(plan.exit(), Exit::Changes);
    assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
}

#[test]
fn another_number_of_vfs_says_in_words_what_it_destroys() {
    let mut machine = lab();
    let (_, records) = applied(&mut machine, LAB);
    let more = LAB.replace("vfs = 2", "vfs = 3");
    let desired = wanted(&more, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    assert_eq!(
        plan.destroyed[0].what,
        "changing the VFs of eth2 from 2 to 3 destroys all 2: 0 (free), 1 (free)"
    );
    assert!(words(&plan).starts_with("destroy the 2 VFs of eth2 (0000:02:00.0)\nmake 3 VFs"));
}

pub(super) fn drive(machine: &mut Machine) -> &mut super::NvmeFacts {
    let pf = machine.now.pfs.get_mut(&made::bdf(4)).unwrap();
    let KindFacts::Nvme(nvme) = &mut pf.kind else {
        panic!("another kind");
    };
    nvme
}

pub(super) fn runs(machine: &Machine, records: &mut Records, index: u32) {
    let pf = &machine.now.pfs[&made::bdf(2)];
    let vf = pf.vfs.iter().find(|vf| vf.index == index).unwrap();
    records.running.insert(vf.bdf, "web-1".to_owned());
    let record = records
        .pfs
        .get_mut(&pf.bdf)
        .unwrap()
        .vfs
        .get_mut(&index)
        .unwrap();
    record.state = VfState::InUse;
    record.lease = Some(Lease {
        guest: "web-1".to_owned(),
        keep: false,
        since: String::new(),
        run: None,
        terms: crate::sriov::LeaseTerms::plain(pf.bdf, vf.bdf, index),
    });
}

#[test]
fn under_a_running_guest_only_live_attributes_change_and_the_others_wait() {
    let mut machine = lab();
    let (desired, mut records) = applied(&mut machine, LAB);
    nic(&mut machine).link = Some(Mbps(1000));
    runs(&machine, &mut records, 0);
    // As the lease left it.
    let leased = desired.pfs[&made::bdf(2)].vfs[0].leased;
    let pf = machine.now.pfs.get_mut(&made::bdf(2)).unwrap();
    pf.vfs[0].nic = Some(super::NicAttributes {
        state: Some(iommu::topology::LinkPolicy::Auto),
        ..leased
    });
    let unchanged = wanted(LAB, &machine, &records).unwrap();
    assert!(planned(&machine, &unchanged, &records).is_empty());

    let other = LAB
        .replace("500M", "300M")
        .replace("vlan = 101", "vlan = 111");
    let desired = wanted(&other, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    assert_eq!(
        words(&plan),
        "VF 0 of eth2: rate at most 500 Mbit/s -> at most 300 Mbit/s\n"
    );
    assert_eq!(plan.held.len(), 1, "{:?}", plan.held);
    assert_eq!(plan.held[0].guest, "web-1");
    assert_eq!(plan.held[0].what, "VF 0 of eth2: vlan 101 -> 111");
    assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);

    // The number of VFs cannot change with a guest on one of them.
    let more = LAB.replace("vfs = 2", "vfs = 3");
    let desired = wanted(&more, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    assert_eq!(ids(&plan.refusals), ["vf-in-use"]);
    assert!(
        plan.refusals[0].why[0].contains("web-1"),
        "{:?}",
        plan.refusals
    );
}

#[test]
fn a_given_address_stays_and_a_made_one_is_the_same_each_time() {
    let text = LAB.replace(
        "mac = { first = \"02:4e:57:00:00:00\", last = \"02:4e:57:00:00:ff\" }",
        "mac = \"generated\"",
    );
    let mut machine = lab();
    let of = |desired: &Desired| desired.pfs[&made::bdf(2)].vfs[0].rest.mac;
    let first = of(&wanted(&text, &machine, &seeded()).unwrap());
    assert_eq!(
        first.map(|mac| mac.to_string()).as_deref(),
        Some("02:dc:72:3d:bf:7f")
    );
    let other = Records {
        seed: Some([8; 16]),
        ..Records::default()
    };
    assert_ne!(of(&wanted(&text, &machine, &other).unwrap()), first);

    // Without a seed it is said that one comes.
    let unseeded = wanted(&text, &machine, &Records::default()).unwrap();
    let plan = planned(&machine, &unseeded, &Records::default());
    assert_eq!(plan.later.len(), 1);

    // Another seed does not take a kept one away; somebody else who has it does.
    let (_, mut records) = applied(&mut machine, &text);
    records.seed = Some([8; 16]);
    assert_eq!(of(&wanted(&text, &machine, &records).unwrap()), first);
    machine.now.macs.extend(first);
    assert_ne!(of(&wanted(&text, &machine, &records).unwrap()), first);
}

#[test]
fn what_was_let_out_of_quarantine_is_reset_and_what_is_in_there_is_not() {
    let mut machine = lab();
    let (desired, mut records) = applied(&mut machine, LAB);
    let pf = made::bdf(4);
    let record = records.pfs.get_mut(&pf).unwrap().vfs.get_mut(&0).unwrap();
    record.state = VfState::Quarantined;
    let vf = record.bdf;
    for is_in_there in [true, false] {
        records.quarantined.clear();
        if is_in_there {
            records.quarantined.insert(vf, "not clean".to_owned());
        }
        let plan = words(&planned(&machine, &desired, &records));
        assert_eq!(plan.contains("reset VF 0"), !is_in_there, "{plan}");
    }
}

#[test]
fn an_address_that_no_driver_clears_is_told_before_it_is_set_and_after_it_stayed() {
    let text = "[[pool]]\nname = \"a\"\nkind = \"nic\"\n[[pf]]\ninterface = \"eth3\"\nvfs = 2\npools = { a = \"0-1\" }\n";
    let mut machine = machine([made::nic(3, "mlx5_core", (0x15b3, 0x1017), 8)]);
    let alone = "[[pf]]\ninterface = \"eth3\"\nvfs = 2\n";
    applied(&mut machine, alone);
    let before = machine.now.clone();
    let mut records = seeded();
    let desired = wanted(text, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    assert_eq!(ids(&plan.warnings), ["attribute-unsupported"]);
    assert!(plan.warnings[0].what.contains("VFs 0, 1 of"), "{plan:#?}");
    let is_mac = |step: &&Step| step.undo() != Undo::Nothing && step.to_string().contains(" mac ");
    let sets = plan.steps.iter().find(is_mac).unwrap();
    assert!(matches!(sets.undo(), Undo::Impossible(_)), "{sets}");
    carry_out(&mut machine, &mut records, &desired, &plan).unwrap();
    let back = super::baseline(&before, &machine.now);
    let plan = planned(&machine, &back, &records);
    assert_eq!(ids(&plan.warnings), ["undo-incomplete"]);
    assert!(plan.warnings[0].why[0].contains("VF 1: 02:"), "{plan:#?}");
}

#[test]
fn sixteen_pfs_with_128_vfs_each_are_planned_once_and_then_no_more() {
    let (mut machine, text) = large();
    let (desired, records) = applied(&mut machine, &text);
    let steps = machine.done.len();
    // Autoprobe and count of each PF; spoofchk, trust, address and reset of each VF.
    assert_eq!(steps, 16 * 2 + 2048 * 4);
    assert!(planned(&machine, &desired, &records).is_empty());
    assert!(drift(&machine.now, &desired, &records, &Profiles::built_in()).is_empty());
    let all = inventory(
        super::InventoryHost::default(),
        &machine.now,
        Some(&desired),
        &records,
        &Profiles::built_in(),
    );
    assert_eq!((all.vfs.len(), all.pools[0].free), (2048, 2048));
}

fn large() -> (Machine, String) {
    let pfs = (0..16u8).map(|at| made::nic(2 + at * 2, "mlx5_core", (0x15b3, 0x101d), 128));
    let mut text = String::from("[[pool]]\nname = \"t\"\nkind = \"nic\"\nvlan = 5\n");
    for at in 0..16u8 {
        let bdf = made::bdf(2 + at * 2);
        text.push_str(&format!(
            "[[pf]]\nbdf = \"{bdf}\"\nvfs = 128\npools = {{ t = \"0-127\" }}\n"
        ));
    }
    (machine(pfs), text)
}
