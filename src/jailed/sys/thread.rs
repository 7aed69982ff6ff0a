//! Threads without libc: memory that is never freed, and `clone`.
//!
//! On entry of a thread: an own stack with a page below it that faults, the process's descriptors and memory, no
//! thread-local storage. A thread never returns: it ends with the process.

use core::arch::asm;

use super::lock::seal;
use super::syscall::flag::{CLONE_THREAD, MADV_DONTNEED, MAP_FRESH, PROT_READ_WRITE};
use super::syscall::{Errno, call, number};

const PAGE_BYTES: usize = 4096;
/// More than twice what the first thread uses at most, which is for making a filter. How deep the stack is costs nothing:
/// pages that nobody writes to are not there.
const FIRST_STACK_BYTES: usize = 512 << 10;

/// Moves `value` to pages of its own, which live as long as the process.
///
/// # Errors
/// The errno of `mmap` or `mseal`.
pub fn forever<T>(value: T) -> Result<&'static mut T, Errno> {
    const { assert!(align_of::<T>() <= PAGE_BYTES) };
    let size_bytes = size_of::<T>().max(1).next_multiple_of(PAGE_BYTES);
    let place: *mut T = map(size_bytes)?.cast();
    seal(place.addr(), size_bytes)?;
    // SAFETY: the mapping is fresh, large enough, page aligned and ours alone.
    unsafe { place.write(value) };
    // SAFETY: it was initialised above, nobody else knows the address, and it is never unmapped.
    Ok(unsafe { &mut *place })
}

/// A type of which memory full of zeroes is a value.
///
/// # Safety
/// 1. Zeroes in every byte are a value of it.
pub unsafe trait Zeroed {}

/// A value of zeroes in pages of its own, which live as long as the process. Those that nobody writes to are never there.
///
/// # Errors
/// The errno of `mmap` or `mseal`.
pub fn zeroed<T: Zeroed>() -> Result<&'static mut T, Errno> {
    const { assert!(align_of::<T>() <= PAGE_BYTES) };
    let size_bytes = size_of::<T>().max(1).next_multiple_of(PAGE_BYTES);
    let place: *mut T = map(size_bytes)?.cast();
    seal(place.addr(), size_bytes)?;
    // SAFETY: the mapping is fresh and so zeroed, which is a value; it is large enough, page aligned, ours alone, and
    // never unmapped.
    Ok(unsafe { &mut *place })
}

/// A copy of `values` in pages of its own, which live as long as the process.
///
/// # Errors
/// The errno of `mmap` or `mseal`.
pub fn copied<T: Copy>(values: &[T]) -> Result<&'static [T], Errno> {
    const { assert!(align_of::<T>() <= PAGE_BYTES) };
    let size_bytes = size_of_val(values).max(1).next_multiple_of(PAGE_BYTES);
    let place: *mut T = map(size_bytes)?.cast();
    seal(place.addr(), size_bytes)?;
    // SAFETY: the mapping is fresh, as large as the values, page aligned and ours alone.
    unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
    // SAFETY: the values were written above, nobody writes to them again, and they are never unmapped.
    Ok(unsafe { core::slice::from_raw_parts(place, values.len()) })
}

/// Starts a thread that runs `entry(context, index)` on a stack of `stack_bytes` bytes.
///
/// # Errors
/// The errno of `mmap`, `mprotect`, `mseal` or `clone`.
pub fn spawn<T: Sync>(
    entry: fn(&'static T, usize) -> !,
    context: &'static T,
    index: usize,
    stack_bytes: usize,
) -> Result<(), Errno> {
    let stack_bytes = stack_bytes.next_multiple_of(PAGE_BYTES);
    let base = map(stack_bytes + PAGE_BYTES)?;
    // Kept as a page that faults: in a hole, the next mapping would end up.
    // SAFETY: 1. the page is the lowest of the mapping above, which nobody else knows.
    unsafe { call(number::MPROTECT, [base.addr(), PAGE_BYTES, 0, 0, 0, 0])? };
    seal(base.addr(), stack_bytes + PAGE_BYTES)?;
    // The argument of `begin` at the top, and a multiple of 16 below it.
    let begin_with = Begin {
        entry,
        context,
        index,
    };
    let top =
        base.wrapping_add(stack_bytes + PAGE_BYTES - size_of::<Begin<T>>().next_multiple_of(16));
    // SAFETY: `top` is aligned and leaves room for a `Begin` within the mapping.
    unsafe { top.cast::<Begin<T>>().write(begin_with) };
    let start: unsafe extern "C" fn(*const Begin<T>) -> ! = begin::<T>;
    let result: isize;
    // SAFETY: `start` lies in a register that the call keeps; the child starts on a stack of its own, finds its argument there and never comes back to this frame; the
    // parent keeps its own stack, and the kernel clobbers rcx and r11 of both.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, rsp",
            "call r9",
            "ud2",
            "2:",
            in("r9") start,
            inlateout("rax") number::CLONE => result,
            in("rdi") CLONE_THREAD, in("rsi") top.addr(), in("rdx") 0, in("r10") 0, in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    match u32::try_from(result.wrapping_neg()) {
        Ok(errno @ 1..4096) => Err(Errno(errno)),
        _ => Ok(()),
    }
}

/// Makes the first thread's stack as deep as it ever gets, so that it need not grow once nothing more may be mapped, and
/// gives back the pages below the caller's frame, which building has used.
///
/// # Errors
/// The errno of `madvise`.
#[inline(never)]
pub fn settle_stack() -> Result<(), Errno> {
    let here = 0_u8;
    let frame = core::ptr::from_ref(core::hint::black_box(&here)).addr() & !(PAGE_BYTES - 1);
    // This frame is shorter than a page, and where it ends is below `here`.
    let end = frame - PAGE_BYTES;
    let lowest = end - FIRST_STACK_BYTES;
    // SAFETY: the kernel makes the stack as deep as what is touched, within its limit; below this frame nothing is kept.
    unsafe { asm!("mov byte ptr [{}], 0", in(reg) lowest) };
    let args = [lowest, FIRST_STACK_BYTES, MADV_DONTNEED, 0, 0, 0];
    // SAFETY: 1. the range is the stack below this frame, where nothing is kept: it reads as zeroes from here on.
    unsafe { call(number::MADVISE, args) }.map(drop)
}

/// What a thread starts with.
struct Begin<T: 'static> {
    entry: fn(&'static T, usize) -> !,
    context: &'static T,
    index: usize,
}

/// The first function of a thread.
///
/// # Safety
/// 1. `begin_with` was written by the parent and is read once.
unsafe extern "C" fn begin<T: Sync>(begin_with: *const Begin<T>) -> ! {
    // SAFETY: 1. is the caller's.
    let begin_with = unsafe { begin_with.read() };
    (begin_with.entry)(begin_with.context, begin_with.index)
}

/// Fresh zeroed memory of this process.
fn map(size_bytes: usize) -> Result<*mut u8, Errno> {
    let args = [0, size_bytes, PROT_READ_WRITE, MAP_FRESH, usize::MAX, 0];
    // SAFETY: 1. the kernel chooses the address, so no memory of ours is replaced.
    let base = unsafe { call(number::MMAP, args)? };
    Ok(core::ptr::with_exposed_provenance_mut(base))
}

#[cfg(test)]
mod thread_test {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::sys::futex;

    /// Leaves its mark deep in the stack; where.
    #[inline(never)]
    fn mark_deep_stack() -> usize {
        let deep = [0x5A_u8; FIRST_STACK_BYTES / 4];
        core::hint::black_box(&deep).as_ptr().addr()
    }

    #[test]
    fn what_building_left_in_the_stack_is_gone_and_the_callers_frame_is_not() {
        let kept = core::hint::black_box([0x77_u8; 3 * PAGE_BYTES]);
        let marked = mark_deep_stack();
        settle_stack().unwrap();
        let byte: *const u8 = core::ptr::with_exposed_provenance(marked);
        // SAFETY: it lies in this thread's stack, which is mapped, below every frame in use.
        assert_eq!(unsafe { byte.read_volatile() }, 0);
        assert!(
            core::hint::black_box(&kept)
                .iter()
                .all(|byte| *byte == 0x77)
        );
    }

    #[test]
    fn values_are_copied_whole_and_zeroes_are_zeroes() {
        let values: Vec<u64> = (0..2000).collect();
        assert_eq!(copied(&values).unwrap(), values);
        assert_eq!(copied::<u64>(&[]).unwrap(), []);
        let routes = zeroed::<crate::sys::kvm_abi::RouteList>().unwrap();
        assert!(routes.as_slice().is_empty());
    }

    fn entry(word: &'static AtomicU32, index: usize) -> ! {
        word.store(u32::try_from(index).unwrap_or(0), Ordering::SeqCst);
        futex::wake(word);
        loop {
            core::hint::black_box(futex::wait(word, 7, None).is_ok());
        }
    }

    #[test]
    fn thread_gets_its_context_and_index() {
        let word: &'static AtomicU32 = forever(AtomicU32::new(0)).unwrap();
        spawn(entry, word, 7, 65536).unwrap();
        while word.load(Ordering::SeqCst) == 0 {
            core::hint::black_box(futex::wait(word, 0, Some(10)).is_ok());
        }
        assert_eq!(word.load(Ordering::SeqCst), 7);
    }
}
