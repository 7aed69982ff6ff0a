use super::*;

const START: usize = 4096;

/// The second page of two, which has a ring.
fn ring() -> (Shared, KeptWrites) {
    let shared = Shared::anonymous(2 * 4096);
    (shared, KeptWrites::new(shared, 1).unwrap())
}

fn word(shared: Shared, offset: usize, value: u32) {
    shared.word(START + offset).store(value, Ordering::Relaxed);
}

/// Does as KVM does.
fn keep(shared: Shared, address: u64, size: u32, is_port: u32, data: u32) -> bool {
    let load = |of| shared.word(START + of).load(Ordering::Relaxed);
    let (first, last) = (load(kept::FIRST), load(kept::LAST));
    let next = (last + 1) % kept::ENTRIES;
    if next == first {
        return false;
    }
    let at = kept::HEAD_BYTES + last as usize * kept::ENTRY_BYTES;
    shared.long(START + at).store(address, Ordering::Relaxed);
    word(shared, at + kept::LEN, size);
    word(shared, at + kept::IS_PORT, is_port);
    word(shared, at + kept::DATA, data);
    word(shared, kept::LAST, next);
    true
}

#[test]
fn writes_are_taken_in_their_order_and_once() {
    let (shared, ring) = ring();
    assert_eq!(ring.take(), Ok(None));
    // More than the ring has, so that it wraps.
    for nth in 0..500_u32 {
        assert!(ring.is_empty());
        assert!(keep(shared, 0x3F8, 1, 1, nth));
        assert!(keep(shared, 0xCF8, 4, 1, !nth));
        assert!(!ring.is_empty());
        let [value, ..] = nth.to_le_bytes();
        let (byte, long) = (ring.take().unwrap(), ring.take().unwrap());
        let expected = |port, size_bytes, value| KeptWrite {
            port,
            size_bytes,
            value,
        };
        assert_eq!(byte, Some(expected(0x3F8, 1, u32::from(value))));
        assert_eq!(long, Some(expected(0xCF8, 4, !nth)));
        assert_eq!(ring.take(), Ok(None));
    }
}

#[test]
fn a_full_ring_gives_all_but_one_of_its_places() {
    let (shared, ring) = ring();
    let filled = (0..1000)
        .take_while(|_| keep(shared, 0x80, 1, 1, 0))
        .count();
    assert_eq!(filled, 169);
    for _ in 0..filled {
        assert!(ring.take().unwrap().is_some());
    }
    assert_eq!(ring.take(), Ok(None));
}

#[test]
fn positions_behind_the_ring_are_refused() {
    for (first, last) in [(170, 0), (0, 170), (u32::MAX, 0), (0, u32::MAX), (171, 171)] {
        let (shared, ring) = ring();
        word(shared, kept::FIRST, first);
        word(shared, kept::LAST, last);
        assert_eq!(ring.take(), Err(BadRing(u64::from(first.max(last)))));
    }
}

#[test]
fn what_is_no_write_to_a_port_is_refused() {
    for (address, size, is_port) in [
        (0x1_0000, 1, 1),
        (u64::MAX, 1, 1),
        (0x80, 0, 1),
        (0x80, 3, 1),
        (0x80, 8, 1),
        (0x80, u32::MAX, 1),
        (0x80, 1, 0),
        (0x80, 1, 2),
    ] {
        let (shared, ring) = ring();
        assert!(keep(shared, address, size, is_port, 0));
        assert_eq!(ring.take(), Err(BadRing(address)));
    }
}

#[test]
fn a_page_that_is_not_there_is_no_ring() {
    let shared = Shared::anonymous(2 * 4096);
    assert!(KeptWrites::new(shared, 0).is_some());
    for page in [2, 3, usize::MAX / 4096, usize::MAX] {
        assert!(KeptWrites::new(shared, page).is_none());
    }
}

#[test]
fn no_contents_of_the_page_lead_out_of_it() {
    let (shared, ring) = ring();
    // Every place once, of bytes that are no entries: `word` and `long` would end the process outside of the page.
    for at in (0..4096).step_by(4) {
        word(
            shared,
            at,
            u32::try_from(at).unwrap().wrapping_mul(0x9E37_79B9),
        );
    }
    for first in 0..kept::ENTRIES {
        word(shared, kept::FIRST, first);
        word(shared, kept::LAST, (first + 1) % kept::ENTRIES);
        assert!(ring.take().is_err());
    }
}
