//! What is taken out of a capture before anybody sees it: whatever tells this machine from others of its model.
//!
//! Configuration space keeps what a table allows, long files what [`cut`] keeps of them. Everything is searched for MAC
//! addresses and UUIDs, in names too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use iommu::sysfs::{Entry, Kind, Tree, TreeError};

use super::cut;

/// The same files without what identifies the machine, and what was changed, in words.
///
/// # Errors
/// Two names became one: a bug.
pub fn scrub(tree: &Tree) -> Result<(Tree, Vec<String>), TreeError> {
    let mut ids = Ids::default();
    let mut said: BTreeSet<&str> = BTreeSet::new();
    let mut scrubbed = Tree::default();
    let process = own_process(tree);
    for (path, entry) in tree.entries() {
        let kind = match &entry.kind {
            Kind::File(bytes) if is_config(path) => {
                let new = config(bytes);
                if new != *bytes {
                    said.insert(CONFIG);
                }
                Kind::File(new)
            }
            Kind::File(bytes) => {
                let (new, what) = cut::cut(path, bytes);
                said.extend(what);
                match String::from_utf8(new) {
                    Ok(text) => Kind::File(ids.replace(&text).into_bytes()),
                    Err(error) => Kind::File(error.into_bytes()),
                }
            }
            Kind::Link(_) if path == Path::new(SELF) => Kind::Link("1".into()),
            Kind::Link(target) => Kind::Link(ids.replace(&target.to_string_lossy()).into()),
            other @ (Kind::Folder | Kind::Failing(_) | Kind::Unread) => other.clone(),
        };
        let path = match process
            .as_deref()
            .and_then(|own| path.strip_prefix(own).ok())
        {
            Some(below) => Path::new("proc/1").join(below),
            None => path.to_owned(),
        };
        let path = ids.replace(&path.to_string_lossy());
        let entry = Entry {
            kind,
            owner: entry.owner,
        };
        // Two names stay two: every identifier has a number of its own.
        scrubbed.insert(Path::new(path.trim_end_matches('/')), entry)?;
    }
    if !ids.0.is_empty() {
        said.insert("MAC addresses and UUIDs, replaced by numbers");
    }
    Ok((scrubbed, said.into_iter().map(str::to_owned).collect()))
}

const CONFIG: &str = "configuration space: serial numbers, vital product data, and all registers that no check reads";

/// What the link to the process that captures is called.
const SELF: &str = "proc/self";

/// The folder of the process that captures, whose number changes each time.
fn own_process(tree: &Tree) -> Option<PathBuf> {
    tree.entries()
        .filter(|(path, _)| *path == Path::new(SELF))
        .find_map(|(_, entry)| match &entry.kind {
            Kind::Link(target) => Some(Path::new("proc").join(target)),
            Kind::Folder | Kind::File(_) | Kind::Failing(_) | Kind::Unread => None,
        })
}

fn is_config(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "config")
}

/// Capabilities and how many bytes of each are kept; of all others the two that make the list.
///
/// *Source:* `PCIe` r6.0 §7.5, §7.7, §7.8.
const CAPS: &[(u8, usize)] = &[
    (0x01, 8),    // power management
    (0x05, 4),    // MSI, without the host's vectors
    (0x09, 3),    // vendor-specific: its length
    (0x0d, 8),    // subsystem of a bridge
    (0x10, 0x3c), // PCI Express
    (0x11, 12),   // MSI-X
    (0x13, 6),    // advanced features
];

/// The same for extended capabilities; of all others the header's four bytes. Serial number (0x0003) is one of those.
const EXTENDED_CAPS: &[(u16, usize)] = &[
    (0x0001, 0x1c), // advanced errors, without the headers of packets
    (0x000b, 8),    // vendor-specific: its id and length
    (0x000d, 8),    // access control
    (0x000e, 8),    // alternative routing
    (0x000f, 8),    // address translation
    (0x0010, 0x40), // SR-IOV
    (0x0013, 0x10), // page requests
    (0x0015, 0x34), // resizable BARs
    (0x0018, 8),    // latency
    (0x001b, 8),    // process address spaces
    (0x001d, 0x0c), // downstream port containment
    (0x001e, 0x10), // L1 substates
    (0x0023, 10),   // designated vendor-specific: whose
];

/// Configuration space with only the header and what the tables keep. The bytes are the device's, hence hostile.
fn config(bytes: &[u8]) -> Vec<u8> {
    let mut kept = vec![0; bytes.len()];
    keep(bytes, &mut kept, 0, 0x40);
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut at = match byte(0x06) & 0x10 {
        0 => 0,
        _ => usize::from(byte(0x34) & 0xfc),
    };
    // As many as there is room for: a list that bites its tail ends.
    for _ in 0..48 {
        if at < 0x40 {
            break;
        }
        let id = byte(at);
        let row = CAPS.iter().find(|(known, _)| *known == id);
        keep(bytes, &mut kept, at, row.map_or(2, |(_, len)| *len));
        at = usize::from(byte(at + 1) & 0xfc);
    }
    let mut at = 0x100;
    for _ in 0..960 {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        let header = word.map_or(0, u32::from_le_bytes);
        if at < 0x100 || header == 0 {
            break;
        }
        let row = EXTENDED_CAPS
            .iter()
            .find(|(id, _)| u32::from(*id) == header & 0xffff);
        keep(bytes, &mut kept, at, row.map_or(4, |(_, len)| *len));
        at = (header >> 20) as usize & 0xffc;
    }
    kept
}

fn keep(from: &[u8], to: &mut [u8], at: usize, len: usize) {
    for (kept, byte) in to.iter_mut().zip(from).skip(at).take(len) {
        *kept = *byte;
    }
}

/// MAC addresses and UUIDs, each with the number that stands for it.
#[derive(Default)]
struct Ids(BTreeMap<String, usize>);

/// How an identifier is written: `x` for a hexadecimal digit, anything else for itself.
const SHAPES: [&str; 3] = [
    "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
    "xx:xx:xx:xx:xx:xx",
    // An interface that is named by its address.
    "enxxxxxxxxxxxxx",
];

impl Ids {
    /// Replaces each identifier in `text` by one of the same shape with zeros and its number.
    fn replace(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(next) = rest.chars().next() {
            let found = match before.is_some_and(is_word) {
                true => None,
                false => SHAPES.iter().find_map(|shape| matching(rest, shape)),
            };
            let taken = match found {
                Some((id, shape)) => {
                    out.push_str(&self.stand_in(id, shape));
                    id.len()
                }
                None => {
                    out.push(next);
                    next.len_utf8()
                }
            };
            before = rest
                .get(..taken)
                .and_then(|taken| taken.chars().next_back());
            rest = rest.get(taken..).unwrap_or_default();
        }
        out
    }

    fn stand_in(&mut self, id: &str, shape: &str) -> String {
        let next = self.0.len() + 1;
        let number = *self.0.entry(id.to_lowercase()).or_insert(next);
        // From the right, each digit of the number takes the place of an `x`.
        let mut digits = format!("{number:x}").into_bytes();
        let mut out: Vec<char> = Vec::new();
        for (index, mark) in shape.char_indices().rev() {
            let is_prefix = shape.starts_with("enx") && index < 3;
            out.push(match mark {
                'x' if !is_prefix => digits.pop().map_or('0', char::from),
                mark => mark,
            });
        }
        out.iter().rev().collect()
    }
}

/// The beginning of `text`, if it has the shape and does not go on.
fn matching<'a>(text: &'a str, shape: &'static str) -> Option<(&'a str, &'static str)> {
    let id = text.get(..shape.len())?;
    let prefix = if shape.starts_with("enx") { 3 } else { 0 };
    let fits = id
        .bytes()
        .zip(shape.bytes())
        .enumerate()
        .all(|(index, (byte, mark))| match mark {
            b'x' if index >= prefix => byte.is_ascii_hexdigit(),
            mark => byte == mark,
        });
    let goes_on = text
        .get(shape.len()..)
        .and_then(|rest| rest.chars().next())
        .is_some_and(is_word);
    (fits && !goes_on).then_some((id, shape))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric()
}
