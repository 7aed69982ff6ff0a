//! `narrows quarantine`: what no guest may have, and its release by name.

use clap::{Args, Subcommand};
use iommu::bdf::Bdf;
use serde::Serialize;

use super::{Done, Outcome};
use crate::{
    error::{ErrorId, Exit, Report, printable},
    sriov::VfState,
    state::{Entry, Record, State},
};

/// What is asked about the quarantine; without a verb of its own, a list.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Quarantine {
    /// Print the list, or the errors, as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Let guests have these functions again; what they were quarantined for is kept
    Release(Release),
}

#[derive(Debug, Args)]
struct Release {
    /// The functions, as `narrows quarantine` lists them
    #[arg(required = true, value_name = "BDF")]
    functions: Vec<String>,
    /// Why they are sound again, to be kept with the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Quarantine {
    /// Does what was asked.
    pub(super) fn answer(&self, state: &State) -> Outcome {
        match &self.verb {
            Some(Verb::Release(release)) => release.carry_out(state),
            None => list(state, self.json),
        }
    }
}

impl Release {
    /// Releases all or, where one of them is not there or no address, none.
    fn carry_out(&self, state: &State) -> Outcome {
        let mut functions: Vec<Bdf> = Vec::new();
        let mut problems = Vec::new();
        for word in &self.functions {
            match word.parse() {
                Ok(bdf) if state.refusal(bdf).is_none() => {
                    problems.push(state.not_quarantined(bdf));
                }
                Ok(bdf) if functions.contains(&bdf) => {}
                Ok(bdf) => functions.push(bdf),
                Err(error) => problems.push(Report::new(
                    ErrorId::BadBdf,
                    format!("{word:?} is not a PCI address"),
                    iommu::bdf::BadBdf::to_string(&error),
                    "write domain:bus:device.function as `narrows quarantine` prints it",
                )),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut data = String::new();
        for bdf in functions {
            // First: whoever is interrupted leaves it in quarantine, and not a VF that counts as clean.
            let is = state.mark_freed(bdf).map_err(|report| vec![report])?;
            let (kept, record) = state
                .release(bdf, self.note.as_deref())
                .map_err(|report| vec![report])?;
            let was = record.map_or_else(
                || "its record was damaged".to_owned(),
                |record| {
                    format!(
                        "{} since {}, after a run of guest {}",
                        record.reason, record.since, record.guest
                    )
                },
            );
            data += &format!("{bdf} is released: {was} (kept in {})\n", kept.display());
            if let Some(next) = is.and_then(next) {
                data += &format!("{bdf} {next}\n");
            }
        }
        Ok(Done {
            status: Exit::Done as u8,
            data,
            warnings: Vec::new(),
            refusals: Vec::new(),
        })
    }
}

/// What is to be done with a VF that was let go, before a guest gets it.
const fn next(is: VfState) -> Option<&'static str> {
    match is {
        VfState::Created => Some("is created: narrows host apply resets it, then it is clean"),
        VfState::InUse | VfState::Dirty | VfState::Sanitising => {
            Some("was not given back: narrows recover")
        }
        VfState::Absent | VfState::Clean | VfState::Leased | VfState::Quarantined => None,
    }
}

fn list(state: &State, as_json: bool) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        api_version: &'static str,
        kind: &'static str,
        quarantined: &'a [Record],
        damaged: &'a [Report],
    }
    let mut records = Vec::new();
    let mut damaged = Vec::new();
    for entry in state.quarantined().map_err(|report| vec![report])? {
        match entry {
            Entry::Record(record) => records.push(record),
            Entry::Damaged { report, .. } => damaged.push(report),
        }
    }
    let data = if as_json {
        let document = Document {
            api_version: "v1alpha1",
            kind: "Quarantine",
            quarantined: &records,
            damaged: &damaged,
        };
        serde_json::to_string_pretty(&document).map_err(|error| {
            let what = "the list cannot be written as JSON";
            vec![Report::new(
                ErrorId::Bug,
                what,
                error.to_string(),
                "report it",
            )]
        })?
    } else {
        text(&records)
    };
    Ok(Done {
        status: match damaged.is_empty() {
            true => Exit::Done as u8,
            false => Exit::Failed as u8,
        },
        data,
        // As JSON they are in the document.
        warnings: match as_json {
            true => Vec::new(),
            false => damaged,
        },
        refusals: Vec::new(),
    })
}

fn text(records: &[Record]) -> String {
    if records.is_empty() {
        return "nothing is in quarantine".to_owned();
    }
    let mut text = String::new();
    for record in records {
        let Record {
            bdf,
            device,
            reason,
            guest,
            since,
            ..
        } = record;
        text += &format!(
            "{bdf}  {}:{} class {}\n  since  {}, after a run of guest {}\n  why    {}\n",
            printable(&device.vendor),
            printable(&device.device),
            printable(&device.class),
            printable(since),
            printable(guest),
            printable(reason),
        );
        for line in &record.evidence {
            text += &format!("         {}\n", printable(line));
        }
    }
    text
}
