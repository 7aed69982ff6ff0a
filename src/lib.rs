//! Narrows: a VMM whose guests have only SR-IOV virtual functions, fenced by the IOMMU.
//!
//! This library is the supervisor S and the operator's tool. What runs beside the guest is the package `jailed`.
//! The order of the `mod` lines is the dependency order: read top to bottom, it is the program.

#[cfg(all(feature = "breakout", not(debug_assertions)))]
compile_error!("`breakout` is for tests in the lab: build it with `--profile breakout`");

pub mod error;
pub mod layers;
pub mod spec;

pub mod sriov;

pub mod sys;

pub mod state;

pub mod jail;

pub mod host;

pub mod plan;

pub mod vf;

pub mod inspect;

pub mod view;

pub mod supervisor;

pub mod cli;
