use std::collections::BTreeSet;

use super::parse_test::{MINIMAL, POOLS, more, namespace, parse, problems, with_pools};
use crate::error::{ErrorId, Id};

/// A PF and a pool of `kind` that has the line `key` behind its kind: line 4.
fn pool(kind: &str, key: &str) -> String {
    format!("[[pool]]\nname = \"a\"\nkind = \"{kind}\"\n{key}\n{MINIMAL}")
}

#[test]
fn each_problem_is_refused_at_its_place() {
    use ErrorId as E;
    let two_ranges = "[[pool]]\nname = \"a\"\nkind = \"nic\"\nmac = { first = \"02:00:00:00:00:00\", last = \"02:00:00:00:00:0f\" }\n\
                      [[pool]]\nname = \"b\"\nkind = \"nic\"\nmac = { first = \"02:00:00:00:00:0f\", last = \"02:00:00:00:00:1f\" }\n";
    let range = "[[pool]]\nname = \"a\"\nkind = \"nic\"\nmac = { first = \"02:00:00:00:00:00\", last = \"02:00:00:00:00:02\" }\n";
    #[rustfmt::skip]
    let rows: Vec<(String, ErrorId, usize, usize)> = vec![
        // the file
        (more("= "), E::SpecSyntax, 4, 1),
        (String::new(), E::SpecMissingKey, 0, 0),
        ("pf = []".to_owned(), E::SpecMissingKey, 1, 6),
        (more("poolz = 1\n"), E::SpecUnknownKey, 4, 1),
        (format!("pols = 1\n{MINIMAL}"), E::SpecUnknownKey, 1, 1),
        (format!("apiVersion = \"v2\"\n{MINIMAL}"), E::BadChoice, 1, 14),
        (format!("apiVersion = 1\n{MINIMAL}"), E::SpecWrongType, 1, 14),
        (format!("confirm_within = \"4s\"\n{MINIMAL}"), E::BadDuration, 1, 18),
        (format!("confirm_within = \"60\"\n{MINIMAL}"), E::BadDuration, 1, 18),
        (format!("confirm_within = \"61m\"\n{MINIMAL}"), E::BadDuration, 1, 18),
        (format!("[safety]\nprotect_disk = true\n{MINIMAL}"), E::SpecUnknownKey, 2, 1),
        (format!("[safety]\nprotect_disks = \"no\"\n{MINIMAL}"), E::SpecWrongType, 2, 17),
        (format!("{}{MINIMAL}", (0..65).map(|n| format!("[[pool]]\nname = \"p{n}\"\nkind = \"nic\"\n")).collect::<String>()), E::TooManyPools, 193, 1),
        ((0..257).map(|n| format!("[[pf]]\ninterface = \"e{n}\"\nvfs = 0\n")).collect(), E::BadNumber, 769, 1),
        // pools
        (format!("[[pool]]\nkind = \"nic\"\n{MINIMAL}"), E::SpecMissingKey, 1, 1),
        (format!("[[pool]]\nname = \"a\"\n{MINIMAL}"), E::SpecMissingKey, 1, 1),
        (format!("[[pool]]\nname = \"A\"\nkind = \"nic\"\n{MINIMAL}"), E::BadName, 2, 8),
        (format!("[[pool]]\nname = \"a\"\nkind = \"disk\"\n{MINIMAL}"), E::BadChoice, 3, 8),
        (format!("{POOLS}[[pool]]\nname = \"nic\"\nkind = \"nic\"\n{MINIMAL}"), E::PoolListedTwice, 10, 8),
        (pool("nic", "hold = \"ever\""), E::BadChoice, 4, 8),
        (pool("nic", "vlans = 1"), E::SpecUnknownKey, 4, 1),
        (pool("nic", "vlan = 4095"), E::BadVlan, 4, 8),
        (pool("nic", "vlan = 4096"), E::BadVlan, 4, 8),
        (pool("nic", "vlan = -1"), E::BadVlan, 4, 8),
        (pool("nic", "vlan = 1\nqos = 8"), E::BadVlan, 5, 7),
        (pool("nic", "qos = 3"), E::BadVlan, 4, 7),
        (pool("nic", "vlan = 0\nqos = 3"), E::BadVlan, 5, 7),
        (pool("nic", "vlan_proto = \"802.1ad\""), E::BadVlan, 4, 14),
        (pool("nic", "vlan = 1\nvlan_proto = \"802.1q\""), E::BadChoice, 5, 14),
        (pool("nic", "spoofchk = 1"), E::SpecWrongType, 4, 12),
        (pool("nic", "state = \"up\""), E::BadChoice, 4, 9),
        (pool("nic", "max_tx_rate = \"500\""), E::BadRate, 4, 15),
        (pool("nic", "max_tx_rate = \"5T\""), E::BadRate, 4, 15),
        (pool("nic", "max_tx_rate = \"5000000G\""), E::BadRate, 4, 15),
        (pool("nic", "min_tx_rate = -1"), E::BadRate, 4, 15),
        (pool("nic", "max_tx_rate = 10\nmin_tx_rate = 11"), E::BadRate, 5, 15),
        (pool("nic", "mac = \"52:54:00:12:34\""), E::BadMac, 4, 7),
        (pool("nic", "mac = \"52:54:00:12:34:56\""), E::BadMac, 4, 7),
        (pool("nic", "mac = { first = \"x\", last = \"52:54:00:12:34:56\" }"), E::BadMac, 4, 17),
        (pool("nic", "mac = { first = \"52:54:00:00:00:02\", last = \"52:54:00:00:00:01\" }"), E::BadMac, 4, 7),
        (pool("nic", "mac = { first = \"52:54:00:00:00:02\", last = \"52:54:01:00:00:03\" }"), E::BadMac, 4, 7),
        (pool("nic", "mac = { first = \"52:54:00:00:00:00\", last = \"52:54:00:01:00:00\" }"), E::BadMac, 4, 7),
        (pool("nic", "mac = { first = \"52:54:00:00:00:00\" }"), E::SpecMissingKey, 4, 7),
        (pool("nic", "mac = { first = \"00:00:00:00:00:00\", last = \"00:00:00:00:00:01\" }"), E::BadMac, 4, 17),
        (pool("nic", "mac = { first = \"01:00:00:00:00:00\", last = \"02:00:00:00:00:01\" }"), E::MacMulticast, 4, 17),
        (pool("nic", "queues = 3"), E::PoolKind, 4, 10),
        (pool("nic", "erase = \"auto\""), E::PoolKind, 4, 9),
        (pool("nic", "accept = [\"nvme-vf-manages\"]"), E::BadOptOut, 4, 11),
        (pool("nvme", "vlan = 3"), E::PoolKind, 4, 8),
        (pool("nvme", "mac = \"none\""), E::PoolKind, 4, 7),
        (pool("nvme", "hold = \"lease\""), E::PoolKind, 4, 8),
        (pool("nvme", "queues = 1"), E::BadNumber, 4, 10),
        (pool("nvme", "vectors = 0"), E::BadNumber, 4, 11),
        (pool("nvme", "vectors = 65536"), E::BadNumber, 4, 11),
        (pool("nvme", "erase = \"shred\""), E::BadChoice, 4, 9),
        (pool("nvme", "accept = [\"group-shared\"]"), E::BadOptOut, 4, 11),
        (pool("nvme", "accept = [\"nvme-vf-manage\"]"), E::BadOptOut, 4, 11),
        (pool("nvme", "reserve = 1"), E::BadNumber, 4, 11),
        // PFs
        ("[[pf]]\nvfs = 4\n".to_owned(), E::PfMatch, 1, 1),
        ("[[pf]]\nvfs = 4\nbdf = \"3b:00.0\"\nserial = \"x\"\n".to_owned(), E::PfMatch, 1, 1),
        ("[[pf]]\nvfs = 4\nport = 0\n".to_owned(), E::PfMatch, 1, 1),
        ("[[pf]]\nvfs = 4\nprofile = \"intel-igb\"\n".to_owned(), E::PfMatch, 1, 1),
        ("[[pf]]\nvfs = 4\nprofile = \"intel-igb\"\nport = 0\nbdf = \"3b:00.0\"\n".to_owned(), E::PfMatch, 1, 1),
        ("[[pf]]\nvfs = 4\ninterface = \"../eth0\"\n".to_owned(), E::PfMatch, 3, 13),
        ("[[pf]]\nvfs = 4\nserial = \" x\"\n".to_owned(), E::PfMatch, 3, 10),
        ("[[pf]]\nvfs = 4\nbdf = \"3b:00\"\n".to_owned(), E::BadBdf, 3, 7),
        ("[[pf]]\nbdf = \"3b:00.0\"\n".to_owned(), E::SpecMissingKey, 1, 1),
        ("[[pf]]\nbdf = \"3b:00.0\"\nvfs = 65536\n".to_owned(), E::BadNumber, 3, 7),
        (more("[[pf]]\nbdf = \"3b:00.0\"\nvfs = 0\n"), E::PfListedTwice, 5, 7),
        (more("pools = { nic = \"0\" }\n"), E::PoolUnknown, 4, 11),
        (with_pools("pools = { nik = \"0\" }\n"), E::PoolUnknown, 12, 11),
        (with_pools("pools = { nic = \"0-\" }\n"), E::BadRanges, 12, 17),
        (with_pools("pools = { nic = \"\" }\n"), E::BadRanges, 12, 17),
        (with_pools("pools = { nic = \"1-0\" }\n"), E::BadRanges, 12, 17),
        (with_pools("pools = { nic = \"0-2,1\" }\n"), E::BadRanges, 12, 17),
        (with_pools("pools = { nic = \"70000\" }\n"), E::BadRanges, 12, 17),
        (with_pools("pools = { nic = 3 }\n"), E::SpecWrongType, 12, 17),
        (with_pools("pools = { nic = \"0-4\" }\n"), E::VfIndex, 12, 17),
        (with_pools("pools = { nic = \"0-1\", nvme = \"2-3\" }\n"), E::PoolKind, 12, 31),
        (format!("{POOLS}[[pool]]\nname = \"other\"\nkind = \"nic\"\n{MINIMAL}pools = {{ nic = \"0-1\", other = \"1-2\" }}\n"), E::PoolsOverlap, 15, 32),
        (format!("{POOLS}[[pf]]\ninterface = \"e\"\nvfs = 1\npools = {{ nvme = \"0\" }}\n"), E::PoolKind, 12, 18),
        (format!("{POOLS}[[pf]]\nserial = \"e\"\nvfs = 1\npools = {{ nic = \"0\" }}\n"), E::PoolKind, 12, 17),
        (more("eswitch = \"bridge\"\n"), E::BadChoice, 4, 11),
        (more("accept = [\"pf-mounted\"]\n"), E::BadOptOut, 4, 11),
        (more("accept = [\"pf-logon\"]\n"), E::BadOptOut, 4, 11),
        (more("profile = \"Igb\"\n"), E::BadName, 4, 11),
        // VFs
        (more("[[pf.vf]]\nvlan = 1\n"), E::SpecMissingKey, 4, 1),
        (more("[[pf.vf]]\nindex = \"4\"\n"), E::VfIndex, 5, 9),
        (more("[[pf.vf]]\nindex = \"1\"\n[[pf.vf]]\nindex = \"0-3\"\n"), E::VfListedTwice, 7, 9),
        (more("[[pf.vf]]\nindex = \"1-2\"\nmac = \"52:54:00:00:00:01\"\n"), E::MacListedTwice, 6, 7),
        (more("[[pf.vf]]\nindex = \"1\"\nmac = \"53:54:00:00:00:01\"\n"), E::MacMulticast, 6, 7),
        (more("[[pf.vf]]\nindex = \"1\"\nmac = \"ff:ff:ff:ff:ff:ff\"\n"), E::MacMulticast, 6, 7),
        (more("[[pf.vf]]\nindex = \"1\"\nmac = \"00:00:00:00:00:00\"\n"), E::BadMac, 6, 7),
        (more("[[pf.vf]]\nindex = \"1\"\nmac = \"generated\"\n"), E::BadMac, 6, 7),
        (more("[[pf.vf]]\nindex = \"1\"\nhold = \"always\"\n"), E::SpecUnknownKey, 6, 1),
        (more("[[pf.vf]]\nindex = \"1\"\nqos = 1\n"), E::BadVlan, 6, 7),
        (with_pools("pools = { nic = \"0\" }\n[[pf.vf]]\nindex = \"0\"\nqueues = 4\n"), E::PoolKind, 15, 10),
        (with_pools("pools = { nvme = \"0\" }\n[[pf.vf]]\nindex = \"0\"\nvlan = 4\n"), E::PoolKind, 15, 8),
        (format!("{}pools = {{ a = \"0\" }}\n[[pf.vf]]\nindex = \"0\"\nmin_tx_rate = 11\n", pool("nic", "max_tx_rate = 10")), E::BadRate, 11, 15),
        (more("[[pf.vf]]\nindex = \"1\"\nmac = \"52:54:00:00:00:01\"\n[[pf.vf]]\nindex = \"2\"\nmac = \"52:54:00:00:00:01\"\n"), E::MacListedTwice, 9, 7),
        (more("[[pf.vf]]\nindex = \"1\"\nmac = \"52:54:00:00:00:01\"\n[[pf]]\ninterface = \"e\"\nvfs = 1\n[[pf.vf]]\nindex = \"0\"\nmac = \"52:54:00:00:00:01\"\n"), E::MacListedTwice, 12, 7),
        (format!("{range}{MINIMAL}[[pf.vf]]\nindex = \"1\"\nmac = \"02:00:00:00:00:02\"\n"), E::MacListedTwice, 10, 7),
        (format!("{two_ranges}{MINIMAL}"), E::MacListedTwice, 8, 7),
        (format!("{range}{MINIMAL}pools = {{ a = \"0-3\" }}\n"), E::MacRangeSmall, 4, 7),
        // namespaces
        (namespace("nsid = 1\nvfs = \"0\"\n"), E::SpecMissingKey, 8, 1),
        (namespace("name = \"a\"\nvfs = \"0\"\n"), E::SpecMissingKey, 8, 1),
        (namespace("name = \"a\"\nnsid = 1\n"), E::SpecMissingKey, 8, 1),
        (namespace("name = \"a b\"\nnsid = 1\nvfs = \"0\"\n"), E::BadName, 9, 8),
        (namespace("name = \"a\"\nnsid = 0\nvfs = \"0\"\n"), E::BadNumber, 10, 8),
        (namespace("name = \"a\"\nnsid = 4294967295\nvfs = \"0\"\n"), E::BadNumber, 10, 8),
        (namespace("name = \"a\"\nnsid = 1\nsize = \"1G\"\nvfs = \"0\"\n"), E::BadChoice, 11, 8),
        (namespace("name = \"a\"\nnsid = 1\nblock = 512\nvfs = \"0\"\n"), E::BadChoice, 11, 9),
        (namespace("name = \"a\"\nsize = \"1024\"\nvfs = \"0\"\n"), E::BadSize, 10, 8),
        (namespace("name = \"a\"\nsize = \"0G\"\nvfs = \"0\"\n"), E::BadSize, 10, 8),
        (namespace("name = \"a\"\nsize = \"3K\"\nblock = 4096\nvfs = \"0\"\n"), E::BadSize, 10, 8),
        (namespace("name = \"a\"\nsize = \"1G\"\nblock = 1024\nvfs = \"0\"\n"), E::BadNumber, 11, 9),
        (namespace("name = \"a\"\nnsid = 1\nvfs = \"4\"\n"), E::VfIndex, 11, 7),
        (namespace("name = \"a\"\nnsid = 1\nvfs = \"0-1\"\n"), E::NamespaceListedTwice, 11, 7),
        (namespace("name = \"a\"\nnsid = 1\nvfs = \"x\"\n"), E::BadRanges, 11, 7),
        (namespace("name = \"a\"\nnsid = 1\nvfs = \"0\"\n[[pf.namespace]]\nname = \"a\"\nnsid = 2\nvfs = \"0\"\n"), E::NamespaceListedTwice, 13, 8),
        (namespace("name = \"a\"\nnsid = 1\nvfs = \"0\"\n[[pf.namespace]]\nname = \"b\"\nnsid = 1\nvfs = \"0\"\n"), E::NamespaceListedTwice, 13, 8),
        (namespace("name = \"a\"\nsize = \"1G\"\npool = \"a\"\n[[pf.namespace]]\nname = \"a-1\"\nnsid = 1\nvfs = \"0\"\n"), E::NamespaceListedTwice, 13, 8),
        (namespace("name = \"a\"\nsize = \"1G\"\npool = \"b\"\n"), E::PoolUnknown, 11, 8),
        (namespace("name = \"a\"\nnsid = 1\npool = \"a\"\n"), E::BadChoice, 11, 8),
        (namespace("name = \"a\"\nsize = \"1G\"\nvfs = \"0\"\npool = \"a\"\n"), E::BadChoice, 12, 8),
        (namespace("name = \"a\"\nsize = \"1G\"\npool = \"a\"\nshared = true\n"), E::BadChoice, 11, 8),
        (with_pools("[[pf.namespace]]\nname = \"a\"\nsize = \"1G\"\npool = \"nvme\"\n"), E::PoolUnknown, 15, 8),
        (with_pools("pools = { nic = \"0\" }\n[[pf.namespace]]\nname = \"a\"\nsize = \"1G\"\npool = \"nic\"\n"), E::PoolKind, 16, 8),
        (with_pools("pools = { nic = \"0\" }\n[[pf.namespace]]\nname = \"a\"\nnsid = 1\nvfs = \"1\"\n"), E::PoolKind, 12, 17),
        ("[[pf]]\ninterface = \"e\"\nvfs = 1\n[[pf.namespace]]\nname = \"a\"\nnsid = 1\nvfs = \"0\"\n".to_owned(), E::PoolKind, 5, 8),
    ];
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (text, id, line, column) in &rows {
        let expected = (Id::from(*id), *line, *column);
        let found = match parse(text) {
            Ok(_) => Vec::new(),
            Err(_) => problems(text),
        };
        // Nothing but what is wrong, too.
        if found != [expected] {
            wrong.push(format!("{text}\ngives {found:?}\nnot {expected:?}"));
        }
        seen.insert(id.name());
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n\n")
    );
    // One case at least for each id that a host file alone can have.
    let from = ErrorId::BadMac as usize;
    let to = ErrorId::NamespaceListedTwice as usize;
    for id in ErrorId::all().filter(|id| (from..=to).contains(&(*id as usize))) {
        assert!(seen.contains(id.name()), "no case for {id}");
    }
}

#[test]
fn all_problems_of_a_file_are_told_at_once_in_its_order() {
    let text = "apiVersion = \"v2\"\n[[pool]]\nname = \"a\"\nkind = \"nic\"\nvlan = 4096\nmac = \"x\"\n\
                [[pf]]\nbdf = \"x\"\nvfs = 2\npools = { b = \"0\", a = \"1-2\" }\nextra = 1\n";
    let lines: Vec<usize> = problems(text).iter().map(|(_, line, _)| *line).collect();
    assert_eq!(lines, [1, 5, 6, 8, 10, 10, 11]);
}
