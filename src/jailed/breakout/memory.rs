//! Memory: shared with others, executable, more of it.

use super::{
    attempt::attempt,
    calls,
    record::Tried,
    tries::{Tries, at, judge, then},
    words::{QUEUE, SEGMENT},
};
use crate::manifest::start_page;

const READ_WRITE: usize = 3;
const EXECUTE: usize = 4;
const READ_EXECUTE: usize = 5;
const PRIVATE_ANONYMOUS: usize = 0x22;
const FIXED: usize = 0x10;
const PAGE: usize = 4096;

/// A44: shared memory and queues of the host's, by key and by name.
pub(super) fn shared(tries: &mut Tries<'_>) {
    tries.call(calls::SHMGET, [SEGMENT, 0, 0, 0, 0, 0]);
    tries.call(calls::MQ_OPEN, [at(QUEUE), 0, 0, 0, 0, 0]);
}

/// C12: new code. In text, in data, in fresh pages, from memory files.
pub(super) fn new_code(tries: &mut Tries<'_>) {
    let page_of = |address: usize| address & !(PAGE - 1);
    let text = page_of(text_address());
    let mut data = [0_u8; 8];
    let stack = page_of(data.as_mut_ptr().expose_provenance());
    let fresh = |protection| {
        attempt(
            calls::MMAP,
            [0, PAGE, protection, PRIVATE_ANONYMOUS, calls::NONE, 0],
        )
    };
    tries.one(|| judge(fresh(READ_WRITE | EXECUTE), &[]));
    tries.call(
        calls::MPROTECT,
        [stack, PAGE, READ_WRITE | EXECUTE, 0, 0, 0],
    );
    tries.call(calls::MPROTECT, [text, PAGE, READ_WRITE | EXECUTE, 0, 0, 0]);
    // Not of the stack: where it works the process would have none to go on with.
    tries.one(|| {
        then(fresh(READ_WRITE), &[], |page| {
            judge(
                attempt(
                    calls::PKEY_MPROTECT,
                    [page, PAGE, READ_EXECUTE, calls::NONE, 0, 0],
                ),
                &[],
            )
        })
    });
    tries.one(|| {
        then(fresh(READ_WRITE), &[], |page| {
            judge(
                attempt(calls::MPROTECT, [page, PAGE, READ_EXECUTE, 0, 0, 0]),
                &[],
            )
        })
    });
    tries.one(|| {
        let file = attempt(calls::MEMFD_CREATE, [at("x\0"), 0, 0, 0, 0, 0]);
        then(file, &[], |fd| {
            judge(attempt(calls::MMAP, [0, PAGE, READ_EXECUTE, 2, fd, 0]), &[])
        })
    });
    // What every readable page becomes executable by.
    const READ_IMPLIES_EXEC: usize = 0x40_0000;
    tries.call(calls::PERSONALITY, [READ_IMPLIES_EXEC, 0, 0, 0, 0, 0]);
    replaced_mappings(tries);
}

/// C12, too: what is mapped already, replaced, moved, or given other rights.
fn replaced_mappings(tries: &mut Tries<'_>) {
    const MAY_MOVE: usize = 1;
    const READ_ONLY: usize = 1;
    let constants = at(QUEUE) & !(PAGE - 1);
    let window = usize::try_from(start_page::RING).unwrap_or(calls::NONE);
    tries.call(calls::MPROTECT, [constants, PAGE, READ_WRITE, 0, 0, 0]);
    tries.call(calls::MPROTECT, [window, PAGE, READ_ONLY, 0, 0, 0]);
    tries.call(calls::MREMAP, [window, PAGE, 2 * PAGE, MAY_MOVE, 0, 0]);
    let flags = PRIVATE_ANONYMOUS | FIXED;
    tries.call(
        calls::MMAP,
        [window, PAGE, READ_WRITE, flags, calls::NONE, 0],
    );
}

/// C23: more memory, and memory that is never given back.
pub(super) fn growth(tries: &mut Tries<'_>) {
    const LARGE: usize = 64 << 20;
    const CURRENT: usize = 1;
    const POPULATE: usize = 0x8000;
    // `brk` answers with where the end is; it moved where it answers with what was asked for.
    tries.one(|| {
        then(attempt(calls::BRK, [0; 6]), &[], |end| {
            match attempt(calls::BRK, [end + LARGE, 0, 0, 0, 0, 0]) {
                Ok(now) if now < end + LARGE => Tried::Blocked(12),
                other => judge(other, &[]),
            }
        })
    });
    tries.call(
        calls::MMAP,
        [
            0,
            LARGE,
            READ_WRITE,
            PRIVATE_ANONYMOUS | POPULATE,
            calls::NONE,
            0,
        ],
    );
    let mut data = [0_u8; 8];
    let stack = data.as_mut_ptr().expose_provenance() & !(PAGE - 1);
    tries.call(calls::MLOCK, [stack, PAGE, 0, 0, 0, 0]);
    tries.call(calls::MLOCKALL, [CURRENT, 0, 0, 0, 0, 0]);
}

/// An address in the program's text.
fn text_address() -> usize {
    let here: fn(&mut Tries<'_>) = new_code;
    (here as *const ()).addr()
}
