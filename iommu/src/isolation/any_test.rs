//! Judging ends with an answer, whatever the host.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixture_test::{PORT, read};
use crate::{
    fake::FakeHost,
    isolation::{CheckId, Scope, judge_function, judge_host},
};

/// A function of a made-up host, whatever it is.
#[derive(Clone, Debug)]
struct Any {
    place: (u8, u8),
    group: u32,
    kind: u8,
    under: bool,
    config: Vec<u8>,
    bar: (usize, u64, u64),
    driver: u8,
}

fn any_function() -> impl Strategy<Value = Any> {
    let config = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 4096..4097),
    ];
    let bar = (0_usize..6, any::<u32>(), any::<u32>());
    (
        (0_u8..4, 0_u8..8),
        0_u32..4,
        0_u8..4,
        any::<bool>(),
        config,
        bar,
        0_u8..4,
    )
        .prop_map(
            |(place, group, kind, under, config, (index, start, len), driver)| Any {
                place,
                group,
                kind,
                under,
                config,
                bar: (index, start.into(), len.into()),
                driver,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn judging_ends_with_one_finding_for_each_check_on_any_host(
        functions in proptest::collection::vec(any_function(), 0..6),
        cmdline in "[ -~]{0,60}",
        release in "[0-9.a-z+-]{0,12}",
        kind in "(DMA|DMA-FQ|identity|blocked|[a-z]{0,5})",
    ) {
        let mut host = FakeHost::new("").bridge(PORT, 1).cmdline(&cmdline).kernel(&format!("x{release}"));
        let mut seen = BTreeSet::new();
        for function in functions {
            let (device, number) = function.place;
            if !seen.insert(function.place) {
                continue;
            }
            let name = format!("0000:01:{device:02x}.{number}");
            host = match function.kind {
                0 => host.pf(&name, function.group),
                1 => host.bridge(&name, function.group),
                _ => host.device(&name, function.group),
            };
            let (index, start, len) = function.bar;
            host = host.bar(index, start, len).group_type(function.group, &kind);
            if function.under {
                host = host.under(PORT);
            }
            if !function.config.is_empty() {
                host = host.config(&function.config);
            }
            host = match function.driver {
                0 => host.no_driver(),
                1 => host.driver("i40e"),
                2 => host.vfio_without_node("vfio0"),
                _ => host,
            };
        }
        let topology = read(&host);
        let of_host = CheckId::all().filter(|id| id.scope() == Scope::Host).count();
        prop_assert_eq!(judge_host(&topology).len(), of_host);
        for bdf in topology.functions.keys() {
            let findings = judge_function(&topology, *bdf, &[*bdf]);
            prop_assert_eq!(findings.len(), CheckId::COUNT - of_host);
            for finding in findings {
                prop_assert!(!finding.evidence.is_empty(), "{:?}", finding);
            }
        }
    }
}
