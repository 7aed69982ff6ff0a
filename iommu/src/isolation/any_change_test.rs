//! Whatever files of a host change between two readings of it, the second finds what a whole one finds.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};

use super::{
    again_test::{Written, what_counts, write},
    firing_test::fires,
    fixture_test::{PF, PORT, VF, bdf, host, same},
};
use crate::{
    fake::FakeHost,
    isolation::{CheckId, Verdict},
    topology::Topology,
};

/// What a path leads to, unless it is a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    File(Vec<u8>),
    Link(PathBuf),
}

type Tree = BTreeMap<PathBuf, Entry>;

/// Two cards, one of which has the function, with VFs each, and others on the root bus.
fn rich() -> FakeHost {
    host(same, same, same)
        .vf("0000:01:10.2", PF, 16)
        .vfio("vfio4")
        .pf("0000:01:00.1", 14)
        .under(PORT)
        .vf("0000:01:10.1", "0000:01:00.1", 15)
        .device("0000:00:1f.5", 9)
        .bar(0, 0xfd00_0000, 0x1000)
        .rom(0xfd10_0000, 0x800)
        .bridge("0000:00:03.0", 2)
        .pf("0000:02:00.0", 17)
        .under("0000:00:03.0")
        .vf("0000:02:10.0", "0000:02:00.0", 18)
}

fn read_tree(root: &Path, below: &Path, tree: &mut Tree) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            tree.insert(path, Entry::Link(fs::read_link(entry.path())?));
        } else if kind.is_dir() {
            read_tree(root, &path, tree)?;
        } else {
            tree.insert(path, Entry::File(fs::read(entry.path())?));
        }
    }
    Ok(())
}

fn tree_of(written: &Written) -> Tree {
    let mut tree = Tree::new();
    read_tree(written.root.as_path(), Path::new(""), &mut tree).unwrap();
    tree
}

/// Has the path lead there; whether it could be done: a folder stays one.
fn set(root: &Path, path: &Path, entry: Option<&Entry>) -> bool {
    let whole = root.join(path);
    match fs::symlink_metadata(&whole) {
        Ok(known) if known.is_dir() => return false,
        Ok(_) => fs::remove_file(&whole).unwrap(),
        Err(_) => {}
    }
    let Some(entry) = entry else {
        return true;
    };
    if fs::create_dir_all(whole.parent().unwrap()).is_err() {
        return false;
    }
    match entry {
        Entry::File(bytes) => fs::write(&whole, bytes).unwrap(),
        Entry::Link(target) => std::os::unix::fs::symlink(target, &whole).unwrap(),
    }
    true
}

/// For each path what it leads to on one host or another, what others of its name do, that it is empty, and that it is not
/// there. What stays until the next boot is left as it is.
fn all_variants(before: &Tree) -> Vec<(PathBuf, Vec<Option<Entry>>)> {
    let mut variants: BTreeMap<PathBuf, BTreeSet<Option<Entry>>> = BTreeMap::new();
    let mut by_name: BTreeMap<PathBuf, BTreeSet<Option<Entry>>> = BTreeMap::new();
    let fired = CheckId::all().map(|id| tree_of(&write(&fires(id).0)));
    for tree in fired.chain([before.clone()]) {
        for (path, entry) in tree {
            let name = PathBuf::from(path.file_name().unwrap());
            by_name.entry(name).or_default().insert(Some(entry.clone()));
            variants
                .entry(path)
                .or_default()
                .extend([None, Some(entry)]);
        }
    }
    for (path, own) in &mut variants {
        let name = Path::new(path.file_name().unwrap());
        own.extend(by_name.get(name).into_iter().flatten().cloned());
        own.insert(Some(Entry::File(Vec::new())));
    }
    let is_of_boot = |path: &Path| path.starts_with("proc/cmdline") || path.ends_with("osrelease");
    let all = variants.into_iter().filter(|(path, _)| !is_of_boot(path));
    all.map(|(path, entries)| (path, entries.into_iter().collect()))
        .collect()
}

/// What is done to a tree: which path, which entry, and where a bit is turned of a file's, which.
type Damage = (Index, Index, Option<(Index, u8)>);

fn damage(
    root: &Path,
    variants: &[(PathBuf, Vec<Option<Entry>>)],
    damages: &[Damage],
) -> Vec<PathBuf> {
    let mut changed = Vec::new();
    for (path, entry, bit) in damages {
        let (path, entries) = path.get(variants);
        let mut entry = entry.get(entries).clone();
        if let (Some(Entry::File(bytes)), Some((at, bit))) = (&mut entry, bit)
            && !bytes.is_empty()
            && path.ends_with("config")
        {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if set(root, path, entry.as_ref()) {
            changed.push(path.clone());
        }
    }
    changed
}

/// How many, unless somebody wants to know it better.
fn cases() -> u32 {
    let asked = std::env::var("NARROWS_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(250)
}

#[test]
fn any_change_of_files_is_found_by_the_second_reading() {
    let written = write(&rich());
    let root = written.root.as_path();
    let healthy = tree_of(&written);
    let variants = all_variants(&healthy);
    let one = || {
        let bit = option::of((any::<Index>(), 0_u8..8));
        (any::<Index>(), any::<Index>(), bit)
    };
    let some = || vec(one(), 0..5);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(cases())
    });
    let (compared, refused) = (Cell::new(0), Cell::new(0));
    let result = runner.run(&(some(), some()), |(earlier, later)| {
        let mut changed = damage(root, &variants, &earlier);
        let before = Topology::read_to_assign(&written.root);
        changed.extend(damage(root, &variants, &later));
        let new = Topology::read_to_assign(&written.root);
        let again = before.and_then(|before| before.read_again(&written.root, &[bdf(VF)]));
        for path in &changed {
            assert!(set(root, path, healthy.get(path)));
        }
        // What no reading understands ends a start by itself.
        let (Ok(again), Ok(new)) = (again, new) else {
            return Ok(());
        };
        let said = |topology: &Topology| {
            let findings = what_counts(topology).into_iter();
            findings.map(|f| (f.check, f.verdict)).collect::<Vec<_>>()
        };
        let wanted = said(&new);
        let is_refused = wanted.iter().any(|(_, said)| *said == Verdict::Refuse);
        compared.set(compared.get() + 1);
        refused.set(refused.get() + u32::from(is_refused));
        prop_assert_eq!(said(&again), wanted, "{:#?}", changed);
        Ok(())
    });
    result.unwrap();
    // Else it would say nothing.
    let (compared, refused) = (compared.get(), refused.get());
    assert!(compared > cases() / 2, "{compared}");
    assert!(refused > compared / 20, "{refused} of {compared}");
}
