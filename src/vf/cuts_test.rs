//! The machine of a `World`, and the host files that cut its two PFs.

use std::path::Path;

use super::machine_test::{NIC, machine};
use crate::{
    spec::host::{HostSpec, Mbps},
    sriov::{KindFacts, Namespace, NamespaceId, model::Machine},
};

/// A namespace that the host file says several VFs may see.
pub(super) const SHARED: u32 = 4;
const SIZE: u64 = 1 << 20;
pub(super) const BLOCK: u32 = 512;

/// The host file of a number: each is a way of cutting the same two PFs.
pub(super) fn file(number: u8) -> String {
    let bit = |at: u8| number >> at & 1 == 1;
    let vlan = if bit(0) { "vlan = 101\n" } else { "" };
    let mac = if bit(1) { "mac = \"none\"\n" } else { "" };
    let (nics, more) = if bit(2) { ("0", "1-2") } else { ("0-1", "2") };
    let (a, b) = if bit(3) { (1, 0) } else { (0, 1) };
    let erase = if bit(4) { "overwrite" } else { "auto" };
    let (disks, rest) = if bit(5) { ("0", "1-2") } else { ("0-1", "2") };
    let rest = match bit(7) {
        false => format!(", more = \"{rest}\""),
        true => String::new(),
    };
    let shared = match (bit(6), disks) {
        (false, _) => String::new(),
        // Of one pool.
        (true, "0") => namespace("s", SHARED, "1-2\"\nshared = true\n#\""),
        (true, _) => namespace("s", SHARED, "0-1\"\nshared = true\n#\""),
    };
    format!(
        "[[pool]]\nname = \"one\"\nkind = \"nic\"\n{vlan}\
         [[pool]]\nname = \"two\"\nkind = \"nic\"\n{mac}\
         [[pool]]\nname = \"disk\"\nkind = \"nvme\"\nerase = \"{erase}\"\naccept = [\"nvme-vf-manages\"]\n\
         [[pool]]\nname = \"more\"\nkind = \"nvme\"\naccept = [\"nvme-vf-manages\"]\n\
         [[pf]]\nbdf = \"{NIC}\"\nvfs = 3\npools = {{ one = \"{nics}\", two = \"{more}\" }}\n\
         [[pf]]\nserial = \"one\"\nvfs = 3\npools = {{ disk = \"{disks}\"{rest} }}\n{}{}{shared}",
        namespace("a", 2, &a.to_string()),
        namespace("b", 3, &b.to_string()),
    )
}

fn namespace(name: &str, nsid: u32, vfs: &str) -> String {
    format!("[[pf.namespace]]\nname = \"{name}\"\nnsid = {nsid}\nvfs = \"{vfs}\"\n")
}

pub(super) fn host() -> Machine {
    let mut host = machine();
    for facts in host.now.pfs.values_mut() {
        facts.driver = Some(match &mut facts.kind {
            KindFacts::Nic(nic) => {
                nic.link = Some(Mbps(1000));
                "igb".to_owned()
            }
            KindFacts::Nvme(nvme) => {
                for nsid in 1..=SHARED {
                    let one = Namespace {
                        size: SIZE,
                        block: BLOCK,
                        metadata: 0,
                        protection: 0,
                        is_shared: nsid == SHARED,
                        id: NamespaceId::Nguid(format!("{nsid:032x}")),
                        attached: (nsid == 1).then_some(0).into_iter().collect(),
                        block_device: None,
                    };
                    nvme.namespaces.insert(nsid, one);
                }
                "nvme".to_owned()
            }
            KindFacts::Other => continue,
        });
    }
    host
}

pub(super) fn parsed(text: &str) -> HostSpec {
    HostSpec::parse(Path::new("host.toml"), text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"))
}
