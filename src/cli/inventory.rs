//! `narrows inventory`: what the host has, and what keeps its devices apart.

use clap::Args;
use iommu::sysfs::SysRoot;

use super::{Done, Outcome, scene::Host, written};
use crate::{error::Color, view};

#[derive(Debug, Args)]
pub(super) struct Inventory {
    /// Print JSON (docs/schema/inventory.schema.json)
    #[arg(long, conflicts_with_all = ["svg", "dot"])]
    pub(super) json: bool,
    /// Print a picture for a browser, with an outline around each IOMMU group
    #[arg(long, conflicts_with = "dot")]
    svg: bool,
    /// Print a graph for Graphviz, with a cluster for each IOMMU group
    #[arg(long)]
    dot: bool,
    /// Show every function by itself, not long runs of alike ones as one
    #[arg(long)]
    all: bool,
}

impl Inventory {
    pub(super) fn run(&self, root: &SysRoot, color: Color) -> Outcome {
        let host = Host::read(root)?;
        let scene = host.scene(self.all);
        let data = match (self.json, self.svg, self.dot) {
            (true, _, _) => written(view::inventory_json(&scene))?,
            (_, true, _) => view::svg(&scene),
            (_, _, true) => view::dot(&scene),
            (false, false, false) => view::tree(&scene, color),
        };
        Ok(Done::with(data))
    }
}
