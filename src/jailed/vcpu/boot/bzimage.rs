//! The head of a bzImage: what Linux's boot protocol says about the kernel in it.
//!
//! *Source:* `Documentation/arch/x86/boot.rst (v6.12), boot protocol 2.12 and later`.

use super::field;
use crate::addr::Gpa;
use crate::handoff::KernelFault;

/// Where the set-up header begins, in the file and in the boot parameters.
pub const HEADER_START: usize = 0x1F1;
/// Where it ends at the latest.
pub const HEADER_END: usize = 0x290;

/// A bzImage that can be started at its 64-bit entry point.
#[derive(Clone, Copy, Debug)]
pub struct BzImage {
    /// The set-up header, for the boot parameters; zero behind its end.
    pub header: [u8; HEADER_END - HEADER_START],
    /// Where the kernel begins in the file.
    pub payload_offset: u64,
    /// The kernel's length in the file.
    pub payload_bytes: u64,
    /// Where it wants to be.
    pub preferred: Gpa,
    /// Whether it may lie elsewhere, aligned to `align_bytes`.
    pub is_relocatable: bool,
    /// A power of two.
    pub align_bytes: u64,
    /// The memory it takes from its first byte until it knows the memory map.
    pub init_bytes: u64,
    /// The first address behind the highest place for the initramfs.
    pub initramfs_limit: Gpa,
    /// The longest command line without its closing zero.
    pub cmdline_bytes: u32,
}

/// The 64-bit entry point, from where the kernel was loaded.
pub const ENTRY_OFFSET: u64 = 0x200;

/// Whether `head` begins like a bzImage.
#[must_use]
pub fn is_bzimage(head: &[u8]) -> bool {
    field(head, 0x1FE) == Some([0x55, 0xAA]) && field(head, 0x202) == Some(*b"HdrS")
}

/// Reads the head of a file of `file_bytes` bytes.
///
/// # Errors
/// The fault of an image that cannot be started.
pub fn parse(head: &[u8], file_bytes: u64) -> Result<BzImage, KernelFault> {
    const PROTOCOL_2_12: u16 = 0x020C;
    const XLF_KERNEL_64: u16 = 1;
    let u8_at = |at| {
        field(head, at)
            .map(u8::from_le_bytes)
            .ok_or(KernelFault::OutOfRange)
    };
    let u16_at = |at| {
        field(head, at)
            .map(u16::from_le_bytes)
            .ok_or(KernelFault::OutOfRange)
    };
    let u32_at = |at| {
        field(head, at)
            .map(u32::from_le_bytes)
            .ok_or(KernelFault::OutOfRange)
    };
    let u64_at = |at| {
        field(head, at)
            .map(u64::from_le_bytes)
            .ok_or(KernelFault::OutOfRange)
    };
    if u16_at(0x206)? < PROTOCOL_2_12 || u16_at(0x236)? & XLF_KERNEL_64 == 0 {
        return Err(KernelFault::No64BitEntry);
    }
    let setup_sectors = match u8_at(HEADER_START)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let payload_offset = (setup_sectors + 1) * 512;
    let payload_bytes = file_bytes
        .checked_sub(payload_offset)
        .filter(|bytes| *bytes > ENTRY_OFFSET)
        .ok_or(KernelFault::OutOfRange)?;
    let align_bytes = u64::from(u32_at(0x230)?);
    if !align_bytes.is_power_of_two() {
        return Err(KernelFault::OutOfRange);
    }
    // The byte before the magic number is the offset of a short jump over the header.
    let header_end = (0x202 + usize::from(u8_at(0x201)?)).min(HEADER_END);
    let mut header = [0; HEADER_END - HEADER_START];
    let used = head
        .get(HEADER_START..header_end)
        .ok_or(KernelFault::OutOfRange)?;
    for (to, from) in header.iter_mut().zip(used) {
        *to = *from;
    }
    Ok(BzImage {
        header,
        payload_offset,
        payload_bytes,
        preferred: Gpa::new(u64_at(0x258)?),
        is_relocatable: u8_at(0x234)? != 0,
        align_bytes,
        init_bytes: u64::from(u32_at(0x260)?).max(payload_bytes),
        initramfs_limit: Gpa::new(u64::from(u32_at(0x22C)?) + 1),
        cmdline_bytes: u32_at(0x238)?,
    })
}
