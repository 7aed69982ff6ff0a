//! What netplan's files say of VFs: by lines and their indentation. What is written in another way than in blocks
//! counts as being about every NIC.

use super::managers::{Device, Found, fits};

/// Keys of an interface that concern VFs.
const COUNT: &str = "virtual-function-count";
const MODE: &str = "embedded-switch-mode";

/// An interface of `ethernets`.
#[derive(Debug, Default)]
struct Entry {
    id: String,
    name: Option<String>,
    mac: Option<String>,
    driver: Option<String>,
    count: Option<u32>,
    is_about_vfs: bool,
    /// The PF that it says to be a VF of.
    link: Option<String>,
}

pub(super) fn read(_: &str, text: &str, devices: &[Device]) -> Found {
    let pfs = || devices.iter().filter(|d| d.is_pf && d.interface.is_some());
    let Some(entries) = entries(text) else {
        return pfs().map(|device| (device.bdf, None)).collect();
    };
    let mut found: Found = Vec::new();
    let mut add = |bdf, count: Option<u32>| match found.iter_mut().find(|(b, _)| *b == bdf) {
        Some((_, known)) => *known = known.or(count),
        None => found.push((bdf, count)),
    };
    for entry in entries.iter().filter(|entry| entry.is_about_vfs) {
        for device in pfs().filter(|device| entry.is_of(device)) {
            add(device.bdf, entry.count);
        }
    }
    for (vf, link) in entries.iter().filter_map(|e| Some((e, e.link.as_ref()?))) {
        let above = entries.iter().find(|entry| entry.id == *link);
        for device in pfs() {
            let is_it = match above {
                Some(entry) => entry.is_of(device),
                None => device.interface.as_ref() == Some(link),
            };
            if is_it {
                add(device.bdf, None);
            }
        }
        for device in devices.iter().filter(|d| !d.is_pf && d.interface.is_some()) {
            if vf.is_of(device) {
                add(device.bdf, None);
            }
        }
    }
    found
}

impl Entry {
    /// Without a `match` the entry's own name is the interface's.
    fn is_of(&self, device: &Device) -> bool {
        let own = device.interface.as_deref().unwrap_or_default();
        let is_plain = self.name.is_none() && self.mac.is_none() && self.driver.is_none();
        if is_plain {
            return own == self.id;
        }
        let by_name = self.name.as_ref();
        let by_name = by_name.is_none_or(|glob| fits(own.as_bytes(), glob.as_bytes()));
        let by_mac = match (&self.mac, &device.mac) {
            (Some(wanted), Some(own)) => wanted.eq_ignore_ascii_case(own),
            _ => true,
        };
        let by_driver = match (&self.driver, &device.driver) {
            (Some(glob), Some(own)) => fits(own.as_bytes(), glob.as_bytes()),
            _ => true,
        };
        by_name && by_mac && by_driver
    }
}

/// The interfaces of `network: ethernets:`; `None` where VFs are spoken of in a way that is not understood here.
fn entries(text: &str) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    // The keys above the line, each with its indentation.
    let mut path: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let line = without_comment(line);
        let content = line.trim_start_matches(' ');
        if content.trim().is_empty() || content.starts_with("---") {
            continue;
        }
        let speaks_of_vfs = content.contains(COUNT) || content.contains(MODE);
        let indent = line.len() - content.len();
        path.retain(|(above, _)| *above < indent);
        let Some((key, value)) = content.split_once(':') else {
            if speaks_of_vfs {
                return None;
            }
            continue;
        };
        let (key, value) = (plain(key), plain(value));
        path.push((indent, key.clone()));
        let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
        let is_block = matches!(keys.as_slice(), ["network", "ethernets", _, COUNT | MODE]);
        let is_flow = value.starts_with('{') || content.contains('\t');
        if speaks_of_vfs && !is_block || is_flow && text.contains(COUNT) {
            return None;
        }
        let ["network", "ethernets", id, rest @ ..] = keys.as_slice() else {
            continue;
        };
        if entries.last().is_none_or(|entry| entry.id != *id) {
            entries.push(Entry {
                id: (*id).to_owned(),
                ..Entry::default()
            });
        }
        let Some(entry) = entries.last_mut() else {
            continue;
        };
        match rest {
            ["match", "name"] => entry.name = Some(value),
            ["match", "macaddress"] => entry.mac = Some(value),
            ["match", "driver"] => entry.driver = Some(value),
            [COUNT] => {
                entry.is_about_vfs = true;
                entry.count = value.parse().ok();
            }
            [MODE] => entry.is_about_vfs = true,
            ["link"] => entry.link = Some(value),
            _ => {}
        }
    }
    Some(entries)
}

fn without_comment(line: &str) -> &str {
    let comment = line
        .find(" #")
        .or_else(|| line.starts_with('#').then_some(0));
    line.get(..comment.unwrap_or(line.len())).unwrap_or(line)
}

fn plain(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}
