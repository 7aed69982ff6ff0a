//! VFIO's newer interface: device nodes bound to an iommufd, memory mapped by file where the kernel can.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use crate::{
    addr::{Iova, IovaRange},
    bind::is_placeholder,
    error::{Errno, IommuError, Result},
    space::{Calls, DeviceNode, Interface, Mapping, PageSizes, writable},
    sys::{
        iommufd, vfio,
        view::{View, is_memory_file},
    },
    sysfs::SysRoot,
    topology::{self, Member},
    type1::{open_node, token_refused},
};

/// An iommufd and its one address space.
#[derive(Debug)]
pub(crate) struct Iommufd {
    file: File,
    ioas: Option<u32>,
    /// Whether the kernel has said that it cannot map by file.
    lacks_map_file: bool,
}

impl Iommufd {
    pub(crate) fn open(root: &SysRoot) -> Result<Self> {
        Ok(Self {
            file: open_node(&root.path("dev/iommu"))?,
            ioas: None,
            lacks_map_file: false,
        })
    }

    pub(crate) fn attach(
        &mut self,
        root: &SysRoot,
        node: &DeviceNode,
        calls: &mut Calls,
    ) -> Result<OwnedFd> {
        let bdf = node.bdf;
        let Some(cdev) = &node.cdev else {
            return Err(IommuError::NoCdev { bdf });
        };
        let path = root.path(format!("dev/vfio/devices/{cdev}"));
        let device = open_node(&path)?;
        let token = node.vf_token.as_ref().map(|token| token.as_bytes());
        calls.attach += 1;
        vfio::device_bind(device.as_fd(), self.file.as_fd(), token)
            .map_err(|error| bind_failed(root, node, &path, &error))?;
        let ioas = self.ioas(calls)?;
        calls.attach += 1;
        vfio::device_attach(device.as_fd(), ioas)
            .map_err(|error| device_failed(node, vfio::name::DEVICE_ATTACH_IOMMUFD_PT, &error))?;
        Ok(device.into())
    }

    /// The address space, made when it is first needed.
    fn ioas(&mut self, calls: &mut Calls) -> Result<u32> {
        if let Some(ioas) = self.ioas {
            return Ok(ioas);
        }
        calls.setup += 1;
        let ioas = iommufd::ioas_alloc(self.file.as_fd())
            .map_err(|error| failed(iommufd::name::IOAS_ALLOC, &error))?;
        self.ioas = Some(ioas);
        Ok(ioas)
    }

    pub(crate) fn limits(&mut self, calls: &mut Calls) -> Result<(Vec<IovaRange>, PageSizes)> {
        let ioas = self.ioas(calls)?;
        calls.setup += 1;
        let (windows, alignment) = iommufd::ioas_iova_ranges(self.file.as_fd(), ioas)
            .map_err(|error| failed(iommufd::name::IOAS_IOVA_RANGES, &error))?;
        let range = |(first, last)| IovaRange::from_inclusive(Iova::new(first), Iova::new(last));
        Ok((
            windows.into_iter().filter_map(range).collect(),
            PageSizes::from_alignment(alignment),
        ))
    }

    pub(crate) fn map(&mut self, mapping: &Mapping<'_>, calls: &mut Calls) -> Result<()> {
        let ioas = self.ioas(calls)?;
        if !self.lacks_map_file {
            calls.map += 1;
            match self.map_file(ioas, mapping) {
                Ok(()) => return Ok(()),
                Err(error) => match fallback(&error, || is_memory_file(mapping.file)) {
                    Fallback::Always => self.lacks_map_file = true,
                    Fallback::ThisFile => {}
                    Fallback::No => {
                        return Err(map_failed(mapping, iommufd::name::IOAS_MAP_FILE, &error));
                    }
                },
            }
        }
        let writable = writable(mapping.permission);
        let len = mapping.range.len_bytes().raw();
        let view = View::of_file(mapping.file, mapping.offset, len, writable)
            .map_err(|error| map_failed(mapping, "mmap", &error))?;
        calls.map += 1;
        let start = mapping.range.start().raw();
        iommufd::ioas_map(self.file.as_fd(), ioas, &view, start, writable)
            .map_err(|error| map_failed(mapping, iommufd::name::IOAS_MAP, &error))
    }

    fn map_file(&self, ioas: u32, mapping: &Mapping<'_>) -> io::Result<()> {
        let len = mapping.range.len_bytes().raw();
        iommufd::ioas_map_file(
            self.file.as_fd(),
            ioas,
            (mapping.file, mapping.offset, len),
            mapping.range.start().raw(),
            writable(mapping.permission),
        )
    }
}

/// Finds out what a refused bind means; the kernel says EPERM and EINVAL for several things.
fn bind_failed(root: &SysRoot, node: &DeviceNode, path: &Path, error: &io::Error) -> IommuError {
    let errno = Errno::of(error);
    if let Some(refused) = token_refused(node, vfio::name::DEVICE_BIND_IOMMUFD, error) {
        return refused;
    }
    match errno.raw() {
        // The request is well-formed, so it is the device that is taken.
        libc::EINVAL => IommuError::NodeBusy {
            path: path.to_owned(),
            errno,
        },
        libc::EPERM => match topology::read_members(root, node.group) {
            Ok(members) if members.iter().any(keeps_group) => IommuError::GroupNotViable {
                group: node.group,
                members,
            },
            _ => device_failed(node, vfio::name::DEVICE_BIND_IOMMUFD, error),
        },
        _ => device_failed(node, vfio::name::DEVICE_BIND_IOMMUFD, error),
    }
}

/// Whether the kernel does not give a group away because of this member.
fn keeps_group(member: &Member) -> bool {
    // The driver of ports does no DMA of its own.
    let harmless = |driver: &str| is_placeholder(driver) || driver == "pcieport";
    !member.driver.as_deref().is_none_or(harmless)
}

fn device_failed(node: &DeviceNode, call: &'static str, error: &io::Error) -> IommuError {
    let (bdf, errno) = (node.bdf, Errno::of(error));
    match errno.raw() {
        libc::EPERM => IommuError::AttachForbidden { bdf, call, errno },
        _ => IommuError::DeviceCall { bdf, call, errno },
    }
}

/// Whether mapping by address may succeed where mapping by file failed.
#[derive(Debug, PartialEq, Eq)]
enum Fallback {
    /// The kernel cannot map by file at all.
    Always,
    /// It cannot map this file so.
    ThisFile,
    /// The mapping itself is refused.
    No,
}

fn fallback(error: &io::Error, is_memory_file: impl FnOnce() -> io::Result<bool>) -> Fallback {
    match error.raw_os_error() {
        // Before v6.13.
        Some(libc::ENOTTY) => Fallback::Always,
        Some(libc::EOPNOTSUPP) => Fallback::ThisFile,
        // Said of a file that is not in memory; of one that is, it means that the request is wrong.
        Some(libc::EINVAL) if matches!(is_memory_file(), Ok(false)) => Fallback::ThisFile,
        _ => Fallback::No,
    }
}

fn failed(call: &'static str, error: &io::Error) -> IommuError {
    IommuError::SpaceCall {
        interface: Interface::Iommufd,
        call,
        errno: Errno::of(error),
    }
}

fn map_failed(mapping: &Mapping<'_>, call: &'static str, error: &io::Error) -> IommuError {
    IommuError::MapFailed {
        range: mapping.range,
        call,
        errno: Errno::of(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    /// The error that a bind of 0000:01:10.0 with `errno` becomes, with another function of `driver` in its group.
    fn bind_error(errno: i32, driver: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let root = FakeHost::new(folder.path())
            .pf("0000:01:00.0", 6)
            .vf("0000:01:10.0", "0000:01:00.0", 7)
            .vfio("vfio0")
            .device("0000:01:11.0", 7)
            .driver(driver)
            .write()
            .unwrap();
        let topology = topology::Topology::read(&root).unwrap();
        let node = DeviceNode::of(&topology, "0000:01:10.0".parse().unwrap()).unwrap();
        let error = io::Error::from_raw_os_error(errno);
        bind_failed(&root, &node, Path::new("/dev/vfio/devices/vfio0"), &error).to_string()
    }

    #[test]
    fn a_refused_bind_names_who_keeps_the_group() {
        assert_eq!(
            bind_error(libc::EPERM, "igb"),
            "group 7 is not viable: it holds 0000:01:10.0 (driver vfio-pci), 0000:01:11.0 (driver igb)"
        );
        for driver in ["pcieport", "vfio-pci"] {
            assert_eq!(
                bind_error(libc::EPERM, driver),
                "0000:01:10.0 may not be attached: VFIO_DEVICE_BIND_IOMMUFD failed: EPERM (interrupts are not \
                 remapped, firmware claims memory of it, or another process holds its group)"
            );
        }
        assert_eq!(
            bind_error(libc::EINVAL, "vfio-pci"),
            "/dev/vfio/devices/vfio0 is in use by another process: EINVAL"
        );
        assert_eq!(
            bind_error(libc::EACCES, "vfio-pci"),
            "0000:01:10.0: VFIO_DEVICE_BIND_IOMMUFD failed: EACCES (its PF is bound to vfio-pci and wants a VF token)"
        );
        assert_eq!(
            bind_error(libc::ENODEV, "igb"),
            "0000:01:10.0: VFIO_DEVICE_BIND_IOMMUFD failed: ENODEV"
        );
    }

    #[test]
    fn only_a_missing_ability_falls_back_to_mapping_by_address() {
        let of =
            |errno, in_memory| fallback(&io::Error::from_raw_os_error(errno), || Ok(in_memory));
        assert_eq!(of(libc::ENOTTY, true), Fallback::Always);
        assert_eq!(of(libc::EOPNOTSUPP, true), Fallback::ThisFile);
        assert_eq!(of(libc::EINVAL, false), Fallback::ThisFile);
        for errno in [
            libc::EINVAL,
            libc::ENOMEM,
            libc::EFAULT,
            libc::EEXIST,
            libc::EPERM,
            libc::EOVERFLOW,
        ] {
            assert_eq!(of(errno, true), Fallback::No, "errno {errno}");
        }
    }
}
