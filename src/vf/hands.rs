//! Steps carried out on the running host, each read back from where the host's kernel or the hardware tells it.
//!
//! On entry of a step: root with `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`; that it may be done has been decided. On exit it
//! is done and read back, or a [`StepFault`] says how far it came.

use std::{path::Path, time::Duration};

use iommu::sysfs::SysRoot;

use super::fault::{self, PATIENCE};
use crate::{
    error::Report,
    host,
    sriov::{Hands, Observed, Percent, Seen, Step, StepFault},
};

/// The running host's kernel.
#[derive(Clone, Debug)]
pub struct KernelHands {
    pub(super) root: SysRoot,
    pub(super) patience: Duration,
}

impl KernelHands {
    /// Hands for the host under `root`. What is no file is done only where that is `/`.
    #[must_use]
    pub const fn new(root: SysRoot) -> Self {
        Self {
            root,
            patience: PATIENCE,
        }
    }

    /// Netlink reaches the running kernel, whatever the root is.
    pub(super) fn expect_running(&self, doing: &str) -> Result<(), StepFault> {
        if !self.root.is_read_only() && self.root.as_path() == Path::new("/") {
            return Ok(());
        }
        let place = self.root.as_path().display();
        Err(fault::found(doing, format!("{place} is not this host")))
    }
}

impl Hands for KernelHands {
    fn carry_out(
        &mut self,
        step: &Step,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<Seen, StepFault> {
        let done = |_: ()| Seen::AsAsked;
        match step {
            Step::Link { pf, interface, up } => self.link(*pf, interface, *up).map(done),
            Step::Autoprobe { pf, from: _, to } => self.autoprobe(*pf, *to).map(done),
            Step::Unbind { vf, driver, .. } => self.unbind(*vf, driver).map(done),
            Step::Bind { vf, driver, .. } => self.bind(*vf, driver).map(done),
            Step::Destroy { pf, interface, .. } => {
                self.count(*pf, 0, interface.as_deref()).map(done)
            }
            Step::Create {
                pf,
                count,
                snapshot,
                interface,
            } => {
                let interface = interface.as_deref();
                self.count(*pf, *count, interface)?;
                self.restore(*pf, interface, snapshot).map(done)
            }
            Step::Attribute {
                pf,
                interface,
                index,
                from: _,
                to,
                stays: _,
            } => self.attribute(*pf, interface, *index, *to).map(done),
            Step::Offline {
                controller, cntlid, ..
            } => self.secondary_online(controller, *cntlid, false).map(done),
            Step::Online {
                controller, cntlid, ..
            } => self.secondary_online(controller, *cntlid, true).map(done),
            Step::Assign {
                controller,
                cntlid,
                resource,
                to,
                ..
            } => self.assign(controller, *cntlid, *resource, *to).map(done),
            Step::Reset { pf, index, vf } => self.reset(*pf, *index, *vf).map(Seen::Function),
            Step::NamespaceCreate {
                controller,
                size,
                block,
                shared,
                ..
            } => self
                .create_namespace(controller, *size, *block, *shared)
                .map(Seen::Namespace),
            Step::Detach {
                controller,
                nsid,
                cntlid,
                ..
            } => self.attachment(controller, *nsid, *cntlid, false).map(done),
            Step::Attach {
                controller,
                nsid,
                cntlid,
                ..
            } => self.attachment(controller, *nsid, *cntlid, true).map(done),
            Step::Erase {
                controller,
                nsid,
                how,
                block,
                ..
            } => self
                .erase(controller, *nsid, *how, *block, progress)
                .map(done),
            Step::NamespaceDelete {
                controller, nsid, ..
            } => self.delete_namespace(controller, *nsid).map(done),
        }
    }

    fn observe(&mut self) -> Result<Observed, Report> {
        host::sriov::read(&self.root)
    }
}

#[cfg(test)]
#[path = "hands_test.rs"]
mod tests;
