//! The files that a guest is made of, opened once and handed on as descriptors.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use iommu::isolation::CheckId;
use kvm_ioctls::{Cap, Kvm};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{console::Target, fault::Fault};
use crate::{
    error::Report,
    plan::{Image, Plan},
    spec::{ConsoleSpec, RootMode},
};

/// What is open for the whole run.
#[derive(Debug)]
pub(super) struct Files {
    kvm: File,
    null: File,
    kernel: File,
    initramfs: Option<File>,
    images: Vec<OwnedFd>,
}

/// What V will ask of KVM, by the names of `include/uapi/linux/kvm.h` (v6.12).
const KVM_CAPABILITIES: [(Cap, &str); 9] = [
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::DeviceCtrl, "KVM_CAP_DEVICE_CTRL"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
    (Cap::CoalescedMmio, "KVM_CAP_COALESCED_MMIO"),
    (Cap::CoalescedPio, "KVM_CAP_COALESCED_PIO"),
];

/// Asks KVM for all that the guest will need, before a device is touched.
///
/// # Errors
/// `kvm-absent`, with the names of what is missing.
pub(super) fn check_kvm() -> Result<(), Fault> {
    let refused = |why: String| {
        Report::new(
            CheckId::KvmAbsent,
            "cannot make a virtual machine",
            why,
            "switch on virtualization (VT-x or AMD-V) in the firmware and load kvm-intel or kvm-amd",
        )
    };
    let kvm = Kvm::new().map_err(|errno| refused(format!("/dev/kvm: {errno}")))?;
    let missing: Vec<&str> = KVM_CAPABILITIES
        .iter()
        .filter(|(cap, _)| !kvm.check_extension(*cap))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(refused(format!("/dev/kvm lacks {}", missing.join(", "))).into())
    }
}

impl Files {
    /// Opens everything that the plan names; private copies of images are made here.
    ///
    /// # Errors
    /// [`Fault::Io`] with the path.
    pub(super) fn open(plan: &Plan) -> Result<Self, Fault> {
        let mut both = OpenOptions::new();
        both.read(true).write(true);
        Ok(Self {
            kvm: open(&both, Path::new("/dev/kvm"))?,
            null: open(&both, Path::new("/dev/null"))?,
            kernel: read_only(&plan.kernel)?,
            initramfs: plan.initramfs.as_deref().map(read_only).transpose()?,
            images: plan.images.iter().map(image).collect::<Result<_, _>>()?,
        })
    }

    /// Where the console goes.
    ///
    /// # Errors
    /// [`Fault::Io`] where the console's file cannot be opened.
    pub(super) fn console_target(plan: &Plan) -> Result<Target, Fault> {
        Ok(match &plan.console {
            ConsoleSpec::Off => Target::Off,
            ConsoleSpec::Stdio => Target::Stdio,
            ConsoleSpec::File(path) => {
                let mut append = OpenOptions::new();
                // The guest's output may hold secrets of the tenant.
                append.append(true).create(true).mode(0o600);
                Target::File(open(&append, path)?)
            }
        })
    }

    /// `/dev/kvm`.
    pub(super) fn kvm(&self) -> BorrowedFd<'_> {
        self.kvm.as_fd()
    }

    /// `/dev/null`.
    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// The kernel.
    pub(super) fn kernel(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }

    /// The initramfs.
    pub(super) fn initramfs(&self) -> Option<BorrowedFd<'_>> {
        self.initramfs.as_ref().map(AsFd::as_fd)
    }

    /// Of the images, those that are private copies.
    pub(super) fn private_copies(&self, plan: &Plan) -> impl Iterator<Item = BorrowedFd<'_>> {
        let images = plan.images.iter().zip(&self.images);
        images
            .filter(|(image, _)| image.mode == RootMode::Copy)
            .map(|(_, file)| file.as_fd())
    }

    /// The images, in the plan's order.
    pub(super) fn images(&self) -> Vec<BorrowedFd<'_>> {
        self.images.iter().map(AsFd::as_fd).collect()
    }
}

fn open(options: &OpenOptions, path: &Path) -> Result<File, Fault> {
    options
        .open(path)
        .map_err(Fault::io(format!("opening {}", path.display())))
}

fn read_only(path: &Path) -> Result<File, Fault> {
    open(OpenOptions::new().read(true), path)
}

/// The image's own file where the guest only reads, or a private copy in memory.
///
/// A copy is made whole and at once: a page that a device may write to must not change its place later, so the IOMMU
/// cannot share pages with the file and part from it on the first write, as a processor's page table can.
fn image(image: &Image) -> Result<OwnedFd, Fault> {
    let file = read_only(&image.path)?;
    let len_bytes = file
        .metadata()
        .map_err(Fault::io(format!(
            "asking for the length of {}",
            image.path.display()
        )))?
        .len();
    if len_bytes != image.at.len_bytes() {
        let doing = format!("opening {}", image.path.display());
        return Err(Fault::io(doing)(io::Error::other(
            "its length has changed since the plan was made",
        )));
    }
    match image.mode {
        RootMode::ReadOnly => Ok(file.into()),
        RootMode::Copy => private_copy(&file, image.at.len_bytes())
            .map_err(Fault::io(format!("copying {}", image.path.display()))),
    }
}

fn private_copy(mut file: &File, len_bytes: u64) -> io::Result<OwnedFd> {
    let copy = memfd_create(
        "narrows-image",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut to = File::from(copy);
    let copied = io::copy(&mut file, &mut to)?;
    if copied > len_bytes {
        return Err(io::Error::other(
            "the image has grown since the plan was made",
        ));
    }
    fcntl_add_seals(&to, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(to.into())
}
