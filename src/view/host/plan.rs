//! A plan as a diff for people.

use std::collections::BTreeMap;

use iommu::bdf::Bdf;

use super::step::{Line, line};
use crate::{
    error::{Color, printable},
    sriov::{HostPlan, KindFacts, Observed, Step},
    view::paint::{Ink, paint, wrapped},
};

/// The plan as text; its refusals and warnings are told elsewhere. `is_verbose`: alike steps are not folded.
#[must_use]
pub fn plan_text(plan: &HostPlan, observed: &Observed, is_verbose: bool, color: Color) -> String {
    let mut text = String::new();
    for (pf, steps) in by_pf(&plan.steps) {
        let head = title(pf, observed);
        text.push_str(&format!(
            "{}\n",
            paint(color, Ink::Strong, &printable(&head))
        ));
        for (line, last) in folded(&steps, is_verbose) {
            let (ink, symbol) = line.symbol.text();
            let subject = line.subject.words(last.subject);
            text.push_str(&format!(
                "  {} {subject:<16} {}\n",
                paint(color, ink, symbol),
                wrapped(&line.what, &" ".repeat(24), 21)
            ));
        }
    }
    let mut section = |title: &str, ink: Ink, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        text.push_str(&format!("{}\n", paint(color, ink, title)));
        for line in lines {
            text.push_str(&format!("  {}\n", wrapped(&line, "    ", 2)));
        }
    };
    let lost = plan.destroyed.iter().map(|lost| lost.what.clone());
    section("what is lost:", Ink::Bad, lost.collect());
    let held = plan.held.iter();
    let held = held.map(|held| format!("{}: {} (guest {} has it)", held.vf, held.what, held.guest));
    section(
        "what waits for a guest to give its VF back:",
        Ink::Odd,
        held.collect(),
    );
    let pending = plan.pending.iter();
    let pending = pending.map(|one| format!("{}: {}", one.pf, one.what));
    section(
        "what needs firmware settings or a reboot:",
        Ink::Odd,
        pending.collect(),
    );
    text.push_str(&conclusion(plan));
    text
}

/// What it comes to, in one line.
fn conclusion(plan: &HostPlan) -> String {
    if !plan.refusals.is_empty() {
        let count = plan.refusals.len();
        return format!(
            "refused for {}: nothing would be touched\n",
            counted(count, "reason")
        );
    }
    let mut rest = Vec::new();
    if !plan.held.is_empty() {
        rest.push(format!("{} held", plan.held.len()));
    }
    if !plan.pending.is_empty() {
        rest.push(format!("{} pending", plan.pending.len()));
    }
    let rest = match rest.is_empty() {
        true => String::new(),
        false => format!(" ({})", rest.join(", ")),
    };
    match plan.steps.len() {
        0 => format!("nothing to do: the machine is as the file says{rest}\n"),
        count => format!("{} to do{rest}\n", counted(count, "step")),
    }
}

fn counted(count: usize, word: &str) -> String {
    match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    }
}

/// The steps of each PF, in the order of the plan.
fn by_pf(steps: &[Step]) -> Vec<(Bdf, Vec<&Step>)> {
    let mut order = Vec::new();
    let mut of: BTreeMap<Bdf, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        let pf = step.pf();
        if !of.contains_key(&pf) {
            order.push(pf);
        }
        of.entry(pf).or_default().push(step);
    }
    order
        .into_iter()
        .filter_map(|pf| Some((pf, of.remove(&pf)?)))
        .collect()
}

/// Runs of steps that differ in their subject alone: the first line and the last of each.
fn folded(steps: &[&Step], is_verbose: bool) -> Vec<(Line, Line)> {
    let mut runs: Vec<(Line, Line)> = Vec::new();
    for step in steps {
        let line = line(step);
        if !is_verbose
            && let Some(run) = runs.iter_mut().rev().find(|(first, last)| {
                first.what == line.what
                    && first.symbol == line.symbol
                    && last.subject.is_before(line.subject)
            })
        {
            run.1 = line;
            continue;
        }
        runs.push((line.clone(), line));
    }
    runs
}

/// A PF as a heading: address, interface or controller, driver.
pub(super) fn title(pf: Bdf, observed: &Observed) -> String {
    let Some(facts) = observed.pfs.get(&pf) else {
        return format!("{pf}");
    };
    let name = match &facts.kind {
        KindFacts::Nic(nic) => nic.interface.as_deref(),
        KindFacts::Nvme(nvme) => Some(nvme.controller.as_str()),
        KindFacts::Other => None,
    };
    let driver = facts.driver.as_deref().unwrap_or("no driver");
    match name {
        Some(name) => format!("{pf} {name} ({driver})"),
        None => format!("{pf} ({driver})"),
    }
}
