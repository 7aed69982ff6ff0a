//! The guest file: what the operator asks for, read and checked without looking at the host.

mod device;
mod files;
#[cfg(test)]
mod files_test;
pub mod host;
mod near;
mod parse;
#[cfg(test)]
mod parse_test;
mod peers;
mod reader;
mod sandbox;
mod types;
mod values;

pub use self::files::{Files, KernelFormat};
pub(crate) use self::near::nearest;
pub use self::sandbox::SandboxSpec;
pub use self::types::{
    Chosen, ConsoleSpec, DeviceSpec, GuestSpec, HugepageSize, InterfaceChoice, MemorySpec,
    OnDmaFault, OnReboot, PeerSpec, Places, PoolDevice, PoolWish, RootMode, RootSpec, Uuid,
};
pub use self::values::check_name;
