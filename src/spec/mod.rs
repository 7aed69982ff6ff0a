//! The guest file: what the operator asks for, read and checked without looking at the host.

mod types;

pub use self::types::{
    ConsoleSpec, DeviceSpec, GuestSpec, HugepageSize, InterfaceChoice, MemorySpec, OnReboot,
    OptOut, Places, RootMode, RootSpec, Uuid,
};
