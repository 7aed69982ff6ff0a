//! What is started, and under which name it is recorded.

use std::collections::BTreeMap;

use crate::{
    plan::Wanted,
    record::{Case, Guest, Interface, Record},
    vmm::{Setup, Vmm},
};

use super::place::Place;

/// A start: who, by which interface, which guest.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub interface: Interface,
    pub guest: Guest,
}

impl Shape {
    /// Of a run that is wanted.
    pub(super) const fn of(wanted: Wanted) -> Self {
        Self {
            interface: wanted.interface,
            guest: wanted.guest,
        }
    }

    /// The addresses of its VFs; `None` where the host has not that many.
    pub(super) fn functions(&self, place: &Place) -> Option<Vec<String>> {
        let take = |from: &[String], count: u32| {
            let count = usize::try_from(count).ok()?;
            from.get(..count).map(<[String]>::to_vec)
        };
        let mut all = take(&place.nics, self.guest.nics)?;
        all.extend(take(&place.nvmes, self.guest.nvmes)?);
        Some(all)
    }

    /// An empty record of it.
    pub(super) fn record(&self, case: Case, vmm: &dyn Vmm, run: u32) -> Record {
        Record {
            case,
            vmm: vmm.name().to_owned(),
            interface: Some(self.interface),
            guest: Some(self.guest),
            run,
            work: String::new(),
            figures: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// The words that every guest's kernel gets, and `works`.
    pub(super) fn cmdline(&self, works: &str) -> String {
        let console = if self.guest.console {
            "console=ttyS0 "
        } else {
            ""
        };
        let net = if self.guest.nics > 0 && !works.is_empty() {
            " bench.net=10.9.0.2/24"
        } else {
            ""
        };
        // One that has nothing to do stands still while it is looked at.
        let works = if works.is_empty() { "pause:600" } else { works };
        format!("{console}quiet panic=-1{net} bench.do={works}")
    }

    /// A line that names it.
    pub(super) fn title(&self, setup_of: &str, run: u32) -> String {
        let Guest {
            vcpus,
            memory_mib,
            pages,
            nics,
            nvmes,
            console,
        } = self.guest;
        let console = if console { ", console" } else { "" };
        format!(
            "{setup_of} by {:?}: {vcpus} vCPUs, {memory_mib} MiB ({pages:?} pages), {nics} NICs, {nvmes} NVMe{console}; run {run}",
            self.interface
        )
    }

    /// What a VMM is told.
    pub(super) fn setup<'a>(
        &self,
        place: &'a Place,
        cmdline: &'a str,
        functions: &'a [String],
    ) -> Setup<'a> {
        Setup {
            interface: self.interface,
            guest: self.guest,
            kernel: &place.kernel,
            initramfs: Some(&place.initramfs),
            cmdline,
            functions,
            scratch: &place.scratch,
        }
    }
}
