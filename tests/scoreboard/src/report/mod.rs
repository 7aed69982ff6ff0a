//! From records to a board, its page and its pictures.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::de::DeserializeOwned;

use crate::record::{Board, Line, Machine, Record, SCHEMA, Vmm};

pub mod absent;
pub mod goals;
pub mod growth;
pub mod page;
pub mod pick;
mod picture;
pub mod plots;
pub mod prose;
pub mod reasons;
#[cfg(test)]
pub mod sample;
pub mod statistic;
pub mod svg;
pub mod tables;
pub mod words;

use prose::{Earlier, Notes};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files of records, one a line.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    records: Vec<PathBuf>,
    /// In place of records: a board that was written before, whose page and pictures are written anew.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["records", "quick"])]
    board: Option<PathBuf>,
    /// Where the page, `data` and `plots` are.
    #[arg(long, value_name = "FOLDER")]
    docs: PathBuf,
    /// Say that it was a quick run.
    #[arg(long)]
    quick: bool,
    /// What emulates the lab host, with its version.
    #[arg(long, value_name = "TEXT", default_value = "QEMU")]
    emulator: String,
    /// The kernel of the lab host and of the guest.
    #[arg(long, value_name = "TEXT", default_value = "the lab kernel")]
    kernel: String,
    /// The folder of `notes.toml` and `earlier.toml`.
    #[arg(long, value_name = "FOLDER", default_value = "tests/scoreboard")]
    notes: PathBuf,
}

/// Writes the board, the page and the pictures.
///
/// # Errors
/// The file that could not be read, understood or written.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let notes: Notes = toml_file(&arguments.notes.join("notes.toml"))?;
    let earlier: Earlier = toml_file(&arguments.notes.join("earlier.toml"))?;
    let board = match &arguments.board {
        Some(path) => serde_json::from_str(&read(path)?)
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => new_board(arguments, &notes)?,
    };
    let plots = plots::plots(&board);
    let part = page::part(&board, &notes, &earlier, &plots);

    let docs = &arguments.docs;
    write(
        &docs.join("data/scoreboard.json"),
        &(serde_json::to_string_pretty(&board)? + "\n"),
    )?;
    let path = docs.join("performance.md");
    write(&path, &page::renew(&read(&path)?, &part))?;
    for name in plots::NAMES {
        let path = docs.join("plots").join(name);
        match plots.iter().find(|plot| plot.0 == name) {
            Some((_, text)) => write(&path, text)?,
            None if path.exists() => fs::remove_file(&path)?,
            None => {}
        }
    }
    Ok(())
}

fn new_board(arguments: &Arguments, notes: &Notes) -> Result<Board, Box<dyn Error>> {
    let mut lines = Vec::new();
    for path in &arguments.records {
        lines.extend(parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    if lines.is_empty() {
        return Err("there are no records: give files of them with --records".into());
    }
    let (records, missing, versions) = part(lines);
    let mut missing: Vec<_> = missing;
    missing.extend(
        notes
            .unmeasured
            .iter()
            .map(|one| format!("{}: {}", one.what, one.why.trim())),
    );
    let cpuinfo = read(Path::new("/proc/cpuinfo"))?;
    let processor = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(Board {
        schema: SCHEMA,
        date: said("date", &["-u", "+%F"])?,
        commit: commit()?,
        quick: arguments.quick,
        machine: Machine {
            processor: processor
                .map_or("an unnamed processor", |pair| pair.1)
                .to_owned(),
            cpus: u32::try_from(std::thread::available_parallelism()?.get())?,
            emulator: arguments.emulator.clone(),
            kernel: arguments.kernel.clone(),
        },
        vmms: vmms(&records, &versions),
        missing,
        records,
    })
}

/// One record, reason or version a line. The lab host's console may end lines with a carriage return.
///
/// # Errors
/// The line that is none, by its number.
pub fn parse(text: &str) -> Result<Vec<Line>, String> {
    let lines = text
        .lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            // First as what it wants to be, as the errors of all three say nothing.
            let value: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| format!("line {}: {error}", number + 1))?;
            let result = if value.get("case").is_some() {
                serde_json::from_value(value).map(Line::Record)
            } else {
                serde_json::from_value(value)
            };
            result.map_err(|error| format!("line {}: {error}", number + 1))
        })
        .collect()
}

/// Records in a stable order, and the rest, each once.
fn part(lines: Vec<Line>) -> (Vec<Record>, Vec<String>, Vec<Vmm>) {
    let (mut records, mut missing, mut vmms) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Record(record) => records.push(record),
            Line::Missing(one) if !missing.contains(&one.missing) => missing.push(one.missing),
            Line::Vmm(vmm) if !vmms.contains(&vmm) => vmms.push(vmm),
            Line::Missing(_) | Line::Vmm(_) => {}
        }
    }
    records.sort_by(|a, b| {
        let key = |record: &Record| {
            (
                record.case,
                record.guest,
                record.work.clone(),
                record.vmm.clone(),
                record.interface,
                record.run,
            )
        };
        key(a).cmp(&key(b))
    });
    (records, missing, vmms)
}

/// Narrows first, then by name; the version that was said last.
fn vmms(records: &[Record], versions: &[Vmm]) -> Vec<Vmm> {
    let mut names: Vec<_> = records.iter().map(|record| record.vmm.as_str()).collect();
    names.sort_by_key(|name| (*name != pick::OURS, *name));
    names.dedup();
    let version = |name: &str| versions.iter().rev().find(|vmm| vmm.name == name);
    names
        .into_iter()
        .map(|name| Vmm {
            name: name.to_owned(),
            version: version(name).map_or_else(
                || "its version was not recorded".to_owned(),
                |vmm| vmm.version.clone(),
            ),
        })
        .collect()
}

/// Of the tree, with `+` where it has changes.
fn commit() -> Result<String, Box<dyn Error>> {
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let changes = said("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Ok(if changes.is_empty() {
        commit
    } else {
        format!("{commit}+")
    })
}

fn said(program: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{program} {}: {why}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn toml_file<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    toml::from_str(&read(path)?).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(named)?;
    }
    fs::write(path, text).map_err(named)
}
