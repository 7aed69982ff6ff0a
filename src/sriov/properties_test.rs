//! Claims that hold for all hosts and files of up to 6 PFs with 16 VFs.

use std::{collections::BTreeSet, fmt::Write as _};

use iommu::topology::Mac;
use proptest::prelude::*;

use super::{
    Hands as _, HostPlan, KindFacts, Lease, PfFacts, Records, Step, VfState, baseline, drift,
    made::{self, carry_out, planned, seeded, wanted},
    model::Machine,
};
use crate::spec::host::{Profiles, Vlan};

/// One PF of a host, as it is and as the file wants it.
#[derive(Clone, Debug)]
struct Card {
    family: usize,
    is_up: bool,
    is_probed: bool,
    made: u32,
    bits: u64,
    wanted: u32,
    split: u32,
    namespaces: bool,
}

fn card() -> impl Strategy<Value = Card> {
    let is = (
        0..4usize,
        any::<bool>(),
        any::<bool>(),
        0..=16u32,
        any::<u64>(),
    );
    let should = (0..=16u32, 0..=16u32, any::<bool>());
    (is, should).prop_map(
        |((family, is_up, is_probed, made, bits), (wanted, split, namespaces))| Card {
            family,
            is_up,
            is_probed,
            made,
            bits,
            wanted,
            split,
            namespaces,
        },
    )
}

fn host() -> impl Strategy<Value = Vec<Card>> {
    prop::collection::vec(card(), 1..=6)
}

impl Card {
    fn facts(&self, bus: u8) -> PfFacts {
        let mut facts = match self.family {
            0 => made::igb(bus),
            1 => made::nic(bus, "mlx5_core", (0x15b3, 0x101d), 16),
            2 => made::nic(bus, "i40e", (0x8086, 0x1572), 16),
            _ => made::nvme(bus),
        };
        facts.is_probed = Some(self.is_probed);
        if let KindFacts::Nic(nic) = &mut facts.kind {
            nic.is_up = self.is_up;
        }
        facts
    }

    fn limit(&self) -> u32 {
        if self.family == 0 { 7 } else { 16 }
    }

    fn is_nic(&self) -> bool {
        self.family < 3
    }
}

/// The host before Narrows: some VFs, set to something by somebody.
fn build(cards: &[Card]) -> Machine {
    let buses = (0..).map(|at: u8| 2 + at * 2);
    let mut machine = made::machine(
        cards
            .iter()
            .zip(buses.clone())
            .map(|(card, bus)| card.facts(bus)),
    );
    for (card, bus) in cards.iter().zip(buses) {
        let count = card.made.min(card.limit());
        let bdf = made::bdf(bus);
        let mut step = |step: &Step| {
            machine.carry_out(step, &mut |_| ()).unwrap();
        };
        if count > 0 {
            step(&Step::Create {
                pf: bdf,
                count,
                snapshot: Vec::new(),
                interface: None,
            });
        }
        let facts = machine.now.pfs.get_mut(&bdf).unwrap();
        for vf in &mut facts.vfs {
            vf.driver = None;
            let bit = |at: u32| card.bits >> ((vf.index * 3 + at) % 64) & 1 == 1;
            if let Some(nic) = &mut vf.nic {
                nic.spoofchk = Some(bit(0));
                nic.trust = Some(bit(1));
                let id = if bit(2) { 77 } else { 0 };
                nic.vlan = Some(Vlan { id, ..Vlan::NONE });
                // Only what can be taken away again: mlx5 keeps an address once it has one.
                let index = u8::try_from(vf.index).unwrap();
                let own = Mac([0x52, 0x54, 0, 1, bus, index]);
                nic.mac = (card.family == 1 || bit(3)).then_some(own);
            }
        }
        if let KindFacts::Nvme(nvme) = &mut facts.kind {
            for one in nvme.secondaries.iter_mut().filter(|one| one.vf != 0) {
                if card.bits >> one.cntlid & 1 == 1 {
                    (one.is_online, one.queues, one.vectors) = (true, 2, 1);
                }
            }
            if card.bits & 1 == 1 {
                let name = format!("{}n2", nvme.controller);
                let second = nvme.namespaces.get_mut(&2).unwrap();
                second.attached.insert(0);
                second.block_device = Some(name);
            }
        }
    }
    machine.given = 0;
    machine.done.clear();
    machine
}

/// A file for these cards.
fn file(cards: &[Card]) -> String {
    let mut text = String::from(
        r#"
[[pool]]
name = "free"
kind = "nic"
mac = { first = "02:4e:57:00:00:00", last = "02:4e:57:00:ff:ff" }
vlan = 101
max_tx_rate = "500M"
[[pool]]
name = "held"
kind = "nic"
hold = "always"
vlan = 102
trust = true
[[pool]]
name = "fast"
kind = "nvme"
queues = 3
accept = ["nvme-vf-manages"]
[[pool]]
name = "slow"
kind = "nvme"
erase = "overwrite"
accept = ["nvme-vf-manages"]
"#,
    );
    for (card, at) in cards.iter().zip(0u8..) {
        let vfs = card.wanted.min(card.limit());
        let split = card.split.min(vfs);
        let (one, other) = if card.is_nic() {
            ("free", "held")
        } else {
            ("fast", "slow")
        };
        let ranges: Vec<String> = [(one, 0, split), (other, split, vfs)]
            .into_iter()
            .filter(|(_, from, to)| from < to)
            .map(|(pool, from, to)| format!("{pool} = \"{from}-{}\"", to - 1))
            .collect();
        let bdf = made::bdf(2 + at * 2);
        write!(
            text,
            "[[pf]]\nbdf = \"{bdf}\"\nvfs = {vfs}\npools = {{ {} }}\n",
            ranges.join(", ")
        )
        .unwrap();
        if !card.is_nic() && card.namespaces && vfs > 0 {
            text.push_str("[[pf.namespace]]\nname = \"a\"\nnsid = 2\nvfs = \"0\"\n");
            text.push_str("[[pf.namespace]]\nname = \"b\"\nsize = \"1G\"\nvfs = \"0\"\n");
        }
    }
    text
}

/// What of a machine outlives a change of the number of VFs; the host's drivers of new VFs are as it pleases.
fn comparable(machine: &Machine, plan: &HostPlan) -> super::Observed {
    let mut now = machine.now.clone();
    for step in &plan.steps {
        if matches!(step, Step::Destroy { .. })
            && let Some(pf) = now.pfs.get_mut(&step.pf())
        {
            for vf in &mut pf.vfs {
                vf.driver = None;
            }
        }
    }
    now
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn plan_of_what_was_applied_is_empty(cards in host()) {
        let (mut machine, text, mut records) = (build(&cards), file(&cards), seeded());
        let first = wanted(&text, &machine, &records).unwrap();
        let plan = planned(&machine, &first, &records);
        carry_out(&mut machine, &mut records, &first, &plan).unwrap();
        let again = wanted(&text, &machine, &records).unwrap();
        let plan = planned(&machine, &again, &records);
        prop_assert!(plan.is_empty() && plan.refusals.is_empty() && plan.held.is_empty(), "{plan:#?}");
        let found = drift(&machine.now, &again, &records, &Profiles::built_in());
        prop_assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn no_vf_is_in_two_pools(cards in host()) {
        let (machine, text) = (build(&cards), file(&cards));
        let desired = wanted(&text, &machine, &seeded()).unwrap();
        let mut macs = BTreeSet::new();
        for (bdf, pf) in &desired.pfs {
            let indexes: Vec<u32> = pf.vfs.iter().map(|vf| vf.index).collect();
            let each: Vec<u32> = (0..pf.count).collect();
            prop_assert_eq!(indexes, each, "each VF of {} once", bdf);
            for mac in pf.vfs.iter().filter_map(|vf| vf.rest.mac) {
                prop_assert!(macs.insert(mac), "{} is given twice", mac);
                prop_assert!(!mac.is_multicast());
            }
        }
    }

    #[test]
    fn undo_of_a_prefix_is_the_machine_before(cards in host(), at in any::<prop::sample::Index>()) {
        let (mut machine, text, mut records) = (build(&cards), file(&cards), seeded());
        let desired = wanted(&text, &machine, &records).unwrap();
        let plan = planned(&machine, &desired, &records);
        prop_assume!(!plan.steps.is_empty());
        let before = comparable(&machine, &plan);
        let kept = records.clone();
        machine.fail_at = Some(at.index(plan.steps.len()));
        carry_out(&mut machine, &mut records, &desired, &plan).unwrap_err();
        prop_assert_eq!(comparable(&machine, &plan), before);
        prop_assert_eq!(records, kept);
    }

    #[test]
    fn release_is_the_baseline(cards in host()) {
        let (mut machine, text, mut records) = (build(&cards), file(&cards), seeded());
        let before = machine.clone();
        let desired = wanted(&text, &machine, &records).unwrap();
        let there = planned(&machine, &desired, &records);
        carry_out(&mut machine, &mut records, &desired, &there).unwrap();
        let back = baseline(&before.now, &machine.now);
        let plan = planned(&machine, &back, &records);
        carry_out(&mut machine, &mut records, &back, &plan).unwrap();
        prop_assert_eq!(comparable(&machine, &there), comparable(&before, &there));
        let again = planned(&machine, &back, &records);
        prop_assert!(again.is_empty(), "{again:#?}");
    }

    #[test]
    fn irreversible_steps_come_last(cards in host()) {
        let (mut machine, text, mut records) = (build(&cards), file(&cards), seeded());
        let before = machine.clone();
        let desired = wanted(&text, &machine, &records).unwrap();
        let plan = planned(&machine, &desired, &records);
        carry_out(&mut machine, &mut records, &desired, &plan).unwrap();
        for record in records.pfs.values_mut().flat_map(|pf| pf.namespaces.values_mut()) {
            record.state = super::NamespaceState::Dirty;
        }
        let back = baseline(&before.now, &machine.now);
        let release = planned(&machine, &back, &records);
        for plan in [plan, release] {
            let last: Vec<bool> = plan.steps.iter().map(Step::is_irreversible).collect();
            prop_assert!(last.is_sorted(), "{:#?}", plan.steps);
        }
    }

    #[test]
    fn refused_plan_has_touched_nothing_and_an_accepted_one_no_guest(
        cards in host(),
        more in host(),
        runs in any::<prop::sample::Index>(),
        keeps in any::<bool>(),
    ) {
        let (mut machine, mut records) = (build(&cards), seeded());
        let desired = wanted(&file(&cards), &machine, &records).unwrap();
        let plan = planned(&machine, &desired, &records);
        carry_out(&mut machine, &mut records, &desired, &plan).unwrap();
        let vfs: Vec<_> = machine.now.pfs.values()
            .flat_map(|pf| pf.vfs.iter().map(|vf| (pf.bdf, vf.index, vf.bdf))).collect();
        prop_assume!(!vfs.is_empty());
        let (pf, index, bdf) = *runs.get(&vfs);
        lease(&mut records, pf, index, bdf, keeps);

        // Another file for the same cards.
        let mut other = cards.clone();
        for (card, like) in other.iter_mut().zip(&more) {
            (card.wanted, card.split) = (like.wanted, like.split);
        }
        let before = machine.clone();
        let Ok(desired) = wanted(&file(&other), &machine, &records) else { return Ok(()) };
        let plan = planned(&machine, &desired, &records);
        let done = carry_out(&mut machine, &mut records, &desired, &plan);
        if done.is_err() {
            prop_assert!(machine.done.len() == before.done.len() && machine.now == before.now);
            return Ok(());
        }
        let of = |machine: &Machine| {
            let pf = &machine.now.pfs[&pf];
            let own = pf.nvme().and_then(|nvme| nvme.secondaries.get(usize::try_from(index).unwrap()).copied());
            (pf.vfs.iter().find(|vf| vf.index == index).cloned(), own)
        };
        let ((is, now), (was, then)) = (of(&machine), of(&before));
        prop_assert_eq!(now.filter(|_| !keeps), then.filter(|_| !keeps));
        prop_assert!(is.is_some(), "the VF that web-1 has is gone");
        if !keeps {
            let fixed = |vf: Option<super::VfFacts>| vf.map(|vf| (vf.bdf, vf.driver, vf.nic.map(|nic| (nic.mac, nic.vlan))));
            prop_assert_eq!(fixed(is), fixed(was));
        }
    }
}

fn lease(
    records: &mut Records,
    pf: iommu::bdf::Bdf,
    index: u32,
    bdf: iommu::bdf::Bdf,
    keeps: bool,
) {
    let Some(of_pf) = records.pfs.get_mut(&pf) else {
        records.running.insert(bdf, "web-1".to_owned());
        return;
    };
    let state = if keeps {
        VfState::Leased
    } else {
        VfState::InUse
    };
    let record = of_pf
        .vfs
        .entry(index)
        .or_insert_with(|| made::record(bdf, state));
    record.state = state;
    record.lease = Some(Lease {
        guest: "web-1".to_owned(),
        keep: keeps,
        since: "2026-01-01T00:00:00Z".to_owned(),
        run: (!keeps).then(|| super::Holder {
            pid: 1,
            start: 1,
            boot: made::BOOT.to_owned(),
        }),
        terms: super::LeaseTerms::plain(pf, bdf, index),
    });
}
