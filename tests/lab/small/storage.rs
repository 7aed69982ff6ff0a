//! Data of NVMe VFs, and images that a guest sees as persistent memory.

use super::{IOMMUFD, TYPE1, assert_only_vfs};
use crate::{
    guest::{GuestFile, Transcript},
    host,
};

#[test]
#[ignore = "needs a lab host"]
fn nvme_vf_keeps_what_the_guest_writes_by_type1() {
    nvme_keeps_data(TYPE1);
}

#[test]
#[ignore = "needs a lab host"]
fn nvme_vf_keeps_what_the_guest_writes_by_iommufd() {
    nvme_keeps_data(IOMMUFD);
}

fn nvme_keeps_data(interface: &str) {
    let transcript = GuestFile::small("nvme", "lspci,nvme")
        .key(interface)
        .device(&host::nvme(0))
        .run();
    assert_nvme(&transcript, 0);
    assert_only_vfs(&transcript, &["1b36:0010"]);
    host::assert_returned(&host::nvme(0));
}

/// Fails unless the guest read what it wrote, and the host reads the same bytes from the namespace afterwards.
pub(crate) fn assert_nvme(transcript: &Transcript, index: usize) {
    let nvme = transcript.facts("nvme", "same=");
    assert_eq!(nvme["same"], "yes", "{}", transcript.text());
    let device = host::namespace(index);
    let line = host::shell(&format!(
        "dd if={} bs=64k skip=1 count=16 iflag=direct 2>/dev/null | sha256sum",
        device.display()
    ));
    assert_eq!(
        line.split_whitespace().next(),
        Some(nvme["wrote"].as_str()),
        "the host sees other bytes"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn image_is_persistent_memory_that_the_guest_reads_only() {
    let sum = make_image();
    let before = host::shell("sha256sum </tmp/image");
    let transcript = GuestFile::small("image", "pmem-raw,pmem-write,pmem")
        .table("[root]\nimage = \"/tmp/image\"")
        .run();
    let raw = transcript.facts("pmem-raw", "");
    assert_eq!(raw["bytes"], "8388608");
    assert!(
        before.starts_with(raw["sha256"].as_str()),
        "{}",
        transcript.text()
    );
    assert_eq!(
        transcript.facts("pmem-write", "")["changed"],
        "no",
        "{}",
        transcript.text()
    );
    assert_image_is(&before);
    let file = transcript.facts("pmem-file", "");
    assert_eq!(
        (file["pmem-file"].as_str(), file["sha256"].as_str()),
        ("claim", sum.as_str())
    );
}

#[test]
#[ignore = "needs a lab host"]
fn private_copy_of_an_image_leaves_the_image_alone() {
    let sum = make_image();
    let before = host::shell("sha256sum </tmp/image");
    let transcript = GuestFile::small("image-copy", "pmem,pmem-write")
        .table("[root]\nimage = \"/tmp/image\"\nmode = \"copy\"")
        .run();
    assert_eq!(transcript.facts("pmem-file", "")["sha256"], sum);
    assert_eq!(
        transcript.facts("pmem-write", "")["status"],
        "ok",
        "{}",
        transcript.text()
    );
    assert_image_is(&before);
}

/// The image still has the checksum that it had before the guest.
fn assert_image_is(before: &str) {
    let now = host::shell("sha256sum </tmp/image");
    assert_eq!(now, before, "the guest wrote to the image itself");
}

/// Makes an image of 8 MiB with one file, and gives the file's checksum.
fn make_image() -> String {
    host::shell(
        "cd /tmp && head -c 8388608 /dev/zero >image && mke2fs -F image >/dev/null 2>&1 && mkdir -p tree && \
         mount -t ext2 -o loop image tree && head -c 300000 /dev/urandom >tree/claim && \
         sha256sum tree/claim | cut -c 1-64 && umount tree",
    )
    .trim()
    .to_owned()
}
