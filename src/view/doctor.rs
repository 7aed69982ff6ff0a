//! The verdicts as text: the host, each function, and what it comes to.

use std::collections::BTreeSet;

use iommu::isolation::{CheckId, Evidence, Finding, Verdict};

use super::{
    Examination, Judged, Scene, advice, layers,
    paint::{self, Ink, paint, wrapped},
    tree, words,
};
use crate::error::{Color, Report, printable};

/// The examination for a person to read.
///
/// `unknown` says what could not be read, `is_verbose` shows what passes, too.
#[must_use]
pub fn doctor_text(
    scene: &Scene<'_>,
    found: &Examination,
    unknown: Option<&str>,
    is_verbose: bool,
    color: Color,
) -> String {
    let mut page = Page {
        scene,
        is_verbose,
        color,
        text: String::new(),
        explained: BTreeSet::new(),
    };
    if let Some(unknown) = unknown {
        page.wrapped("note: ", unknown);
    }
    // Who asks for a device is told of the host what stands in that device's way.
    page.subject(
        found.host_verdict(),
        &format!("this host: {}", words::host(scene.topology)),
        &found.host,
        found.is_named,
    );
    page.text
        .push_str(&layers::text(scene.layers, is_verbose, color));
    for run in runs(
        scene,
        found,
        scene.is_unfolded || found.is_named || is_verbose,
    ) {
        page.devices(run);
    }
    page.line("");
    page.line(&conclusion(scene, found, color));
    page.advice(found);
    page.text
}

/// Pieces of evidence of one finding that are shown unless all are asked for.
const EVIDENCE: usize = 4;

struct Page<'a> {
    scene: &'a Scene<'a>,
    is_verbose: bool,
    color: Color,
    text: String,
    /// The checks whose reason has been given.
    explained: BTreeSet<CheckId>,
}

impl Page<'_> {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn wrapped(&mut self, label: &str, words: &str) {
        let indent = " ".repeat(label.chars().take_while(|c| *c == ' ').count());
        let words = wrapped(words, &format!("{indent}   "), label.len());
        self.line(&format!("{label}{words}"));
    }

    fn devices(&mut self, run: &[Judged]) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let Some(function) = self.scene.topology.functions.get(&first.bdf) else {
            return;
        };
        let name = words::name(self.scene, function);
        let what = match (run.len(), function.physfn) {
            (1, None) if function.sriov.is_some_and(|s| s.enabled == 0) => {
                let total = function.sriov.map_or(0, |s| s.total);
                format!("{}: PF with 0 of {total} VFs, {name}", first.bdf)
            }
            (1, _) => format!(
                "{}: {}, {name}, {}",
                first.bdf,
                tree::belongs(function),
                words::driver(function)
            ),
            (count, Some(pf)) => {
                format!("{} … {}: {count} VFs of {pf}, {name}", first.bdf, last.bdf)
            }
            (count, None) => format!("{} … {}: {count} functions, {name}", first.bdf, last.bdf),
        };
        self.subject(first.verdict(), &what, &first.findings, false);
        if let Some(report) = &first.quarantine {
            self.quarantine(report);
        }
    }

    fn quarantine(&mut self, report: &Report) {
        let label = paint::verdict(self.color, Verdict::Refuse);
        self.line(&format!("  {label}  {}", report.id));
        for why in &report.why {
            let text = wrapped(why, "         ", 6);
            self.line(&format!("      {}", paint(self.color, Ink::Faint, &text)));
        }
        self.wrapped("      fix: ", &report.fix);
        self.line(&format!("      see: narrows explain {}", report.id));
    }

    /// A subject and its findings; where it is refused, or `is_brief`, what only warns is named in one line.
    fn subject(&mut self, verdict: Verdict, what: &str, findings: &[Finding], is_brief: bool) {
        let label = paint::verdict(self.color, verdict);
        self.line(&format!(
            "{label}  {}",
            paint(self.color, Ink::Strong, what)
        ));
        // The worst first: it is what has to be seen to; what is less waits for --verbose.
        for wanted in [
            Verdict::Refuse,
            Verdict::Warn,
            Verdict::Fixable,
            Verdict::Pass,
        ] {
            let alike = findings.iter().filter(|f| f.verdict == wanted);
            let is_shown = match wanted {
                Verdict::Refuse => true,
                Verdict::Warn | Verdict::Fixable => verdict != Verdict::Refuse && !is_brief,
                Verdict::Pass => false,
            };
            if is_shown || self.is_verbose {
                alike.for_each(|finding| self.finding(finding));
            } else {
                self.tally(wanted, &alike.map(|f| f.check.name()).collect::<Vec<_>>());
            }
        }
    }

    /// What is not shown in full.
    fn tally(&mut self, verdict: Verdict, names: &[&str]) {
        if names.is_empty() {
            return;
        }
        let label = paint::verdict(self.color, verdict);
        let text = match verdict {
            Verdict::Pass => words::count(names.len(), "check", "checks"),
            Verdict::Fixable | Verdict::Warn | Verdict::Refuse => names.join(", "),
        };
        let text = wrapped(&text, "             ", 13);
        self.line(&format!("  {label}  {text}"));
    }

    fn finding(&mut self, finding: &Finding) {
        let check = finding.check.check();
        let label = paint::verdict(self.color, finding.verdict);
        let value = printable(&finding.value);
        self.line(&format!("  {label}  {}: {value}", finding.check));
        let shown = if self.is_verbose {
            usize::MAX
        } else {
            EVIDENCE
        };
        for Evidence { source, said } in finding.evidence.iter().take(shown) {
            let text = match said.is_empty() {
                true => source.display().to_string(),
                false => format!("{}: {said}", source.display()),
            };
            let text = wrapped(&text, "         ", 6);
            self.line(&format!("      {}", paint(self.color, Ink::Faint, &text)));
        }
        let hidden = finding.evidence.len().saturating_sub(shown);
        if hidden > 0 {
            let text = format!("and {hidden} more (--verbose)");
            self.line(&format!("      {}", paint(self.color, Ink::Faint, &text)));
        }
        if finding.verdict == Verdict::Pass {
            return;
        }
        // Once is enough: a host has many devices of which the same is to be said.
        let is_new = self.explained.insert(finding.check);
        if is_new {
            self.wrapped("      otherwise ", check.why);
        }
        if let Some(fix) = &finding.fix {
            self.wrapped("      fix: ", fix);
        }
        if is_new {
            self.line(&format!("      see: narrows explain {}", finding.check));
        }
    }

    fn advice(&mut self, found: &Examination) {
        let steps = advice::steps(self.scene, found);
        if steps.is_empty() {
            return;
        }
        self.line("");
        self.line(&paint(self.color, Ink::Strong, "what to change:"));
        for (index, step) in steps.iter().enumerate() {
            self.wrapped(&format!("  {}. ", index.saturating_add(1)), step);
        }
    }
}

/// Neighbours of which the same is to be said, as one.
fn runs<'a>(
    scene: &Scene<'_>,
    found: &'a Examination,
    is_unfolded: bool,
) -> impl Iterator<Item = &'a [Judged]> {
    let signature = |judged: &Judged| -> Vec<_> {
        let bad = |f: &&Finding| f.verdict != Verdict::Pass;
        let bad = judged.findings.iter().filter(bad);
        bad.map(|f| (f.check, f.verdict, f.value.clone())).collect()
    };
    let pf = |judged: &Judged| scene.topology.functions.get(&judged.bdf)?.physfn;
    found.devices.chunk_by(move |a, b| {
        let are_siblings = pf(a).is_some() && pf(a) == pf(b);
        let are_free = a.quarantine.is_none() && b.quarantine.is_none();
        !is_unfolded && are_siblings && are_free && signature(a) == signature(b)
    })
}

/// What it comes to, in one line.
fn conclusion(scene: &Scene<'_>, found: &Examination, color: Color) -> String {
    let verdict = found.verdict().max(layers::verdict_of_layers(scene.layers));
    let label = paint::verdict(color, verdict);
    format!(
        "{label}  {}",
        wrapped(&summary(scene, found), "           ", 11)
    )
}

/// The verdict as a sentence.
pub(super) fn summary(scene: &Scene<'_>, found: &Examination) -> String {
    let bad = refusing(&found.host);
    let mut parts = vec![match bad.as_slice() {
        [] => "this host can fence devices".to_owned(),
        [CheckId::KvmAbsent] => {
            "this host can fence devices, but not run guests: kvm-absent".to_owned()
        }
        bad => format!("this host cannot fence devices: {}", ids(bad)),
    }];
    let (what, judged): (&str, Vec<&Judged>) = match found.is_named {
        true => ("devices", found.devices.iter().collect()),
        false => ("VFs", found.devices.iter().filter(|d| d.is_vf).collect()),
    };
    let (bad, good): (Vec<&Judged>, Vec<&Judged>) = judged
        .iter()
        .partition(|judged| judged.verdict() == Verdict::Refuse);
    let is_fit = found.host_verdict() != Verdict::Refuse;
    if is_fit && !judged.is_empty() {
        parts.push(format!(
            "{} of {} {what} can be assigned",
            good.len(),
            judged.len()
        ));
    }
    if is_fit && !bad.is_empty() {
        parts.push(format!("{} refused: {}", bad.len(), refused(&bad)));
    }
    if judged.is_empty() {
        parts.push(without_vfs(scene));
    }
    let absent: Vec<&str> = scene.layers.absent().map(|k| k.layer.name()).collect();
    if !absent.is_empty() {
        parts.push(format!("the jail of guests lacks {}", absent.join(", ")));
    }
    parts.join("; ")
}

/// The refused with the checks that refuse them; the first few, where there are many.
fn refused(bad: &[&Judged]) -> String {
    const SHOWN: usize = 4;
    let mut words: Vec<String> = bad
        .iter()
        .take(SHOWN)
        .map(|judged| {
            let checks = ids(&refusing(&judged.findings));
            let quarantine = judged.quarantine.as_ref().map(|report| report.id.name());
            let names = quarantine.into_iter().chain([checks.as_str()]);
            let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
            format!("{} ({})", judged.bdf, names.join(", "))
        })
        .collect();
    if bad.len() > SHOWN {
        words.push("…".to_owned());
    }
    words.join(", ")
}

/// The checks that refuse.
fn refusing(findings: &[Finding]) -> Vec<CheckId> {
    let refused = findings.iter().filter(|f| f.verdict == Verdict::Refuse);
    refused.map(|f| f.check).collect()
}

fn ids(checks: &[CheckId]) -> String {
    let names: Vec<&str> = checks.iter().map(|check| check.name()).collect();
    names.join(", ")
}

/// Why no VF was judged.
fn without_vfs(scene: &Scene<'_>) -> String {
    let functions = &scene.topology.functions;
    let vfs = functions.values().filter(|f| f.physfn.is_some()).count();
    let pfs: Vec<String> = functions
        .values()
        .filter_map(|f| Some((f.bdf, f.sriov?)))
        .filter(|(_, sriov)| sriov.total > 0)
        .map(|(bdf, sriov)| format!("{bdf} could have {}", sriov.total))
        .collect();
    match (vfs, pfs.is_empty()) {
        (0, true) => "no function here can have VFs".to_owned(),
        (0, false) => format!("no VF exists yet: {}", pfs.join(", ")),
        (count, _) => format!("{} not judged", words::count(count, "VF was", "VFs were")),
    }
}
