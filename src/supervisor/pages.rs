//! In what pages guest RAM comes, which says how it is made present fastest.

use iommu::sysfs::SysRoot;

use crate::spec::HugepageSize;

const SHARED: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
const SHARED_TWO_MIB: &str = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/shmem_enabled";
/// What is not in larger pages.
const PAGE_BYTES: u64 = 4096;

/// The pages of a guest's RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// The host's reserved huge pages, which the guest file asks for.
    Huge(HugepageSize),
    /// Transparent ones of 2 MiB, as far as the kernel has them, to whoever asks and then touches.
    Large,
    /// Of 4 KiB, or of some size between: who asks for large pages, and touches, gets none of 2 MiB.
    Small {
        /// Why, for the operator.
        why: String,
    },
}

impl Pages {
    /// For RAM in `huge` pages, or in what the kernel of `root` gives to shared memory that asks for large ones.
    ///
    /// *Source:* `Documentation/admin-guide/mm/transhuge.rst` (v6.12), "Hugepages in tmpfs/shmem".
    pub(super) fn of(root: &SysRoot, huge: Option<HugepageSize>) -> Self {
        if let Some(size) = huge {
            return Self::Huge(size);
        }
        let chosen = |path: &str| match root.read_text_if_any(path) {
            Ok(text) => text.map(|text| chosen_of(&text).unwrap_or_default().to_owned()),
            // What cannot be read may be anything; asking for large pages is right in all cases.
            Err(_unreadable) => Some(String::new()),
        };
        let small = |path: &str, word: &str| Self::Small {
            why: format!("/{path} says {word}"),
        };
        match chosen(SHARED).as_deref() {
            None => Self::Small {
                why: "the kernel has no transparent large pages".to_owned(),
            },
            Some("deny") => small(SHARED, "deny"),
            Some("force") => Self::Large,
            // Kernels before 6.11 have no setting for each size.
            Some(global) => match (global, chosen(SHARED_TWO_MIB).as_deref()) {
                ("never", None | Some("inherit")) => small(SHARED, "never"),
                (_, Some("never")) => small(SHARED_TWO_MIB, "never"),
                _ => Self::Large,
            },
        }
    }

    /// How long one is.
    pub(super) const fn len_bytes(&self) -> u64 {
        match self {
            Self::Huge(size) => size.len().raw(),
            Self::Large | Self::Small { .. } => PAGE_BYTES,
        }
    }
}

/// The word in brackets among the words that could be chosen.
fn chosen_of(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use iommu::sysfs::{Entry, Kind, Tree};

    use super::*;

    fn pages(global: Option<&str>, two_mib: Option<&str>) -> Pages {
        let mut tree = Tree::default();
        for (path, content) in [(SHARED, global), (SHARED_TWO_MIB, two_mib)] {
            let Some(content) = content else { continue };
            let entry = Entry {
                kind: Kind::File(content.into()),
                owner: None,
            };
            tree.insert(Path::new(path), entry).unwrap();
        }
        Pages::of(&SysRoot::captured("machine", tree), None)
    }

    #[test]
    fn large_pages_are_asked_for_where_the_kernel_gives_them() {
        let never = "always within_size advise [never] deny force\n";
        let advise = "always within_size [advise] never deny force\n";
        let force = "always within_size advise never deny [force]\n";
        let inherit = "always [inherit] within_size advise never\n";
        let own = "always inherit within_size [advise] never\n";
        let none = "always inherit within_size advise [never]\n";
        for (global, two_mib) in [
            (advise, None),
            (advise, Some(inherit)),
            (never, Some(own)),
            (advise, Some(own)),
            (force, Some(none)),
            // Not known, so asked for.
            ("?", None),
        ] {
            let found = pages(Some(global), two_mib);
            assert_eq!(found, Pages::Large, "{global} {two_mib:?}");
        }
        let denied = "always within_size advise never [deny] force\n";
        for (global, two_mib, says) in [
            (never, None, SHARED),
            (never, Some(inherit), SHARED),
            (never, Some(none), SHARED_TWO_MIB),
            (advise, Some(none), SHARED_TWO_MIB),
            (denied, Some(own), SHARED),
        ] {
            let found = pages(Some(global), two_mib);
            let Pages::Small { why } = &found else {
                panic!("{global} {two_mib:?}: {found:?}");
            };
            assert!(why.starts_with(&format!("/{says} says ")), "{why}");
        }
        assert!(matches!(pages(None, None), Pages::Small { .. }));
    }

    #[test]
    fn huge_pages_are_the_guest_files_word() {
        let huge = Pages::of(&SysRoot::new("/nowhere"), Some(HugepageSize::TwoMib));
        assert_eq!(huge, Pages::Huge(HugepageSize::TwoMib));
        assert_eq!(huge.len_bytes(), 2 << 20);
    }
}
