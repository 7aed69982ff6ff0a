//! `narrows doctor`: whether the host can fence devices, and which devices it can.

use std::path::Path;

use clap::Args;
use iommu::{bdf::Bdf, isolation::Verdict, sysfs::SysRoot};

use super::{Done, Outcome, scene::Host, written};
use crate::{
    error::{Color, Exit},
    state::State,
    view::{self, Wish},
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Judge these functions only (0000:3b:02.1); default: all VFs, and PFs that have none yet
    bdfs: Vec<Bdf>,
    /// Print JSON (docs/schema/doctor.schema.json)
    #[arg(long)]
    pub(super) json: bool,
    /// Judge every function but bridges, one by one, and show what passes, too
    #[arg(long, conflicts_with = "bdfs")]
    all: bool,
    /// Show what passes, too
    #[arg(long, short)]
    verbose: bool,
}

/// What only root may read.
const NOT_ROOT: &str = "not run as root: what devices and ports can do (ACS, ATS, MSI-X) and some of the host's \
                        settings cannot be read; what is not known does not pass. Run as root for the whole answer";

impl Doctor {
    /// `state` is `None` for a machine file, which has no quarantine.
    pub(super) fn run(&self, root: &SysRoot, state: Option<&State>, color: Color) -> Outcome {
        let host = Host::read(root)?;
        let wish = Wish {
            named: self.bdfs.clone(),
            is_all: self.all,
        };
        let found = view::examine(&host.topology, &wish, |bdf| state?.withheld(root, bdf))?;
        let scene = host.scene(self.all);
        let unknown = (root.as_path() == Path::new("/") && !rustix::process::geteuid().is_root())
            .then_some(NOT_ROOT);
        let is_verbose = self.all || self.verbose;
        Ok(Done {
            status: match found.verdict().max(view::verdict_of_layers(&host.layers)) {
                Verdict::Refuse => Exit::Refused as u8,
                Verdict::Pass | Verdict::Fixable | Verdict::Warn => Exit::Done as u8,
            },
            ..Done::with(match self.json {
                true => written(view::doctor_json(&scene, &found, unknown))?,
                false => view::doctor_text(&scene, &found, unknown, is_verbose, color),
            })
        })
    }
}
