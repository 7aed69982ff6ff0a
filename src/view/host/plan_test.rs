use super::{plan_text, rows, vfs_text};
use crate::{
    error::Color,
    sriov::{
        Anchor, AttributeValue, Destroyed, Held, HostPlan, KindFacts, NicAttributes, NicFacts,
        Observed, PfFacts, Records, Step, VfFacts,
    },
};

fn nic(vfs: u32) -> Observed {
    let pf = "0000:01:00.0".parse().unwrap();
    let facts = PfFacts {
        bdf: pf,
        anchor: Anchor::Slot(pf),
        vendor: 0x8086,
        device: 0x10c9,
        driver: Some("igb".to_owned()),
        numa: None,
        root: "pci0000:00".to_owned(),
        total: 7,
        count: vfs,
        is_probed: Some(false),
        group: Some(3),
        kind: KindFacts::Nic(NicFacts {
            interface: Some("eth0".to_owned()),
            port: Some(0),
            is_up: true,
            has_carrier: true,
            link: None,
            eswitch: None,
            address: None,
        }),
        vfs: (0..vfs)
            .map(|index| VfFacts {
                index,
                bdf: format!("0000:01:10.{index}").parse().unwrap(),
                driver: None,
                driver_override: None,
                group: Some(10 + index),
                group_size: 1,
                interfaces: Vec::new(),
                nic: Some(NicAttributes::default()),
            })
            .collect(),
    };
    Observed {
        pfs: [(pf, facts)].into(),
        ..Observed::default()
    }
}

fn spoofchk(index: u32) -> Step {
    Step::Attribute {
        pf: "0000:01:00.0".parse().unwrap(),
        interface: "eth0".to_owned(),
        index,
        from: Some(AttributeValue::Spoofchk(false)),
        to: AttributeValue::Spoofchk(true),
        stays: false,
    }
}

#[test]
fn alike_steps_are_one_line_unless_all_are_asked_for() {
    let pf = "0000:01:00.0".parse().unwrap();
    let create = Step::Create {
        pf,
        count: 4,
        snapshot: Vec::new(),
        interface: Some("eth0".to_owned()),
    };
    let plan = HostPlan {
        steps: vec![create, spoofchk(0), spoofchk(1), spoofchk(3)],
        ..HostPlan::default()
    };
    let text = plan_text(&plan, &nic(0), false, Color::Never);
    assert_eq!(
        text,
        "0000:01:00.0 eth0 (igb)\n  + PF               4 VFs\n  \
         ~ VF 0-1           spoofchk on, was off\n  ~ VF 3             spoofchk on, was off\n4 steps to do\n"
    );
    let all = plan_text(&plan, &nic(0), true, Color::Never);
    assert_eq!(all.matches("spoofchk on").count(), 3);
}

#[test]
fn plan_says_what_is_lost_and_what_waits() {
    let plan = HostPlan {
        destroyed: vec![Destroyed {
            pf: "0000:01:00.0".parse().unwrap(),
            what: "all 4 VFs of eth0".to_owned(),
        }],
        held: vec![Held {
            vf: "0000:01:10.1".parse().unwrap(),
            guest: "web-1".to_owned(),
            what: "vlan 7, was 5".to_owned(),
        }],
        ..HostPlan::default()
    };
    let text = plan_text(&plan, &nic(4), false, Color::Never);
    assert_eq!(
        text,
        "what is lost:\n  all 4 VFs of eth0\nwhat waits for a guest to give its VF back:\n  \
         0000:01:10.1: vlan 7, was 5 (guest web-1 has it)\nnothing to do: the machine is as the file says (1 held)\n"
    );
}

#[test]
fn vf_that_a_run_has_is_in_use_though_no_pool_knows_it() {
    let observed = nic(2);
    let records = Records {
        running: [("0000:01:10.1".parse().unwrap(), "web-1".to_owned())].into(),
        quarantined: [(
            "0000:01:10.0".parse().unwrap(),
            "it did not reset".to_owned(),
        )]
        .into(),
        ..Records::default()
    };
    let rows = rows(&observed, None, &records);
    let text = vfs_text(&rows, Color::Never);
    assert_eq!(
        text,
        "BDF           PF      POOL  STATE        GUEST  SINCE  ADDRESS\n\
         0000:01:10.0  eth0 0  -     quarantined  -      -\n\
         0000:01:10.1  eth0 1  -     in use       web-1  -\n"
    );
}
