//! `/proc/PID/maps` and `/proc/PID/smaps`: mappings, and which of them are sealed.

/// One mapping. *Source:* `proc_pid_smaps(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
    /// May be read.
    pub is_readable: bool,
    /// May be written.
    pub is_writable: bool,
    /// May be run.
    pub is_executable: bool,
    /// Writes reach the file.
    pub is_shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Major and minor number of the file's device, and its inode; zeros without a file.
    pub file: ((u32, u32), u64),
    /// The file, or the kernel's word for it: `[stack]`; empty for memory without a name.
    pub path: String,
    /// Nothing of it can be changed any more (`mseal`).
    pub is_sealed: bool,
}

impl Map {
    /// Its length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// `maps`: nothing is known of seals. `None` where anything reads otherwise.
pub(super) fn parse(text: &str) -> Option<Vec<Map>> {
    text.lines().map(head).collect()
}

/// `maps` with what `seals` say of the same mappings. A sealed one cannot have changed since; of one that has changed
/// nothing is said.
pub(super) fn sealed(mut maps: Vec<Map>, seals: &[Map]) -> Vec<Map> {
    for map in &mut maps {
        let is_same = |seal: &&Map| (seal.start, seal.end) == (map.start, map.end);
        map.is_sealed = seals.iter().find(is_same).is_some_and(|seal| {
            let unsealed = Map {
                is_sealed: false,
                ..seal.clone()
            };
            seal.is_sealed && unsealed == *map
        });
    }
    maps
}

/// `smaps`: `None` where anything reads otherwise.
pub(super) fn with_flags(text: &str) -> Option<Vec<Map>> {
    let mut maps: Vec<Map> = Vec::new();
    let mut has_flags = true;
    for line in text.lines() {
        let first = line.split_whitespace().next()?;
        if first == "VmFlags:" {
            let map = maps.last_mut()?;
            let flags: Vec<&str> = line.split_whitespace().skip(1).collect();
            map.is_sealed = flags.contains(&"sl");
            has_flags = true;
        } else if !first.ends_with(':') {
            // Every mapping has its flags, or nothing is known of sealing.
            if !has_flags {
                return None;
            }
            maps.push(head(line)?);
            has_flags = false;
        }
    }
    has_flags.then_some(maps)
}

/// `start-end rwxp offset device inode path`.
fn head(line: &str) -> Option<Map> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = behind.trim_start();
        word
    };
    let (start, end) = word().split_once('-')?;
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    let permissions: [char; 4] = word().chars().collect::<Vec<_>>().try_into().ok()?;
    let is = |at: usize, yes: char, no: char| match permissions.get(at)? {
        c if *c == yes => Some(true),
        c if *c == no => Some(false),
        _ => None,
    };
    let offset = hex(word())?;
    let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let (major, minor) = word().split_once(':')?;
    let file = ((number(major)?, number(minor)?), word().parse().ok()?);
    (start < end).then_some(Map {
        start,
        end,
        is_readable: is(0, 'r', '-')?,
        is_writable: is(1, 'w', '-')?,
        is_executable: is(2, 'x', '-')?,
        is_shared: is(3, 's', 'p')?,
        offset,
        file,
        path: rest.to_owned(),
        is_sealed: false,
    })
}
