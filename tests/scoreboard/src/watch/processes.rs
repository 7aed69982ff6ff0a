//! The processes of a VMM: the one that was started and all that come from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use super::memory::Memory;

/// What they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many processes.
    pub processes: u64,
    /// How many threads.
    pub threads: u64,
    /// How many descriptors.
    pub fds: u64,
    /// Their memory without guest RAM.
    pub memory: Memory,
    /// Their page tables in KiB, guest RAM's included.
    pub page_tables_kib: u64,
}

/// The ids of `main` and of all that come from it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn tree(main: u32) -> io::Result<BTreeSet<u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has ended meanwhile is none of them.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if let Some(parent) = field(&status, "PPid") {
            parents.insert(pid, parent);
        }
    }
    Ok(descendants(main, &parents))
}

fn descendants(main: u32, parents: &BTreeMap<u32, u64>) -> BTreeSet<u32> {
    let mut own = BTreeSet::from([main]);
    loop {
        let before = own.len();
        for (pid, parent) in parents {
            if u32::try_from(*parent).is_ok_and(|parent| own.contains(&parent)) {
                own.insert(*pid);
            }
        }
        if own.len() == before {
            return own;
        }
    }
}

/// A number of a `status` file.
#[must_use]
pub fn field(status: &str, key: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// What the processes `pids` hold.
///
/// # Errors
/// A process has ended, or its files cannot be read.
pub fn held(pids: &BTreeSet<u32>, is_ram: impl Fn(&str) -> bool) -> io::Result<Held> {
    let mut sum = Held::default();
    for pid in pids {
        let folder = format!("/proc/{pid}");
        let folder = Path::new(&folder);
        let status = fs::read_to_string(folder.join("status"))?;
        sum.processes += 1;
        sum.threads += entries(&folder.join("task"))?;
        sum.fds += entries(&folder.join("fd"))?;
        sum.page_tables_kib += field(&status, "VmPTE").unwrap_or(0);
        let smaps = fs::read_to_string(folder.join("smaps"))?;
        sum.memory = sum.memory.plus(Memory::of(&smaps, &is_ram));
    }
    Ok(sum)
}

fn entries(folder: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// What one thread may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// Whether its calls go through a filter.
    pub is_filtered: bool,
    /// Its effective capabilities, a bit each.
    pub capabilities: u64,
}

/// The threads of a process.
///
/// # Errors
/// The process has ended.
pub fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        let Some(tid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
        let capabilities = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        threads.push(Thread {
            tid,
            is_filtered: field(&status, "Seccomp") == Some(2),
            capabilities: capabilities.unwrap_or(0),
        });
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grandchildren_belong_and_strangers_do_not() {
        let parents = BTreeMap::from([(10, 1), (11, 10), (12, 11), (13, 1), (14, 13)]);
        assert_eq!(descendants(10, &parents), BTreeSet::from([10, 11, 12]));
    }

    #[test]
    fn this_process_holds_something() {
        let own = std::process::id();
        let held = held(&BTreeSet::from([own]), |_| false).unwrap();
        assert_eq!(held.processes, 1);
        assert!(held.threads >= 1 && held.fds >= 3, "{held:?}");
        assert!(held.memory.rss_kib >= held.memory.pss_kib, "{held:?}");
        assert!(
            held.memory.pss_kib > 0 && held.page_tables_kib > 0,
            "{held:?}"
        );
    }

    #[test]
    fn a_field_is_found_by_its_whole_key() {
        let status = "Name:\tx\nVmPTE:\t      40 kB\nVmP:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(field(status, "VmPTE"), Some(40));
        assert_eq!(field(status, "Seccomp"), Some(2));
        assert_eq!(field(status, "Vm"), None);
    }
}
