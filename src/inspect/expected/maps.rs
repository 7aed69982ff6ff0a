//! What V or D is meant to have mapped.

use jailed::{
    handoff::Handoff,
    machine,
    manifest::{Role as Jailed, start_page},
    ring::Layout,
};

use super::Place;

/// A kind of mapping that a process may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedMap {
    /// What it is of.
    pub of: Mapped,
    /// The protections it may have: `rw-s`.
    pub protections: &'static [&'static str],
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// How many bytes of it there are in all, with these protections, where that is fixed.
    pub len_bytes: Option<u64>,
    /// What it is for.
    pub why: &'static str,
}

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Memory without a name.
    Nothing,
    /// What has exactly this name.
    Named(String),
    /// What has a name that begins so.
    Like(&'static str),
    /// A VFIO device.
    VfioDevice,
}

/// How the kernel shows a mapping of the memory file `name`.
#[must_use]
pub fn memory_file(name: &str) -> String {
    format!("/memfd:{name} (deleted)")
}

/// What V or D has mapped.
pub(super) fn maps(role: Jailed, handoff: &Handoff, place: &Place) -> Vec<ExpectedMap> {
    let row = |of, protections, is_sealed, why| ExpectedMap {
        of,
        protections,
        is_sealed,
        len_bytes: None,
        why,
    };
    let named = |name: &str| Mapped::Named(name.to_owned());
    let memory_file = |name: &str| Mapped::Named(memory_file(name));
    let program = || Mapped::Named(place.program.display().to_string());
    let exactly = |row: ExpectedMap, len_bytes: u64| ExpectedMap {
        len_bytes: Some(len_bytes),
        ..row
    };
    let mut maps = vec![
        row(program(), &["r-xp", "r--p"], true, "code and constants"),
        row(program(), &["rw-p"], false, "variables"),
        row(
            Mapped::Nothing,
            &["rw-p", "---p"],
            false,
            "stacks and state",
        ),
        row(named("[stack]"), &["rw-p"], false, "the first stack"),
        row(named("[vdso]"), &["r-xp"], false, "the kernel's own page"),
        row(
            Mapped::Like("[vvar"),
            &["r--p"],
            false,
            "the kernel's own page",
        ),
        row(
            named("[vsyscall]"),
            &["--xp"],
            false,
            "the kernel's own page",
        ),
        exactly(
            row(memory_file("narrows-start"), &["rw-s"], true, "start page"),
            start_page::BYTES as u64,
        ),
        exactly(
            row(
                memory_file("narrows-ring"),
                &["rw-s"],
                true,
                "shared with the other",
            ),
            pages(Layout::of(handoff).size_bytes() as u64),
        ),
    ];
    if role == Jailed::Device {
        return maps;
    }
    let spans = handoff.functions().iter().flat_map(|f| f.bars.iter());
    let spans = spans.flat_map(|bar| {
        let used = usize::try_from(bar.span_count).unwrap_or(usize::MAX);
        bar.spans.iter().take(used)
    });
    let bar_bytes: u64 = spans.map(|span| span.len_bytes).sum();
    let ram_bytes = handoff.ram().iter().map(|range| range.len_bytes).sum();
    maps.push(exactly(
        row(
            memory_file("narrows-ring"),
            &["r--s"],
            true,
            "configuration space that the guest reads",
        ),
        machine::ECAM_BYTES,
    ));
    maps.push(exactly(
        row(memory_file("narrows-ram"), &["rw-s"], true, "guest RAM"),
        ram_bytes,
    ));
    maps.push(row(
        memory_file("narrows-image"),
        &["rw-s"],
        true,
        "a guest's own copy of an image",
    ));
    for image in &place.images {
        let of = Mapped::Named(image.display().to_string());
        maps.push(row(of, &["r--s"], true, "an image"));
    }
    let bars = row(Mapped::VfioDevice, &["rw-s"], true, "BARs");
    maps.push(exactly(bars, bar_bytes));
    maps.push(row(
        Mapped::Like("anon_inode:kvm-vcpu:"),
        &["rw-s"],
        true,
        "pages shared with KVM",
    ));
    maps
}

/// Whether a name is that of a VFIO device, opened through its group or its own file.
pub(super) fn is_vfio_device(name: &str) -> bool {
    let index = name.strip_prefix("/dev/vfio/devices/vfio");
    name == "anon_inode:[vfio-device]"
        || index.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

/// Whole pages.
fn pages(len_bytes: u64) -> u64 {
    len_bytes.next_multiple_of(4096)
}

impl ExpectedMap {
    /// Whether a mapping of this name and protection is of this kind.
    #[must_use]
    pub fn fits(&self, path: &str, protection: &str) -> bool {
        self.of.fits(path) && self.protections.contains(&protection)
    }
}

impl Mapped {
    /// Whether a mapping of this name is meant.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        match self {
            Self::Nothing => path.is_empty(),
            Self::Named(name) => path == name,
            Self::Like(start) => path.starts_with(start),
            Self::VfioDevice => is_vfio_device(path),
        }
    }
}
