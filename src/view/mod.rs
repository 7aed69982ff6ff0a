//! What an operator sees of a host: its tree, its picture, its verdicts, and the why of each. Pure: facts in, text out.
#![forbid(unsafe_code)]

mod advice;
mod doctor;
mod dot;
mod examine;
mod explain;
mod forest;
mod guests;
pub mod host;
mod inspect;
mod json;
mod layers;
mod paint;
mod svg;
mod tree;
mod words;

use iommu::topology::Topology;

pub use self::{
    doctor::doctor_text,
    dot::dot,
    examine::{Examination, Judged, Wish, examine},
    explain::{Topic, list_json, list_text},
    guests::{KeptGuest, guests_text},
    inspect::inspection_text,
    json::{doctor_json, inventory_json},
    layers::verdict_of_layers,
    svg::svg,
    tree::tree,
};
use crate::host::{Layers, PciNames, Platform};

/// A host to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// Its functions, groups and settings.
    pub topology: &'a Topology,
    /// What the makers call the devices.
    pub names: &'a PciNames,
    /// What kind of machine it is.
    pub platform: &'a Platform,
    /// The layers of the jail that guests' processes are put into.
    pub layers: &'a Layers,
    /// Whether every function of a run of alike ones is shown by itself.
    pub is_unfolded: bool,
}
