//! Guests of every size, kernels of both forms, RAM on huge pages.

use super::assert_nvme;
use crate::{guest::GuestFile, host};

#[test]
#[ignore = "needs a lab host"]
fn guest_with_sixteen_vcpus_has_them_all() {
    let transcript = GuestFile::small("sixteen", "cpus,nvme")
        .vcpus(16)
        .memory("256M")
        .device(&host::nvme(0))
        .run();
    assert_eq!(transcript.facts("cpus", "")["cpus"], "16");
    assert_nvme(&transcript, 0);
}

#[test]
#[ignore = "needs a lab host"]
fn guest_with_64_mib_runs() {
    let transcript = GuestFile::small("tiny", "mem,nvme")
        .memory("64M")
        .device(&host::nvme(0))
        .run();
    let kib: u64 = transcript.facts("mem-kib", "")["mem-kib"].parse().unwrap();
    assert!((24 << 10..64 << 10).contains(&kib), "{kib} KiB");
    assert_nvme(&transcript, 0);
}

#[test]
#[ignore = "needs a lab host"]
fn guest_on_huge_pages_takes_and_returns_them() {
    let free = || {
        host::shell("sed -n 's/^HugePages_Free: *//p' /proc/meminfo")
            .trim()
            .to_owned()
    };
    let before = free();
    let mut guest = GuestFile::small("huge", "nvme,sleep:3")
        .huge_memory("128M", "2M")
        .device(&host::nvme(0))
        .start();
    guest.wait_for("GUEST nvme=nvme0n1 bytes");
    let during = free();
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    assert_nvme(&transcript, 0);
    let count = |text: &str| -> u64 { text.parse().unwrap() };
    assert_eq!(
        count(&before) - count(&during),
        64,
        "128 MiB are 64 pages of 2 MiB"
    );
    assert_eq!(free(), before);
}

#[test]
#[ignore = "needs a lab host"]
fn compressed_kernel_starts_by_its_64_bit_entry() {
    // The other guests here start an ELF file by PVH, which saves the decompression.
    let transcript = GuestFile::small("bzimage", "nvme")
        .kernel("/lab/guest/vmlinuz-lab")
        .device(&host::nvme(0))
        .run();
    assert_nvme(&transcript, 0);
}
