//! Where the host has placed a function's BARs and its ROM, from `resource`.

use super::{HostBar, file::malformed, function_path};
use crate::{addr::ByteLen, bdf::Bdf, error::Result, sysfs::SysRoot};

/// The lines of `resource`: one `start end flags` for each BAR, then the ROM, then windows of VFs and bridges.
pub(super) struct Resources {
    pub(super) bars: [Option<HostBar>; 6],
    pub(super) rom: Option<HostBar>,
    /// There is no line at all: the kernel always prints those of the BARs and the ROM.
    pub(super) is_unread: bool,
}

pub(super) fn read(root: &SysRoot, bdf: Bdf) -> Result<Resources> {
    let path = function_path(bdf).join("resource");
    let text = root.read_text_if_any(&path)?.unwrap_or_default();
    let mut lines = text.lines().map(|line| {
        parse(line).ok_or_else(|| malformed(root, &path, line, "a line `start end flags`"))
    });
    let mut bars = [None; 6];
    for (bar, line) in bars.iter_mut().zip(lines.by_ref()) {
        *bar = line?;
    }
    let rom = lines.next().transpose()?.flatten();
    Ok(Resources {
        bars,
        rom,
        is_unread: text.is_empty(),
    })
}

/// The outer `None` is a malformed line, the inner one a BAR that does not exist.
#[expect(
    clippy::option_option,
    reason = "malformed and absent are different things"
)]
fn parse(line: &str) -> Option<Option<HostBar>> {
    let mut words = line.split_whitespace();
    let mut next = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (start, end, flags) = (next()?, next()?, next()?);
    if flags & (RESOURCE_IO | RESOURCE_MEM) == 0 {
        return Some(None);
    }
    let len = end.checked_sub(start)?.checked_add(1)?;
    Some(Some(HostBar {
        start,
        len: ByteLen::new(len),
        is_memory: flags & RESOURCE_MEM != 0,
        is_64bit: flags & RESOURCE_MEM_64 != 0,
        is_prefetchable: flags & RESOURCE_PREFETCH != 0,
    }))
}

// Source: include/linux/ioport.h, IORESOURCE_* (v6.12); `resource` prints them raw.
const RESOURCE_IO: u64 = 0x100;
const RESOURCE_MEM: u64 = 0x200;
const RESOURCE_PREFETCH: u64 = 0x2000;
const RESOURCE_MEM_64: u64 = 0x10_0000;
