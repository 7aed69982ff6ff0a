//! Where a process is: namespaces, cgroup, mounts, user ids, and its limits.

/// The namespaces, as `/proc/PID/ns` names them.
pub(in crate::inspect) const NAMESPACES: [&str; 8] =
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

/// One limit. *Source:* `proc_pid_limits(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The kernel's name: `Max open files`.
    pub name: String,
    /// In force; `None` for none.
    pub soft: Option<u64>,
    /// As far as it can be raised.
    pub hard: Option<u64>,
}

/// A mount. *Source:* `proc_pid_mountinfo(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, as the process sees it.
    pub place: String,
    /// The file system's kind.
    pub kind: String,
    /// Options of the mount.
    pub options: Vec<String>,
}

/// Some ids of a user namespace and what they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first inside.
    pub inside: u32,
    /// The first outside, as the reader sees it.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// `user:[4026531837]` of the kind `name`. What a process would make for its children counts for nothing.
pub(super) fn namespace(name: &str, target: &str) -> Option<u64> {
    let rest = target.strip_prefix(name)?.strip_prefix(":[")?;
    rest.strip_suffix(']')?.parse().ok()
}

/// Name, soft and hard limit stand in columns.
pub(super) fn limits(text: &str) -> Option<Vec<Limit>> {
    const NAME_COLUMNS: usize = 26;
    let value = |word: &str| match word {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    let mut lines = text.lines();
    lines.next()?.strip_prefix("Limit ")?;
    lines
        .map(|line| {
            let (name, rest) = line.split_at_checked(NAME_COLUMNS)?;
            let mut words = rest.split_whitespace();
            Some(Limit {
                name: name.trim_end().to_owned(),
                soft: value(words.next()?)?,
                hard: value(words.next()?)?,
            })
        })
        .collect()
}

/// The line of version 2: `0::/path`.
pub(super) fn cgroup(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.starts_with('/').then(|| path.to_owned())
}

/// `36 35 98:0 /root /place options… - kind source options`.
pub(super) fn mounts(text: &str) -> Option<Vec<Mount>> {
    let mount = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let words: Vec<&str> = head.split(' ').collect();
        let options = words.get(5)?.split(',').map(str::to_owned);
        Some(Mount {
            place: (*words.get(4)?).to_owned(),
            kind: tail.split(' ').next()?.to_owned(),
            options: options.collect(),
        })
    };
    text.lines().map(mount).collect()
}

/// Lines of three numbers.
pub(super) fn id_ranges(text: &str) -> Option<Vec<IdRange>> {
    let range = |line: &str| {
        let numbers: Option<Vec<u32>> = line.split_whitespace().map(|w| w.parse().ok()).collect();
        let [inside, outside, count] = numbers?.try_into().ok()?;
        Some(IdRange {
            inside,
            outside,
            count,
        })
    };
    text.lines().map(range).collect()
}

/// `flags:` of `fdinfo`, in octal.
pub(super) fn descriptor_flags(text: &str) -> Option<u32> {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}
