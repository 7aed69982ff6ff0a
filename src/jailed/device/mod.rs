//! D: the assigned functions as the guest sees them.
//!
//! The model is pure: a [`function::Function`] takes a checked request and says what to answer and what to do to the
//! hardware. Only [`start`], [`serve`], [`hardware`], `console` and [`watch`] make system calls. Bytes of a device are hostile, as are the guest's.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod bar;
mod brake;
pub mod caps;
pub mod config;
mod console;
mod facts;
pub mod function;
pub mod hardware;
pub mod msi;
pub mod msix;
pub mod outcome;
pub mod policy;
pub mod serve;
pub mod start;
pub mod vectors;
pub mod watch;

#[cfg(test)]
mod function_test;
#[cfg(test)]
mod lying_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod registers_test;
#[cfg(test)]
mod sequences_test;
#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]
pub mod simulated;
