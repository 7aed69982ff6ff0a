//! Processes by number and time of start, so that one that died is not taken for a later one with its number.

use std::{fmt, io};

use iommu::{IommuError, sysfs::SysRoot};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the boot.
    pub start: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

impl ProcessId {
    /// Which process `pid` is at the moment; `None` where there is none.
    ///
    /// # Errors
    /// `sysfs-io`; `EINVAL` for a file that is not as proc(5) has it.
    pub fn of(root: &SysRoot, pid: u32) -> io::Result<Option<Self>> {
        let stat = Stat::read(root, pid)?;
        Ok(stat.map(|Stat { start, .. }| Self { pid, start }))
    }

    /// Whether it is there and has not ended: one that nobody has waited for yet has given back all it had.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn runs(self, root: &SysRoot) -> io::Result<bool> {
        let stat = Stat::read(root, self.pid)?;
        Ok(stat.is_some_and(|stat| stat.start == self.start && !stat.has_ended))
    }
}

/// The host's boot: another one has none of this one's processes and bindings.
///
/// # Errors
/// `sysfs-io`.
pub fn boot(root: &SysRoot) -> iommu::error::Result<String> {
    root.read_text("proc/sys/kernel/random/boot_id")
}

/// What is of use in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    has_ended: bool,
    start: u64,
}

impl Stat {
    fn read(root: &SysRoot, pid: u32) -> io::Result<Option<Self>> {
        let stat = match root.read_text_if_any(format!("proc/{pid}/stat")) {
            // It ended between `open` and `read`.
            Err(IommuError::Sysfs { errno, .. }) if errno.raw() == libc::ESRCH => None,
            read => read.map_err(io::Error::other)?,
        };
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        stat.map(|text| Self::parse(&text).ok_or_else(bad))
            .transpose()
    }

    /// State and time of start in a line where the name may hold anything.
    ///
    /// *Source:* proc(5), fields 3 and 22 of `stat`.
    fn parse(text: &str) -> Option<Self> {
        let (_, behind_name) = text.rsplit_once(") ")?;
        let mut fields = behind_name.split(' ');
        Some(Self {
            has_ended: matches!(fields.next()?, "Z" | "X" | "x"),
            start: fields.nth(22 - 4)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn time_of_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["narrows", "a b", ") 9 (", "\u{e4})"] {
            let stat = Stat::parse(&format!("7 ({name}) {rest}")).unwrap();
            assert_eq!((stat.start, stat.has_ended), (4711, false));
        }
        assert_eq!(Stat::parse("7 (narrows) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn one_that_nobody_has_waited_for_does_not_run_any_more() {
        let root = SysRoot::default();
        let mut child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let found = ProcessId::of(&root, child.id()).unwrap().unwrap();
        assert!(found.runs(&root).unwrap());
        let later = ProcessId {
            start: found.start + 1,
            ..found
        };
        assert!(!later.runs(&root).unwrap());
        child.kill().unwrap();
        while found.runs(&root).unwrap() {
            std::thread::yield_now();
        }
        // It has its number still.
        assert_eq!(ProcessId::of(&root, child.id()).unwrap(), Some(found));
        child.wait().unwrap();
        assert_eq!(ProcessId::of(&root, child.id()).unwrap(), None);
    }
}
