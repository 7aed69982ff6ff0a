//! Fuzz targets. Each module is one: its test feeds arbitrary bytes to a parser or a model and compares what comes out
//! with a second opinion. As tests they run for a bounded time on random bytes; `scripts/fuzz` runs them as long as
//! wanted, guided by coverage where `cargo-bolero` is installed. See `docs/fuzzing.md`.
#![cfg(test)]
#![expect(clippy::print_stdout, reason = "a target says how often it ran")]

mod config;
mod config_space;
mod host_file;
mod input;
mod interrupts;
mod interrupts_file;
mod kernel;
mod kernel_log;
mod log_reading;
mod machine;
mod made_up;
mod msix;
mod profile;
mod reference;
mod regions;
mod ring_device;
mod ring_race;
mod ring_torn;
mod ring_vcpu;
#[expect(unreachable_pub, reason = "public in its own package's tests")]
#[path = "../../src/jailed/device/simulated.rs"]
mod simulated;
mod sysfs;
