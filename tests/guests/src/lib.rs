//! A guest that attacks. It has no kernel: one processor, every address mapped to itself, and a console that says what to
//! do, a line a time, so that the test outside decides what is attacked and looks what came of it.
//!
//! `src/main.rs` has the list of commands.
#![no_std]

pub mod command;
pub mod console;
pub mod edu;
pub mod nvme;
pub mod pci;
pub mod residue;
pub mod storm;
pub mod sys;
