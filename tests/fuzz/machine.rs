//! Machine files, damaged: refused, or read as a TOML reader of no knowledge reads them, written and read again.

use std::{
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use iommu::{
    Errno,
    sysfs::{Kind, Owner, SysRoot},
};
use narrows::{
    error::ErrorId,
    host::{Inventory, machine::Machine},
};

use crate::input::{Executions, Input, any_bytes};

const FILES: [&str; 4] = [
    include_str!("../../hw-configs/identity-pf.toml"),
    include_str!("../../hw-configs/sriov-nvme.toml"),
    include_str!("../../hw-configs/amd-host.toml"),
    include_str!("../../hw-configs/lab-iommufd.toml"),
];

/// Far more than a file of some kilobytes takes on a loaded machine.
const LONGEST: Duration = Duration::from_secs(20);
/// The most that one file may unfold to.
const CONTENTS_LIMIT: usize = 64 << 20;

#[test]
fn a_damaged_machine_is_refused_or_read_as_it_stands() {
    let executions = Executions::of("machine");
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
    let mut text = if input.once_in(64) {
        input.pick(&FILES).to_owned()
    } else {
        piece(input)
    };
    let whole = Machine::parse(Path::new("m"), &text).unwrap();
    as_it_stands(&whole, &text);
    if input.once_in(400) {
        unfolds(input, &mut text);
    }
    for _ in 0..=input.below(4) {
        damage(input, &mut text);
    }
    let start = Instant::now();
    let read = Machine::parse(Path::new("m"), &text);
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    let machine = match read {
        Ok(machine) => machine,
        Err(report) => {
            assert_eq!(report.id, ErrorId::MachineMalformed);
            assert!(report.why.iter().any(|why| !why.is_empty()));
            return;
        }
    };
    as_it_stands(&machine, &text);
    let written = machine.to_text();
    let again = Machine::parse(Path::new("m"), &written).unwrap();
    assert!(again == machine, "{text}\nis written\n{written}");
    assert_eq!(again.to_text(), written);
    if input.once_in(4) {
        // What a host's readers make of it is an answer or an error.
        drop(Inventory::read(&SysRoot::captured("m", machine.tree)));
        assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    }
}

/// The head of a file and some of its folders.
fn piece(input: &mut Input<'_>) -> String {
    let mut parts = input.pick(&FILES).split("\n[folder.");
    let mut text = format!("{}\n", parts.next().unwrap());
    let folders: Vec<&str> = parts.collect();
    let start = input.below(u32::try_from(folders.len()).unwrap()) as usize;
    for folder in folders.iter().skip(start).take(1 + input.below(4) as usize) {
        text += &format!("[folder.{folder}\n");
    }
    text
}

/// Short text that stands for much.
fn unfolds(input: &mut Input<'_>, text: &mut String) {
    *text += "[folder.\"sys/many\"]\n";
    if input.below(2) == 0 {
        let long = "long text ".repeat(input.below(20_000) as usize);
        *text += &format!("text.long = \"\\u0001{long}\"\ngzip.packed = \"{long}\"\n");
        return;
    }
    for n in 0..input.pick(&[3_u32, 900, 1100]) {
        *text += &format!("hex.f{n} = \"size 65536\"\n");
    }
}

const PIECES: &[&str] = &[
    "",
    "\"",
    "\"\"\"",
    "\\",
    "\\u0000",
    "\\u000A",
    "\\r\\n",
    "\n",
    "\r",
    "\t",
    "\u{7F}",
    "é",
    "=",
    ".",
    "..",
    "/",
    "[",
    "]",
    "[[[[[[[[",
    "#",
    "{",
    "0",
    "f",
    "size 65536\n",
    "size 99999999999\n",
    "fff: ",
    "10 ",
    "+1",
    "\n[folder.\"/x\"]\n",
    "\n[folder.\"a/../b\"]\n",
    "\n[folder.\"a//b/\"]\n",
    "\n[folder.\".\"]\n",
    "\n[folder.\"\"]\n",
    "\n[folder.sys]\n",
    "\ntext.config = \"\\n\"\n",
    "\ntext.\"..\" = \"1\"\n",
    "\nnode.x = \"unknown\"\n",
    "\nnode.x = \"07777 1:4294967295\"\n",
    "\nowner.vendor = \"0640 1:2\"\n",
    "\nowner.y = \"0640 1:2\"\n",
    "\nfails.z = \"EACCES\"\n",
    "\nfails.z = \"errno -7\"\n",
    "\nlink.l = \"/\"\n",
    "\nlink.l = \"a\\u0000\"\n",
    "\ngzip.g = \"CONFIG_A=y\"\n",
    "\nhex.h = \"size 1\"\n",
    "\nhex.h = \"size 3\\n001: ff +1\"\n",
    "\nhex.h = \"size 19\\n001: fe 01\\n011: 02\"\n",
    "\n[folder.\"a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a\"]\n",
];

/// Puts something in the place of a piece; most pieces are short.
fn damage(input: &mut Input<'_>, text: &mut String) {
    let mut place = |end: u32| {
        let at = usize::try_from(input.word() % end).unwrap();
        (0..=at)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap()
    };
    let start = place(u32::try_from(text.len()).unwrap() + 1);
    let len = match input.below(6) {
        0 | 1 => 0,
        2 | 3 => 1 + input.below(4) as usize,
        4 => input.below(200) as usize,
        _ => text[start..].find('\n').unwrap_or(0),
    };
    let end = (start + len).min(text.len());
    let end = (start..=end)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap();
    text.replace_range(start..end, input.pick(PIECES));
}

/// Every entry of the text is in the tree, and nothing else but folders on the way.
fn as_it_stands(machine: &Machine, text: &str) {
    let document: toml::Table = text.parse().unwrap();
    let folders = document.get("folder").and_then(toml::Value::as_table);
    let mut expected = Vec::new();
    for (folder, kinds) in folders.into_iter().flatten() {
        let value = |kind: &str, name: &str| kinds.get(kind)?.get(name)?.as_str();
        for (kind, entries) in kinds.as_table().unwrap() {
            for name in entries.as_table().unwrap().keys() {
                let path = match folder.as_str() {
                    "." => PathBuf::from(name),
                    folder => Path::new(folder).join(name),
                };
                let text = value(kind, name).unwrap();
                let by = if kind == "node" { "node" } else { "owner" };
                let owned = value(by, name).filter(|text| *text != "unknown");
                expected.extend(content(kind, text).map(|kind| (path, kind, owned.map(owner))));
            }
        }
    }
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    let mut bytes = 0;
    let mut found = Vec::new();
    for (path, entry) in machine.tree.entries() {
        let mut parts = path.components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))));
        if let Kind::File(contents) = &entry.kind {
            bytes += contents.len();
        }
        if entry.kind != Kind::Folder {
            let kind = comparable(entry.kind.clone());
            found.push((path.to_owned(), kind, entry.owner));
        }
    }
    assert!(
        found == expected,
        "{text}\nis read {found:?}\nnot {expected:?}"
    );
    assert!(bytes <= CONTENTS_LIMIT, "{bytes} bytes");
}

/// What stands at a path for an entry of this kind; nothing where it only says whose something is.
fn content(kind: &str, text: &str) -> Option<Kind> {
    Some(match kind {
        "text" if text.is_empty() || text.ends_with('\n') => Kind::File(text.into()),
        "text" => Kind::File(format!("{text}\n").into()),
        "hex" => comparable(Kind::File(bytes_of(text))),
        "gzip" => Kind::File(PACKED.to_vec()),
        "link" => Kind::Link(text.into()),
        "fails" => Kind::Failing(Errno::from_text(text).unwrap()),
        "node" => Kind::Unread,
        "owner" => return None,
        other => panic!("the kind {other} is taken"),
    })
}

const PACKED: &[u8] = &[0x1F, 0x8B];

/// Of a compressed file, no more than that it is one.
fn comparable(kind: Kind) -> Kind {
    match kind {
        Kind::File(bytes) if bytes.starts_with(PACKED) => Kind::File(PACKED.to_vec()),
        other
        @ (Kind::Folder | Kind::Link(_) | Kind::File(_) | Kind::Failing(_) | Kind::Unread) => other,
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut lines = text.lines();
    let size = lines.next().unwrap().split_once(' ').unwrap();
    assert_eq!(size.0, "size");
    let mut bytes = vec![0; size.1.trim().parse().unwrap()];
    for line in lines {
        let (at, row) = line.split_once(": ").unwrap();
        assert!(digits(at), "{line:?} is taken");
        let at = usize::from_str_radix(at, 16).unwrap();
        for (n, pair) in row.split_whitespace().enumerate() {
            assert!(pair.len() == 2 && digits(pair), "{line:?} is taken");
            bytes[at + n] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    bytes
}

fn owner(text: &str) -> Owner {
    let mut numbers = text.splitn(3, [' ', ':']);
    let mut number = |base| u32::from_str_radix(numbers.next().unwrap(), base).unwrap();
    Owner {
        mode: number(8),
        uid: number(10),
        gid: number(10),
    }
}
