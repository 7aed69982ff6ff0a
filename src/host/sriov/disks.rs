//! What the host does with namespaces: mounts, swap, devices built on them, and processes that have them open.
//!
//! Read from below: each namespace with its partitions and all that is built on them, by name and by number; then
//! mounts, swap and open files are looked up in that. A device node under another name is not found among open files; nor
//! are disks that the kernel itself took for ZFS, for which all controllers count as used.

use std::collections::{BTreeMap, BTreeSet};

use iommu::{error::IommuError, sysfs::SysRoot};

use super::uses::{cannot, is_gone};
use crate::sriov::{Observed, Unread, Use, Used};

/// The block devices that are namespaces, or made of them.
#[derive(Debug, Default)]
struct Stacks {
    /// `nvme0n1`, `nvme0n1p1`, `dm-0`, each with all namespaces below it.
    names: BTreeMap<String, BTreeSet<Used>>,
    /// `259:0`, and the name.
    numbers: BTreeMap<String, String>,
    controllers: BTreeSet<String>,
}

/// Mount points without which the host does not go on.
const ROOTS: &[&str] = &["/", "/boot", "/boot/efi", "/efi", "/usr", "/var"];
const LIMIT: u64 = 8 << 20;

pub(super) fn read(root: &SysRoot, observed: &mut Observed) {
    let mut stacks = Stacks::default();
    let mut pfs = Vec::new();
    let mut failed: Vec<Unread> = Vec::new();
    for pf in observed.pfs.values() {
        let Some(nvme) = pf.nvme() else {
            continue;
        };
        pfs.push(pf.bdf);
        for (nsid, namespace) in &nvme.namespaces {
            let Some(device) = &namespace.block_device else {
                continue;
            };
            let used = Used::Namespace {
                controller: nvme.controller.clone(),
                nsid: *nsid,
            };
            stacks.controllers.insert(nvme.controller.clone());
            if let Err(error) = climb(root, &mut stacks, &mut observed.uses.open, device, &used) {
                failed.push(cannot(&error, "what is built on the namespace"));
            }
        }
    }
    if !stacks.names.is_empty() {
        read_mounts(root, &stacks, "self", observed, &mut failed);
        read_swap(root, &stacks, observed, &mut failed);
        read_processes(root, &stacks, observed, &mut failed);
    }
    for unread in failed {
        // It concerns the controllers alone.
        observed.unread.extend(pfs.iter().map(|bdf| Unread {
            bdf: Some(*bdf),
            ..unread.clone()
        }));
    }
}

/// Notes a device, its partitions, and what holds them.
fn climb(
    root: &SysRoot,
    stacks: &mut Stacks,
    open: &mut Vec<Use>,
    device: &str,
    used: &Used,
) -> Result<(), IommuError> {
    let below = stacks.names.entry(device.to_owned()).or_default();
    if !below.insert(used.clone()) {
        return Ok(());
    }
    let folder = format!("sys/class/block/{device}");
    if let Some(number) = root.read_text_if_any(format!("{folder}/dev"))? {
        stacks.numbers.insert(number, device.to_owned());
    }
    for holder in root.list(format!("{folder}/holders"))? {
        open.push(Use {
            of: used.clone(),
            who: format!("{holder} is built on {device}"),
            source: format!("/{folder}/holders"),
        });
        climb(root, stacks, open, &holder, used)?;
    }
    for part in root.list(&folder)? {
        if part.starts_with(device) && root.exists(format!("{folder}/{part}/partition")) {
            climb(root, stacks, open, &part, used)?;
        }
    }
    Ok(())
}

impl Stacks {
    /// The namespaces behind a path such as `/dev/mapper/x`.
    fn of_path(&self, root: &SysRoot, path: &str) -> BTreeSet<Used> {
        let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
        let linked = root.read_link_name(path).ok().flatten();
        let own = name(path);
        [linked, own]
            .into_iter()
            .flatten()
            .find_map(|name| self.names.get(&name).cloned())
            .unwrap_or_default()
    }
}

/// The mounts that a process sees.
fn read_mounts(
    root: &SysRoot,
    stacks: &Stacks,
    process: &str,
    observed: &mut Observed,
    failed: &mut Vec<Unread>,
) {
    let place = format!("proc/{process}/mountinfo");
    let text = match root.read_bytes(&place, LIMIT) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if is_gone(&error) && process != "self" => return,
        Err(error) => {
            failed.push(cannot(&error, "mounts"));
            return;
        }
    };
    for line in text.lines() {
        let Some(mount) = Mount::parse(line) else {
            continue;
        };
        let who = format!("mounted at {}", mount.point);
        let mut found = stacks
            .numbers
            .get(mount.number)
            .and_then(|name| stacks.names.get(name).cloned())
            .unwrap_or_default();
        match mount.kind {
            "btrfs" => match btrfs(root, stacks, mount.source) {
                Ok(more) => found.extend(more),
                Err(error) => failed.push(cannot(&error, "the disks of a btrfs")),
            },
            // Which disks it is on, it tells nobody but its own programs.
            "zfs" => found.extend(stacks.controllers.iter().cloned().map(Used::Controller)),
            _ => {}
        }
        // File systems over several disks name them all: `/dev/a:/dev/b`.
        for source in mount.source.split(':').filter(|s| s.starts_with('/')) {
            found.extend(stacks.of_path(root, source));
        }
        let list = match ROOTS.contains(&mount.point) {
            true => &mut observed.uses.roots,
            false => &mut observed.uses.mounts,
        };
        for of in found {
            let one = Use {
                of,
                who: who.clone(),
                source: format!("/{place}"),
            };
            // Other mount namespaces have most of the same.
            if !list
                .iter()
                .any(|known| known.of == one.of && known.who == one.who)
            {
                list.push(one);
            }
        }
    }
}

/// A line of `mountinfo`: `36 35 259:0 / /srv rw,noatime shared:1 - ext4 /dev/nvme0n1 rw`.
struct Mount<'a> {
    number: &'a str,
    point: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut words = before.split(' ').skip(2);
        let (number, point) = (words.next()?, words.nth(1)?);
        let mut words = after.split(' ');
        Some(Self {
            number,
            point,
            kind: words.next()?,
            source: words.next()?,
        })
    }
}

/// All disks of the btrfs that `source` is one of.
fn btrfs(root: &SysRoot, stacks: &Stacks, source: &str) -> Result<BTreeSet<Used>, IommuError> {
    let name = source.rsplit('/').next().unwrap_or_default();
    let linked = root.read_link_name(source)?;
    let mut found = BTreeSet::new();
    for id in root.list("sys/fs/btrfs")? {
        let devices = root.list(format!("sys/fs/btrfs/{id}/devices"))?;
        let is_it = |device: &String| device == name || Some(device) == linked.as_ref();
        if devices.iter().any(is_it) {
            let ours = devices.iter().filter_map(|device| stacks.names.get(device));
            found.extend(ours.flatten().cloned());
        }
    }
    Ok(found)
}

fn read_swap(root: &SysRoot, stacks: &Stacks, observed: &mut Observed, failed: &mut Vec<Unread>) {
    let text = match root.read_text("proc/swaps") {
        Ok(text) => text,
        Err(error) => {
            failed.push(cannot(&error, "swap"));
            return;
        }
    };
    for path in text
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().next())
    {
        for of in stacks.of_path(root, path) {
            observed.uses.roots.push(Use {
                of,
                who: format!("swap on {path}"),
                source: "/proc/swaps".to_owned(),
            });
        }
    }
}

/// Open devices, and mounts of containers, of all processes.
fn read_processes(
    root: &SysRoot,
    stacks: &Stacks,
    observed: &mut Observed,
    failed: &mut Vec<Unread>,
) {
    let mut seen = BTreeSet::new();
    let mut hidden = None;
    let own = root.read_link_name("proc/self").ok().flatten();
    if let Ok(Some(space)) = root.read_link("proc/self/ns/mnt") {
        seen.insert(space);
    }
    let processes = match root.list("proc") {
        Ok(names) => names,
        Err(error) => {
            failed.push(cannot(&error, "processes"));
            return;
        }
    };
    for process in processes
        .iter()
        .filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
    {
        if own.as_ref() == Some(process) {
            continue;
        }
        let space = root.read_link(format!("proc/{process}/ns/mnt"));
        let files = root.list(format!("proc/{process}/fd"));
        match (space, files) {
            (Ok(space), Ok(files)) => {
                if space.is_some_and(|space| seen.insert(space)) {
                    read_mounts(root, stacks, process, observed, failed);
                }
                read_files(root, stacks, process, &files, observed);
            }
            (Err(error), _) | (_, Err(error)) => {
                if !is_gone(&error) {
                    hidden = Some(error);
                }
            }
        }
    }
    failed.extend(hidden.map(|error| cannot(&error, "what other users' processes have open")));
}

fn read_files(
    root: &SysRoot,
    stacks: &Stacks,
    process: &str,
    files: &[String],
    observed: &mut Observed,
) {
    for file in files {
        // A file that has just been closed is none.
        let Ok(Some(target)) = root.read_link(format!("proc/{process}/fd/{file}")) else {
            continue;
        };
        let Some(name) = target
            .to_str()
            .filter(|path| path.starts_with("/dev/"))
            .and_then(|path| path.rsplit('/').next())
        else {
            continue;
        };
        // The character device beside a namespace's block device.
        let block = match name.strip_prefix("ng") {
            Some(number) => format!("nvme{number}"),
            None => name.to_owned(),
        };
        let Some(used) = stacks.names.get(&block) else {
            continue;
        };
        let comm = root.read_text_if_any(format!("proc/{process}/comm"));
        let comm = comm.ok().flatten().unwrap_or_default();
        for of in used {
            let one = Use {
                of: of.clone(),
                who: format!("process {process} ({comm}) has {} open", target.display()),
                source: format!("/proc/{process}/fd"),
            };
            if !observed.uses.open.contains(&one) {
                observed.uses.open.push(one);
            }
        }
    }
}
