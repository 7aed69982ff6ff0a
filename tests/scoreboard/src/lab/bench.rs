//! What all cases need: who is measured, how often, and where the records go.

use std::io::{self, Write};

use super::{case::Shape, place::Place};
use crate::{
    plan,
    record::{self, Case, Line, Missing, Record},
    vmm::Vmm,
};

/// A call of the scoreboard in the lab host.
pub(super) struct Bench {
    pub place: Place,
    pub vmms: Vec<Box<dyn Vmm>>,
    /// The same with more fences, whose surface alone is measured.
    pub hardened: Vec<Box<dyn Vmm>>,
    pub out: io::Stdout,
    pub is_quick: bool,
    pub runs: u32,
    pub failures: u32,
}

impl Bench {
    /// Writes a record.
    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        let line = serde_json::to_string(record)?;
        writeln!(self.out, "{line}")
    }

    /// Writes what was not measured, and why.
    pub(super) fn missing(&mut self, what: &str) -> io::Result<()> {
        say(&format!("not measured: {what}"));
        let missing = what.to_owned();
        let line = serde_json::to_string(&Line::Missing(Missing { missing }))?;
        writeln!(self.out, "{line}")
    }

    /// Writes who is measured.
    pub(super) fn introduce(&mut self) -> io::Result<()> {
        for vmm in self.vmms.iter().chain(&self.hardened) {
            let (name, version) = (vmm.name().to_owned(), vmm.version()?);
            let line = serde_json::to_string(&Line::Vmm(record::Vmm { name, version }))?;
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Does something for every run that is wanted of a case, by every VMM in turn.
    pub(super) fn all(
        &mut self,
        case: Case,
        what: &str,
        mut work: impl FnMut(&mut Self, &dyn Vmm, Shape, u32) -> io::Result<()>,
    ) -> io::Result<()> {
        for wanted in plan::wanted(case, self.is_quick, self.runs) {
            let shape = Shape::of(wanted);
            for run in 1..=wanted.runs {
                self.each(shape, what, run, |bench, vmm| work(bench, vmm, shape, run))?;
            }
        }
        Ok(())
    }

    /// Does something for every VMM that can. One that refuses for a reason of this host is told of; one that fails is told
    /// of and counted.
    pub(super) fn each(
        &mut self,
        shape: Shape,
        what: &str,
        run: u32,
        mut work: impl FnMut(&mut Self, &dyn Vmm) -> io::Result<()>,
    ) -> io::Result<()> {
        let vmms = std::mem::take(&mut self.vmms);
        for vmm in &vmms {
            let title = shape.title(&format!("{} of {}", what, vmm.name()), run);
            // The page says this by itself: it has the templates, too.
            if let Some(why) = vmm.lacks(shape.interface, &shape.guest) {
                say(&format!("{title}: left out: {why}"));
                continue;
            }
            say(&title);
            match work(self, vmm.as_ref()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    if run == 1 {
                        self.missing(&format!("{title}: {error}"))?;
                    }
                }
                Err(error) => {
                    self.failures += 1;
                    self.missing(&format!("{title}: {error}"))?;
                }
            }
        }
        self.vmms = vmms;
        Ok(())
    }

    /// The addresses of a guest's VFs.
    pub(super) fn functions(&self, shape: Shape) -> io::Result<Vec<String>> {
        let lack = || {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the lab host has not that many VFs",
            )
        };
        shape.functions(&self.place).ok_or_else(lack)
    }
}

/// A line for whoever waits.
fn say(line: &str) {
    // Nobody may be there to hear it.
    let _unheard = writeln!(io::stderr(), "scoreboard: {line}");
}
