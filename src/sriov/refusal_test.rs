//! What no plan does: the machine cannot be it, or an interlock holds.

use iommu::topology::Mac;

use super::plan_test::{LAB, applied, drive, ids, lab};
use super::{
    Anchor, Desired, KindFacts, Managed, Observed, Records, Unread, Use, Used,
    interlock::ROWS,
    made::{self, igb, planned, seeded, wanted},
    model::Machine,
    plan,
};
use crate::{
    error::{ErrorId, Exit, Report},
    spec::host::{Mbps, Profiles, Safety},
};

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

pub(super) fn nic(machine: &mut Machine) -> &mut super::NicFacts {
    let pf = machine.now.pfs.get_mut(&made::bdf(2)).unwrap();
    let KindFacts::Nic(nic) = &mut pf.kind else {
        panic!("another kind");
    };
    nic
}

pub(super) fn flexible(machine: &mut Machine) -> &mut super::Flexible {
    drive(machine).flexible.as_mut().unwrap()
}

pub(super) fn used(of: Used) -> Vec<Use> {
    vec![Use {
        of,
        who: "somebody".to_owned(),
        source: "somewhere".to_owned(),
    }]
}

pub(super) fn interface(name: &str) -> Used {
    Used::Interface(name.to_owned())
}

pub(super) fn namespace(nsid: u32) -> Used {
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
