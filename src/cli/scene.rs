//! The host as `doctor` and `inventory` look at it.

use iommu::{error::Result, sysfs::SysRoot, topology::Topology};

use crate::{
    error::{ErrorId, Report},
    host::{Layers, PciNames, Platform, unread},
    view::Scene,
};

/// What was read of a host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) topology: Topology,
    names: PciNames,
    platform: Platform,
    pub(super) layers: Layers,
}

impl Host {
    /// Reads the host under `root`.
    ///
    /// # Errors
    ///
    /// `host-unreadable`, `machine-malformed`.
    pub(super) fn read(root: &SysRoot) -> std::result::Result<Self, Vec<Report>> {
        // Without this, a wrong --root would look like a host that has nothing.
        if !root.exists("sys/bus") {
            return Err(vec![unreadable(format!(
                "{} does not exist",
                root.path("sys/bus").display()
            ))]);
        }
        Self::read_all(root).map_err(|error| vec![unread(&error)])
    }

    fn read_all(root: &SysRoot) -> Result<Self> {
        let topology = Topology::read(root)?;
        Ok(Self {
            names: PciNames::read(root, &topology)?,
            platform: Platform::read(root)?,
            layers: Layers::read(root),
            topology,
        })
    }

    pub(super) fn scene(&self, is_unfolded: bool) -> Scene<'_> {
        Scene {
            topology: &self.topology,
            names: &self.names,
            platform: &self.platform,
            layers: &self.layers,
            is_unfolded,
        }
    }
}

fn unreadable(why: String) -> Report {
    Report::new(
        ErrorId::HostUnreadable,
        "the host cannot be described",
        why,
        "run on Linux with /sys and /proc mounted, or check --root",
    )
}
