use iommu::topology::VlanProto;

use super::{
    super::machine_test::{NIC, NVME, bdf, machine},
    *,
};
use crate::{
    spec::host::{Eraser, Mbps, Vlan},
    sriov::{
        Anchor, AttributeValue, Hands, KindFacts, LeasedNamespace, NamespaceFormat, NamespaceId,
        NicAttributes, NvmeFacts, model::Machine,
    },
};

const MAC: &str = "02:4e:57:00:00:01";

fn vlan(id: u16) -> Vlan {
    Vlan {
        id,
        qos: 0,
        proto: VlanProto::Dot1Q,
    }
}

fn leased() -> NicAttributes {
    NicAttributes {
        mac: Some(MAC.parse().unwrap()),
        vlan: Some(vlan(101)),
        spoofchk: Some(true),
        trust: Some(false),
        min_tx: Some(Mbps(0)),
        max_tx: Some(Mbps(500)),
        state: Some(iommu::topology::LinkPolicy::Auto),
        ..NicAttributes::default()
    }
}

fn obey(machine: &mut Machine, step: &Step) {
    machine.carry_out(step, &mut |_| {}).unwrap();
}

/// A machine whose two VFs, of a NIC and of a drive, are as their leases say; and the leases.
fn taken() -> (Machine, [LeaseTerms; 2]) {
    let mut machine = machine();
    let (nic, disk) = (bdf(NIC), bdf(NVME));
    for pf in [nic, disk] {
        let create = Step::Create {
            pf,
            count: 2,
            snapshot: Vec::new(),
            interface: None,
        };
        obey(&mut machine, &create);
    }
    for _ in 0..2 {
        let create = Step::NamespaceCreate {
            pf: disk,
            controller: "nvme0".to_owned(),
            name: "a".to_owned(),
            size: 1 << 20,
            block: 512,
            shared: true,
        };
        obey(&mut machine, &create);
    }
    let of_nic = LeaseTerms {
        pool: "tenant-a".to_owned(),
        vf: machine.now.pfs[&nic].vfs[0].bdf,
        pf: nic,
        anchor: machine.now.pfs[&nic].anchor.clone(),
        index: 0,
        interface: Some("eth0".to_owned()),
        controller: None,
        cntlid: None,
        keep: false,
        rest: NicAttributes::default(),
        leased: leased(),
        no_mac: false,
        resources: None,
        namespaces: Vec::new(),
        erase: Eraser::Auto,
        accept: Vec::new(),
    };
    let of_disk = LeaseTerms {
        pool: "fast".to_owned(),
        vf: machine.now.pfs[&disk].vfs[0].bdf,
        pf: disk,
        anchor: machine.now.pfs[&disk].anchor.clone(),
        interface: None,
        controller: Some("nvme0".to_owned()),
        cntlid: Some(1),
        leased: NicAttributes::default(),
        resources: Some((2, 1)),
        namespaces: vec![LeasedNamespace {
            nsid: 1,
            id: nvme(&mut machine).namespaces[&1].id.clone(),
            format: nvme(&mut machine).namespaces[&1].format(),
            is_shared: false,
        }],
        ..of_nic.clone()
    };
    let leases = [of_nic, of_disk];
    for terms in &leases {
        for step in to_leased(terms, &machine.now).unwrap() {
            obey(&mut machine, &step);
        }
    }
    (machine, leases)
}

fn nvme(machine: &mut Machine) -> &mut NvmeFacts {
    match &mut machine.now.pfs.get_mut(&bdf(NVME)).unwrap().kind {
        KindFacts::Nvme(nvme) => nvme,
        KindFacts::Nic(_) | KindFacts::Other => panic!("no NVMe"),
    }
}

fn set(machine: &mut Machine, to: AttributeValue) {
    let vf = &mut machine.now.pfs.get_mut(&bdf(NIC)).unwrap().vfs[0];
    vf.nic = Some(vf.nic.unwrap().with(to));
}

fn check(machine: &mut Machine, leases: &[LeaseTerms], tenancy: Tenancy) -> Result<(), Report> {
    let verified = verify(|| machine.observe(), leases, tenancy);
    if let Err(report) = &verified {
        assert_eq!(report.id, ErrorId::StepNotDone);
    }
    verified
}

#[test]
fn vfs_that_are_as_their_leases_say_let_the_guest_run_in_every_life() {
    let (mut machine, leases) = taken();
    check(&mut machine, &leases, Tenancy::Begins).unwrap();
    check(&mut machine, &leases, Tenancy::GoesOn).unwrap();
}

/// What is changed by hand, and the word of it that the operator is told.
type Drift = (fn(&mut Machine), &'static str);

#[test]
fn guest_does_not_run_with_a_vf_that_differs_in_any_word_of_its_lease() {
    let drifts: [Drift; 13] = [
        (|m| set(m, AttributeValue::Vlan(Vlan::NONE)), "vlan"),
        (|m| set(m, AttributeValue::Vlan(vlan(102))), "vlan"),
        (|m| set(m, AttributeValue::Spoofchk(false)), "spoofchk"),
        (|m| set(m, AttributeValue::Trust(true)), "trust"),
        (|m| set(m, AttributeValue::Mac(None)), MAC),
        (
            |m| {
                let (min, max) = (Mbps(0), Mbps(900));
                set(m, AttributeValue::Rate { min, max });
            },
            "500",
        ),
        (
            |m| set(m, AttributeValue::State(iommu::topology::LinkPolicy::Up)),
            "state",
        ),
        (|m| nvme(m).secondaries[0].is_online = false, "online"),
        (|m| nvme(m).secondaries[0].queues = 4, "has 4 queues"),
        (
            |m| nvme(m).namespaces.get_mut(&1).unwrap().attached.clear(),
            "namespace 1",
        ),
        (
            |m| {
                let foreign = nvme(m).namespaces.get_mut(&2).unwrap();
                foreign.attached.insert(1);
            },
            "namespace 2",
        ),
        (
            |m| nvme(m).namespaces.get_mut(&1).unwrap().id = NamespaceId::None,
            "another namespace has the id 1",
        ),
        (
            |m| {
                let pf = m.now.pfs.get_mut(&bdf(NIC)).unwrap();
                pf.anchor = Anchor::Slot(bdf(NIC));
            },
            "another card",
        ),
    ];
    for (drift, word) in drifts {
        for tenancy in [Tenancy::Begins, Tenancy::GoesOn] {
            let (mut machine, leases) = taken();
            drift(&mut machine);
            let report = check(&mut machine, &leases, tenancy).unwrap_err();
            assert!(
                report.why.iter().any(|line| line.contains(word)),
                "{word}, {tenancy:?}: {:?}",
                report.why
            );
        }
    }
}

#[test]
fn all_that_differs_is_said_at_once() {
    let (mut machine, leases) = taken();
    set(&mut machine, AttributeValue::Trust(true));
    set(&mut machine, AttributeValue::Vlan(Vlan::NONE));
    nvme(&mut machine).secondaries[0].is_online = false;
    let report = check(&mut machine, &leases, Tenancy::GoesOn).unwrap_err();
    assert!(report.why.len() >= 3, "{report:?}");
    for terms in &leases {
        assert!(report.what.contains(&terms.vf.to_string()), "{report:?}");
    }
}

#[test]
fn a_guest_that_has_formatted_its_own_namespace_may_reboot_and_run_again() {
    let (mut machine, leases) = taken();
    nvme(&mut machine).namespaces.get_mut(&1).unwrap().block = 4096;
    check(&mut machine, &leases, Tenancy::Begins).unwrap();
    check(&mut machine, &leases, Tenancy::GoesOn).unwrap();
    // Of one that others have too, it is not for this guest to say how it is laid out.
    let (mut machine, mut leases) = taken();
    leases[1].namespaces[0].is_shared = true;
    nvme(&mut machine).namespaces.get_mut(&1).unwrap().block = 4096;
    check(&mut machine, &leases, Tenancy::GoesOn).unwrap_err();
}

#[test]
fn an_address_is_the_guests_to_change_only_where_its_vf_is_trusted() {
    let other = AttributeValue::Mac(Some("02:4e:57:00:00:99".parse().unwrap()));
    let (mut machine, mut leases) = taken();
    set(&mut machine, other);
    check(&mut machine, &leases, Tenancy::GoesOn).unwrap_err();
    set(&mut machine, AttributeValue::Trust(true));
    leases[0].leased.trust = Some(true);
    check(&mut machine, &leases, Tenancy::GoesOn).unwrap();
    check(&mut machine, &leases, Tenancy::Begins).unwrap_err();
}

#[test]
fn a_host_that_cannot_be_read_lets_no_guest_with_a_lease_run() {
    let (_, leases) = taken();
    let unread = || {
        Err(Report::new(
            ErrorId::HostUnreadable,
            "the host cannot be read",
            "EIO",
            "",
        ))
    };
    verify(unread, &[], Tenancy::Begins).unwrap();
    let report = verify(unread, &leases, Tenancy::Begins).unwrap_err();
    assert_eq!(report.id, ErrorId::HostUnreadable);
}

#[test]
fn format_of_terms_is_not_compared_with_what_another_namespace_has() {
    let (machine, leases) = taken();
    let mut terms = leases[1].clone();
    terms.namespaces[0].id = NamespaceId::Nguid("f".repeat(32));
    terms.namespaces[0].format = NamespaceFormat {
        block: 4096,
        ..terms.namespaces[0].format
    };
    assert_eq!(as_left(&terms, &machine.now), terms);
}
