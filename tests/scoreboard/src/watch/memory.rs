//! What processes take of the host's memory, guest RAM apart.
//!
//! *Source:* `Documentation/filesystems/proc.rst (v6.12)`, `smaps` and `status`.

/// KiB, summed over mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident.
    pub rss_kib: u64,
    /// Each page divided by those who map it.
    pub pss_kib: u64,
    /// Anonymous, or changed since it was mapped, and this process's alone.
    pub anonymous_kib: u64,
}

impl Memory {
    /// Of the text of a `smaps`, without mappings that are guest RAM by their name.
    #[must_use]
    pub fn of(smaps: &str, is_ram: impl Fn(&str) -> bool) -> Self {
        let mut sum = Self::default();
        let mut is_counted = false;
        for line in smaps.lines() {
            let Some((key, rest)) = line.split_once(':') else {
                continue;
            };
            // The first line of a mapping has an address range before anything else.
            if key.contains('-')
                && !rest.trim_end().ends_with("kB")
                && !key.contains(char::is_uppercase)
            {
                let name = line.split_ascii_whitespace().skip(5);
                is_counted = !is_ram(&name.collect::<Vec<_>>().join(" "));
                continue;
            }
            let kib = rest.trim().strip_suffix("kB").map(str::trim);
            let Some(kib) = kib.and_then(|kib| kib.parse::<u64>().ok()) else {
                continue;
            };
            if !is_counted {
                continue;
            }
            match key {
                "Rss" => sum.rss_kib += kib,
                "Pss" => sum.pss_kib += kib,
                "Private_Dirty" => sum.anonymous_kib += kib,
                _ => {}
            }
        }
        sum
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib + other.rss_kib,
            pss_kib: self.pss_kib + other.pss_kib,
            anonymous_kib: self.anonymous_kib + other.anonymous_kib,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
555588b6a000-555588bd2000 rw-p 00000000 00:00 0                          [heap]
Size:                416 kB
Rss:                 416 kB
Pss:                 208 kB
Pss_Dirty:           208 kB
Shared_Dirty:        400 kB
Private_Dirty:        16 kB
VmFlags: rd wr mr mw me ac
7f07c1e00000-7f07d1e00000 rw-s 00000000 00:01 2                          /memfd:narrows-ram (deleted)
Size:             262144 kB
Rss:               53248 kB
Pss:               53248 kB
Private_Dirty:     53248 kB
7f937b1e0000-7f937b5ad000 r-xp 000ef000 00:03 346                        /usr/bin/narrows
Rss:                3252 kB
Pss:                1754 kB
Private_Dirty:         0 kB
";

    #[test]
    fn guest_ram_is_left_out_and_the_rest_is_summed() {
        let memory = Memory::of(SMAPS, |name| name.contains("narrows-ram"));
        let expected = Memory {
            rss_kib: 416 + 3252,
            pss_kib: 208 + 1754,
            anonymous_kib: 16,
        };
        assert_eq!(memory, expected);
        assert_eq!(Memory::of(SMAPS, |_| false).rss_kib, 416 + 3252 + 53248);
        assert_eq!(Memory::of("", |_| false), Memory::default());
    }
}
