//! `narrows vf`: the life of each VF.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use iommu::{bdf::Bdf, sysfs::SysRoot};
use serde::Serialize;

use super::{
    Done, Outcome,
    agree::Question,
    host::{Machine, Shown, Wanted},
    written,
};
use crate::{
    error::{Color, ErrorId, Report, exit_of, printable},
    sriov,
    state::State,
    vf,
    view::host::{Explanation, Row, broken_text, rows, vf_text, vfs_text},
};

/// What is asked about VFs.
#[derive(Debug, Args)]
pub(super) struct Vf {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the VFs: pool, state, guest
    Ls(List),
    /// Explain why a VF is in the state it is in
    Why(Why),
    /// End leases that guests keep between their runs, and make their VFs clean
    Return(Return),
    /// Set the records of a PF aside, so that all of it counts as dirty
    Forget(Forget),
}

#[derive(Debug, Args)]
struct List {
    /// Only VFs of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Why {
    /// The VF
    #[arg(value_name = "BDF")]
    bdf: Bdf,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Return {
    /// The VFs
    #[arg(value_name = "BDF", required_unless_present = "guest")]
    vfs: Vec<Bdf>,
    /// All VFs that this guest keeps
    #[arg(long, value_name = "NAME", conflicts_with = "vfs")]
    guest: Option<String>,
}

#[derive(Debug, Args)]
struct Forget {
    /// The PF
    #[arg(value_name = "PF-BDF")]
    pf: Bdf,
    /// Lose leases, and what is known of data on namespaces, without being asked
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    vfs: &'a [Row],
    broken: &'a [Report],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhyDocument<'a> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    row: &'a Row,
    meaning: &'a str,
    facts: &'a [String],
}

impl Vf {
    /// Whether errors are printed as JSON.
    pub(super) const fn is_json(&self) -> bool {
        match &self.verb {
            Verb::Ls(list) => list.json,
            Verb::Why(why) => why.json,
            Verb::Return(_) | Verb::Forget(_) => false,
        }
    }

    /// Does what was asked.
    pub(super) fn run(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        match &self.verb {
            Verb::Ls(list) => list.print(root, state, color),
            Verb::Why(why) => why.answer(root, state, color),
            Verb::Return(asked) => asked.carry_out(root, state),
            Verb::Forget(asked) => asked.carry_out(root, state),
        }
    }
}

impl List {
    fn print(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let machine = Machine::read(root, state)?;
        let Shown { wanted, broken } = Shown::of_machine(state, &machine);
        let desired = wanted.as_ref().map(|wanted| &wanted.desired);
        let mut rows = rows(&machine.observed, desired, &machine.records);
        if let Some(pool) = &self.pool {
            rows.retain(|row| row.pool.as_ref() == Some(pool));
        }
        let data = match self.json {
            true => written(serde_json::to_string_pretty(&Document {
                api_version: "v1alpha1",
                kind: "Vfs",
                vfs: &rows,
                broken: &broken,
            }))?,
            false => vfs_text(&rows, color) + &broken_text(&broken, color),
        };
        Ok(Done::with(data))
    }
}

impl Why {
    fn answer(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let machine = Machine::read(root, state)?;
        let Shown { wanted, broken } = Shown::of_machine(state, &machine);
        let desired = wanted.as_ref().map(|wanted| &wanted.desired);
        let rows = rows(&machine.observed, desired, &machine.records);
        let row = rows.into_iter().find(|row| row.bdf == self.bdf);
        let row = row.ok_or_else(|| vec![no_vf(self.bdf)])?;
        let mut facts = Vec::new();
        if let Some(Wanted {
            desired, profiles, ..
        }) = &wanted
        {
            facts.extend(
                sriov::drift(&machine.observed, desired, &machine.records, profiles)
                    .iter()
                    .filter(|drift| drift.pf == row.pf && drift.vf == Some(row.index))
                    .map(|drift| format!("differs from the file: {drift}")),
            );
        }
        let explanation = Explanation {
            sentence: Explanation::of_state(row.state),
            row,
            facts,
        };
        let data = match self.json {
            true => written(serde_json::to_string_pretty(&WhyDocument {
                api_version: "v1alpha1",
                kind: "Vf",
                row: &explanation.row,
                meaning: explanation.sentence,
                facts: &explanation.facts,
            }))?,
            false => vf_text(&explanation, color),
        };
        Ok(Done {
            warnings: broken,
            ..Done::with(data)
        })
    }
}

impl Return {
    /// Returns each; one that cannot be does not keep the others.
    fn carry_out(&self, root: &SysRoot, state: &State) -> Outcome {
        super::host::writable(root)?;
        let vfs = match &self.guest {
            None => self.vfs.clone(),
            Some(guest) => kept_by(guest, root, state)?,
        };
        let mut hands = vf::KernelHands::new(root.clone());
        let (mut data, mut reports) = (String::new(), Vec::new());
        for bdf in vfs {
            let mut say = |line: &str| {
                // Who does not listen any more stops nothing.
                writeln!(io::stderr(), "{bdf}: {}", printable(line)).ok();
            };
            match vf::lease::return_lease(&mut hands, state, bdf, &mut say) {
                Ok(guest) => data += &format!("{bdf} is given back by guest {guest}, and clean\n"),
                Err(failed) => reports.extend(failed),
            }
        }
        if reports.is_empty() {
            return Ok(Done::with(data));
        }
        Ok(Done {
            status: exit_of(&reports) as u8,
            data,
            warnings: reports,
            refusals: Vec::new(),
        })
    }
}

/// The VFs that a guest keeps.
fn kept_by(guest: &str, root: &SysRoot, state: &State) -> Result<Vec<Bdf>, Vec<Report>> {
    let records = Machine::read(root, state)?.records;
    let all = records.pfs.values().flat_map(|pf| pf.vfs.values());
    let kept = all.filter(|record| {
        let lease = record.lease.as_ref();
        lease.is_some_and(|lease| lease.guest == guest && lease.run.is_none())
    });
    let kept: Vec<Bdf> = kept.map(|record| record.bdf).collect();
    match kept.is_empty() {
        false => Ok(kept),
        true => Err(vec![Report::new(
            ErrorId::NotLeased,
            format!("guest {guest} keeps no VF"),
            "no record of a VF names it, or it runs",
            "narrows vf ls shows who has which VF",
        )]),
    }
}

impl Forget {
    fn carry_out(&self, root: &SysRoot, state: &State) -> Outcome {
        super::host::writable(root)?;
        let one = |report: Report| vec![report];
        let observed = crate::host::sriov::read(root).map_err(one)?;
        let lost = state.lost_with(self.pf, &observed).map_err(one)?;
        if !lost.is_empty() && !self.yes {
            let lines: Vec<String> = lost.iter().map(|one| printable(one) + "\n").collect();
            Question {
                what: "with what is kept of that PF something is lost",
                shown: format!("what is lost:\n  {}", lines.join("  ")),
                lost: &lost,
            }
            .ask(false)?;
        }
        let kept = state.forget_pf(self.pf, &observed, &lost).map_err(one)?;
        let lines: Vec<String> = lost
            .iter()
            .map(|one| format!("lost: {}\n", printable(one)))
            .collect();
        Ok(Done::with(format!(
            "{}what was known of the VFs of {} is set aside in {}: all of it counts as dirty",
            lines.concat(),
            self.pf,
            kept.display()
        )))
    }
}

fn no_vf(bdf: Bdf) -> Report {
    Report::new(
        ErrorId::BadBdf,
        format!("{bdf} is no VF of this host"),
        "no PF has a link virtfnN to it",
        "name one that `narrows vf ls` prints",
    )
}
