//! What the programs consist of: sizes, libraries, crates, lines that a guest reaches, `unsafe` blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::record::{Case, Line, Missing, Record};

pub mod crates;
pub mod elf;
pub mod reach;
pub mod source;

/// Narrows' programs and the packages that they are built of.
const PROGRAMS: [(&str, &str); 3] = [
    ("narrows", "narrows"),
    ("narrows-device", "jailed"),
    ("narrows-vcpu", "jailed"),
];

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of Narrows' programs, as built for release.
    #[arg(long, value_name = "FOLDER")]
    bin: PathBuf,
    /// Another VMM's program; may be repeated.
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    peer: Vec<(String, PathBuf)>,
    /// Where its libraries are, before the system's folders; may be repeated.
    #[arg(long, value_name = "FOLDER")]
    libraries: Vec<PathBuf>,
    /// The root of the workspace.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
}

/// Where the loader looks on the distributions that the lab has.
const LIBRARY_FOLDERS: [&str; 4] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
];

/// Writes one record a line.
///
/// # Errors
/// A program or source file that could not be read or understood.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut folders = arguments.libraries.clone();
    folders.extend(LIBRARY_FOLDERS.iter().map(PathBuf::from));
    let mut lines = vec![Line::Record(narrows(arguments, &folders)?)];
    for (name, path) in &arguments.peer {
        let mut sizes = Sizes::default();
        sizes.add(path, &folders)?;
        lines.extend(sizes.lines(name));
        lines.push(Line::Missing(Missing {
            missing: format!("crates, guest-reachable lines and `unsafe` blocks of {name}: only its program is here"),
        }));
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("it is not NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

fn narrows(arguments: &Arguments, folders: &[PathBuf]) -> Result<Record, Box<dyn Error>> {
    let mut sizes = Sizes::default();
    let mut all = BTreeSet::new();
    let mut by_program = BTreeMap::new();
    for (program, package) in PROGRAMS {
        sizes.add(&arguments.bin.join(program), folders)?;
        let crates = crates::dependencies(&arguments.root, package)?;
        by_program.insert(program.to_owned(), whole(crates.len()));
        all.extend(crates);
    }
    let mut record = source_record(&arguments.root)?;
    record.figures.extend(sizes.figures());
    record
        .figures
        .insert("dependencies".to_owned(), float(whole(all.len())));
    record.counts.insert("dependencies".to_owned(), by_program);
    record
        .counts
        .insert("binary-bytes".to_owned(), sizes.programs);
    Ok(record)
}

/// What can be counted without a program that was built: lines and `unsafe` blocks of Narrows.
///
/// # Errors
/// The file that could not be read.
pub fn source_record(root: &Path) -> std::io::Result<Record> {
    let reached = reach::count(root, reach::GUEST_REACHABLE)?;
    let shipped = reach::count(root, reach::SHIPPED)?;
    let mut record = empty("narrows");
    record
        .figures
        .insert("guest_reachable_lines".to_owned(), float(reached.lines));
    record
        .figures
        .insert("unsafe_blocks".to_owned(), float(shipped.unsafe_blocks));
    Ok(record)
}

fn empty(vmm: &str) -> Record {
    Record {
        case: Case::Code,
        vmm: vmm.to_owned(),
        interface: None,
        guest: None,
        run: 1,
        work: String::new(),
        figures: BTreeMap::new(),
        counts: BTreeMap::new(),
    }
}

/// Sizes of a VMM's programs and of what they load.
#[derive(Debug, Default)]
struct Sizes {
    programs: BTreeMap<String, u64>,
    libraries: BTreeMap<String, u64>,
    not_found: BTreeSet<String>,
}

impl Sizes {
    fn add(&mut self, program: &Path, folders: &[PathBuf]) -> Result<(), Box<dyn Error>> {
        let (size, mut wanted) = read(program)?;
        let name = program.file_name().unwrap_or(program.as_os_str());
        self.programs
            .insert(name.to_string_lossy().into_owned(), size);
        // Libraries load libraries.
        while let Some(library) = wanted.pop() {
            if self.libraries.contains_key(&library) || self.not_found.contains(&library) {
                continue;
            }
            let place = folders
                .iter()
                .map(|folder| folder.join(&library))
                .find(|path| path.is_file());
            let Some(path) = place else {
                self.not_found.insert(library);
                continue;
            };
            let (size, more) = read(&path)?;
            self.libraries.insert(library, size);
            wanted.extend(more);
        }
        Ok(())
    }

    fn figures(&self) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        figures.insert(
            "binary_bytes".to_owned(),
            float(self.programs.values().sum()),
        );
        if self.not_found.is_empty() {
            figures.insert("libraries".to_owned(), float(whole(self.libraries.len())));
            figures.insert(
                "library_bytes".to_owned(),
                float(self.libraries.values().sum()),
            );
        }
        figures
    }

    fn lines(&self, vmm: &str) -> Vec<Line> {
        let mut record = empty(vmm);
        record.figures = self.figures();
        record
            .counts
            .insert("binary-bytes".to_owned(), self.programs.clone());
        record
            .counts
            .insert("library-bytes".to_owned(), self.libraries.clone());
        let mut lines = vec![Line::Record(record)];
        if !self.not_found.is_empty() {
            let names: Vec<_> = self.not_found.iter().map(String::as_str).collect();
            lines.push(Line::Missing(Missing {
                missing: format!(
                    "libraries of {vmm}: {} is not on this machine",
                    names.join(", ")
                ),
            }));
        }
        lines
    }
}

fn read(path: &Path) -> Result<(u64, Vec<String>), Box<dyn Error>> {
    let file = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let elf = elf::parse(&file).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((elf.stripped_bytes, elf.needed))
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A count as a figure: exact below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes are far below 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}
