//! From the text of a machine file to a [`Machine`]. The text is hostile: sizes, counts and depths have limits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use iommu::{
    Errno,
    sysfs::{Entry, Kind, Owner, Tree},
};
use serde::Deserialize;

use super::{FORMAT, Head, Machine, Origin, Provenance, gzip, hex, join};

/// Files and folders; a host with a thousand functions has some fifty thousand.
const ENTRY_LIMIT: usize = 400_000;
/// All files together; zeros cost nothing in the text.
const CONTENTS_LIMIT: usize = 64 << 20;
/// The kernel's `NAME_MAX` and `PATH_MAX`, and more folders in each other than sysfs ever has.
const NAME_LIMIT: usize = 255;
const PATH_LIMIT: usize = 1024;
const DEPTH_LIMIT: usize = 32;

/// What is looked at first, so that another version's file is not called malformed.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "format")]
    _format: u32,
    name: String,
    title: String,
    origin: Origin,
    provenance: Provenance,
    #[serde(default)]
    folder: BTreeMap<String, Folder>,
}

/// What is in one folder, by name.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Folder {
    text: BTreeMap<String, String>,
    hex: BTreeMap<String, String>,
    gzip: BTreeMap<String, String>,
    link: BTreeMap<String, String>,
    fails: BTreeMap<String, String>,
    node: BTreeMap<String, String>,
    owner: BTreeMap<String, String>,
}

pub(super) fn parse(text: &str) -> Result<Machine, String> {
    let syntax = |error: toml::de::Error| match error.span() {
        Some(span) => format!("line {}: {}", line_of(text, span.start), error.message()),
        None => error.message().to_owned(),
    };
    let version: Version = toml::from_str(text).map_err(syntax)?;
    if version.format != FORMAT {
        let found = version.format;
        return Err(format!(
            "its format is {found}; this version reads {FORMAT}"
        ));
    }
    let document: Document = toml::from_str(text).map_err(syntax)?;
    let mut builder = Builder::default();
    for (folder, entries) in &document.folder {
        builder.folder(folder, entries)?;
    }
    Ok(Machine {
        head: Head {
            name: document.name,
            title: document.title,
            origin: document.origin,
            provenance: document.provenance,
        },
        tree: builder.tree,
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// A tree in the making, and how much is in it.
#[derive(Default)]
struct Builder {
    tree: Tree,
    entries: usize,
    contents_len: usize,
}

impl Builder {
    fn folder(&mut self, folder: &str, entries: &Folder) -> Result<(), String> {
        if folder != "." {
            self.add(Path::new(folder), Kind::Folder, None)?;
        }
        let mut owners = BTreeMap::new();
        for (name, text) in &entries.owner {
            owners.insert(
                name.as_str(),
                owner(text).ok_or_else(|| no_owner(folder, name))?,
            );
        }
        let mut add =
            |name: &str, kind: Kind| self.add(&name_in(folder, name)?, kind, owners.remove(name));
        for (name, text) in &entries.text {
            add(name, Kind::File(contents(text)))?;
        }
        for (name, text) in &entries.hex {
            let bytes = hex::from_text(text).map_err(|why| format!("{folder}: {name} {why}"))?;
            add(name, Kind::File(bytes))?;
        }
        for (name, text) in &entries.gzip {
            let bytes = gzip::pack(text).map_err(|why| format!("{folder}: {name}: {why}"))?;
            add(name, Kind::File(bytes))?;
        }
        for (name, target) in &entries.link {
            if target.len() > PATH_LIMIT {
                return Err(format!("{folder}: the link {name} is too long"));
            }
            add(name, Kind::Link(target.into()))?;
        }
        for (name, text) in &entries.fails {
            let errno = Errno::from_text(text)
                .ok_or_else(|| format!("{folder}: {name}: {text:?} is no errno"))?;
            add(name, Kind::Failing(errno))?;
        }
        // What is left are folders that are described elsewhere.
        for (name, owner) in owners {
            self.add(&name_in(folder, name)?, Kind::Folder, Some(owner))?;
        }
        for (name, text) in &entries.node {
            let owner = match text.as_str() {
                "unknown" => None,
                text => Some(owner(text).ok_or_else(|| no_owner(folder, name))?),
            };
            self.add(&name_in(folder, name)?, Kind::Unread, owner)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, kind: Kind, owner: Option<Owner>) -> Result<(), String> {
        let shown = path.display();
        if path.as_os_str().len() > PATH_LIMIT || path.components().count() > DEPTH_LIMIT {
            return Err("a path is too long or too deep".to_owned());
        }
        self.entries += 1;
        if self.entries > ENTRY_LIMIT {
            return Err(format!("it has more than {ENTRY_LIMIT} entries"));
        }
        if let Kind::File(bytes) = &kind {
            self.contents_len = self.contents_len.saturating_add(bytes.len());
            if self.contents_len > CONTENTS_LIMIT {
                return Err(format!(
                    "its files are longer than {CONTENTS_LIMIT} bytes together"
                ));
            }
        }
        let entry = Entry { kind, owner };
        self.tree
            .insert(path, entry)
            .map_err(|why| format!("{shown} {why}"))
    }
}

fn name_in(folder: &str, name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.contains(['/', '\0']) {
        return Err(format!("{folder}: {name:?} is no name of a file"));
    }
    Ok(join(folder, name))
}

/// The text of a file is written without its last line break.
fn contents(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    if !text.is_empty() && !text.ends_with('\n') {
        bytes.push(b'\n');
    }
    bytes
}

/// `0660 0:107`: permission bits in octal, user, group.
fn owner(text: &str) -> Option<Owner> {
    let (mode, ids) = text.split_once(' ')?;
    let (uid, gid) = ids.split_once(':')?;
    let mode = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)?;
    Some(Owner {
        mode,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    })
}

fn no_owner(folder: &str, name: &str) -> String {
    format!("{folder}: the owner of {name} does not read `0600 0:0`")
}
