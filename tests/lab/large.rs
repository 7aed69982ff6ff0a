//! A guest whose RAM goes on above 4 GiB, on a lab host that has as much.

use crate::{guest::GuestFile, host, small::assert_nvme};

#[test]
#[ignore = "needs a lab host"]
fn guest_with_ram_above_4_gib_does_dma_there() {
    let transcript = GuestFile::small("large", "mem,nvme")
        .memory("4608M")
        .device(&host::nvme(0))
        .run();
    let kib: u64 = transcript.facts("mem-kib", "")["mem-kib"].parse().unwrap();
    assert!(kib > 4 << 20, "{kib} KiB");
    assert_nvme(&transcript, 0);
    // Below the hole and above 4 GiB.
    assert_eq!(transcript.stat("/dma/mappings"), 2);
    assert_eq!(transcript.stat("/dma/bytes"), 4608 << 20);
    host::assert_returned(&host::nvme(0));
}
