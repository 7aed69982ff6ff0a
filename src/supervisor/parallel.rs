//! Work on all of a guest's memory, on as many processors as this process may use, and what the operator hears meanwhile.
//!
//! On entry: one thread. On exit: one thread, whatever came of the work.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::sys::thrift;

/// How much is done at a time: a call costs nothing against it, and an operator who stops the run waits no longer for it.
const STEP_BYTES: usize = 64 << 20;
/// More do not make memory any faster.
const MAX_THREADS: usize = 16;
/// What a thread calls is not deep.
const STACK_BYTES: usize = 64 << 10;

/// On how many threads to work: of the processors that this process may use, and its share of their time.
pub(super) fn processors() -> usize {
    // One that cannot be asked is one.
    thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS))
}

/// Who does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    /// The thread that asked for the work.
    Own,
    /// One that was started for it; there may be several at once.
    Helper,
}

/// Does `work` on all of `[0, len_bytes)`, in steps that are multiples of `page_bytes`, on up to `threads` threads, and tells
/// `told` how much is done. How many threads there were.
///
/// # Errors
/// What came of the first step that failed; no other is begun after it, and all threads have ended.
pub(super) fn in_steps(
    len_bytes: usize,
    page_bytes: usize,
    threads: usize,
    work: impl Fn(Hand, usize, usize) -> io::Result<()> + Sync,
    told: impl FnMut(usize),
) -> io::Result<usize> {
    let step = STEP_BYTES.next_multiple_of(page_bytes.max(1));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = OnceLock::new();
    let some = |hand: Hand, told: &mut dyn FnMut(usize)| {
        while failed.get().is_none() {
            let from = next.fetch_add(step, Ordering::Relaxed);
            let Some(left) = len_bytes.checked_sub(from).filter(|left| *left > 0) else {
                return;
            };
            let len = step.min(left);
            match work(hand, from, len) {
                Ok(()) => told(done.fetch_add(len, Ordering::Relaxed) + len),
                // It is there already: the first one counts.
                Err(error) => drop(failed.set(error)),
            }
        }
    };
    // Helpers have no heap of their own, which would stay behind.
    thrift::keep_one_heap();
    let helpers = threads.min(len_bytes.div_ceil(step)).saturating_sub(1);
    let (lost, count) = thread::scope(|scope| {
        let help = || some(Hand::Helper, &mut |_| {});
        let spawn = |_| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            // Where there may be no more, as many as there are do it.
            builder.spawn_scoped(scope, help).ok()
        };
        let helpers: Vec<_> = (0..helpers).map_while(spawn).collect();
        some(Hand::Own, &mut { told });
        let count = helpers.len();
        // Not by the end of the scope, which does not wait until the threads themselves are gone.
        let ended = helpers.into_iter().map(|helper| helper.join());
        (ended.filter(Result::is_err).count(), count + 1)
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None if lost > 0 => Err(io::Error::other("a thread has ended before its work")),
        None => Ok(count),
    }
}

/// When the operator hears of work that takes long.
#[derive(Debug)]
pub(super) struct Progress {
    /// What the memory is when it is done.
    what: &'static str,
    next: Duration,
}

impl Progress {
    /// Work of less than this is not worth a word.
    const PATIENCE: Duration = Duration::from_secs(1);
    /// From one line to the next.
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Of work that makes memory `what`.
    pub(super) const fn new(what: &'static str) -> Self {
        Self {
            what,
            next: Self::PATIENCE,
        }
    }

    /// The line for `done` of `all` bytes after `elapsed`, if it is time for one.
    pub(super) fn line(&mut self, elapsed: Duration, done: usize, all: usize) -> Option<String> {
        if elapsed < self.next || done == 0 || done >= all {
            return None;
        }
        self.next = elapsed + Self::INTERVAL;
        let (done_mib, all_mib, what) = (done >> 20, all >> 20, self.what);
        let left = elapsed.as_secs_f64() * (all - done) as f64 / done as f64;
        Some(format!(
            "{done_mib} of {all_mib} MiB of RAM are {what}, the rest in about {left:.0} s"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Mutex, time::Instant};

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn every_byte_is_worked_on_once_by_few_calls_and_no_thread_is_left() {
        for (len, page, threads) in [
            (1, 4096, 4),
            (STEP_BYTES, 4096, 4),
            (5 * STEP_BYTES + 4096, 4096, 3),
            (20 * STEP_BYTES, 2 * MIB, MAX_THREADS),
            (3 << 30, 1 << 30, 2),
            (7 * STEP_BYTES, 4096, 1),
        ] {
            let steps = Mutex::new(Vec::new());
            let mut last = 0;
            let own = thread::current().id();
            let note = |hand, from, len| {
                assert_eq!(hand == Hand::Own, thread::current().id() == own);
                steps.lock().unwrap().push((from, len));
                Ok(())
            };
            let told = |done: usize| {
                assert_eq!(thread::current().id(), own);
                assert!(done > last);
                last = done;
            };
            let count = in_steps(len, page, threads, note, told).unwrap();
            assert!(count <= threads, "{count} threads");
            let mut steps = steps.into_inner().unwrap();
            steps.sort_unstable();
            assert_eq!(steps.len(), len.div_ceil(STEP_BYTES.next_multiple_of(page)));
            let end = steps.iter().fold(0, |end, (from, len)| {
                assert!(*from == end && from % page == 0);
                from + len
            });
            assert_eq!(end, len);
        }
    }

    #[test]
    fn the_first_error_is_told_and_ends_the_work() {
        for threads in [1, 4] {
            let steps = AtomicUsize::new(0);
            let fail = |_, from: usize, _| match steps.fetch_add(1, Ordering::SeqCst) {
                2 => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
                // Others go on until they notice.
                _ => {
                    thread::sleep(Duration::from_millis(from as u64 % 2 + 1));
                    Ok(())
                }
            };
            let failed = in_steps(1000 * STEP_BYTES, 4096, threads, fail, |_| {}).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(libc::ENOMEM));
            assert!(steps.into_inner() <= 3 + 2 * threads);
        }
    }

    #[test]
    fn work_is_told_of_only_when_it_lasts_and_then_seldom() {
        let mut progress = Progress::new("present");
        let mut line =
            |millis, done| progress.line(Duration::from_millis(millis), done * MIB, 4096 * MIB);
        assert_eq!(line(999, 1000), None);
        let first = line(1000, 1024).unwrap();
        assert_eq!(
            first,
            "1024 of 4096 MiB of RAM are present, the rest in about 3 s"
        );
        assert_eq!(line(5999, 2000), None);
        assert!(line(6000, 3072).unwrap().ends_with("the rest in about 2 s"));
        // Its end is told by the step that follows.
        assert_eq!(line(60_000, 4096), None);
        assert_eq!(
            Progress::new("present").line(Duration::from_secs(9), 0, 1),
            None
        );
    }

    #[test]
    fn helpers_are_gone_when_the_work_is() {
        let tasks = || fs::read_dir("/proc/self/task").unwrap().count();
        let helpers = Mutex::new(Vec::new());
        let note = |_, _, _| {
            helpers.lock().unwrap().push(rustix::thread::gettid());
            thread::sleep(Duration::from_millis(5));
            Ok(())
        };
        assert!(in_steps(16 * STEP_BYTES, 4096, 4, note, |_| {}).unwrap() > 1);
        let own = rustix::thread::gettid();
        let there = |tid: &rustix::thread::Pid| {
            *tid != own && fs::exists(format!("/proc/self/task/{}", tid.as_raw_pid())).unwrap()
        };
        // The kernel takes a moment to forget a thread that has been joined.
        let patience = Instant::now() + Duration::from_secs(5);
        while helpers.lock().unwrap().iter().any(there) {
            assert!(Instant::now() < patience, "{} tasks", tasks());
            thread::yield_now();
        }
    }
}
