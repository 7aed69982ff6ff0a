//! Handing a function to a VFIO driver, and back.
//!
//! On entry: the caller has decided that the function may be taken. On exit: it is bound to the wanted driver, its
//! VFIO node exists, and [`Binding`] knows how to undo it. Every step is read back from the kernel.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    bdf::Bdf,
    error::{IommuError, Result},
    sysfs::SysRoot,
    topology::{function_path, read_driver, read_driver_override},
};

/// The driver that gives a PCI function to user space.
pub const VFIO_PCI: &str = "vfio-pci";

/// How long a device node may take to appear.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
const NODE_POLL: Duration = Duration::from_millis(5);

/// A function bound to a VFIO driver, with its state before. Can be written down, so that a recovery can undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "without it the earlier driver is forgotten"]
pub struct Binding {
    bdf: Bdf,
    driver: String,
    driver_before: Option<String>,
    override_before: Option<String>,
}

impl Binding {
    /// Binds a function to `driver` (see [`VFIO_PCI`]).
    ///
    /// A failure on the way puts the earlier state back, as far as the kernel lets it.
    ///
    /// # Errors
    /// `no-such-function`, `host-driver`, `sysfs-io`, `bind-mismatch`, `vfio-node-timeout`; `not-put-back` with both
    /// failures where the earlier state could not be put back either.
    pub fn bind(root: &SysRoot, bdf: Bdf, driver: &str) -> Result<Self> {
        let binding = Self::plan(root, bdf, driver)?;
        match binding.apply(root) {
            Ok(()) => Ok(binding),
            Err(first) => Err(match binding.restore(root) {
                Ok(()) => first,
                Err(second) => IommuError::NotPutBack {
                    first: Box::new(first),
                    second: Box::new(second),
                },
            }),
        }
    }

    /// Notes the state that [`Self::apply`] will change, changing nothing: to be written down first.
    ///
    /// # Errors
    /// `no-such-function`, `host-driver`, `sysfs-io`.
    pub fn plan(root: &SysRoot, bdf: Bdf, driver: &str) -> Result<Self> {
        let driver_before = read_driver(root, bdf)?;
        if let Some(before) = driver_before.as_deref()
            && !is_placeholder(before)
        {
            return Err(IommuError::HostDriver {
                bdf,
                driver: before.to_owned(),
            });
        }
        Ok(Self {
            bdf,
            driver: driver.to_owned(),
            driver_before,
            override_before: read_driver_override(root, bdf)?,
        })
    }

    /// Binds as planned.
    ///
    /// # Errors
    /// `host-driver`, `sysfs-io`, `bind-mismatch`, `vfio-node-timeout`.
    pub fn apply(&self, root: &SysRoot) -> Result<()> {
        let wanted = Some(self.driver.as_str());
        write_override(root, self.bdf, wanted)?;
        if read_driver(root, self.bdf)?.as_deref() != wanted {
            unbind(root, self.bdf)?;
            probe(root, self.bdf)?;
        }
        self.expect_driver(root, wanted)?;
        await_node(root, self.bdf)
    }

    /// Puts the function back as it was before.
    ///
    /// Every fd of the device must be closed, in every process: the kernel lets `unbind` wait, without limit, until
    /// the last one is.
    ///
    /// # Errors
    /// `no-such-function`, `host-driver`, `sysfs-io`, `bind-mismatch`.
    pub fn restore(&self, root: &SysRoot) -> Result<()> {
        let before = self.driver_before.as_deref();
        if read_driver(root, self.bdf)?.as_deref() != before {
            unbind(root, self.bdf)?;
            if before.is_some() {
                // The earlier driver may have been bound by an override that is gone since, so ask for it by name.
                write_override(root, self.bdf, before)?;
                probe(root, self.bdf)?;
            }
        }
        write_override(root, self.bdf, self.override_before.as_deref())?;
        self.expect_driver(root, before)
    }

    /// The function.
    #[must_use]
    pub const fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// The driver it was bound to before.
    #[must_use]
    pub fn driver_before(&self) -> Option<&str> {
        self.driver_before.as_deref()
    }

    fn expect_driver(&self, root: &SysRoot, wanted: Option<&str>) -> Result<()> {
        let found = read_driver(root, self.bdf)?;
        if found.as_deref() == wanted {
            return Ok(());
        }
        Err(IommuError::BindMismatch {
            bdf: self.bdf,
            wanted: wanted.map(str::to_owned),
            found,
        })
    }
}

/// Whether a driver only keeps a function for somebody: nothing of the host works through it.
#[must_use]
pub fn is_placeholder(driver: &str) -> bool {
    // The variants are named for their device: mlx5_vfio_pci, hisi_acc_vfio_pci, …
    driver == VFIO_PCI || driver == "pci-stub" || driver.ends_with("_vfio_pci")
}

/// Takes the function from its driver, unless that is one of the host's.
fn unbind(root: &SysRoot, bdf: Bdf) -> Result<()> {
    let Some(driver) = read_driver(root, bdf)? else {
        return Ok(());
    };
    if !is_placeholder(&driver) {
        return Err(IommuError::HostDriver { bdf, driver });
    }
    root.write_text(function_path(bdf).join("driver/unbind"), &bdf.to_string())
}

/// Whether the host has the function still; a VF ends with a write to `sriov_numvfs` of its PF.
#[must_use]
pub fn is_there(root: &SysRoot, bdf: Bdf) -> bool {
    root.exists(function_path(bdf))
}

/// Resets a function that VFIO does not hold any more, as the kernel sees fit, and waits for whoever has it locked.
///
/// # Errors
/// `sysfs-io`: ENOENT where the kernel knows no reset for it, ENOTTY where none works.
pub fn reset(root: &SysRoot, bdf: Bdf) -> Result<()> {
    root.write_text(function_path(bdf).join("reset"), "1")
}

fn probe(root: &SysRoot, bdf: Bdf) -> Result<()> {
    root.write_text("sys/bus/pci/drivers_probe", &bdf.to_string())
}

fn write_override(root: &SysRoot, bdf: Bdf, driver: Option<&str>) -> Result<()> {
    let found = read_driver_override(root, bdf)?;
    if found.as_deref() == driver {
        return Ok(());
    }
    // An empty line clears it; an empty write would not reach the kernel.
    let path = function_path(bdf).join("driver_override");
    root.write_text(path, &format!("{}\n", driver.unwrap_or_default()))?;
    let found = read_driver_override(root, bdf)?;
    if found.as_deref() == driver {
        return Ok(());
    }
    Err(IommuError::BindMismatch {
        bdf,
        wanted: driver.map(str::to_owned),
        found,
    })
}

/// Waits for the function's node: its own, or its group's.
fn await_node(root: &SysRoot, bdf: Bdf) -> Result<()> {
    let Some(group) = root.read_link_name(function_path(bdf).join("iommu_group"))? else {
        return Err(IommuError::NoGroup { bdf });
    };
    let group_node = root.path("dev/vfio").join(group);
    let deadline = Instant::now() + NODE_TIMEOUT;
    loop {
        let names = root.list(function_path(bdf).join("vfio-dev"))?;
        let has_node = |name: &String| root.exists(format!("dev/vfio/devices/{name}"));
        if group_node.exists() || names.iter().any(has_node) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(IommuError::NodeTimeout {
                bdf,
                path: group_node,
                waited_ms: u64::try_from(NODE_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            });
        }
        thread::sleep(NODE_POLL);
    }
}

#[cfg(test)]
#[path = "bind_test.rs"]
mod tests;
