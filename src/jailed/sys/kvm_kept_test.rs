use super::*;
use core::sync::atomic::{AtomicBool, AtomicU64};

const START: usize = 4096;

/// The second page of two, which has a ring.
fn ring() -> (Shared, KeptWrites) {
    let shared = Shared::anonymous(2 * 4096);
    (shared, KeptWrites::new(shared, 1).unwrap())
}

fn word(shared: Shared, offset: usize, value: u32) {
    shared.word(START + offset).store(value, Ordering::Release);
}

/// The write that waits longest.
fn take(ring: KeptWrites) -> Result<Option<KeptWrite>, BadRing> {
    let mut taken = None;
    let has_taken = ring.next(|write| taken = Some(write))?;
    assert_eq!(has_taken, taken.is_some());
    Ok(taken)
}

/// Does as KVM does.
fn keep(shared: Shared, address: u64, size: u32, is_port: u32, data: u32) -> bool {
    let load = |of| shared.word(START + of).load(Ordering::Acquire);
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
    assert_eq!(take(ring), Ok(None));
    // More than the ring has, so that it wraps.
    for nth in 0..500_u32 {
        assert!(ring.is_done());
        assert!(keep(shared, 0x3F8, 1, 1, nth));
        assert!(keep(shared, 0xCF8, 4, 1, !nth));
        assert!(!ring.is_done());
        let [value, ..] = nth.to_le_bytes();
        let (byte, long) = (take(ring).unwrap(), take(ring).unwrap());
        let expected = |port, size_bytes, value| KeptWrite {
            port,
            size_bytes,
            value,
        };
        assert_eq!(byte, Some(expected(0x3F8, 1, u32::from(value))));
        assert_eq!(long, Some(expected(0xCF8, 4, !nth)));
        assert_eq!(take(ring), Ok(None));
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
        assert!(take(ring).unwrap().is_some());
    }
    assert_eq!(take(ring), Ok(None));
}

#[test]
fn positions_behind_the_ring_are_refused() {
    for (first, last) in [(170, 0), (0, 170), (u32::MAX, 0), (0, u32::MAX), (171, 171)] {
        let (shared, ring) = ring();
        word(shared, kept::FIRST, first);
        word(shared, kept::LAST, last);
        assert_eq!(take(ring), Err(BadRing(u64::from(first.max(last)))));
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
        assert_eq!(take(ring), Err(BadRing(address)));
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
        assert!(take(ring).is_err());
    }
}

#[test]
fn a_write_that_another_vcpu_is_at_is_not_done() {
    let (shared, ring) = ring();
    assert!(keep(shared, 0x3F8, 1, 1, 7));
    assert!(!ring.is_done());
    let mut seen = None;
    // What another vCPU sees that looks just now.
    assert_eq!(ring.next(|_| seen = Some(ring.is_done())), Ok(true));
    assert_eq!(
        seen,
        Some(false),
        "it would answer its exit before that byte"
    );
    assert!(ring.is_done());
    // Nor is it lost where it makes no sense.
    assert!(keep(shared, 0x1_0000, 1, 1, 7));
    assert_eq!(ring.next(|_| ()), Err(BadRing(0x1_0000)));
    assert!(!ring.is_done());
}

#[test]
fn a_vcpu_that_has_caught_up_finds_all_done_that_waited_when_it_asked() {
    const WRITES: u64 = 2_000;
    let (shared, ring) = ring();
    let lock = Spin::new(());
    let (kept, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let look = || {
        let before = kept.load(Ordering::Acquire);
        ring.catch_up(&lock, |(), write| {
            // Long enough for others to look meanwhile.
            std::thread::yield_now();
            let nth = done.fetch_add(1, Ordering::Release);
            assert_eq!(u64::from(write.value), nth & 0xFF, "in their order");
        })
        .unwrap();
        before.saturating_sub(done.load(Ordering::Acquire))
    };
    let late: u64 = std::thread::scope(|scope| {
        let vcpus: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut late = 0;
                    while !is_over.load(Ordering::Acquire) {
                        late += look();
                    }
                    late
                })
            })
            .collect();
        for nth in 0..WRITES {
            let value = u32::try_from(nth).unwrap();
            while !keep(shared, 0x3F8, 1, 1, value) {
                std::thread::yield_now();
            }
            kept.store(nth + 1, Ordering::Release);
            // The last of a few is waited for, as by a guest that asks V for nothing else.
            while nth % 3 == 0 && done.load(Ordering::Acquire) <= nth {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Release);
        vcpus.into_iter().map(|vcpu| vcpu.join().unwrap()).sum()
    });
    assert_eq!(late, 0, "writes that were not done before an answer");
    assert_eq!(look(), 0);
    assert_eq!(done.load(Ordering::Relaxed), WRITES);
}

#[test]
fn a_vcpu_does_no_more_than_a_ring_of_others_writes() {
    let (shared, ring) = ring();
    let lock = Spin::new(0_u32);
    assert!(keep(shared, 0x80, 1, 1, 0));
    // As fast as it does them, others write more.
    ring.catch_up(&lock, |done, _| {
        *done += 1;
        assert!(*done <= KeptWrites::MOST);
        assert!(keep(shared, 0x80, 1, 1, 0));
    })
    .unwrap();
    lock.with(|done| assert_eq!(*done, KeptWrites::MOST));
}
