//! Checks of what the kernel was told at boot and when it was built: two tables of single settings.

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Find, Found, NOT_READ, Row, evidence, on_host},
};
use crate::{error::Blame, topology::Topology};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::CmdlineHazard,
            worst: Verdict::Warn,
            title: "the kernel's command line weakens nothing",
            why: "a guard that this host could have is off",
            remedy: "remove the word from the kernel's command line",
            sources: &[
                "Documentation/admin-guide/kernel-parameters.txt (Linux 6.12)",
                "Documentation/arch/x86/x86_64/boot-options.rst, iommu= (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(cmdline_hazard),
    },
    Row {
        check: Check {
            id: CheckId::KernelConfig,
            worst: Verdict::Warn,
            title: "the kernel is built for isolation",
            why: "a guard is missing, or a way around one is built in",
            remedy: "boot a kernel that is built otherwise",
            sources: &[
                "drivers/vfio/Kconfig, drivers/iommu/Kconfig, drivers/iommu/intel/Kconfig (Linux 6.12)",
                "security/Kconfig.hardening, drivers/pci/pcie/Kconfig (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(kernel_config),
    },
];

/// A word of the command line that weakens isolation.
struct Hazard {
    key: &'static str,
    value: Word,
    reason: &'static str,
}

/// A value of a parameter: the word itself, or a truth value in any of the kernel's spellings.
enum Word {
    Is(&'static str),
    On,
    Off,
}

const HAZARDS: &[Hazard] = &[
    hazard(
        "iommu",
        Word::Is("pt"),
        "the host's devices are not translated",
    ),
    hazard("iommu", Word::Is("off"), "no IOMMU is used"),
    hazard(
        "iommu.passthrough",
        Word::On,
        "the host's devices are not translated",
    ),
    hazard(
        "iommu.strict",
        Word::Off,
        "unmapped memory stays reachable for a while",
    ),
    hazard("intel_iommu", Word::Is("off"), "no IOMMU is used"),
    hazard(
        "intel_iommu",
        Word::Is("igfx_off"),
        "the graphics device is not translated",
    ),
    hazard("amd_iommu", Word::Is("off"), "no IOMMU is used"),
    hazard("intremap", Word::Is("off"), "devices can forge interrupts"),
    hazard(
        "intremap",
        Word::Is("nosid"),
        "devices can send each other's interrupts",
    ),
    hazard("nointremap", Word::On, "devices can forge interrupts"),
    hazard(
        "pci",
        Word::Is("noacs"),
        "asks for switches without access control, where the kernel is patched for it",
    ),
    hazard(
        "pci",
        Word::Is("noaer"),
        "errors of devices are not reported",
    ),
    hazard(
        "mitigations",
        Word::Is("off"),
        "guests can read the host's memory through the CPU",
    ),
    hazard(
        "vfio.enable_unsafe_noiommu_mode",
        Word::On,
        "VFIO works without an IOMMU",
    ),
    hazard(
        "vfio_iommu_type1.allow_unsafe_interrupts",
        Word::On,
        "devices can forge interrupts",
    ),
    hazard(
        "iommufd.allow_unsafe_interrupts",
        Word::On,
        "devices can forge interrupts",
    ),
];

const fn hazard(key: &'static str, value: Word, reason: &'static str) -> Hazard {
    Hazard { key, value, reason }
}

impl Word {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Is(word) => value == *word,
            // Source: lib/kstrtox.c, kstrtobool (v6.12); a parameter without a value is on.
            Self::On => matches!(value, "" | "1" | "y" | "Y" | "t" | "T" | "on" | "On" | "ON"),
            Self::Off => matches!(
                value,
                "0" | "n" | "N" | "f" | "F" | "of" | "off" | "Off" | "OFF"
            ),
        }
    }
}

/// A word for each hazard of the table, in the spellings that its check accepts.
pub(super) fn hazardous_words() -> impl Iterator<Item = String> {
    HAZARDS
        .iter()
        .flat_map(|Hazard { key, value, .. }| match value {
            Word::Is(value) => vec![format!("{key}={value}")],
            Word::On => vec![(*key).to_owned(), format!("{key}=1")],
            Word::Off => vec![format!("{key}=0"), format!("{key}=off")],
        })
}

fn cmdline_hazard(topology: &Topology) -> Found {
    const FILE: &str = "/proc/cmdline";
    let words = &topology.host.cmdline;
    if words.is_empty() {
        return Found::warn(NOT_READ, "mount /proc").saw(FILE, "empty, or it cannot be read");
    }
    let found: Vec<(&str, &str)> = words
        .iter()
        .flat_map(|word| hazards_of(word).map(move |reason| (word.as_str(), reason)))
        .collect();
    if found.is_empty() {
        return Found::pass("none").saw(FILE, words.join(" "));
    }
    let names: Vec<&str> = found.iter().map(|(word, _)| *word).collect();
    Found::warn(
        names.join(" "),
        format!(
            "remove {} from the kernel's command line",
            names.join(" and ")
        ),
    )
    .saw_all(
        found
            .iter()
            .map(|(word, reason)| evidence(FILE, format!("{word}: {reason}"))),
    )
}

/// Why a word is a hazard, for each of its values: `intel_iommu=on,igfx_off` has two.
fn hazards_of(word: &str) -> impl Iterator<Item = &'static str> {
    let (key, values) = word.split_once('=').unwrap_or((word, ""));
    // The kernel reads `-` in the name of a parameter as `_`.
    let key = key.replace('-', "_");
    HAZARDS.iter().filter_map(move |hazard| {
        let is_it = hazard.key == key && values.split(',').any(|value| hazard.value.matches(value));
        is_it.then_some(hazard.reason)
    })
}

/// An option of the kernel's configuration.
struct Choice {
    name: &'static str,
    wanted: Wanted,
    reason: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// `y` or `m`.
    Built,
    /// `n`, or not there.
    Absent,
}

const OPTIONS: &[Choice] = &[
    option(
        "VFIO_NOIOMMU",
        Wanted::Absent,
        "VFIO can be told to work without an IOMMU",
    ),
    option(
        "IOMMUFD",
        Wanted::Built,
        "an older interface is used, with more handles",
    ),
    option(
        "VFIO_DEVICE_CDEV",
        Wanted::Built,
        "an older interface is used, with more handles",
    ),
    option(
        "IOMMU_DEFAULT_PASSTHROUGH",
        Wanted::Absent,
        "the host's devices are not translated by default",
    ),
    option("IRQ_REMAP", Wanted::Built, "interrupts cannot be remapped"),
    option(
        "INTEL_IOMMU_DEBUGFS",
        Wanted::Absent,
        "page tables of IOMMUs are shown to root",
    ),
    option(
        "AMD_IOMMU_DEBUGFS",
        Wanted::Absent,
        "registers of IOMMUs are shown to root",
    ),
    option(
        "INIT_ON_FREE_DEFAULT_ON",
        Wanted::Built,
        "a guest's memory keeps what it held until it is used again",
    ),
    option(
        "PCIEAER",
        Wanted::Built,
        "errors of devices are not reported",
    ),
];

const fn option(name: &'static str, wanted: Wanted, reason: &'static str) -> Choice {
    Choice {
        name,
        wanted,
        reason,
    }
}

fn kernel_config(topology: &Topology) -> Found {
    let Some((path, options)) = &topology.host.kernel_config else {
        return Found::warn(
            NOT_READ,
            "install the kernel's configuration as /boot/config-VERSION",
        )
        .saw(
            "/proc/config.gz",
            "neither it nor /boot/config-VERSION can be read",
        );
    };
    let path = on_host(path);
    let deviating: Vec<Evidence> = OPTIONS
        .iter()
        .filter_map(|option| {
            let name = option.name;
            let said = options.get(name).map_or("n", String::as_str);
            let is_built = matches!(said, "y" | "m");
            let is_wanted = is_built == (option.wanted == Wanted::Built);
            (!is_wanted)
                .then(|| evidence(&path, format!("CONFIG_{name}={said}: {}", option.reason)))
        })
        .collect();
    match deviating.len() {
        0 => Found::pass("as wanted").saw(path, format!("all {} options", OPTIONS.len())),
        count => Found::warn(
            format!("{count} of {}", OPTIONS.len()),
            "boot a kernel that is built otherwise",
        )
        .saw_all(deviating),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hazardous_word_is_found_in_both_spellings() {
        for word in hazardous_words() {
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            let other = format!("{}={value}", key.replace('_', "-"));
            assert_eq!(hazards_of(&word).count(), 1, "{word}");
            assert_eq!(hazards_of(&other).count(), 1, "{other}");
        }
    }
}
