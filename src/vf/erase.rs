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
    namespaces::not_overwritable,
};
use crate::{
    host::sriov::controller::{Controller, Layout},
    sriov::{EraseHow, Percent, StepFault},
    sys::nvme::Command,
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
        let Target {
            doing,
            name,
            nsid,
            layout,
        } = *target;
        let len = layout.len_bytes();
        await_that(self.patience, || {
            Ok(self.device(doing, name, nsid)?.is_some())
        })?;
        let is_written = how == EraseHow::Overwrite;
        let device = self
            .claim(doing, name, nsid, is_written)?
            .ok_or_else(|| fault::found(doing, "the host's kernel shows no device of it"))?;
        progress(Percent(0));
        if is_written {
            if let Some(reason) = not_overwritable(layout) {
                return Err(fault::found(doing, reason));
            }
            overwrite(&device, len, progress).map_err(|e| refused(doing, "write", &e))?;
            let places = places(&self.root, doing, len)?;
            let after = read_samples(&device, &places).map_err(|e| refused(doing, "read", &e))?;
            return match after.iter().find(|(_, bytes)| !is_even(bytes, 0)) {
                None => Ok(()),
                Some((at, _)) => {
                    let evidence = format!("what was written over reads otherwise at {at:#x}");
                    Err(fault::ignored(doing, evidence))
                }
            };
        }
        let places = places(&self.root, doing, len)?;
        let before = read_samples(&device, &places).map_err(|e| refused(doing, "read", &e))?;
        let is_crypto = how == EraseHow::Crypto;
        let timeout_ms = format_timeout_ms(len);
        let command = Command::format(nsid, layout.flbas, layout.dps, is_crypto, timeout_ms);
        self.order(controller, doing, &command, None)?;
        let mut after = Samples::new();
        let is_readable = await_that(self.patience, || {
            // While the kernel looks at the new format, reading may fail.
            match read_samples(&device, &places) {
                Ok(samples) => after = samples,
                Err(_) => return Ok(false),
            }
            Ok(true)
        })?;
        if !is_readable {
            return Err(fault::ignored(doing, "it cannot be read after the format"));
        }
        progress(Percent(100));
        match kept(&before, &after) {
            None => Ok(()),
            Some(at) => {
                let evidence = format!("it reads at {at:#x} what it read before the format");
                Err(fault::ignored(doing, evidence))
            }
        }
    }
}

/// What is erased.
#[derive(Clone, Copy)]
struct Target<'a> {
    doing: &'a str,
    name: &'a str,
    nsid: u32,
    layout: &'a Layout,
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
