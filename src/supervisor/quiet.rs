//! Devices brought to rest: no DMA, no interrupts, and reset where they can be.

use std::thread;

use iommu::{
    IommuError as Error,
    device::{Device, MSI_IRQ, MSIX_IRQ},
};

use super::assign::Opened;

/// Keeps every device from starting DMA, before the first of them is reset: one may have the BARs of another mapped, and
/// write to what was just reset. What fails here fails again in [`quiesce`], which tells of it.
pub(super) fn stop_all(devices: &[Opened]) {
    for opened in devices {
        opened.device.clear_bus_master().ok();
    }
}

/// When a device is reset that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// Now.
    Now,
    /// It was, when it was opened: the kernel resets a function for its first opener, and says that it can be reset only
    /// where that went well. A second time would cost a tenth of a second and change nothing.
    ///
    /// *Source:* `vfio_pci_core_enable` (`reset_works`) and `vfio_pci_ioctl_get_info` in
    /// `drivers/vfio/pci/vfio_pci_core.c (v6.12)`.
    WhenOpened,
}

/// Leaves the device unable to start DMA or send an interrupt, in its state after a reset where it has one.
///
/// A step that fails does not keep the next ones from being tried: a device that misbehaves needs the reset most.
fn quiesce(device: &Device, reset: Reset) -> Result<(), Error> {
    // The order matters: first no more DMA, then no more messages, and the reset finds a device at rest.
    let quiet = [
        device.clear_bus_master(),
        device.disable_irqs(MSIX_IRQ).map(drop),
        device.disable_irqs(MSI_IRQ).map(drop),
    ];
    let reset = match reset {
        Reset::Now => reset_if_it_can_be(device),
        Reset::WhenOpened => Ok(()),
    };
    // Read back: a reset that did not happen would leave the bit as a guest had set it.
    let off = device.clear_bus_master();
    first_error(reset, off, quiet)
}

fn reset_if_it_can_be(device: &Device) -> Result<(), Error> {
    if device.info()?.can_reset {
        device.reset()?;
    }
    Ok(())
}

/// What is told of steps that all were tried: the reset's error before any other, since one that somebody's lock kept off
/// is done later; then whether the device can still start DMA.
fn first_error(
    reset: Result<(), Error>,
    off: Result<(), Error>,
    quiet: [Result<(), Error>; 3],
) -> Result<(), Error> {
    [reset, off].into_iter().chain(quiet).collect()
}

/// Brings all of them to rest, each as [`quiesce`] does: what came of each, in their order. They wait together, since a
/// function is given a tenth of a second to come back from its reset; its caller sees that the cgroup has room for a thread each.
///
/// *Source:* `PCI Express Base Specification 6.0, section 6.6.2`; `pcie_flr` in `drivers/pci/pci.c (v6.12)`.
pub(super) fn quiesce_all(devices: &[Opened], reset: Reset) -> Vec<Result<(), Error>> {
    let Some((last, others)) = devices.split_last() else {
        return Vec::new();
    };
    thread::scope(|scope| {
        let others: Vec<_> = others
            .iter()
            .map(|opened| {
                let quiesce = || quiesce(&opened.device, reset);
                // Where no thread is to be had, it is done here.
                match thread::Builder::new().spawn_scoped(scope, quiesce) {
                    Ok(running) => Ok(running),
                    Err(_) => Err(quiesce()),
                }
            })
            .collect();
        let last = quiesce(&last.device, reset);
        let mut results: Vec<_> = others.into_iter().map(joined).collect();
        results.push(last);
        results
    })
}

fn joined(
    running: Result<thread::ScopedJoinHandle<'_, Result<(), Error>>, Result<(), Error>>,
) -> Result<(), Error> {
    match running {
        Ok(thread) => thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(done) => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(call: &'static str) -> Error {
        Error::DeviceCall {
            bdf: "0000:01:10.0".parse().unwrap(),
            call,
            errno: iommu::Errno::new(libc::EAGAIN),
        }
    }

    #[test]
    fn the_resets_error_comes_first_and_none_is_lost() {
        let names = ["reset", "off", "first", "msix", "msi"];
        // Every set of steps that failed.
        for failing in 0..1_u32 << names.len() {
            let step = |nth: usize| {
                let has_failed = failing >> nth & 1 != 0;
                names.get(nth).map_or(Ok(()), |name| {
                    if has_failed {
                        Err(failed(name))
                    } else {
                        Ok(())
                    }
                })
            };
            let told = first_error(step(0), step(1), [step(2), step(3), step(4)]);
            let first = names.get(failing.trailing_zeros() as usize);
            assert_eq!(
                told.map_err(|error| error.to_string()),
                first.map_or(Ok(()), |name| Err(failed(name).to_string()))
            );
        }
    }
}
