//! Words that the guest's machine implies, for its kernel's command line: a kernel that is told what is not there does not
//! look for it. A word stands in the table only if it is harmless for every guest.

use jailed::handoff::CMDLINE_BYTES;
use serde::Serialize;

/// A word that is put before the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineWord {
    /// The word.
    pub word: &'static str,
    /// Whether a guest with a console gets it: what a kernel writes there costs an exit or two for each byte.
    #[serde(skip)]
    with_console: bool,
    /// Why.
    pub why: &'static str,
}

/// *Source:* `Documentation/admin-guide/kernel-parameters.txt`; `early_pci_allowed` in `arch/x86/pci/early.c`,
/// `pci_arch_init` in `arch/x86/pci/init.c` (v6.12).
///
/// With `pci=noearly` Linux finds ECAM where it reads the ACPI namespace, and not before; until then it has no way to
/// configuration space, and says so in a line.
const WORDS: &[MachineWord] = &[MachineWord {
    word: "pci=noearly",
    with_console: false,
    why: "nothing answers at ports 0xcf8 and 0xcfc, where Linux looks for chipsets before it knows of ECAM",
}];

/// The words for a guest whose operator wrote `cmdline`: those of the table that are not there already, as many as there is
/// room for.
#[must_use]
pub(super) fn machine_words(cmdline: &str, has_console: bool) -> Vec<MachineWord> {
    let mut room = (CMDLINE_BYTES - 1).saturating_sub(cmdline.len());
    let fitting = WORDS.iter().filter(|row| row.with_console || !has_console);
    let absent = fitting.filter(|row| !says(cmdline, row.word));
    absent
        .copied()
        .take_while(|row| {
            let needs = row.word.len() + 1;
            let fits = needs <= room;
            room = room.saturating_sub(needs);
            fits
        })
        .collect()
}

/// The line that the kernel gets. The operator's words come last, so that they win, and what stands behind `--` stays there.
#[must_use]
pub(super) fn whole(words: &[MachineWord], cmdline: &str) -> String {
    let words = words.iter().map(|row| row.word);
    let own = Some(cmdline).filter(|line| !line.is_empty());
    words.chain(own).collect::<Vec<_>>().join(" ")
}

/// Whether a line has a word `key=value`, be it as one of several values of the key.
fn says(cmdline: &str, word: &str) -> bool {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let for_kernel = cmdline.split(' ').take_while(|word| *word != "--");
    for_kernel
        .filter_map(|said| said.split_once('=').or(Some((said, ""))))
        .any(|(its_key, values)| its_key == key && values.split(',').any(|said| said == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cmdline: &str) -> String {
        whole(&machine_words(cmdline, false), cmdline)
    }

    #[test]
    fn a_console_is_spared_the_line_that_a_word_costs() {
        assert_eq!(machine_words("quiet", true), []);
    }

    #[test]
    fn the_machines_words_come_first() {
        assert_eq!(line(""), "pci=noearly");
        assert_eq!(line("quiet -- init=x"), "pci=noearly quiet -- init=x");
    }

    #[test]
    fn a_word_that_the_operator_wrote_is_not_added() {
        for own in ["pci=noearly", "quiet pci=nomsi,noearly panic=-1"] {
            assert_eq!(line(own), own);
        }
        for own in ["pci=nomsi", "pci", "xpci=noearly", "quiet -- pci=noearly"] {
            assert_eq!(line(own), format!("pci=noearly {own}"));
        }
    }

    #[test]
    fn a_word_without_room_is_left_out() {
        let longest = CMDLINE_BYTES - 1;
        let word = "pci=noearly ".len();
        assert_eq!(line(&"x".repeat(longest - word)).len(), longest);
        let full = "x".repeat(longest - word + 1);
        assert_eq!(line(&full), full);
    }
}
