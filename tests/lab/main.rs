//! Tests on real devices, run inside a lab host by `scripts/test` (or on a host with VFs, with the same variables).
//!
//! They need what `lab-vfs` makes: VFs without a driver and /run/lab.env. Module names tell the host they need:
//! `bare_root` runs on a host whose root was not moved, `bare_root_new` on one with a newer kernel,
//! `small` on the lab kernel with both kernel interfaces, `stock` on the distribution's kernel, `large` on a lab
//! host with more than 4 GiB, `hands` on one whose devices have no VFs yet, `attack` on one with the guests of
//! `tests/guests`, `enforce` on one with the emulator's monitor, `jail` on the lab kernel, `crash` and `breakout` on one
//! whose programs have the feature `breakout`, `vf`, `vf_killed` and `vf_power` on one without VFs, `systemd` on one whose process 1 is
//! systemd, `residual` on one with huge pages, `exhaust` with two guests on one processor, `smt` on one whose core has two
//! threads, `no_iommu` and `no_remapping` on hosts that Narrows must refuse.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attack;
mod bare_root;
mod bare_root_new;
mod breakout;
mod crash;
mod enforce;
mod exhaust;
mod guest;
mod hands;
mod hang;
mod host;
mod jail;
mod large;
mod machine;
mod no_iommu;
mod no_remapping;
mod residual;
mod seal;
mod small;
mod smt;
mod stock;
mod systemd;
mod vf;
mod vf_killed;
mod vf_power;
mod violation;
