//! Erasing a namespace between two guests, and looking whether it is erased.
//!
//! On entry nobody has the namespace but perhaps the primary controller. It is attached to that one while it is erased,
//! because a controller formats only what it has, and is open for nobody else on the host: neither the kernel nor the
//! controller would keep a format from a mounted file system. On exit it is attached to whom it was.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use iommu::{error::Errno, sysfs::SysRoot};

use super::{
    fault::{self, Call, await_that},
    hands::KernelHands,
    namespaces::{flbas_of, format_of},
};
use crate::{
    host::sriov::controller::{Controller, Layout},
    sriov::{EraseHow, Percent, StepFault},
    sys::nvme::{Command, CommandFault},
};

/// What is written or read at once, in bytes.
const CHUNK_LEN: usize = 128 << 10;
/// What is read in one place to see whether it is erased, in bytes.
const SAMPLE_LEN: usize = 4096;
/// In how many places it is looked at, besides the first and the last.
const SAMPLES: usize = 64;
/// The kernel waits at least so long for a format, and for more by the size.
const FORMAT_AT_LEAST: Duration = Duration::from_secs(600);
/// What the slowest disk formats in a second, in bytes.
const FORMAT_RATE: u64 = 50 << 20;

/// Aligned as direct reading and writing wants it.
#[repr(C, align(4096))]
struct Chunk([u8; CHUNK_LEN]);

/// Some blocks of a namespace: where, and what is there.
type Samples = Vec<(u64, Vec<u8>)>;

impl KernelHands {
    /// Erases a namespace.
    pub(super) fn erase(
        &self,
        name: &str,
        nsid: u32,
        how: EraseHow,
        block: u32,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<(), StepFault> {
        let doing = format!("erase namespace {nsid} of {name}");
        let controller = self.open(&doing, name)?;
        let failed = |f| fault::command(&doing, &f);
        let own = controller.identity().map_err(failed)?.cntlid;
        let layout = controller.layout(nsid).map_err(failed)?;
        let layout = layout.ok_or_else(|| fault::found(&doing, "there is no such namespace"))?;
        let attached = self.attached(&controller, &doing, nsid)?;
        if attached.iter().any(|cntlid| *cntlid != own) {
            let evidence = format!("it is attached to controllers {attached:?}");
            return Err(fault::found(doing, evidence));
        }
        let was_attached = attached.contains(&own);
        if !was_attached {
            self.attachment(name, nsid, own, true)?;
        }
        let target = Target {
            doing: &doing,
            name,
            nsid,
            layout: &layout,
            block,
        };
        let erased = self.erase_attached(&controller, &target, how, progress);
        if was_attached {
            return erased;
        }
        match (erased, self.attachment(name, nsid, own, false)) {
            (erased, Ok(())) => erased,
            (Ok(()), Err(stuck)) => Err(stuck),
            (Err(first), Err(second)) => Err(StepFault {
                evidence: format!("{}; then {second}", first.evidence),
                ..first
            }),
        }
    }

    fn erase_attached(
        &self,
        controller: &Controller,
        target: &Target<'_>,
        how: EraseHow,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<(), StepFault> {
        let Target { doing, layout, .. } = *target;
        await_that(self.patience, || {
            Ok(self.device(doing, target.name, target.nsid)?.is_some())
        })?;
        progress(Percent(0));
        if how != EraseHow::Overwrite {
            self.format(controller, target, how == EraseHow::Crypto)?;
            progress(Percent(100));
            return Ok(());
        }
        if is_as_wanted(layout, target.block) {
            return self.overwrite(target, layout.len_bytes(), progress);
        }
        // Zeros in another format would leave what the next guest finds different.
        let restored = self.format(controller, target, false)?;
        self.overwrite(target, restored.len_bytes(), progress)
    }

    /// Writes zeros over the whole namespace and reads some of them.
    fn overwrite(
        &self,
        target: &Target<'_>,
        len: u64,
        progress: &mut dyn FnMut(Percent),
    ) -> Result<(), StepFault> {
        let doing = target.doing;
        let device = self
            .claim(doing, target.name, target.nsid, true)?
            .ok_or_else(|| fault::found(doing, "the host's kernel shows no device of it"))?;
        overwrite(&device, len, progress).map_err(|e| refused(doing, "write", &e))?;
        let places = places(&self.root, doing, len)?;
        let after = read_samples(&device, &places).map_err(|e| refused(doing, "read", &e))?;
        match after.iter().find(|(_, bytes)| !is_even(bytes, 0)) {
            None => Ok(()),
            Some((at, _)) => {
                let evidence = format!("what was written over reads otherwise at {at:#x}");
                Err(fault::ignored(doing, evidence))
            }
        }
    }

    /// Formats the namespace with the blocks that it is to have and without metadata: how it lies afterwards.
    fn format(
        &self,
        controller: &Controller,
        target: &Target<'_>,
        is_crypto: bool,
    ) -> Result<Layout, StepFault> {
        let Target {
            doing,
            name,
            nsid,
            layout,
            block,
        } = *target;
        let failed = |f| fault::command(doing, &f);
        if !is_as_wanted(layout, block) && !formats_alone(controller).map_err(failed)? {
            let evidence = format!(
                "its format cannot be restored: it has blocks of {} and {} bytes of metadata instead of blocks of {block}, \
                 and the controller formats no namespace alone",
                layout.block, layout.metadata
            );
            return Err(fault::found(doing, evidence));
        }
        let formats = controller.identify(0x11, nsid, 0).map_err(failed)?;
        let number = format_of(&formats, block).ok_or_else(|| {
            let what = format!("it has no format with blocks of {block} bytes and no metadata");
            fault::found(doing, format!("its format cannot be restored: {what}"))
        })?;
        let device = self.claim(doing, name, nsid, false)?;
        // One with metadata that the kernel does not know has no device, or an empty one.
        if device.is_none() && is_as_wanted(layout, block) {
            return Err(fault::found(
                doing,
                "the host's kernel shows no device of it",
            ));
        }
        let places = places(&self.root, doing, layout.len_bytes())?;
        let before = match &device {
            Some(device) => {
                read_samples(device, &places).map_err(|e| refused(doing, "read", &e))?
            }
            None => Samples::new(),
        };
        let timeout_ms = format_timeout_ms(layout.len_bytes());
        let command = Command::format(nsid, flbas_of(number), 0, is_crypto, timeout_ms);
        self.order(controller, doing, &command, None)?;
        let after = controller.layout(nsid).map_err(failed)?;
        let after = match after {
            Some(after) if is_as_wanted(&after, block) => after,
            other => return Err(fault::ignored(doing, format!("its format reads {other:?}"))),
        };
        drop(device);
        self.read_after_format(target, &after, &places, &before)?;
        Ok(after)
    }

    /// Waits until the kernel has looked at the new format, and compares what was there before.
    fn read_after_format(
        &self,
        target: &Target<'_>,
        layout: &Layout,
        places: &[u64],
        before: &Samples,
    ) -> Result<(), StepFault> {
        let Target {
            doing, name, nsid, ..
        } = *target;
        self.await_device(doing, name, nsid, true)?;
        let mut after = Samples::new();
        let is_readable = await_that(self.patience, || {
            let Some(device) = self.claim(doing, name, nsid, false)? else {
                return Ok(false);
            };
            // While the kernel looks, reading may fail, and the end is where it was.
            let last = layout.len_bytes().saturating_sub(SAMPLE_LEN as u64);
            let is_whole = read_samples(&device, &[last - last % SAMPLE_LEN as u64])
                .is_ok_and(|read| read.iter().all(|(_, bytes)| !bytes.is_empty()));
            match read_samples(&device, places) {
                Ok(samples) if is_whole => after = samples,
                Ok(_) | Err(_) => return Ok(false),
            }
            Ok(true)
        })?;
        if !is_readable {
            return Err(fault::ignored(doing, "it cannot be read after the format"));
        }
        match kept(before, &after) {
            None => Ok(()),
            Some(at) => {
                let evidence = format!("it reads at {at:#x} what it read before the format");
                Err(fault::ignored(doing, evidence))
            }
        }
    }
}

/// Whether a namespace has the blocks that it is to have, and no metadata.
fn is_as_wanted(layout: &Layout, block: u32) -> bool {
    layout.block == block && layout.metadata == 0
}

/// Whether the controller formats one namespace and leaves the others alone.
fn formats_alone(controller: &Controller) -> Result<bool, CommandFault> {
    let identity = controller.identity()?;
    let can_format = match identity.has_effects {
        true => controller.supported()?.contains(&0x80),
        false => identity.oacs & 1 << 1 != 0,
    };
    // FNA bits 0 and 1: a format, or an erase, concerns all namespaces.
    Ok(can_format && identity.fna & 3 == 0)
}

/// What is erased.
#[derive(Clone, Copy)]
struct Target<'a> {
    doing: &'a str,
    name: &'a str,
    nsid: u32,
    layout: &'a Layout,
    /// The block size that it is to have.
    block: u32,
}

fn refused(doing: &str, call: &str, error: &std::io::Error) -> StepFault {
    fault::refused(Call::Command, format!("{doing}: {call}"), Errno::of(error))
}

/// How long the kernel waits for a format.
fn format_timeout_ms(len_bytes: u64) -> u32 {
    let seconds = FORMAT_AT_LEAST.as_secs().max(len_bytes / FORMAT_RATE);
    u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX)
}

/// Writes zeros over all of it, down to the medium.
fn overwrite(device: &File, len: u64, progress: &mut dyn FnMut(Percent)) -> std::io::Result<()> {
    let zeros = Box::new(Chunk([0; CHUNK_LEN]));
    let mut told = Instant::now();
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN));
        let piece = zeros.0.get(..piece).unwrap_or(&zeros.0);
        device.write_all_at(piece, at)?;
        at += piece.len() as u64;
        if told.elapsed() > Duration::from_millis(200) {
            told = Instant::now();
            // What is left is the flush.
            let percent = u128::from(at) * 99 / u128::from(len.max(1));
            progress(Percent(u8::try_from(percent).unwrap_or(99)));
        }
    }
    device.sync_all()?;
    progress(Percent(100));
    Ok(())
}

/// Where it is looked at: the first and the last block, and some by chance, so that nobody can know them.
fn places(root: &SysRoot, doing: &str, len: u64) -> Result<Vec<u64>, StepFault> {
    let count = (len / SAMPLE_LEN as u64).max(1);
    let mut random = [0; 8 * SAMPLES];
    File::open(root.path("dev/urandom"))
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|e| refused(doing, "open /dev/urandom", &e))?;
    let (numbers, _) = random.as_chunks::<8>();
    let mut places: Vec<u64> = numbers
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes) % count)
        .chain([0, count - 1])
        .map(|number| number * SAMPLE_LEN as u64)
        .collect();
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn read_samples(device: &File, places: &[u64]) -> std::io::Result<Samples> {
    let mut chunk = Box::new(Chunk([0; CHUNK_LEN]));
    let (sample, _) = chunk.0.split_at_mut(SAMPLE_LEN);
    let mut samples = Vec::with_capacity(places.len());
    for at in places {
        // What is shorter than a sample is read as far as it goes.
        let len = device.read_at(sample, *at)?;
        samples.push((*at, sample.iter().take(len).copied().collect()));
    }
    Ok(samples)
}

/// Where something was before and is still: a block that is not the same byte all over.
fn kept(before: &Samples, after: &Samples) -> Option<u64> {
    let same = before.iter().zip(after).find(|((_, old), (_, new))| {
        let first = old.first().copied().unwrap_or(0);
        !is_even(old, first) && old == new
    });
    same.map(|((at, _), _)| *at)
}

fn is_even(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|other| *other == byte)
}

#[cfg(test)]
#[path = "erase_test.rs"]
mod tests;
