use std::{collections::BTreeSet, path::Path, time::Duration};

use iommu::{
    addr::ByteLen,
    topology::{LinkPolicy, Mac, VlanProto},
};

use super::{
    profiles::Profiles,
    types::{
        BlockSize, Eraser, Eswitch, Hold, HostSpec, Interlock, Kind, MacChoice, Mbps, NamespaceFor,
        NamespaceFrom, PfMatch, PoolOptOut, Safety, Vlan,
    },
};
use crate::error::{ErrorId, Id, Report};

/// The least that is a host file: three lines.
pub(super) const MINIMAL: &str = "[[pf]]\nbdf = \"0000:3b:00.0\"\nvfs = 4\n";
/// A pool of NICs and one of drives: eight lines.
pub(super) const POOLS: &str = "[[pool]]\nname = \"nic\"\nkind = \"nic\"\n\
                     [[pool]]\nname = \"nvme\"\nkind = \"nvme\"\n# 7\n# 8\n";

pub(super) fn parse(text: &str) -> Result<HostSpec, Vec<Report>> {
    HostSpec::parse(Path::new("/etc/narrows/host.toml"), text)
}

/// Id, line and column of each problem.
pub(super) fn problems(text: &str) -> Vec<(Id, usize, usize)> {
    let problems = parse(text).unwrap_err();
    problems
        .iter()
        .map(|report| {
            assert!(
                !report.why[0].is_empty() && !report.fix.is_empty(),
                "{report}"
            );
            let place = report.location.as_ref();
            (
                report.id,
                place.map_or(0, |l| l.line),
                place.map_or(0, |l| l.column),
            )
        })
        .collect()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

#[test]
fn a_minimal_file_has_safe_defaults() {
    let text = "[[pool]]\nname = \"a\"\nkind = \"nic\"\n[[pool]]\nname = \"b\"\nkind = \"nvme\"\n";
    let spec = parse(&format!("{text}{MINIMAL}")).unwrap();
    assert_eq!(
        (spec.safety, spec.confirm_within),
        (Safety::default(), None)
    );
    assert!(spec.profiles.is_empty() && spec.warnings.is_empty());
    let nic = spec.pool("a").unwrap().nic().unwrap();
    assert_eq!((nic.hold, nic.mac), (Hold::Lease, MacChoice::Generated));
    assert_eq!((nic.vlan, nic.state), (Vlan::NONE, LinkPolicy::Auto));
    assert_eq!((nic.min_tx, nic.max_tx), (Mbps(0), Mbps(0)));
    assert_eq!(
        (nic.spoofchk, nic.trust, nic.query_rss),
        (true, false, false)
    );
    let nvme = spec.pool("b").unwrap().nvme().unwrap();
    assert_eq!(
        (nvme.queues, nvme.vectors, nvme.erase),
        (2, 2, Eraser::Auto)
    );
    let [pf] = spec.pfs.as_slice() else {
        panic!("one PF")
    };
    assert_eq!(pf.match_by.to_string(), "bdf 0000:3b:00.0");
    assert_eq!(
        (pf.vfs, pf.adopt, pf.eswitch, pf.up),
        (4, false, None, None)
    );
    assert!(pf.pools.is_empty() && pf.accept.is_empty() && pf.profile.is_none());
}

#[test]
fn every_key_is_understood() {
    let spec = parse(
        r#"
        apiVersion = "v1alpha1"
        profiles = ["mine.toml", "/etc/other.toml"]
        confirm_within = "5m"
        [safety]
        protect_default_route = true
        protect_login = true
        protect_disks = true
        forbid_other_managers = true
        require_singleton_group = true
        [[pool]]
        name = "tenant-a"
        kind = "nic"
        hold = "always"
        mac = { first = "02:4e:57:00:00:00", last = "02:4e:57:00:ff:ff" }
        vlan = 4094
        qos = 7
        vlan_proto = "802.1ad"
        spoofchk = true
        trust = false
        state = "enable"
        min_tx_rate = 100
        max_tx_rate = "5G"
        query_rss = true
        accept = []
        reserve = 3
        [[pool]]
        name = "fast"
        kind = "nvme"
        queues = 3
        vectors = 1
        erase = "crypto"
        accept = ["nvme-vf-manages"]
        [[pf]]
        profile = "intel-igb"
        port = 1
        vfs = 7
        pools = { tenant-a = "0-2, 4" }
        adopt = true
        eswitch = "legacy"
        up = false
        accept = ["pf-login", "managed-elsewhere"]
        [[pf.vf]]
        index = "1"
        mac = "02:4e:57:00:00:01"
        [[pf.vf]]
        index = "2-3"
        vlan = 5
        trust = false
        state = "disable"
        max_tx_rate = "500M"
        [[pf]]
        serial = "S6 1"
        vfs = 4
        pools = { fast = "0-1" }
        eswitch = "keep"
        [[pf.vf]]
        index = "0"
        queues = 9
        vectors = 8
        [[pf.namespace]]
        name = "old"
        nsid = 4294967294
        vfs = "2,3"
        shared = true
        [[pf.namespace]]
        name = "new"
        size = "1T"
        block = 4096
        pool = "fast"
        "#,
    )
    .unwrap_or_else(|problems| panic!("{}", problems[0]));
    assert_eq!(spec.confirm_within, Some(Duration::from_secs(300)));
    let profiles: Vec<&Path> = spec
        .profiles
        .iter()
        .map(|(path, _)| path.as_path())
        .collect();
    assert_eq!(
        profiles,
        [
            Path::new("/etc/narrows/mine.toml"),
            Path::new("/etc/other.toml")
        ]
    );
    assert_eq!(spec.profiles[1].1.line, 3);
    let pool = spec.pool("tenant-a").unwrap();
    assert_eq!((pool.kind(), pool.reserve), (Kind::Nic, 3));
    let nic = pool.nic().unwrap();
    let MacChoice::Range(range) = nic.mac else {
        panic!("{:?}", nic.mac)
    };
    assert_eq!(range.count(), 65536);
    assert_eq!(range.addresses().last(), Some(range.last));
    assert_eq!(
        (nic.vlan.id, nic.vlan.qos, nic.vlan.proto),
        (4094, 7, VlanProto::Dot1Ad)
    );
    assert_eq!((nic.hold, nic.state), (Hold::Always, LinkPolicy::Up));
    assert_eq!((nic.min_tx, nic.max_tx), (Mbps(100), Mbps(5000)));
    let pool = spec.pool("fast").unwrap();
    assert_eq!(pool.accept, BTreeSet::from([PoolOptOut::NvmeVfManages]));
    let nvme = pool.nvme().unwrap();
    assert_eq!(
        (nvme.queues, nvme.vectors, nvme.erase),
        (3, 1, Eraser::Crypto)
    );

    let [first, second] = spec.pfs.as_slice() else {
        panic!("two PFs")
    };
    let profile = "intel-igb".to_owned();
    assert_eq!(first.match_by, PfMatch::Port { profile, port: 1 });
    assert_eq!(first.profile.as_ref().unwrap().0, "intel-igb");
    assert_eq!(
        (first.adopt, first.eswitch, first.up),
        (true, Some(Eswitch::Legacy), Some(false))
    );
    assert_eq!(
        first.accept,
        BTreeSet::from([Interlock::PfLogin, Interlock::ManagedElsewhere])
    );
    let indexes: Vec<u32> = first.pools.keys().copied().collect();
    assert_eq!(indexes, [0, 1, 2, 4]);
    assert_eq!(first.overrides[&1].mac, Some(mac("02:4e:57:00:00:01")));
    let own = &first.overrides[&3];
    assert_eq!((own.vlan.unwrap().id, own.trust), (5, Some(false)));
    assert_eq!(
        (own.state, own.max_tx),
        (Some(LinkPolicy::Down), Some(Mbps(500)))
    );
    assert_eq!((own.spoofchk, own.min_tx, own.mac), (None, None, None));

    assert_eq!(second.match_by, PfMatch::Serial("S6 1".to_owned()));
    let own = &second.overrides[&0];
    assert_eq!((own.queues, own.vectors), (Some(9), Some(8)));
    let [old, new] = second.namespaces.as_slice() else {
        panic!("two namespaces")
    };
    assert_eq!(old.from, NamespaceFrom::Existing { nsid: u32::MAX - 1 });
    assert_eq!(
        (&old.to, old.shared),
        (&NamespaceFor::Vfs(BTreeSet::from([2, 3])), true)
    );
    let size = ByteLen::new(1 << 40);
    let block = Some(BlockSize::B4096);
    assert_eq!(new.from, NamespaceFrom::Created { size, block });
    assert_eq!(new.to, NamespaceFor::Pool("fast".to_owned()));
}

#[test]
fn the_example_of_the_page_is_a_host_file() {
    let page = include_str!("../../../docs/host-file.md");
    let example = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .max_by_key(|example| example.len())
        .unwrap();
    assert!(HostSpec::is_host_file(example));
    let spec = parse(example).unwrap_or_else(|problems| panic!("{}", problems[0]));
    assert_eq!((spec.pools.len(), spec.pfs.len()), (4, 2));
    assert!(spec.warnings.is_empty());
    assert!(Profiles::load(&spec).is_ok());
    let [nic, nvme] = spec.pfs.as_slice() else {
        panic!("two PFs")
    };
    assert_eq!(nic.overrides[&4].mac, Some(mac("52:54:00:00:01:04")));
    assert_eq!(nvme.namespaces.len(), 2);
}

#[test]
fn every_value_that_the_machine_may_refuse_keeps_its_place() {
    let text = "[[pool]]\nname = \"a\"\nkind = \"nic\"\nvlan = 5\nmax_tx_rate = 9\n[[pf]]\n\
                interface = \"eth0\"\nvfs = 4\npools = { a = \"0-3\" }\n[[pf.vf]]\nindex = \"2\"\ntrust = false\n";
    let spec = parse(text).unwrap();
    let pool = spec.pool("a").unwrap();
    let places = &pool.nic().unwrap().places;
    let at = |key| (places.of(key).line, places.of(key).column);
    assert_eq!((at("vlan"), at("max_tx_rate")), ((4, 8), (5, 15)));
    assert_eq!(
        (at("state"), pool.place.line),
        ((2, 8), 2),
        "the pool's name"
    );
    let pf = &spec.pfs[0];
    assert_eq!(
        (pf.place.line, pf.vfs_place.line, pf.vfs_place.column),
        (7, 8, 7)
    );
    assert_eq!(
        (pf.pools[&3].place.line, pf.pools[&3].place.column),
        (9, 15)
    );
    let own = &pf.overrides[&2].places;
    assert_eq!((own.of("trust").line, own.of("vlan").line), (12, 11));
}

#[test]
fn weak_pools_and_what_is_switched_off_are_warnings() {
    let text = format!(
        "[safety]\nprotect_login = false\nprotect_disks = false\n\
         [[pool]]\nname = \"a\"\nkind = \"nic\"\nspoofchk = false\ntrust = true\n\
         [[pool]]\nname = \"b\"\nkind = \"nvme\"\nerase = \"none\"\n\
         {MINIMAL}[[pf.vf]]\nindex = \"0-2\"\ntrust = true\n"
    );
    let spec = parse(&text).unwrap();
    let safety = Safety {
        protect_login: false,
        protect_disks: false,
        ..Safety::default()
    };
    assert_eq!(spec.safety, safety);
    let found: Vec<(Id, usize)> = spec
        .warnings
        .iter()
        .map(|report| (report.id, report.location.as_ref().unwrap().line))
        .collect();
    let [off, weak] = [ErrorId::SafetyOff, ErrorId::PoolWeak].map(Id::from);
    assert_eq!(
        found,
        [
            (off, 2),
            (off, 3),
            (weak, 7),
            (weak, 8),
            (weak, 12),
            (weak, 18)
        ]
    );
}

/// What follows on `MINIMAL`, in line 4 and after it.
pub(super) fn more(more: &str) -> String {
    format!("{MINIMAL}{more}")
}

/// `POOLS` and a PF by its address with 4 VFs in lines 9 to 11, and `more` from line 12.
pub(super) fn with_pools(more: &str) -> String {
    format!("{POOLS}{MINIMAL}{more}")
}

/// A PF of a drive with 4 VFs in a pool, and a namespace with these lines from line 9.
pub(super) fn namespace(lines: &str) -> String {
    format!(
        "[[pool]]\nname = \"a\"\nkind = \"nvme\"\n[[pf]]\nserial = \"x\"\nvfs = 4\npools = {{ a = \"0-1\" }}\n\
         [[pf.namespace]]\n{lines}"
    )
}

#[test]
fn a_fixed_address_out_of_its_own_pools_range_is_one_that_the_range_has_no_more() {
    let text = |last: &str| {
        format!(
            "[[pool]]\nname = \"a\"\nkind = \"nic\"\nmac = {{ first = \"02:00:00:00:00:00\", last = \"{last}\" }}\n\
             {MINIMAL}pools = {{ a = \"0-3\" }}\n[[pf.vf]]\nindex = \"1\"\nmac = \"02:00:00:00:00:02\"\n"
        )
    };
    assert!(parse(&text("02:00:00:00:00:03")).is_ok());
    let small = problems(&text("02:00:00:00:00:02"));
    assert_eq!(small, [(Id::from(ErrorId::MacRangeSmall), 4, 7)]);
}

#[test]
fn one_namespace_for_each_vf_of_a_pool_is_of_this_pf_alone() {
    let text = namespace("name = \"data\"\nsize = \"1G\"\npool = \"a\"\n");
    assert!(parse(&text).is_ok());
    // The names are data-0 and data-1.
    let other = format!("{text}[[pf.namespace]]\nname = \"data-2\"\nnsid = 9\nvfs = \"3\"\n");
    assert!(parse(&other).is_ok());
}

#[test]
fn profiles_that_a_host_file_names_are_there_and_of_the_pfs_kind() {
    let load = |text: &str| -> Vec<(Id, usize)> {
        let spec = parse(text).unwrap();
        let problems = Profiles::load(&spec).err().unwrap_or_default();
        problems
            .iter()
            .map(|report| (report.id, report.location.as_ref().unwrap().line))
            .collect()
    };
    assert_eq!(load(&more("profile = \"intel-ice\"\n")), []);
    assert_eq!(load(&more("profile = \"generic-nic\"\n")), []);
    let unknown = Id::from(ErrorId::ProfileUnknown);
    assert_eq!(load(&more("profile = \"intel-icy\"\n")), [(unknown, 4)]);
    let port = "[[pf]]\nvfs = 1\nport = 0\nprofile = \"intel-10g\"\n";
    assert_eq!(load(port), [(unknown, 4)]);
    let kind = Id::from(ErrorId::PoolKind);
    let serial = "[[pf]]\nserial = \"x\"\nvfs = 1\nprofile = \"intel-igb\"\n";
    assert_eq!(load(serial), [(kind, 4)]);
    let pools = with_pools("profile = \"qemu-nvme\"\npools = { nic = \"0\" }\n");
    assert_eq!(load(&pools), [(kind, 12)]);
    let absent = format!("profiles = [\"/nowhere/x.toml\"]\n{MINIMAL}");
    assert_eq!(load(&absent), [(Id::from(ErrorId::FileUnreadable), 1)]);
}

#[test]
fn a_host_file_is_told_from_a_guest_file_by_its_keys() {
    for host in [
        MINIMAL,
        "[[pool]]\n",
        "[safety]\n",
        "pf = 1\n",
        "confirm_within = \"60s\"\n",
        "x = \n[[pf]]\n",
        "x = \n  [[pool]]",
    ] {
        assert!(HostSpec::is_host_file(host), "{host}");
    }
    for guest in [
        "",
        "name = \"a\"\n[[device]]\npool = \"a\"\n",
        "x = \nname = \"pf\"\n",
    ] {
        assert!(!HostSpec::is_host_file(guest), "{guest}");
    }
}

#[test]
fn every_key_is_on_its_page() {
    let page = include_str!("../../../docs/host-file.md");
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    for key in super::keys() {
        let is_named = [
            key.to_owned(),
            format!("[{key}]"),
            format!("[[{key}]]"),
            format!("[[pf.{key}]]"),
        ];
        assert!(
            is_named.iter().any(|key| named.contains(key.as_str())),
            "{key}"
        );
    }
    let page = include_str!("../../../hw-configs/README.md");
    for profile in Profiles::built_in()
        .all()
        .filter(|profile| !profile.sources.is_empty())
    {
        let row = format!("| [{0}](profiles/{0}.toml) |", profile.name);
        assert!(page.contains(&row), "{row}");
    }
    for (word, _, meaning) in super::Quirk::TABLE {
        let row = format!("| `{word}` | {meaning} |");
        assert!(page.contains(&row), "{row}");
    }
}
