use std::collections::BTreeMap;

use super::*;
use crate::{
    error::Location,
    spec::host::{Eraser, Kind, Mbps, NicPlaces, NvmePolicy, Pool, PoolPolicy, Safety, Vlan},
    sriov::{
        Anchor, DesiredPf, DesiredVf, KindFacts, Lease, NamespaceId, NicAttributes, NicFacts,
        PfRecords, VfFacts, VfRecord, VfState, WithoutMac,
    },
};

/// Two PFs of three VFs each in pool `a`: the first at node 0 with 10 Gbit/s, the second at node 1 with 25.
struct Host {
    spec: HostSpec,
    desired: Desired,
    observed: Observed,
    records: Records,
    withheld: BTreeMap<Bdf, String>,
}

fn pf(port: usize) -> Bdf {
    format!("0000:0{port}:00.0").parse().unwrap()
}

fn vf(port: usize, index: u32) -> Bdf {
    format!("0000:0{port}:10.{index}").parse().unwrap()
}

fn nowhere() -> Location {
    Location {
        file: "host.toml".into(),
        line: 1,
        column: 1,
        width: 1,
        text: String::new(),
    }
}

fn at_rest() -> NicAttributes {
    NicAttributes {
        spoofchk: Some(true),
        vlan: Some(Vlan::NONE),
        ..NicAttributes::default()
    }
}

impl Host {
    fn new() -> Self {
        let mut host = Self {
            spec: HostSpec {
                warnings: Vec::new(),
                file: "host.toml".into(),
                text: String::new(),
                confirm_within: None,
                safety: Safety::default(),
                pools: ["a", "tenant-b"].map(pool).into(),
                pfs: Vec::new(),
                profiles: Vec::new(),
            },
            desired: Desired::default(),
            observed: Observed::default(),
            records: Records::default(),
            withheld: BTreeMap::new(),
        };
        for (port, link) in [(1, 10_000), (2, 25_000)] {
            let number = u32::try_from(port).unwrap();
            let facts = PfFacts {
                bdf: pf(port),
                anchor: Anchor::Slot(pf(port)),
                vendor: 1,
                device: 1,
                driver: None,
                numa: Some(number - 1),
                root: String::new(),
                total: 3,
                count: 3,
                is_probed: None,
                group: None,
                kind: KindFacts::Nic(NicFacts {
                    interface: Some(format!("eth{port}")),
                    port: None,
                    is_up: true,
                    has_carrier: true,
                    link: Some(Mbps(link)),
                    eswitch: None,
                    address: None,
                }),
                vfs: (0..3)
                    .map(|index| VfFacts {
                        index,
                        bdf: vf(port, index),
                        driver: None,
                        driver_override: None,
                        group: None,
                        group_size: 1,
                        interfaces: Vec::new(),
                        nic: Some(at_rest()),
                    })
                    .collect(),
            };
            host.observed.pfs.insert(pf(port), facts);
            let wanted = |index| DesiredVf {
                without_mac: WithoutMac::Leave,
                index,
                pool: Some("a".to_owned()),
                rest: at_rest(),
                leased: at_rest(),
                resources: None,
                namespaces: Vec::new(),
                erase: Eraser::None,
                accept: Vec::new(),
            };
            let desired = DesiredPf {
                restored: None,
                bdf: pf(port),
                place: None,
                profile: String::new(),
                count: 3,
                up: true,
                is_probed: None,
                adopt: false,
                eswitch: None,
                accept: Vec::new(),
                vfs: (0..3).map(wanted).collect(),
                namespaces: Vec::new(),
            };
            host.desired.pfs.insert(pf(port), desired);
            let record = |index| VfRecord {
                bdf: vf(port, index),
                state: VfState::Clean,
                since: "then".to_owned(),
                pool: Some("a".to_owned()),
                mac: None,
                lease: None,
            };
            let records = PfRecords {
                anchor: Anchor::Slot(pf(port)),
                boot: String::new(),
                vfs: (0..3).map(|index| (index, record(index))).collect(),
                namespaces: BTreeMap::new(),
            };
            host.records.pfs.insert(pf(port), records);
        }
        host
    }

    fn view(&self) -> PoolsView<'_> {
        PoolsView {
            spec: &self.spec,
            desired: &self.desired,
            observed: &self.observed,
            records: &self.records,
            withheld: &self.withheld,
        }
    }

    fn record(&mut self, port: usize, index: u32) -> &mut VfRecord {
        let records = self.records.pfs.get_mut(&pf(port)).unwrap();
        records.vfs.get_mut(&index).unwrap()
    }

    fn lease(&mut self, port: usize, index: u32, guest: &str, state: VfState, keep: bool) {
        let record = self.record(port, index);
        record.state = state;
        record.lease = Some(Lease {
            guest: guest.to_owned(),
            keep,
            since: "noon".to_owned(),
            run: None,
            terms: LeaseTerms::plain(pf(port), vf(port, index), index),
        });
    }

    /// The VFs for a wish, in order.
    fn order(&self, wish: &PoolWish) -> Vec<Bdf> {
        let found = candidates("web", wish, &self.view(), &BTreeSet::new()).unwrap();
        found.into_iter().map(|terms| terms.vf).collect()
    }

    fn refusal(&self, wish: &PoolWish) -> Report {
        candidates("web", wish, &self.view(), &BTreeSet::new()).unwrap_err()
    }

    fn choose(&self, wishes: &[PoolWish]) -> Result<Vec<Bdf>, Vec<Report>> {
        let devices: Vec<PoolDevice> = wishes
            .iter()
            .enumerate()
            .map(|(at, wish)| PoolDevice {
                at,
                wish: wish.clone(),
                max_vectors: 1,
                accept: Vec::new(),
                place: Some(nowhere()),
            })
            .collect();
        let chosen = choose("web", &devices, &self.view())?;
        Ok(chosen.into_iter().map(|(_, terms)| terms.vf).collect())
    }
}

fn pool(name: &str) -> Pool {
    let places = NicPlaces {
        whole: nowhere(),
        keys: BTreeMap::new(),
    };
    let pool = Pool {
        name: name.to_owned(),
        place: nowhere(),
        policy: PoolPolicy::Nvme(NvmePolicy {
            queues: 2,
            vectors: 1,
            erase: Eraser::None,
            places,
        }),
        accept: BTreeSet::new(),
        reserve: 0,
    };
    assert_eq!(pool.kind(), Kind::Nvme);
    pool
}

fn any() -> PoolWish {
    PoolWish {
        pool: "a".to_owned(),
        numa: None,
        home: None,
        min_link: None,
        keep: false,
    }
}

#[test]
fn free_vfs_come_by_node_then_by_the_leases_of_their_pf_then_by_index() {
    let mut host = Host::new();
    assert_eq!(host.order(&any())[0], vf(1, 0));
    host.lease(1, 0, "db", VfState::InUse, false);
    let order = host.order(&any());
    assert_eq!(order[..3], [vf(2, 0), vf(2, 1), vf(2, 2)]);
    assert_eq!(order[3..], [vf(1, 1), vf(1, 2)]);
    let near = PoolWish {
        home: Some(0),
        ..any()
    };
    assert_eq!(host.order(&near)[0], vf(1, 1), "nearness comes first");
}

#[test]
fn what_is_asked_for_leaves_the_others_out() {
    let host = Host::new();
    for (wish, first, count) in [
        (
            PoolWish {
                numa: Some(1),
                ..any()
            },
            vf(2, 0),
            3,
        ),
        (
            PoolWish {
                min_link: Some(Mbps(25_000)),
                ..any()
            },
            vf(2, 0),
            3,
        ),
        (
            PoolWish {
                min_link: Some(Mbps(10_000)),
                ..any()
            },
            vf(1, 0),
            6,
        ),
    ] {
        let order = host.order(&wish);
        assert_eq!((order[0], order.len()), (first, count), "{wish:?}");
    }
    let none = host.refusal(&PoolWish {
        min_link: Some(Mbps(100_000)),
        ..any()
    });
    assert!(none.why[0].contains("10000 Mbit/s"), "{none:?}");
}

#[test]
fn an_exhausted_pool_tells_of_each_vf_who_has_it_or_what_it_waits_for() {
    let mut host = Host::new();
    host.lease(1, 0, "db", VfState::InUse, false);
    host.lease(1, 1, "mail", VfState::Leased, true);
    host.record(1, 2).state = VfState::Created;
    host.records
        .quarantined
        .insert(vf(2, 0), "it did not come back clean".to_owned());
    host.withheld
        .insert(vf(2, 1), "a run that had it was killed".to_owned());
    let facts = host.observed.pfs.get_mut(&pf(2)).unwrap();
    facts.vfs[2].nic.as_mut().unwrap().spoofchk = Some(false);
    let report = host.refusal(&any());
    assert_eq!(report.id, ErrorId::PoolExhausted);
    for (line, words) in report.why.iter().zip([
        "0000:01:10.0: guest db has it since noon",
        "0000:01:10.1: guest mail keeps it since noon",
        "0000:01:10.2: it was not shown to be clean",
        "0000:02:10.0: in quarantine: it did not come back clean",
        "0000:02:10.1: a run that had it was killed",
        "0000:02:10.2: spoofchk is not as it was applied",
    ]) {
        assert!(line.starts_with(words), "{line}");
    }
    assert_eq!(report.why.len(), 6);
    host.observed.pfs.get_mut(&pf(2)).unwrap().vfs.pop();
    let report = host.refusal(&any());
    assert!(report.why[5].contains("not made"), "{report:?}");
}

#[test]
fn what_a_pool_reserves_is_handed_to_nobody() {
    let mut host = Host::new();
    host.spec.pools[0].reserve = 5;
    assert_eq!(host.choose(&[any()]).unwrap(), [vf(1, 0)]);
    let reports = host.choose(&[any(), any()]).unwrap_err();
    assert!(reports[0].why[1].contains("reserved"), "{reports:?}");
    assert_eq!(reports[0].location.as_deref(), Some(&nowhere()));
    host.lease(1, 0, "db", VfState::InUse, false);
    assert!(host.choose(&[any()]).is_err());
}

#[test]
fn an_unknown_pool_is_told_with_the_nearest() {
    let report = Host::new().refusal(&PoolWish {
        pool: "tenant_b".to_owned(),
        ..any()
    });
    assert_eq!(report.id, ErrorId::PoolUnknown);
    assert!(report.fix.contains("\"tenant-b\""), "{report:?}");
}

#[test]
fn a_guest_has_the_vf_that_it_keeps_or_none() {
    let mut host = Host::new();
    host.lease(2, 2, "web", VfState::Leased, true);
    assert_eq!(host.order(&any())[0], vf(2, 2));
    // The host was booted, and the file applied again.
    host.record(2, 2).state = VfState::Clean;
    assert_eq!(host.order(&any())[0], vf(2, 2));
    for state in [VfState::Dirty, VfState::Absent, VfState::InUse] {
        host.record(2, 2).state = state;
        let report = host.refusal(&any());
        assert!(report.what.contains("0000:02:10.2"), "{report:?}");
    }
    assert_eq!(
        candidates("db", &any(), &host.view(), &BTreeSet::new())
            .unwrap()
            .len(),
        5,
        "it is no other guest's"
    );
}

#[test]
fn the_answer_is_the_same_once_the_guest_has_its_leases() {
    let near = PoolWish {
        numa: Some(1),
        ..any()
    };
    for wishes in [
        vec![any(), any(), any()],
        vec![any(), near.clone()],
        vec![near.clone(), any(), any(), near],
    ] {
        let mut host = Host::new();
        host.lease(1, 0, "db", VfState::InUse, false);
        let first = host.choose(&wishes).unwrap();
        assert_eq!(
            BTreeSet::from_iter(&first).len(),
            wishes.len(),
            "no VF twice"
        );
        for port in [1, 2] {
            for index in 0..3 {
                if first.contains(&vf(port, index)) {
                    host.lease(port, index, "web", VfState::Leased, false);
                }
            }
        }
        assert_eq!(host.choose(&wishes).unwrap(), first);
    }
}

#[test]
fn a_vf_that_is_named_is_leased_on_its_pools_terms() {
    let mut host = Host::new();
    let terms = terms_of("web", vf(1, 1), &host.view()).unwrap().unwrap();
    assert_eq!(
        (terms.pool.as_str(), terms.index, terms.keep),
        ("a", 1, false)
    );
    assert_eq!(terms.interface.as_deref(), Some("eth1"));
    let stranger = "0000:09:00.0".parse().unwrap();
    assert_eq!(terms_of("web", stranger, &host.view()), Ok(None));
    host.lease(1, 1, "db", VfState::Leased, true);
    let report = terms_of("web", vf(1, 1), &host.view()).unwrap_err();
    assert_eq!(report.id, ErrorId::LeaseForeign);
    assert!(report.what.contains("db"), "{report:?}");
    let own = terms_of("db", vf(1, 1), &host.view()).unwrap().unwrap();
    assert!(own.keep, "to name it does not end that it is kept");
    host.record(1, 2).state = VfState::Dirty;
    let report = terms_of("web", vf(1, 2), &host.view()).unwrap_err();
    assert_eq!(report.id, ErrorId::PoolExhausted);
}

#[test]
fn a_namespace_is_leased_in_the_format_that_was_recorded() {
    let mut host = Host::new();
    let mut drive = crate::sriov::made::nvme(1);
    let facts = host.observed.pfs.get_mut(&pf(1)).unwrap();
    facts.kind = drive.kind.clone();
    let KindFacts::Nvme(nvme) = &mut drive.kind else {
        panic!("{drive:?}");
    };
    let declared = nvme.namespaces[&2].format();
    let id = nvme.namespaces[&2].id.clone();
    if let KindFacts::Nvme(nvme) = &mut facts.kind {
        nvme.namespaces.get_mut(&2).unwrap().block = 4096;
    }
    host.desired.pfs.get_mut(&pf(1)).unwrap().vfs[1].namespaces = vec![2];
    let leased = |host: &Host| {
        let terms = terms_of("web", vf(1, 1), &host.view()).unwrap().unwrap();
        terms.namespaces[0].format
    };
    assert_eq!(leased(&host).block, 4096, "nothing is recorded");
    let record = crate::sriov::NamespaceRecord {
        id,
        name: "a".to_owned(),
        state: crate::sriov::NamespaceState::Clean,
        since: "then".to_owned(),
        is_made: false,
        erase: None,
        is_shared: false,
        last_guest: None,
        format: Some(declared),
    };
    let records = host.records.pfs.get_mut(&pf(1)).unwrap();
    records.namespaces.insert(2, record);
    assert_eq!(leased(&host), declared);
    // Another namespace at its id is as it is.
    let records = host.records.pfs.get_mut(&pf(1)).unwrap();
    records.namespaces.get_mut(&2).unwrap().id = NamespaceId::None;
    assert_eq!(leased(&host).block, 4096);
}
