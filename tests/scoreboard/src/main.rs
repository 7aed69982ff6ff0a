//! The scoreboard's program. `scripts/bench` calls it on this machine and in the lab host.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use scoreboard::{budget, lab, report, surface};

/// Measures VMMs side by side and reports it.
#[derive(Debug, Parser)]
#[command(name = "scoreboard", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// In the lab host: start VMMs, and write one record a line.
    Lab(lab::Arguments),
    /// Count the code that the programs are made of; one record a line.
    Code(surface::Arguments),
    /// Put records together into a board, and write its page and plots.
    Report(report::Arguments),
    /// Hold the counts of records to the budgets.
    Budget(budget::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Lab(arguments) => lab::run(&arguments),
        Verb::Code(arguments) => surface::run(&arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Budget(arguments) => budget::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("scoreboard: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            // The program's only word on its way out; a closed stream leaves the status.
            let _closed =
                std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
