//! `narrows host status`, `import` and `export`.

use std::path::PathBuf;

use clap::Args;
use iommu::sysfs::SysRoot;
use serde::Serialize;

use super::{Machine, Shown, done};
use crate::{
    cli::{Done, Outcome, written},
    error::{Color, ErrorId, Exit, Report},
    spec::host::HostSpec,
    sriov::{self, Drift},
    state::State,
    view::host::{PoolRow, Row, pools, rows, status_text},
};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Compare with this host file, not with the one that was applied
    file: Option<PathBuf>,
    /// Print the status as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Write the host file here; it must not exist
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Print JSON, as without this
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    exit: u8,
    applied: Option<Applied<'a>>,
    pools: Vec<PoolRow>,
    vfs: &'a [Row],
    drift: &'a [Drift],
    broken: &'a [Report],
}

#[derive(Serialize)]
struct Applied<'a> {
    file: String,
    at: &'a str,
}

impl Status {
    /// Shows it.
    pub(super) fn show(&self, root: &SysRoot, state: &State, color: Color) -> Outcome {
        let machine = Machine::read(root, state)?;
        let applied = state.applied().map_err(|report| vec![report])?;
        let Shown { wanted, broken } = match &self.file {
            Some(file) => Shown::of(Some(HostSpec::read(file)?), &machine)?,
            None => Shown::applied(state, &machine)?,
        };
        let desired = wanted.as_ref().map(|wanted| &wanted.desired);
        let rows = rows(&machine.observed, desired, &machine.records);
        let drift = match &wanted {
            Some(wanted) => sriov::drift(
                &machine.observed,
                &wanted.desired,
                &machine.records,
                &wanted.profiles,
            ),
            None => Vec::new(),
        };
        let status = match drift.is_empty() && broken.is_empty() {
            true => Exit::Done as u8,
            false => Exit::Changes as u8,
        };
        if self.json {
            let document = Document {
                api_version: "v1alpha1",
                kind: "HostStatus",
                exit: status,
                applied: applied.as_ref().map(|applied| Applied {
                    file: applied.file.display().to_string(),
                    at: &applied.at,
                }),
                pools: pools(&rows),
                vfs: &rows,
                drift: &drift,
                broken: &broken,
            };
            let text = written(serde_json::to_string_pretty(&document))?;
            return Ok(done(status, text, Vec::new()));
        }
        let lines: Vec<String> = drift.iter().map(ToString::to_string).collect();
        let file = applied
            .as_ref()
            .map(|applied| applied.file.display().to_string());
        let text = status_text(
            &crate::view::host::Status {
                rows: &rows,
                drift: &lines,
                broken: &broken,
                applied: file
                    .as_deref()
                    .zip(applied.as_ref().map(|one| one.at.as_str())),
            },
            color,
        );
        Ok(done(status, text, Vec::new()))
    }
}

impl Import {
    /// Writes it.
    pub(super) fn write(&self, root: &SysRoot, state: &State) -> Outcome {
        let machine = Machine::read(root, state)?;
        let text = crate::vf::import(&machine.observed, &machine.records);
        let Some(path) = &self.output else {
            return Ok(Done::with(text));
        };
        let created = std::fs::File::create_new(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        created.map_err(|error| {
            let what = format!("{} cannot be written", path.display());
            let fix = "name a file that does not exist, in a folder that does";
            vec![Report::new(
                ErrorId::StateUnwritable,
                what,
                error.to_string(),
                fix,
            )]
        })?;
        Ok(Done::with(format!(
            "{} says what this host is now",
            path.display()
        )))
    }
}

impl Export {
    /// Prints it.
    pub(super) fn print(&self, root: &SysRoot, state: &State) -> Outcome {
        let machine = Machine::read(root, state)?;
        let wanted = Shown::applied(state, &machine)?.wanted;
        let builtin = crate::spec::host::Profiles::built_in();
        let host = crate::host::sriov::read_host(root).map_err(|report| vec![report])?;
        let inventory = sriov::inventory(
            host,
            &machine.observed,
            wanted.as_ref().map(|wanted| &wanted.desired),
            &machine.records,
            wanted.as_ref().map_or(&builtin, |wanted| &wanted.profiles),
        );
        written(serde_json::to_string_pretty(&inventory)).map(Done::with)
    }
}
