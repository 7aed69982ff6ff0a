//! What the interfaces of made-up PFs tell of their VFs.

use std::{io, path::Path};

use super::{FakeFunction, FakeHost, write::put};

/// What a driver enforces on a VF whose host takes care, but for its address.
const GOOD: &[(&str, &str)] = &[
    ("vlan", "0"),
    ("qos", "0"),
    // 802.1Q.
    ("proto", "?"),
    ("spoofchk", "on"),
    ("trust", "off"),
    ("query_rss", "off"),
    ("link", "auto"),
    ("min_tx", "0"),
    ("max_tx", "0"),
];

impl FakeHost {
    /// The interface that a NIC's PF has unless a test named one or gave its function to VFIO: `net/pf0100`, of its bus,
    /// device and function.
    pub(super) fn own_interface(&self, function: &FakeFunction) -> Option<String> {
        let is_nic = function
            .attributes
            .get("class")
            .is_some_and(|class| class.starts_with("0x02"));
        let is_carried = function.driver.is_some() && function.vfio_dev.is_none();
        let has_none = !function
            .children
            .iter()
            .any(|name| name.starts_with("net/"));
        let wants_one = is_nic && is_carried && has_none && self.vfs(&function.bdf).count() > 0;
        wants_one.then(|| {
            let digits: String = function
                .bdf
                .chars()
                .skip(5)
                .filter(char::is_ascii_hexdigit)
                .collect();
            format!("net/pf{digits}")
        })
    }

    /// Writes a table for each interface of a PF that has VFs.
    pub(super) fn write_policies(&self) -> io::Result<()> {
        let mut number = 0;
        for pf in &self.functions {
            let own = self.own_interface(pf);
            let mut names = pf
                .children
                .iter()
                .chain(&own)
                .filter_map(|name| name.strip_prefix("net/"));
            let Some(interface) = names.next().filter(|_| !pf.is_silent) else {
                continue;
            };
            let mut lines = vec![format!("parent {}", pf.bdf)];
            for (index, vf) in self.vfs(&pf.bdf).enumerate() {
                number += 1;
                lines.push(line(index, number, vf));
            }
            if lines.len() > 1 {
                let file = Path::new("narrows/vf-info").join(interface);
                put(&self.folder.join(file), &lines.join("\n"))?;
            }
        }
        Ok(())
    }
}

fn line(index: usize, number: u64, vf: &FakeFunction) -> String {
    // As a capture shows addresses.
    let digits = format!("{number:012x}");
    let pairs: Vec<&str> = (0..6)
        .filter_map(|at| digits.get(2 * at..2 * at + 2))
        .collect();
    let mac = pairs.join(":");
    let mut line = format!("vf {index}");
    for (key, good) in std::iter::once(&("mac", mac.as_str())).chain(GOOD) {
        let changed = vf.policy.iter().rev().find(|(word, _)| word == key);
        match changed.map_or(*good, |(_, value)| value.as_str()) {
            "?" => {}
            value => line.push_str(&format!(" {key} {value}")),
        }
    }
    line
}
