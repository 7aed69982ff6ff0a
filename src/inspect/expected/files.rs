//! Descriptors that a process is meant to have: by number, by kind, and which file it is where that can be told.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use jailed::manifest::DescriptorKind;
use rustix::fs::{major, minor};
use serde::{Deserialize, Serialize};

use super::maps::is_vfio_device;

/// What a descriptor leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The VM.
    KvmVm,
    /// The KVM-VFIO device.
    KvmVfio,
    /// The vCPU with this index.
    KvmVcpu(u32),
    /// A VFIO device, opened through its group or its own file.
    VfioDevice,
    /// An eventfd.
    Eventfd,
    /// The end of a pipe that is written.
    PipeIn,
    /// The end of a pipe that is read.
    PipeOut,
    /// Whatever it was given, of which the file tells more.
    Given,
}

/// A file by its device and inode: the same for every way to it, and no other's as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileId {
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// The inode.
    pub inode: u64,
}

impl FileId {
    /// The file at `path`, or the one that a link of `/proc/PID/fd` leads to.
    ///
    /// # Errors
    /// The errno of `stat`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            device: (major(found.dev()), minor(found.dev())),
            inode: found.ino(),
        })
    }

    /// The file that this process has open as descriptor `number`.
    ///
    /// # Errors
    /// The errno of `stat`.
    pub fn of_own(number: u32) -> io::Result<Self> {
        Self::of(Path::new(&format!("/proc/self/fd/{number}")))
    }
}

/// A file that a process was given, as the giver has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GivenFile {
    /// Its number in the process; `None` where the process chose one itself.
    pub number: Option<u32>,
    /// The file; not of what the kernel has one inode for all of: eventfds, VMs, VFIO devices of a group.
    pub file: Option<FileId>,
    /// Where the kernel has no inode of its own for it: the name that it shows.
    pub name: Option<String>,
    /// The number by which the process's parent has the very same opened file.
    pub keepers: Option<u32>,
    /// Whether the parent keeps it while the guest runs.
    pub is_kept: bool,
    /// Whether the process may give it up.
    pub may_be_closed: bool,
}

/// A descriptor that a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedDescriptor {
    /// Its number.
    pub number: u32,
    /// What it leads to.
    pub kind: Kind,
    /// The very file, where that can be told.
    pub given: Option<GivenFile>,
}

impl ExpectedDescriptor {
    /// Whether the process may have given it up.
    #[must_use]
    pub fn may_be_closed(&self) -> bool {
        self.given.as_ref().is_some_and(|given| given.may_be_closed)
    }
}

pub(super) const fn kind_of(kind: DescriptorKind) -> Kind {
    match kind {
        DescriptorKind::Vm => Kind::KvmVm,
        DescriptorKind::KvmVfio => Kind::KvmVfio,
        DescriptorKind::Vcpu(index) => Kind::KvmVcpu(index),
        DescriptorKind::ConsoleOut => Kind::PipeIn,
        DescriptorKind::ConsoleIn => Kind::PipeOut,
        DescriptorKind::Device(_) => Kind::VfioDevice,
        DescriptorKind::Error(_)
        | DescriptorKind::Request(_)
        | DescriptorKind::Vector(_)
        | DescriptorKind::Latch(_) => Kind::Eventfd,
    }
}

impl Kind {
    /// Whether the kernel's name of a descriptor's target and its flags are of this kind.
    #[must_use]
    pub fn fits(&self, target: &str, flags: u32) -> bool {
        const ACCESS: u32 = 3;
        const READ: u32 = 0;
        const WRITE: u32 = 1;
        let numbered = |word: &str| {
            let rest = target.strip_prefix(word);
            let digits = rest.and_then(|r| r.strip_prefix(":[")?.strip_suffix(']'));
            digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        };
        match self {
            Self::KvmVm => target == "anon_inode:kvm-vm",
            Self::KvmVfio => target == "anon_inode:kvm-vfio",
            Self::KvmVcpu(index) => target == format!("anon_inode:kvm-vcpu:{index}"),
            Self::VfioDevice => is_vfio_device(target),
            Self::Eventfd => target == "anon_inode:[eventfd]",
            Self::PipeIn => numbered("pipe") && flags & ACCESS == WRITE,
            Self::PipeOut => numbered("pipe") && flags & ACCESS == READ,
            Self::Given => true,
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::KvmVm => "the VM".to_owned(),
            Self::KvmVfio => "the KVM-VFIO device".to_owned(),
            Self::KvmVcpu(index) => format!("vCPU {index}"),
            Self::VfioDevice => "a VFIO device".to_owned(),
            Self::Eventfd => "an eventfd".to_owned(),
            Self::PipeIn => "a pipe, for writing".to_owned(),
            Self::PipeOut => "a pipe, for reading".to_owned(),
            Self::Given => "what it was given".to_owned(),
        }
    }
}
