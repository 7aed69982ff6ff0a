//! Budgets that are kept, exceeded and not measured; files that are refused; and the stored ones.

use std::{fs, path::Path};

use super::{Budget, BudgetError, Verdict, parse, table};
use crate::{
    record::{Case, Interface, Record},
    report::sample,
    surface,
};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn budget(text: &str) -> Budget {
    let text = format!("[[budget]]\n{text}\nwhy = \"a reason\"\n");
    let mut all = parse(&text).expect("a budget");
    all.remove(0)
}

fn start(vmm: &str, console: bool, exits: f64) -> Record {
    let mut record = sample::record(Case::Start, vmm, Interface::Iommufd);
    if let Some(guest) = &mut record.guest {
        guest.console = console;
    }
    record.figures.insert("user_exits".to_owned(), exits);
    record
}

#[test]
fn the_worst_run_counts_and_peers_do_not() {
    let budget = budget("figure = \"user_exits\"\ncase = \"start\"\nat_most = 10");
    let runs = [
        start("narrows", false, 9.0),
        start("narrows", false, 11.0),
        start("qemu", false, 99.0),
    ];
    assert_eq!(budget.judge(&runs[..1]), Verdict::Kept(9.0));
    assert_eq!(budget.judge(&runs), Verdict::Exceeded(11.0));
    assert_eq!(budget.judge(&runs[2..]), Verdict::NotMeasured);
}

#[test]
fn only_the_guests_that_are_meant_count() {
    let runs = [start("narrows", false, 9.0), start("narrows", true, 99.0)];
    let head = "figure = \"user_exits\"\ncase = \"start\"\nat_most = 10\n";
    assert_eq!(
        budget(&format!("{head}console = false")).judge(&runs),
        Verdict::Kept(9.0)
    );
    assert_eq!(
        budget(&format!("{head}console = true")).judge(&runs),
        Verdict::Exceeded(99.0)
    );
    assert_eq!(
        budget(&format!("{head}vcpus = 2")).judge(&runs),
        Verdict::NotMeasured
    );
    assert_eq!(
        budget(&format!("{head}interface = \"type1\"")).judge(&runs),
        Verdict::NotMeasured
    );
}

#[test]
fn a_run_without_the_figure_is_not_measured() {
    let mut runs = [start("narrows", false, 9.0), start("narrows", false, 9.0)];
    runs[1].figures.clear();
    let budget = budget("figure = \"user_exits\"\ncase = \"start\"\nat_most = 10");
    assert_eq!(budget.judge(&runs), Verdict::NotMeasured);
}

#[test]
fn a_budget_may_be_for_each_unit_or_of_a_count() {
    let mut run = sample::record(Case::Steady, "narrows", Interface::Iommufd);
    run.work = "nvme-read".to_owned();
    run.figures.insert("calls".to_owned(), 5.0);
    run.figures.insert("units".to_owned(), 1000.0);
    run.counts
        .entry("calls".to_owned())
        .or_default()
        .insert("read".to_owned(), 5);
    let each = budget(
        "figure = \"calls\"\ncase = \"steady\"\nwork = \"nvme-read\"\nper = \"units\"\nat_most = 0.001",
    );
    assert_eq!(each.judge(&[run.clone()]), Verdict::Exceeded(0.005));
    let count = budget("figure = \"calls/read\"\ncase = \"steady\"\nat_most = 5");
    assert_eq!(count.judge(&[run]), Verdict::Kept(5.0));
}

#[test]
fn times_rates_and_unknown_figures_are_refused() {
    let refused = |figure: &str, case: &str| {
        parse(&format!(
            "[[budget]]\nfigure = \"{figure}\"\ncase = \"{case}\"\nat_most = 1\nwhy = \"x\"\n"
        ))
        .expect_err("no budget")
    };
    assert!(matches!(
        refused("init_ns", "instructions"),
        BudgetError::Time(_)
    ));
    assert!(matches!(
        refused("cycles_per_minute", "life"),
        BudgetError::Rate(_)
    ));
    assert!(matches!(
        refused("user_exit", "start"),
        BudgetError::Figure(_)
    ));
    assert!(matches!(
        refused("user_exits", "mapping"),
        BudgetError::Figure(_)
    ));
    let text = "[[budget]]\nfigure = \"fds\"\ncase = \"start\"\nat_most = 1\nwhy = \" \"\n";
    assert!(matches!(parse(text), Err(BudgetError::Why(_))));
}

#[test]
fn a_failure_names_figure_budget_and_what_to_do() {
    let budgets = [
        budget("figure = \"user_exits\"\ncase = \"start\"\nconsole = false\nat_most = 10"),
        budget("figure = \"fds\"\ncase = \"start\"\nat_most = 10"),
    ];
    let (text, failed) = table(&budgets, &[start("narrows", false, 11.0)]);
    assert_eq!(failed, 2);
    for part in [
        "test budget::start::user_exits::no_console ... FAILED: 11 where the budget is 10 (a reason)",
        "test budget::start::fds ... FAILED: no record has it",
        "test result: FAILED. 0 passed; 2 failed; 0 ignored",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn stored_budgets_are_understood_and_no_two_are_of_the_same() {
    let text = fs::read_to_string(folder().join("budgets.toml")).expect("the budgets");
    let mut titles: Vec<_> = parse(&text)
        .expect("budgets")
        .iter()
        .map(Budget::title)
        .collect();
    titles.sort();
    let all = titles.len();
    titles.dedup();
    assert_eq!(titles.len(), all);
}

/// Sizes of programs need a release build: `scripts/test` holds those.
#[test]
fn source_keeps_its_budgets() {
    let text = fs::read_to_string(folder().join("budgets.toml")).expect("the budgets");
    let mut budgets = parse(&text).expect("budgets");
    budgets.retain(|budget| {
        ["guest_reachable_lines", "unsafe_blocks"].contains(&budget.figure.as_str())
    });
    assert_eq!(budgets.len(), 2);
    let record = surface::source_record(&folder().join("../..")).expect("the sources");
    let (text, failed) = table(&budgets, &[record]);
    assert_eq!(failed, 0, "{text}");
}
