//! The functions of a dead run: opened once nobody else has them, or reset from outside.
//!
//! On exit of [`take_over`]: they are taken as the dead run had them, and can be given back as at the end of any run.

use std::{thread, time::Instant};

use iommu::{
    IommuError as Error,
    bdf::Bdf,
    bind::{self, VFIO_PCI, is_placeholder},
    clean::ConfigSnapshot,
    device::Device,
    space::{AddressSpace, Attaching, DeviceNode, Interface},
    sysfs::SysRoot,
    topology::{Topology, function_path, read_driver},
};

use super::{CLOSING, CLOSING_POLL, not_recovered};
use crate::{
    error::{ErrorId, Report},
    state,
    supervisor::{
        assign::{Opened, Taken},
        log::Log,
        release::traces,
    },
};

/// Takes the functions as the dead run had them, so that they can be given back as at the end of any run. What is in the
/// way of that.
pub(super) fn take_over(
    taken: &mut Taken<'_>,
    functions: &[state::Taken],
    log: &Log,
) -> Vec<Report> {
    let root = taken.root;
    let mut left = Vec::new();
    let mut opener = None;
    for function in functions {
        let bdf = function.binding.bdf();
        if !bind::is_there(root, bdf) {
            log.say(&format!("{bdf} is gone: the host has removed it"));
            continue;
        }
        let before = function
            .before
            .as_deref()
            .and_then(ConfigSnapshot::from_hex);
        match read_driver(root, bdf) {
            Err(error) => {
                left.push(not_recovered(bdf, &error.to_string()));
                continue;
            }
            Ok(Some(driver)) if !is_placeholder(&driver) => {
                log.say(&format!(
                    "{bdf} was given to the host's driver {driver} since: it is left alone"
                ));
                continue;
            }
            Ok(Some(driver)) if driver == VFIO_PCI => {
                match open(&mut opener, root, bdf) {
                    Ok(device) => taken.devices.push(Opened { device, before }),
                    Err(error @ Error::NodeBusy { .. }) => {
                        left.push(busy(bdf, &error));
                        continue;
                    }
                    // One that wants its PF's token, or that the kernel will not open: reset from outside.
                    Err(error) => {
                        log.say(&format!("{bdf} cannot be opened: {error}"));
                        taken.unclean.push((bdf, reset(root, bdf, before.as_ref())));
                    }
                }
            }
            Ok(_) => taken.unclean.push((bdf, reset(root, bdf, before.as_ref()))),
        }
        taken.bound.push(function.binding.clone());
    }
    left
}

/// Opens a function, once nobody has it any more.
fn open(
    opener: &mut Option<(Topology, AddressSpace<Attaching>)>,
    root: &SysRoot,
    bdf: Bdf,
) -> Result<Device, Error> {
    let deadline = Instant::now() + CLOSING;
    let (topology, space) = match opener {
        Some(opened) => opened,
        None => {
            let topology = Topology::read(root)?;
            let interface = Interface::detect(&topology, &[bdf]);
            opener.insert((topology, AddressSpace::open(interface, root)?))
        }
    };
    let node = DeviceNode::of(topology, bdf)?;
    loop {
        match space.attach(&node) {
            Err(Error::NodeBusy { .. }) if Instant::now() < deadline => {
                thread::sleep(CLOSING_POLL);
            }
            opened => return opened,
        }
    }
}

/// Resets a function that is not opened, where the kernel can; what keeps it from counting as clean.
fn reset(root: &SysRoot, bdf: Bdf, before: Option<&ConfigSnapshot>) -> Vec<String> {
    if root.exists(function_path(bdf).join("reset"))
        && let Err(error) = bind::reset(root, bdf)
    {
        return vec![error.to_string()];
    }
    traces(root, bdf, before)
}

fn busy(bdf: Bdf, error: &Error) -> Report {
    Report::new(
        ErrorId::DeviceInUse,
        format!("{bdf} is not recovered"),
        error.to_string(),
        "see who has it open (fuser /dev/vfio/*), end that, then: narrows recover",
    )
}
