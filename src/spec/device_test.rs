use std::path::Path;

use super::*;
use crate::{
    error::Id,
    spec::{Chosen, GuestSpec},
};

const MINIMAL: &str = "name = \"a\"\nkernel = \"vmlinuz\"\n";

fn parse(more: &str) -> Result<GuestSpec, Vec<Report>> {
    GuestSpec::parse(Path::new("guest.toml"), &format!("{MINIMAL}{more}"))
}

fn problems(device: &str) -> Vec<(Id, usize)> {
    let text = format!("memory = \"64M\"\n[[device]]\n{device}");
    let reports = parse(&text).unwrap_err();
    reports
        .iter()
        .map(|report| (report.id, report.location.as_ref().map_or(0, |l| l.line)))
        .collect()
}

#[test]
fn a_device_of_a_pool_has_what_its_table_asks() {
    let spec = parse(
        "memory = { size = \"64M\", numa_node = 1 }\n[[device]]\npool = \"tenant-a\"\nnuma = \"near\"\n\
         min_link = \"10G\"\nkeep = true\nmax_vectors = 3\n[[device]]\npool = \"b\"\n[[device]]\npool = \"c\"\nnuma = 0",
    )
    .unwrap();
    assert!(spec.devices.is_empty());
    let first = &spec.pool_devices[0];
    assert_eq!(
        first.wish,
        PoolWish {
            pool: "tenant-a".to_owned(),
            numa: Some(1),
            home: Some(1),
            min_link: Some(Mbps(10_000)),
            keep: true,
        }
    );
    assert_eq!((first.at, first.max_vectors), (0, 3));
    assert_eq!(first.place.as_ref().map(|place| place.line), Some(5));
    let (plain, numbered) = (&spec.pool_devices[1], &spec.pool_devices[2]);
    assert_eq!(
        (plain.wish.numa, plain.wish.keep, plain.max_vectors),
        (None, false, 64)
    );
    assert_eq!((numbered.wish.numa, numbered.at), (Some(0), 2));
}

#[test]
fn what_a_table_contradicts_is_told_with_its_line() {
    use ErrorId::{
        BadChoice, BadName, BadNumber, BadRate, SpecMissingKey, SpecUnknownKey, SpecWrongType,
    };
    for (device, id, line) in [
        ("bdf = \"0000:01:10.0\"\npool = \"a\"", BadChoice, 6),
        ("max_vectors = 2", SpecMissingKey, 4),
        ("pool = \"Not A Name\"", BadName, 5),
        ("pool = \"a\"\nnuma = \"near\"", BadChoice, 6),
        ("pool = \"a\"\nnuma = \"far\"", BadChoice, 6),
        ("pool = \"a\"\nnuma = 4096", BadNumber, 6),
        ("pool = \"a\"\nmin_link = \"fast\"", BadRate, 6),
        ("pool = \"a\"\nmin_link = \"0G\"", BadRate, 6),
        ("pool = \"a\"\nmin_link = \"+1G\"", BadRate, 6),
        ("pool = \"a\"\nmin_link = \"5000000G\"", BadRate, 6),
        ("pool = \"a\"\nkeep = \"yes\"", SpecWrongType, 6),
        ("pool = \"a\"\nvf_token = \"x\"", SpecUnknownKey, 6),
        ("bdf = \"0000:01:10.0\"\nkeep = true", SpecUnknownKey, 6),
    ] {
        assert_eq!(problems(device), [(Id::from(id), line)], "{device}");
    }
}

#[test]
fn a_peer_is_of_functions_with_addresses() {
    let text = "memory = \"64M\"\n[[device]]\npool = \"a\"\n[[device]]\nbdf = \"0000:01:10.0\"\n[[peer]]\n\
                from = \"0000:01:10.0\"\nto = \"0000:01:10.1\"";
    let reports = parse(text).unwrap_err();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].id, Id::from(ErrorId::BadPeer));
}

#[test]
fn chosen_functions_are_at_the_places_of_their_wishes() {
    let spec = parse(
        "memory = \"64M\"\n[[device]]\npool = \"a\"\n[[device]]\nbdf = \"0000:01:10.5\"\n[[device]]\npool = \"b\"\n\
         [[device]]\nbdf = \"0000:01:10.6\"",
    )
    .unwrap();
    let chosen = |at, bdf: &str| Chosen {
        at,
        bdf: bdf.parse().unwrap(),
    };
    let with = spec
        .clone()
        .with_chosen(&[chosen(2, "0000:02:10.1"), chosen(0, "0000:02:10.0")]);
    let order: Vec<String> = with.devices.iter().map(|d| d.bdf.to_string()).collect();
    assert_eq!(
        order,
        [
            "0000:02:10.0",
            "0000:01:10.5",
            "0000:02:10.1",
            "0000:01:10.6"
        ]
    );
    assert!(with.pool_devices.is_empty());
    let half = spec.with_chosen(&[chosen(2, "0000:02:10.1")]);
    assert_eq!((half.pool_devices.len(), half.pool_devices[0].at), (1, 0));
}
