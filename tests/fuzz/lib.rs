//! The targets are tests: see `main.rs`.
