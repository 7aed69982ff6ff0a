//! What is written by hand and shown with the figures: causes, earlier figures, and what was not measured.

use serde::Deserialize;

/// `notes.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// Why a goal is missed; shown only while it is.
    #[serde(default)]
    pub cause: Vec<Note>,
    /// How a figure is to be read; shown only where it was measured.
    #[serde(default)]
    pub figure: Vec<Note>,
    /// What no run of the scoreboard measures.
    #[serde(default)]
    pub unmeasured: Vec<Unmeasured>,
}

/// A text about a goal or a figure.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The goal's key or the figure's name.
    pub of: String,
    /// Sentences.
    pub text: String,
}

/// What was left, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unmeasured {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// `earlier.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Where and how they were taken.
    #[serde(default)]
    pub source: String,
    /// The figures.
    #[serde(default)]
    pub figure: Vec<EarlierFigure>,
}

/// A peer's figure that is not of this run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierFigure {
    /// The goal's key.
    pub goal: String,
    /// The VMM with its version and interface.
    pub vmm: String,
    /// In the goal's unit.
    pub value: f64,
}
