//! What the host's kernel tells of a running VMM: its trace, its processes, and their filters.

pub mod calls;
pub mod ends;
pub mod event;
pub mod memory;
pub mod populate;
pub mod processes;
pub mod trace;
