//! Host files, damaged: every problem has its place, and what is taken contradicts neither itself nor the text.

use std::{collections::BTreeSet, path::Path};

use narrows::{
    error::Report,
    spec::host::{HostSpec, Kind, MacChoice, NamespaceFor, NamespaceFrom, PfMatch},
};

use crate::input::{Executions, Input, any_bytes};

const PAGE: &str = include_str!("../../docs/host-file.md");

/// What the page's example does not have.
const MORE: &str = "
[[pf]]
bdf = \"0000:3b:00.0\"
profile = \"intel-ice\"
vfs = 16
pools = { tenant-a = \"0,2-3\", tenant-b = \"8-15\" }
adopt = true
eswitch = \"legacy\"
up = true
accept = [\"pf-login\", \"managed-elsewhere\"]
[[pf.vf]]
index = \"9-11\"
vlan = 7
qos = 3
vlan_proto = \"802.1ad\"
trust = true
state = \"enable\"
min_tx_rate = 100
max_tx_rate = \"1G\"
query_rss = true
[[pf]]
bdf = \"0000:5e:00.0\"
vfs = 8
pools = { fast-b = \"1-7\" }
[[pf.vf]]
index = \"1\"
queues = 4
vectors = 3
[[pf.namespace]]
name = \"data\"
size = \"10G\"
block = 4096
pool = \"fast-b\"
[[pf.namespace]]
name = \"all\"
nsid = 7
vfs = \"1-3\"
shared = true
";

#[test]
fn a_damaged_host_file_is_refused_or_contradicts_nothing() {
    let executions = Executions::of("host_file");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&mut Input::new(bytes));
        });
    executions.say();
}

fn one(input: &mut Input<'_>) {
    let example = PAGE.split("```toml\n").nth(1).unwrap();
    let mut text = example.split("```").next().unwrap().to_owned() + MORE;
    as_it_stands(&HostSpec::parse(Path::new("h"), &text).unwrap(), &text);
    for _ in 0..=input.below(4) {
        damage(input, &mut text, PIECES);
    }
    let is_host = HostSpec::is_host_file(&text);
    match HostSpec::parse(Path::new("h"), &text) {
        Ok(spec) => {
            assert!(is_host, "{text}");
            as_it_stands(&spec, &text);
        }
        Err(problems) => placed(&problems, &text),
    }
}

/// Every problem says why and what to do, and where: in the text.
pub(crate) fn placed(problems: &[Report], text: &str) {
    assert!(!problems.is_empty(), "{text}\nis refused for nothing");
    let mut last = 0;
    for report in problems {
        assert!(!report.what.is_empty() && !report.fix.is_empty());
        assert!(report.why.iter().all(|why| !why.is_empty()), "{report}");
        let Some(place) = &report.location else {
            assert_eq!(last, 0, "{report}");
            continue;
        };
        assert!(place.line >= last, "{report}");
        last = place.line;
        let line = text.split('\n').nth(place.line - 1).unwrap();
        let line = line.strip_suffix('\r').unwrap_or(line);
        assert_eq!(line, place.text, "{report}");
        assert!(
            place.column <= line.chars().count() + 1,
            "{line:?} {text:?} {report}"
        );
    }
}

/// What was taken, against itself and against a reading of the text that knows nothing of hosts.
fn as_it_stands(spec: &HostSpec, text: &str) {
    let document: toml::Table = text.parse().unwrap();
    let list = |key| document.get(key).and_then(toml::Value::as_array);
    let pools = list("pool").map_or(0, Vec::len);
    assert_eq!(
        (spec.pools.len(), spec.pfs.len()),
        (pools, list("pf").unwrap().len())
    );
    let names: BTreeSet<&str> = spec.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names.len(), pools, "{text}");
    let (mut macs, mut pfs) = (BTreeSet::new(), BTreeSet::new());
    for pf in &spec.pfs {
        assert!(pfs.insert(pf.match_by.clone()), "{text}");
        let mut kinds = BTreeSet::new();
        for (index, of) in &pf.pools {
            assert!(*index < pf.vfs, "{text}");
            kinds.insert(spec.pool(&of.name).unwrap().kind());
        }
        match pf.match_by {
            PfMatch::Interface(_) => assert!(!kinds.contains(&Kind::Nvme), "{text}"),
            PfMatch::Serial(_) => assert!(!kinds.contains(&Kind::Nic), "{text}"),
            PfMatch::Bdf(_) | PfMatch::Port { .. } => assert!(kinds.len() < 2, "{text}"),
        }
        for (index, own) in &pf.overrides {
            assert!(*index < pf.vfs, "{text}");
            let vlan = own.vlan.unwrap_or_default();
            assert!(vlan.id <= 4094 && vlan.qos <= 7 && (vlan.id != 0 || vlan.qos == 0));
            let of = pf.pools.get(index).map(|of| of.name.as_str());
            if let Some(mac) = own.mac {
                assert!(
                    !mac.is_zero() && !mac.is_multicast() && macs.insert(mac),
                    "{text}"
                );
                let foreign = spec
                    .pools
                    .iter()
                    .filter(|pool| Some(pool.name.as_str()) != of);
                for range in foreign.filter_map(range_of) {
                    assert!(!range.contains(mac), "{text}");
                }
            }
        }
        let mut ids = BTreeSet::new();
        for namespace in &pf.namespaces {
            assert!(!kinds.contains(&Kind::Nic), "{text}");
            if let NamespaceFrom::Existing { nsid } = namespace.from {
                assert!(nsid != 0 && nsid != u32::MAX && ids.insert(nsid), "{text}");
            }
            match &namespace.to {
                NamespaceFor::Vfs(vfs) => {
                    assert!(namespace.shared || vfs.len() == 1, "{text}");
                    assert!(vfs.iter().all(|index| *index < pf.vfs), "{text}");
                }
                NamespaceFor::Pool(name) => {
                    assert_eq!(spec.pool(name).unwrap().kind(), Kind::Nvme, "{text}");
                }
            }
        }
    }
    for pool in &spec.pools {
        let of_it = || {
            spec.pfs
                .iter()
                .flat_map(|pf| pf.pools.values().filter(|of| of.name == pool.name))
        };
        assert!(
            usize::try_from(pool.reserve).unwrap() <= of_it().count(),
            "{text}"
        );
        if let Some(nic) = pool.nic() {
            assert!(nic.vlan.id <= 4094 && nic.vlan.qos <= 7, "{text}");
            assert!(nic.max_tx.0 == 0 || nic.min_tx <= nic.max_tx, "{text}");
        }
        if let Some(range) = range_of(pool) {
            assert!(
                range.first <= range.last && range.count() <= 65536,
                "{text}"
            );
            assert!(
                !range.first.is_zero() && !range.last.is_multicast(),
                "{text}"
            );
        }
    }
    // What guards less than it could is told.
    let off = document.get("safety").and_then(toml::Value::as_table);
    let off = off.map_or(0, |table| {
        table
            .values()
            .filter(|on| on.as_bool() == Some(false))
            .count()
    });
    assert!(spec.warnings.len() >= off, "{text}");
}

fn range_of(pool: &narrows::spec::host::Pool) -> Option<narrows::spec::host::MacRange> {
    match pool.nic()?.mac {
        MacChoice::Range(range) => Some(range),
        MacChoice::Fixed(_) | MacChoice::Generated | MacChoice::None => None,
    }
}

const PIECES: &[&str] = &[
    "",
    "\"",
    "\"\"\"",
    "\\u0000",
    "\n",
    "\r\n",
    "\u{7F}",
    "é",
    "=",
    "-",
    ",",
    "0",
    "1",
    "9",
    "ff",
    "01:00:5e:00:00:01",
    "02:4e:57:00:00:05",
    "52:54:00:00:01:04",
    "4294967296",
    "65535",
    "0-65534",
    "0x10",
    "-1",
    "1.5",
    "true",
    "false",
    "[]",
    "{}",
    "[[",
    "]]",
    "tenant-a",
    "fast-a",
    "nvme",
    "nic",
    "\n[[pf]]\n",
    "\n[[pool]]\n",
    "\n[[pf.vf]]\nindex = \"0\"\n",
    "\n[[pf.vf]]\nindex = \"4\"\nmac = \"52:54:00:00:01:04\"\n",
    "\n[[pf.namespace]]\nname = \"data-3\"\nnsid = 4\nvfs = \"1\"\n",
    "\n[[pool]]\nname = \"x\"\nkind = \"nic\"\nreserve = 1\n",
    "\n[safety]\nprotect_login = false\n",
    "\nmac = \"none\"\n",
    "\nmac = { first = \"02:4e:57:00:00:10\", last = \"02:4e:57:00:01:00\" }\n",
    "\nvlan = 4095\n",
    "\nqos = 7\n",
    "\nmin_tx_rate = \"5G\"\n",
    "\nqueues = 2\n",
    "\nport = 0\n",
    "\nbdf = \"0000:3b:00.0\"\n",
    "\nshared = true\n",
];

/// Puts something in the place of a piece; most pieces are short.
pub(crate) fn damage(input: &mut Input<'_>, text: &mut String, pieces: &[&str]) {
    let end = u32::try_from(text.len()).unwrap() + 1;
    let at = usize::try_from(input.word() % end).unwrap();
    let back = |text: &str, at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at));
    let start = back(text, at).unwrap();
    let len = match input.below(6) {
        0 | 1 => 0,
        2 | 3 => 1 + input.below(4) as usize,
        4 => input.below(60) as usize,
        _ => text[start..].find('\n').unwrap_or(0),
    };
    let end = back(text, (start + len).min(text.len()))
        .unwrap()
        .max(start);
    text.replace_range(start..end, input.pick(pieces));
}
