//! The guest file: what the operator asks for, read and checked without looking at the host.

mod near;
mod parse;
#[cfg(test)]
mod parse_test;
mod reader;
mod types;
mod values;

pub use self::types::{
    ConsoleSpec, DeviceSpec, GuestSpec, HugepageSize, InterfaceChoice, MemorySpec, OnReboot,
    OptOut, Places, RootMode, RootSpec, Uuid,
};
