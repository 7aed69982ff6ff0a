//! Holds counts to what was agreed: a count that grows does so on purpose, in the commit that makes it grow.

mod rule;

use std::{error::Error, path::PathBuf};

use crate::{
    record::{Case, Line, Record},
    report::{self, words},
};

pub use rule::{Budget, BudgetError, Verdict, parse};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files of records, one a line.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    records: Vec<PathBuf>,
    /// The budgets.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "tests/scoreboard/budgets.toml"
    )]
    budgets: PathBuf,
    /// Only the budgets of this case, such as `code`; may be repeated.
    #[arg(long, value_name = "CASE", value_parser = case)]
    case: Vec<Case>,
    /// Not those of this case; may be repeated.
    #[arg(long, value_name = "CASE", value_parser = case)]
    without: Vec<Case>,
}

/// The result of all, as `cargo test` words it, and how many were not kept.
#[must_use]
pub fn table(budgets: &[Budget], records: &[Record]) -> (String, usize) {
    let mut text = String::new();
    let mut failed = 0;
    for budget in budgets {
        let title = budget.title();
        let most = words::number(budget.at_most);
        let line = match budget.judge(records) {
            Verdict::Kept(value) => format!(
                "test budget::{title} ... ok ({} of at most {most})",
                words::number(value)
            ),
            Verdict::Exceeded(value) => {
                failed += 1;
                format!(
                    "test budget::{title} ... FAILED: {} where the budget is {most} ({}); find what made it grow, or raise \
                    the budget in tests/scoreboard/budgets.toml in the same commit, with the reason",
                    words::number(value),
                    budget.why.trim(),
                )
            }
            Verdict::NotMeasured => {
                failed += 1;
                format!(
                    "test budget::{title} ... FAILED: no record has it, so nothing shows that it is kept; measure it, or \
                    take the budget out of tests/scoreboard/budgets.toml"
                )
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let passed = budgets.len() - failed;
    text.push_str(&format!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"));
    (text, failed)
}

/// Prints a line for each budget.
///
/// # Errors
/// A budget was not kept, or a file could not be read.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut budgets = parse(&read(&arguments.budgets)?)?;
    budgets.retain(|budget| {
        (arguments.case.is_empty() || arguments.case.contains(&budget.case))
            && !arguments.without.contains(&budget.case)
    });
    let mut records = Vec::new();
    for path in &arguments.records {
        let lines =
            report::parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
        records.extend(lines.into_iter().filter_map(|line| match line {
            Line::Record(record) => Some(record),
            Line::Missing(_) | Line::Vmm(_) => None,
        }));
    }
    let (text, failed) = table(&budgets, &records);
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    if failed > 0 {
        return Err(format!("{failed} of {} budgets are not kept", budgets.len()).into());
    }
    Ok(())
}

fn case(text: &str) -> Result<Case, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "budget_test.rs"]
mod tests;
