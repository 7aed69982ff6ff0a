//! The layers of the jail, as `doctor` shows them.

use iommu::isolation::Verdict;

use super::paint::{self, Ink, paint, wrapped};
use crate::{
    error::Color,
    host::{Known, Layers},
    layers::Presence,
};

/// Refused where a layer is absent that no guest may do without, warned of where one is absent that a guest file may
/// name. What is unknown is not judged: it is another machine's, and no guest runs there from here.
#[must_use]
pub fn verdict_of_layers(layers: &Layers) -> Verdict {
    let absent = layers.absent();
    let verdicts = absent.map(|known| match known.layer.may_be_absent() {
        true => Verdict::Warn,
        false => Verdict::Refuse,
    });
    verdicts.max().unwrap_or(Verdict::Pass)
}

/// In place of a verdict, as wide as one.
const UNKNOWN: &str = "? unknown";

/// A line for all, and what is to be said of those that are absent; of all where `is_verbose`.
pub(super) fn text(layers: &Layers, is_verbose: bool, color: Color) -> String {
    let count = |word: &str| layers.iter().filter(|k| k.presence.word() == word).count();
    let unknown = count("unknown");
    let mut said = vec![format!("{} layers available", count("available"))];
    for word in ["not needed", "absent"] {
        match count(word) {
            0 => {}
            number => said.push(format!("{number} {word}")),
        }
    }
    if unknown > 0 {
        said.push(format!("{unknown} unknown (ask on the host itself)"));
    }
    let subject = format!("jail of a guest's processes: {}", said.join(", "));
    let label = match (verdict_of_layers(layers), unknown) {
        // What is not known does not pass.
        (Verdict::Pass, 1..) => UNKNOWN.to_owned(),
        (verdict, _) => paint::verdict(color, verdict),
    };
    let mut text = format!("{label}  {}\n", paint(color, Ink::Strong, &subject));
    for known in layers.iter() {
        let is_absent = matches!(known.presence, Presence::Absent { .. });
        if is_verbose || is_absent {
            text.push_str(&one(known, is_absent, color));
        }
    }
    text
}

fn one(known: &Known, is_absent: bool, color: Color) -> String {
    let row = known.layer.row();
    let verdict = match (is_absent, known.layer.may_be_absent()) {
        (false, _) => Verdict::Pass,
        (true, true) => Verdict::Warn,
        (true, false) => Verdict::Refuse,
    };
    let label = match known.presence {
        Presence::Unknown { .. } => UNKNOWN.to_owned(),
        Presence::Available { .. } | Presence::Absent { .. } | Presence::NotNeeded { .. } => {
            paint::verdict(color, verdict)
        }
    };
    let evidence = wrapped(known.presence.evidence(), "         ", 6);
    let mut text = format!(
        "  {label}  {}: {}\n      {}\n",
        known.layer,
        known.presence.word(),
        paint(color, Ink::Faint, &evidence)
    );
    if is_absent {
        let removes = wrapped(row.removes, "         ", 17);
        let fix = wrapped(row.fix, "         ", 11);
        text.push_str(&format!(
            "      it would remove {removes}\n      fix: {fix}\n"
        ));
        if let Ok(left) = row.excepted {
            let left = format!(
                "or `without = [\"{}\"]` in [sandbox] of the guest file: {left}",
                known.layer
            );
            text.push_str(&format!("      {}\n", wrapped(&left, "         ", 6)));
        }
    }
    text
}
