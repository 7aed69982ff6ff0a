//! The files that a guest file names: whether they are there and are what they are used for.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use iommu::addr::ByteLen;
use serde::Serialize;

use super::types::{ConsoleSpec, GuestSpec};
use crate::error::{ErrorId, Location, Report};

/// What was found out about a guest's files. The supervisor opens them once more; V parses the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Files {
    /// What the kernel is.
    pub kernel: KernelFormat,
    /// The root image's length, a multiple of 2 MiB.
    pub root: Option<ByteLen>,
}

/// The kernel images that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelFormat {
    /// A bzImage with a 64-bit entry point.
    BzImage,
    /// An ELF file for x86-64.
    Elf,
}

/// Linux adds persistent memory in units of this.
const IMAGE_UNIT: u64 = 2 << 20;

impl GuestSpec {
    /// Looks at the files that the guest file names.
    ///
    /// # Errors
    ///
    /// All of `file-unreadable`, `kernel-format`, `image-size` and `bad-console` that apply.
    pub fn check_files(&self) -> Result<Files, Vec<Report>> {
        let mut problems = Vec::new();
        let mut note = |result: Result<(), Report>, place: &Option<Location>| {
            problems.extend(result.err().map(|report| report.at(place.clone())));
        };
        let kernel = check_kernel(&self.kernel);
        note(kernel.clone().map(drop), &self.places.kernel);
        if let Some(initramfs) = &self.initramfs {
            note(
                open(initramfs, "initramfs").map(drop),
                &self.places.initramfs,
            );
        }
        let root = self.root.as_ref().map(|root| check_image(&root.image));
        if let Some(root) = &root {
            note(root.clone().map(drop), &self.places.root);
        }
        if let ConsoleSpec::File(path) = &self.console {
            note(check_console(path), &None);
        }
        match (kernel, root.transpose()) {
            (Ok(kernel), Ok(root)) if problems.is_empty() => Ok(Files { kernel, root }),
            _ => Err(problems),
        }
    }
}

/// Opens a regular file and measures it.
fn open(path: &Path, what: &str) -> Result<(File, ByteLen), Report> {
    let unreadable = |error: &io::Error| {
        Report::new(
            ErrorId::FileUnreadable,
            format!("{what} {} cannot be read", path.display()),
            error.to_string(),
            "check the path (relative ones start at the guest file's folder) and its permissions",
        )
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(Report::new(
            ErrorId::FileUnreadable,
            format!("{what} {} cannot be used", path.display()),
            "it is not a regular file",
            "name a regular file",
        ));
    }
    Ok((file, ByteLen::new(metadata.len())))
}

fn check_kernel(path: &Path) -> Result<KernelFormat, Report> {
    let (file, _) = open(path, "kernel")?;
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head).map_err(|error| {
        Report::new(
            ErrorId::FileUnreadable,
            format!("kernel {} cannot be read", path.display()),
            error.to_string(),
            "check the file system it is on",
        )
    })?;
    kernel_format(&head).map_err(|why| {
        Report::new(
            ErrorId::KernelFormat,
            format!("kernel {} cannot be started", path.display()),
            why,
            "use a bzImage (`/boot/vmlinuz-…`) or an uncompressed vmlinux, built for x86-64",
        )
    })
}

/// Tells the format from the first 4 KiB.
///
/// *Source:* `Documentation/arch/x86/boot.rst (v6.12)`; `ELF-64 Object File Format`.
pub(super) fn kernel_format(head: &[u8]) -> Result<KernelFormat, &'static str> {
    let half_word = |at: usize| match head.get(at..at + 2) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    };
    if head.starts_with(b"\x7fELF") {
        // Class 64-bit, little endian, machine x86-64.
        return match (head.get(4), head.get(5), half_word(18)) {
            (Some(2), Some(1), 62) => Ok(KernelFormat::Elf),
            _ => Err("it is an ELF file, but not for x86-64"),
        };
    }
    if half_word(0x1FE) != 0xAA55 || head.get(0x202..0x206) != Some(b"HdrS") {
        return Err("it begins neither like a bzImage nor like an ELF file");
    }
    if half_word(0x206) < 0x020C {
        return Err("it is a bzImage of a boot protocol before 2.12 (Linux 3.8)");
    }
    if half_word(0x236) & 1 == 0 {
        return Err("it is a bzImage without a 64-bit entry point");
    }
    Ok(KernelFormat::BzImage)
}

fn check_image(path: &Path) -> Result<ByteLen, Report> {
    let (_, len) = open(path, "root image")?;
    if len.raw() == 0 || !len.raw().is_multiple_of(IMAGE_UNIT) {
        return Err(Report::new(
            ErrorId::ImageSize,
            format!("root image {} has an impossible size", path.display()),
            format!(
                "it has {} bytes; Linux takes persistent memory in units of 2 MiB",
                len.raw()
            ),
            format!("truncate -s %2M {}", path.display()),
        ));
    }
    Ok(len)
}

fn check_console(path: &Path) -> Result<(), Report> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    };
    if folder.is_dir() {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::BadConsole,
        format!("console file {} cannot be made", path.display()),
        format!("there is no folder {}", folder.display()),
        "make the folder or choose another path",
    ))
}
