//! VFIO's older interface: groups in a container, mapped by address.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use crate::{
    addr::{Iova, IovaRange},
    error::{Errno, IommuError, Result},
    space::{Calls, DeviceNode, Interface, Mapping, PageSizes, writable},
    sys::{vfio, view::View},
    sysfs::SysRoot,
    topology::{self, GroupId},
};

/// A container and the groups in it.
#[derive(Debug)]
pub(crate) struct Type1 {
    container: File,
    groups: BTreeMap<GroupId, File>,
}

impl Type1 {
    pub(crate) fn open(root: &SysRoot, calls: &mut Calls) -> Result<Self> {
        let container = open_node(&root.path("dev/vfio/vfio"))?;
        calls.setup += 1;
        let version = vfio::get_api_version(container.as_fd())
            .map_err(|error| failed(vfio::name::GET_API_VERSION, &error))?;
        if version != 0 {
            return Err(IommuError::Unsupported {
                wanted: "version 0",
                found: format!("version {version}"),
            });
        }
        calls.setup += 1;
        if !vfio::has_type1v2(container.as_fd())
            .map_err(|error| failed(vfio::name::CHECK_EXTENSION, &error))?
        {
            return Err(IommuError::Unsupported {
                wanted: "the IOMMU type type1v2",
                found: "no driver for it (is vfio_iommu_type1 loaded?)".to_owned(),
            });
        }
        Ok(Self {
            container,
            groups: BTreeMap::new(),
        })
    }

    pub(crate) fn attach(
        &mut self,
        root: &SysRoot,
        node: &DeviceNode,
        calls: &mut Calls,
    ) -> Result<OwnedFd> {
        let device_failed = |call, error: &io::Error| IommuError::DeviceCall {
            bdf: node.bdf,
            call,
            errno: Errno::of(error),
        };
        if !self.groups.contains_key(&node.group) {
            let group = self.add_group(root, node, calls)?;
            self.groups.insert(node.group, group);
        }
        let Some(group) = self.groups.get(&node.group) else {
            return Err(IommuError::NoGroup { bdf: node.bdf });
        };
        let name = match &node.vf_token {
            Some(token) => format!("{} vf_token={token}", node.bdf),
            None => node.bdf.to_string(),
        };
        let name = CString::new(name).map_err(|_nul| {
            device_failed(
                vfio::name::GROUP_GET_DEVICE_FD,
                &io::Error::from_raw_os_error(libc::EINVAL),
            )
        })?;
        calls.attach += 1;
        vfio::group_get_device(group.as_fd(), &name).map_err(|error| {
            let call = vfio::name::GROUP_GET_DEVICE_FD;
            token_refused(node, call, &error).unwrap_or_else(|| device_failed(call, &error))
        })
    }

    /// Opens a group and puts it into the container; the first one decides which IOMMU the container has.
    fn add_group(&self, root: &SysRoot, node: &DeviceNode, calls: &mut Calls) -> Result<File> {
        let group = open_node(&root.path(format!("dev/vfio/{}", node.group.0)))?;
        calls.attach += 1;
        if !vfio::group_is_viable(group.as_fd())
            .map_err(|error| failed(vfio::name::GROUP_GET_STATUS, &error))?
        {
            return Err(IommuError::GroupNotViable {
                group: node.group,
                members: topology::read_members(root, node.group)?,
            });
        }
        let forbidden = |call, error: &io::Error| match error.raw_os_error() {
            Some(libc::EPERM) => IommuError::AttachForbidden {
                bdf: node.bdf,
                call,
                errno: Errno::of(error),
            },
            _ => failed(call, error),
        };
        calls.attach += 1;
        vfio::group_set_container(group.as_fd(), self.container.as_fd())
            .map_err(|error| forbidden(vfio::name::GROUP_SET_CONTAINER, &error))?;
        if self.groups.is_empty() {
            calls.attach += 1;
            vfio::set_iommu_type1v2(self.container.as_fd())
                .map_err(|error| forbidden(vfio::name::SET_IOMMU, &error))?;
        }
        Ok(group)
    }

    pub(crate) fn limits(&self, calls: &mut Calls) -> Result<(Vec<IovaRange>, PageSizes)> {
        calls.setup += 1;
        let info = vfio::iommu_get_info(self.container.as_fd())
            .map_err(|error| failed(vfio::name::IOMMU_GET_INFO, &error))?;
        let (Some(windows), Some(bitmap)) = (info.windows, info.page_sizes) else {
            return Err(IommuError::Unsupported {
                wanted: "the usable addresses of a container",
                found: "a kernel that does not tell them".to_owned(),
            });
        };
        let range = |(first, last)| IovaRange::from_inclusive(Iova::new(first), Iova::new(last));
        Ok((
            windows.into_iter().filter_map(range).collect(),
            PageSizes::from_bitmap(bitmap),
        ))
    }

    pub(crate) fn map(&self, mapping: &Mapping<'_>, calls: &mut Calls) -> Result<()> {
        let map_failed = |call, error: &io::Error| IommuError::MapFailed {
            range: mapping.range,
            call,
            errno: Errno::of(error),
        };
        let writable = writable(mapping.permission);
        let view = View::of_file(
            mapping.file,
            mapping.offset,
            mapping.range.len_bytes().raw(),
            writable,
        )
        .map_err(|error| map_failed("mmap", &error))?;
        calls.map += 1;
        vfio::iommu_map(
            self.container.as_fd(),
            &view,
            mapping.range.start().raw(),
            writable,
        )
        .map_err(|error| map_failed(vfio::name::IOMMU_MAP_DMA, &error))
    }
}

/// The failure of a call that checks the VF token, where it can be about the token.
pub(crate) fn token_refused(
    node: &DeviceNode,
    call: &'static str,
    error: &io::Error,
) -> Option<IommuError> {
    let errno = Errno::of(error);
    let was_given = node.vf_token.is_some();
    let is_about_token = match errno.raw() {
        libc::EACCES => true,
        libc::EINVAL => was_given,
        _ => false,
    };
    is_about_token.then_some(IommuError::TokenRefused {
        bdf: node.bdf,
        call,
        was_given,
        errno,
    })
}

/// Opens a device node for reading and writing.
pub(crate) fn open_node(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| {
            let (path, errno) = (path.to_owned(), Errno::of(&error));
            match errno.raw() {
                libc::EBUSY => IommuError::NodeBusy { path, errno },
                _ => IommuError::Open { path, errno },
            }
        })
}

fn failed(call: &'static str, error: &io::Error) -> IommuError {
    IommuError::SpaceCall {
        interface: Interface::Type1,
        call,
        errno: Errno::of(error),
    }
}
