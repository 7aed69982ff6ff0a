//! The targets are tests: see `targets.rs`.

// `cargo bolero` builds this as a test as well, with calls that only the engine answers.
#[cfg(test)]
use bolero as _;
