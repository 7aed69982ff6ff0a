//! Layers of the jail that this kernel lacks: refused, or warned of at every start where the guest file does without.

use super::{Case, Verdict};
use crate::{
    error::{ErrorId, Report},
    host::Known,
};

/// Every absent layer, in the order of their table. A layer that nothing tells of is one that a machine file does not
/// show: the running kernel leaves none open.
pub(super) fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    let without = case.spec.sandbox.without;
    for known in case.host.layers.absent() {
        if without.contains(known.layer) {
            verdict.warnings.push(warning(known));
        } else {
            verdict.refusals.push(refusal(known));
        }
    }
}

fn warning(known: &Known) -> Report {
    let row = known.layer.row();
    let (Ok(left) | Err(left)) = row.excepted;
    Report::new(
        ErrorId::LayerAbsent,
        format!("the guest runs without the layer {}", known.layer),
        known.presence.evidence(),
        row.fix,
    )
    .and(format!("it would remove {}", row.removes))
    .and(format!("what holds without it: {left}"))
}

fn refusal(known: &Known) -> Report {
    let row = known.layer.row();
    let (fix, last) = match row.excepted {
        Ok(left) => (
            format!(
                "{}; or write `without = [\"{}\"]` in [sandbox], to be warned at every start",
                row.fix, known.layer
            ),
            format!("without it {left}"),
        ),
        Err(why) => (
            row.fix.to_owned(),
            format!("no guest may run without it: {why}"),
        ),
    };
    Report::new(
        ErrorId::LayerAbsent,
        format!("this kernel lacks the layer {}", known.layer),
        known.presence.evidence(),
        fix,
    )
    .and(format!("it removes {} ({})", row.removes, row.since))
    .and(last)
}
