//! From a [`Machine`] to text: sorted, one line or block for each file, so that two captures can be compared.

use std::{collections::BTreeMap, path::Path};

use iommu::sysfs::{Entry, Kind, Owner};

use super::{FORMAT, Machine, Origin, gzip, hex};

pub(super) fn text(machine: &Machine) -> String {
    let head = &machine.head;
    let made = &head.provenance;
    let origin = match head.origin {
        Origin::Captured => "captured",
        Origin::WrittenByHand => "written-by-hand",
    };
    let mut out = format!("format = {FORMAT}\n");
    for (key, value) in [
        ("name", &*head.name),
        ("title", &head.title),
        ("origin", origin),
    ] {
        out.push_str(&format!("{key} = {}\n", string(value)));
    }
    out.push_str("\n[provenance]\n");
    for (key, value) in [
        ("by", &made.by),
        ("date", &made.date),
        ("kernel", &made.kernel),
        ("vendor", &made.vendor),
        ("product", &made.product),
    ] {
        if !value.is_empty() {
            out.push_str(&format!("{key} = {}\n", string(value)));
        }
    }
    for (key, values) in [("scrubbed", &made.scrubbed), ("notes", &made.notes)] {
        out.push_str(&list(key, values));
    }
    for (folder, entries) in folders(machine) {
        out.push_str(&format!("\n[folder.{}]\n", key(&folder)));
        for (name, entry) in entries {
            out.push_str(&line(name, entry));
        }
    }
    out
}

/// Every folder that is not just on the way to another, with what is in it.
fn folders(machine: &Machine) -> BTreeMap<String, Vec<(&str, &Entry)>> {
    let mut folders: BTreeMap<String, Vec<(&str, &Entry)>> = BTreeMap::new();
    let mut parents = std::collections::BTreeSet::new();
    for (path, _) in machine.tree.entries() {
        parents.extend(path.parent());
    }
    for (path, entry) in machine.tree.entries() {
        let is_folder = entry.kind == Kind::Folder;
        if is_folder && !parents.contains(path) {
            folders.entry(shown(path)).or_default();
        }
        // A folder is a line of its parent only for its owner.
        if is_folder && entry.owner.is_none() {
            continue;
        }
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            let parent = path.parent().unwrap_or(Path::new(""));
            folders
                .entry(shown(parent))
                .or_default()
                .push((name, entry));
        }
    }
    folders
}

fn shown(folder: &Path) -> String {
    match folder.as_os_str().is_empty() {
        true => ".".to_owned(),
        false => folder.display().to_string(),
    }
}

fn line(name: &str, entry: &Entry) -> String {
    let name = key(name);
    let owned = entry.owner.as_ref().map(owner);
    let line = match (&entry.kind, &owned) {
        (Kind::Unread, Some(owner)) => return format!("node.{name} = \"{owner}\"\n"),
        (Kind::Unread, None) => return format!("node.{name} = \"unknown\"\n"),
        (Kind::Folder, _) => String::new(),
        (Kind::Link(target), _) => {
            format!("link.{name} = {}\n", string(&target.display().to_string()))
        }
        (Kind::Failing(errno), _) => format!("fails.{name} = \"{errno}\"\n"),
        (Kind::File(bytes), _) => match as_text(bytes) {
            Some(text) => format!("text.{name} = {}\n", string(text)),
            None => match gzip::unpack(bytes).filter(|text| is_repacked(text, bytes)) {
                Some(text) => format!("gzip.{name} = {}\n", string(&text)),
                None => format!("hex.{name} = {}\n", string(&hex::to_text(bytes))),
            },
        },
    };
    match owned {
        Some(owner) => format!("{line}owner.{name} = \"{owner}\"\n"),
        None => line,
    }
}

/// Whether packing the text gives these bytes again; another packer's are kept as they are.
fn is_repacked(text: &str, bytes: &[u8]) -> bool {
    gzip::pack(text).is_ok_and(|packed| packed == bytes)
}

fn owner(owner: &Owner) -> String {
    format!("{:04o} {}:{}", owner.mode, owner.uid, owner.gid)
}

/// The file as text, where it is, and where it is too long for another form; a single line goes without its line break.
fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if bytes.len() <= hex::LIMIT && !text.chars().all(is_plain) {
        return None;
    }
    // A line break alone is none: without it, the file would be empty.
    let is_line = |line: &&str| !line.is_empty() && !line.contains('\n');
    let one_line = text.strip_suffix('\n').filter(is_line);
    Some(one_line.unwrap_or(text))
}

fn list(key: &str, values: &[String]) -> String {
    match values {
        [] => String::new(),
        values => {
            let lines: Vec<String> = values
                .iter()
                .map(|v| format!("    {},\n", string(v)))
                .collect();
            format!("{key} = [\n{}]\n", lines.concat())
        }
    }
}

/// A key of TOML: bare where it can be.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => format!("\"{}\"", escaped(name)),
    }
}

/// A string of TOML, as a block where it has lines.
fn string(text: &str) -> String {
    if !text.contains('\n') {
        return format!("\"{}\"", escaped(text));
    }
    let lines: Vec<String> = text.split('\n').map(escaped).collect();
    format!("\"\"\"\n{}\"\"\"", lines.join("\n"))
}

fn escaped(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() && c != '\t' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
