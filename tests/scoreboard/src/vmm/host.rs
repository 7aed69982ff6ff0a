//! The lab host, made ready for a run: drivers of devices, pages of shared memory.

use std::{fs, io, path::Path};

use crate::record::Pages;

const DEVICES: &str = "/sys/bus/pci/devices";
const PROBE: &str = "/sys/bus/pci/drivers_probe";
const DRIVER: &str = "/sys/bus/pci/drivers/vfio-pci";
const SHARED_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Writes a file of the host's kernel; the error says which.
fn put(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    let path = path.as_ref();
    fs::write(path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Binds functions to vfio-pci. Those that have it already stay as they are.
pub(super) fn bind(functions: &[String]) -> io::Result<()> {
    for function in functions {
        let folder = Path::new(DEVICES).join(function);
        put(folder.join("driver_override"), "vfio-pci\n")?;
        if !folder.join("driver").exists() {
            put(PROBE, function)?;
        }
        if !Path::new(DRIVER).join(function).exists() {
            let what = format!("{function} has not been taken by vfio-pci");
            return Err(io::Error::other(what));
        }
    }
    Ok(())
}

/// Takes functions from vfio-pci: they have no driver then, as before.
pub(super) fn unbind(functions: &[String]) -> io::Result<()> {
    for function in functions {
        if Path::new(DRIVER).join(function).exists() {
            put(Path::new(DRIVER).join("unbind"), function)?;
        }
        put(
            Path::new(DEVICES).join(function).join("driver_override"),
            "\n",
        )?;
    }
    Ok(())
}

/// Whether shared memory gets large pages where it is asked for. Reserved huge pages are another matter.
pub(super) fn set_pages(pages: Pages) -> io::Result<()> {
    match pages {
        Pages::Small => put(SHARED_PAGES, "never\n"),
        Pages::Default => put(SHARED_PAGES, "advise\n"),
        Pages::TwoMib => Ok(()),
    }
}

/// The number of a function's IOMMU group.
pub(super) fn group(function: &str) -> Option<String> {
    let link = fs::read_link(Path::new(DEVICES).join(function).join("iommu_group")).ok()?;
    link.file_name()?.to_str().map(str::to_owned)
}

/// The name of a function's own node in `/dev/vfio/devices`, once it is bound.
pub(super) fn cdev(function: &str) -> Option<String> {
    let mut entries = fs::read_dir(Path::new(DEVICES).join(function).join("vfio-dev")).ok()?;
    entries.next()?.ok()?.file_name().into_string().ok()
}
