use iommu::topology::Mac;

use super::{
    Anchor, Desired, Hands as _, HostPlan, KindFacts, Lease, Managed, NamespaceId, Observed,
    Records, Step, Undo, Unread, Use, Used, VfState, drift,
    interlock::ROWS,
    inventory,
    made::{self, carry_out, igb, machine, nvme, planned, seeded, wanted},
    model::Machine,
    plan,
};
use crate::{
    error::{ErrorId, Exit, Report},
    spec::host::{Mbps, Profiles, Safety},
};

const LAB: &str = r#"
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

fn lab() -> Machine {
    let mut nic = igb(2);
    if let KindFacts::Nic(nic) = &mut nic.kind {
        (nic.is_up, nic.link) = (false, None);
    }
    machine([nic, nvme(4)])
}

fn words(plan: &HostPlan) -> String {
    plan.steps.iter().map(|step| format!("{step}\n")).collect()
}

fn ids(reports: &[Report]) -> Vec<String> {
    reports
        .iter()
        .map(|report| report.id.name().to_owned())
        .collect()
}

fn applied(machine: &mut Machine, text: &str) -> (Desired, Records) {
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

/// Changes of the machine or the file, and the one id that each is refused with.
#[test]
fn what_the_machine_cannot_be_is_refused_with_its_id() {
    type Change = (&'static str, fn(&mut Machine), fn(&str) -> String);
    let same: fn(&str) -> String = |text| text.to_owned();
    let nothing: fn(&mut Machine) = |_| ();
    let rows: &[Change] = &[
        ("vfs-overcommitted", nothing, |t| {
            t.replace("vfs = 2", "vfs = 8")
        }),
        ("pf-absent", nothing, |t| t.replace("\"eth2\"", "\"eth3\"")),
        (
            "pf-ambiguous",
            |m| m.now.pfs.extend([(made::bdf(6), igb(6))]),
            |t| t.replace("interface = \"eth2\"", "profile = \"intel-igb\"\nport = 0"),
        ),
        (
            "mac-listed-twice",
            |m| m.now.macs.extend("52:54:00:00:01:04".parse::<Mac>()),
            same,
        ),
        (
            "mac-range-small",
            |m| m.now.macs.extend("02:4e:57:00:00:00".parse::<Mac>()),
            |t| t.replace("00:00:ff\"", "00:00:00\""),
        ),
        ("attribute-unsupported", nothing, |t| {
            t.replace("vlan = 101", "vlan = 101\nstate = \"disable\"")
        }),
        ("attribute-unsupported", nothing, |t| {
            t.replace("vlan = 101", "vlan = 101\nvlan_proto = \"802.1ad\"")
        }),
        ("rate-beyond-link", |m| nic(m).link = Some(Mbps(100)), same),
        (
            "facts-unread",
            |m| nic(m).is_up = true,
            |t| t.replace("vlan = 102", "vlan = 102\nmax_tx_rate = \"1M\""),
        ),
        ("eswitch-unsupported", nothing, |t| {
            t.replace("vfs = 2", "vfs = 2\neswitch = \"switchdev\"")
        }),
        ("resources-overcommitted", nothing, |t| {
            t.replace("queues = 3", "queues = 5")
        }),
        (
            "resources-overcommitted",
            |m| flexible(m).vq.total = 2,
            same,
        ),
        ("namespace-absent", nothing, |t| {
            t.replace("nsid = 1", "nsid = 9")
        }),
        ("namespace-overcommitted", nothing, |t| {
            t.replace("nsid = 1", "size = \"600G\"")
        }),
        (
            "namespace-unmanaged",
            |m| drive(m).can.manage = false,
            |t| t.replace("nsid = 1", "size = \"1G\""),
        ),
        ("namespace-unmanaged", |m| drive(m).can.attach = false, same),
        (
            "namespace-shared",
            |m| {
                drive(m).namespaces.values_mut().for_each(|one| {
                    one.attached.insert(9);
                })
            },
            same,
        ),
        ("erase-unsupported", nothing, |t| {
            t.replace("queues = 3", "queues = 3\nerase = \"crypto\"")
        }),
        (
            "erase-unsupported",
            |m| drive(m).can.format_all = true,
            |t| t.replace("queues = 3", "queues = 3\nerase = \"format\""),
        ),
        ("nvme-vf-manages", nothing, |t| {
            t.replace("accept = [\"nvme-vf-manages\"]\n", "")
        }),
        // Of which no profile knows it.
        (
            "nvme-vf-manages",
            |m| {
                let pf = m.now.pfs.get_mut(&made::bdf(4)).unwrap();
                (pf.vendor, pf.device) = (0x144d, 0xa824);
            },
            |t| t.replace("accept = [\"nvme-vf-manages\"]\n", ""),
        ),
        (
            "pf-assigned",
            |m| {
                let pf = m.now.pfs.get_mut(&made::bdf(4)).unwrap();
                pf.driver = Some("vfio-pci".to_owned());
            },
            same,
        ),
        ("pool-kind", nothing, |t| {
            t.replace("serial = \"drive-4\"", "bdf = \"0000:06:00.0\"")
        }),
    ];
    for (at, (id, change, edit)) in rows.iter().enumerate() {
        let mut machine = lab();
        change(&mut machine);
        let text = edit(LAB);
        if *id == "pool-kind" {
            machine.now.pfs.insert(made::bdf(6), igb(6));
        }
        let text = if *id == "pool-kind" {
            text.replace(
                "[[pf.namespace]]\nname = \"a0\"\nnsid = 1\nvfs = \"0\"\n",
                "",
            )
        } else {
            text
        };
        let problems = wanted(&text, &machine, &seeded()).unwrap_err();
        assert_eq!(ids(&problems), [*id], "row {at}: {problems:#?}");
        assert!(problems[0].location.is_some(), "{problems:#?}");
    }
}

#[test]
fn pf_of_which_nobody_knows_who_has_it_is_broken_alone() {
    let machine = lab();
    let mut records = seeded();
    let report = Report::new(ErrorId::VfStateDamaged, "damaged", "why", "fix");
    records.unusable.insert(made::bdf(2), report);
    let problems = wanted(LAB, &machine, &records).unwrap_err();
    assert_eq!(ids(&problems), ["vf-state-damaged"]);
    assert!(problems[0].location.is_some(), "the line that names it");
    let profiles = Profiles::built_in();
    let sound = super::sound(&made::spec(LAB), &machine.now, &records, &profiles).unwrap();
    let pfs: Vec<_> = sound.desired.pfs.keys().copied().collect();
    assert_eq!(pfs, [made::bdf(4)], "guests get VFs of the other one");
    let [broken] = sound.broken.as_slice() else {
        panic!("{:?}", sound.broken);
    };
    assert!(broken.pools.contains("tenant-a") && ids(&broken.reports) == ["vf-state-damaged"]);
}

#[test]
fn drive_of_which_nobody_knows_is_accepted_by_name() {
    let mut machine = lab();
    let pf = machine.now.pfs.get_mut(&made::bdf(4)).unwrap();
    (pf.vendor, pf.device) = (0x144d, 0xa824);
    let desired = wanted(LAB, &machine, &seeded()).unwrap();
    let plan = planned(&machine, &desired, &seeded());
    assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
    let warnings = ids(&plan.warnings);
    assert!(
        !warnings.contains(&"nvme-vf-manages".to_owned()),
        "{warnings:?}"
    );
}

fn nic(machine: &mut Machine) -> &mut super::NicFacts {
    let pf = machine.now.pfs.get_mut(&made::bdf(2)).unwrap();
    let KindFacts::Nic(nic) = &mut pf.kind else {
        panic!("another kind");
    };
    nic
}

fn drive(machine: &mut Machine) -> &mut super::NvmeFacts {
    let pf = machine.now.pfs.get_mut(&made::bdf(4)).unwrap();
    let KindFacts::Nvme(nvme) = &mut pf.kind else {
        panic!("another kind");
    };
    nvme
}

fn flexible(machine: &mut Machine) -> &mut super::Flexible {
    drive(machine).flexible.as_mut().unwrap()
}

fn used(of: Used) -> Vec<Use> {
    vec![Use {
        of,
        who: "somebody".to_owned(),
        source: "somewhere".to_owned(),
    }]
}

fn interface(name: &str) -> Used {
    Used::Interface(name.to_owned())
}

fn namespace(nsid: u32) -> Used {
    Used::Namespace {
        controller: "nvme4".to_owned(),
        nsid,
    }
}

#[test]
fn each_interlock_refuses_alone_and_is_accepted_only_where_the_table_says_so() {
    type Case = (&'static str, fn(&mut Observed, &mut Records));
    let rows: &[Case] = &[
        ("pf-assigned", |_, r| {
            r.running.insert(made::bdf(2), "web-1".to_owned());
        }),
        ("pf-only-route", |o, _| {
            o.uses.default_routes = used(interface("eth2"))
        }),
        ("pf-default-route", |o, _| {
            o.uses.default_routes = used(interface("eth2"));
            o.uses.default_routes.extend(used(interface("eth9")));
        }),
        ("pf-login", |o, _| o.uses.logins = used(interface("eth2"))),
        ("pf-root-disk", |o, _| o.uses.roots = used(namespace(1))),
        ("pf-root-disk", |o, _| {
            o.uses.roots = used(Used::Controller("nvme4".to_owned()))
        }),
        ("pf-mounted", |o, _| o.uses.mounts = used(namespace(1))),
        ("namespace-open", |o, _| o.uses.open = used(namespace(1))),
        ("managed-elsewhere", |o, _| {
            o.managers.push(Managed {
                bdf: made::bdf(2),
                manager: "netplan".to_owned(),
                source: "/etc/netplan/1.yaml".to_owned(),
                count: Some(3),
            })
        }),
        ("facts-unread", |o, _| {
            o.unread.push(Unread {
                place: "/proc/net/route".to_owned(),
                reason: "EACCES".to_owned(),
                bdf: Some(made::bdf(2)),
            })
        }),
    ];
    let profiles = Profiles::built_in();
    for (id, change) in rows {
        let mut machine = lab();
        let mut records = seeded();
        change(&mut machine.now, &mut records);
        let mut desired = wanted(LAB, &machine, &records).unwrap();
        let plan_of =
            |desired: &Desired, safety| plan(&machine.now, desired, &records, &profiles, safety);
        let refused = plan_of(&desired, Safety::default());
        assert_eq!(ids(&refused.refusals), [*id], "{:#?}", refused.refusals);
        assert_eq!(refused.exit(), Exit::Refused);
        let named =
            &desired.pfs[&if id.contains("disk") || refused.refusals[0].what.contains("nvme") {
                made::bdf(4)
            } else {
                made::bdf(2)
            }];
        assert_eq!(
            refused.refusals[0].location.as_deref(),
            named.place.as_ref(),
            "{id}"
        );
        assert!(named.place.is_some(), "{id}");
        let row = ROWS.iter().find(|row| row.id.name() == *id).unwrap();
        for pf in desired.pfs.values_mut() {
            pf.accept = vec![row.interlock];
        }
        let accepted = plan_of(&desired, Safety::default());
        assert_eq!(accepted.refusals.is_empty(), row.is_acceptable, "{id}");
        // What no step touches is not judged.
        let nothing = plan_of(&Desired::default(), Safety::default());
        assert!(nothing.refusals.is_empty(), "{id}");
    }
    // A use of something that no step takes away stands in no way.
    let mut machine = lab();
    machine.now.uses.mounts = used(namespace(3));
    machine.now.uses.addresses = used(interface("eth2"));
    let desired = wanted(LAB, &machine, &seeded()).unwrap();
    assert!(planned(&machine, &desired, &seeded()).refusals.is_empty());
}

#[test]
fn the_interlocks_are_the_golden_ones() {
    let off = Safety {
        protect_default_route: false,
        protect_login: false,
        protect_disks: false,
        forbid_other_managers: false,
        require_singleton_group: false,
    };
    let table: String = ROWS
        .iter()
        .map(|row| {
            let accept = if row.is_acceptable { "accept" } else { "-" };
            let safety = if (row.holds)(off) { "-" } else { "safety" };
            format!("{:<18} {accept:<7} {safety}\n", row.id.name())
        })
        .collect();
    let golden = "\
pf-assigned        -       -
vf-in-use          -       -
vf-host-used       -       -
pf-only-route      accept  safety
pf-default-route   accept  safety
pf-login           accept  safety
pf-root-disk       -       -
pf-mounted         -       safety
namespace-open     -       safety
managed-elsewhere  accept  safety
facts-unread       -       -
";
    assert_eq!(table, golden, "\n{table}");
}

fn runs(machine: &Machine, records: &mut Records, index: u32) {
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
fn records_of_another_card_refuse_the_plan() {
    let mut machine = lab();
    let (_, mut records) = applied(&mut machine, LAB);
    records.pfs.get_mut(&made::bdf(4)).unwrap().anchor = Anchor::Serial("other".to_owned());
    let desired = wanted(LAB, &machine, &records).unwrap();
    let plan = planned(&machine, &desired, &records);
    assert_eq!(ids(&plan.refusals), ["record-mismatch"]);
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
