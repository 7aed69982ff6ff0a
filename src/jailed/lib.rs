//! What runs beside the guest: the library of `narrows-vcpu` (V) and `narrows-device` (D).
//!
//! Without libc, heap, threads of a runtime, paths or files: the supervisor hands over a sealed page of facts
//! ([`handoff`]) and an exact list of file descriptors, and everything else is refused by construction.
//! The order of the `mod` lines is the dependency order: a module uses only those above it.
#![cfg_attr(not(test), no_std)]

#[cfg(all(feature = "breakout", not(debug_assertions)))]
compile_error!("`breakout` is for tests in the lab: build it with `--profile breakout`");

// Fixtures are shared with the fuzz targets, which know this package by its name.
#[cfg(test)]
extern crate self as jailed;

pub mod addr;
#[cfg(feature = "breakout")]
pub mod breakout;
pub mod device;
pub mod handoff;
pub mod lock;
pub mod machine;
pub mod manifest;
pub mod ring;
pub mod stall;
pub mod sys;
pub mod vcpu;
