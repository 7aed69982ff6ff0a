//! The lock-down for real: in children of the test that put the filters on and then try.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::handoff::{Handoff, VcpuFds};
use crate::lock::{Lock, StartPage};
use crate::manifest::sample::guest;
use crate::manifest::start_page::{self, LAYERS, LOCKED, STATE};
use crate::manifest::{
    ARCH, Operand, Phase, Role, Rules, SeccompData, X32, layer, limits, program,
};
use crate::sys::futex;
use crate::sys::shared::Shared;
use crate::sys::syscall::exit_group;
use crate::sys::thread::{forever, spawn};

const SIGSYS: i32 = 31;
const SIGSEGV: i32 = 11;
const SIGILL: i32 = 4;
/// `uretprobe` and `uprobe`: newer kernels do not show them to filters. Made from elsewhere than the code that the kernel
/// itself maps for a tracer, the first ends the process and the second fails.
///
/// *Source:* `kernel/seccomp.c` and `arch/x86/kernel/uprobes.c` (v6.18).
const PROBES: [u32; 2] = [335, 336];
/// What a child ends with where its call was let through.
const LET_THROUGH: u8 = 99;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exited(i32),
    Killed(i32),
}

/// Runs `child` in a copy of this process that has this thread only: the child allocates nothing and takes no lock.
fn fork(child: impl FnOnce()) -> usize {
    const SIGCHLD: usize = 17;
    // SAFETY: 1. without a stack of its own, the child goes on with a copy of this one, in memory of its own.
    let pid = unsafe { call(number::CLONE, [SIGCHLD, 0, 0, 0, 0, 0]) }.unwrap();
    if pid == 0 {
        limit(4, 0).unwrap();
        forbid_new_privileges().unwrap();
        child();
        exit_group(LET_THROUGH);
    }
    pid
}

fn wait(pid: usize) -> End {
    const WAIT4: usize = 61;
    let mut status = 0_i32;
    let place = (&raw mut status).addr();
    // SAFETY: 1. the status is borrowed for the length of the call, which writes it.
    unsafe { call(WAIT4, [pid, place, 0, 0, 0, 0]) }.unwrap();
    match status & 0x7F {
        0 => End::Exited(status >> 8),
        signal => End::Killed(signal),
    }
}

/// How a call ends under `steps`.
fn attempt(steps: &[Instruction], number: u32, args: [u64; 6]) -> End {
    let args = args.map(|arg| usize::try_from(arg).unwrap());
    wait(fork(|| {
        install(steps).unwrap();
        // SAFETY: 1. nothing is: it is the filter that is tried. What it lets through are numbers of descriptors that are
        // not open, and addresses where nothing is mapped, in a child that ends next.
        let returned = unsafe { call(number as usize, args) };
        core::hint::black_box(returned.is_ok());
    }))
}

fn expected(rules: &Rules, number: u32, args: [u64; 6]) -> End {
    let data = SeccompData {
        number,
        arch: ARCH,
        instruction_pointer: 0,
        args,
    };
    if !rules.allows(&data) {
        return End::Killed(SIGSYS);
    }
    let [status, ..] = args[0].to_le_bytes();
    if number as usize == number::EXIT_GROUP {
        End::Exited(status.into())
    } else {
        End::Exited(LET_THROUGH.into())
    }
}

#[test]
fn every_number_but_those_of_the_table_ends_the_process() {
    for role in [Role::Vcpu, Role::Device] {
        let rules = Rules::of(role, Phase::Run, &guest());
        let program = program(&rules);
        for number in (0..480).chain([X32, X32 | 16, X32 | 202, X32 | 514, 1 << 31, u32::MAX]) {
            // More descriptors than D may wait for: with none, it would wait for ever.
            let args = [77, 4096, 0, 0, 0, 0];
            let end = attempt(program.instructions(), number, args);
            let unseen = [End::Killed(SIGILL), End::Exited(LET_THROUGH.into())];
            if PROBES.contains(&number) && unseen.contains(&end) {
                continue;
            }
            assert_eq!(
                end,
                expected(&rules, number, args),
                "{role:?}, call {number:#x}"
            );
        }
    }
}

#[test]
fn calls_of_the_table_pass_and_their_neighbours_end_the_process() {
    let handoff = guest();
    for role in [Role::Vcpu, Role::Device] {
        for phase in [Phase::Run, Phase::Build] {
            let rules = Rules::of(role, phase, &handoff);
            let program = program(&rules);
            let run = Rules::of(role, Phase::Run, &handoff).as_slice().len();
            // What building may do on top would do something in this process; the run's calls meet nothing.
            for rule in &rules.as_slice()[..run] {
                let mut passing = [0; 6];
                for check in rule.checks.iter().flatten() {
                    passing[usize::from(check.argument)] = match check.operand {
                        Operand::Low(number) => number.into(),
                        Operand::LowRange { first, count } => (first + count - 1).into(),
                        Operand::Wide { last, .. } => last,
                        Operand::OnlyBits(bits) => bits,
                    };
                }
                let mut tried = vec![passing];
                for check in rule.checks.iter().flatten() {
                    let mut beside = passing;
                    beside[usize::from(check.argument)] += 1;
                    tried.push(beside);
                }
                for args in tried {
                    let end = attempt(program.instructions(), rule.call, args);
                    assert_eq!(end, expected(&rules, rule.call, args), "{rule:?} {args:x?}");
                }
            }
        }
    }
}

#[test]
fn the_32_bit_convention_ends_the_process() {
    let program = program(&Rules::of(Role::Vcpu, Phase::Run, &guest()));
    let end = wait(fork(|| {
        install(program.instructions()).unwrap();
        // exit_group of the 32-bit table is 252.
        // SAFETY: a number; a kernel without that convention raises a fault.
        unsafe { core::arch::asm!("int 0x80", inout("eax") 252 => _, options(nostack)) };
    }));
    assert!(matches!(end, End::Killed(SIGSYS | SIGSEGV)), "{end:?}");
}

#[test]
fn a_thread_that_makes_another_call_takes_the_process_with_it() {
    const GETPID: usize = 39;
    fn disobey(may_go: &'static AtomicU32, _index: usize) -> ! {
        while may_go.load(Ordering::Acquire) == 0 {
            core::hint::spin_loop();
        }
        // SAFETY: 1. no argument.
        let returned = unsafe { call(GETPID, [0; 6]) };
        core::hint::black_box(returned.is_ok());
        exit_group(LET_THROUGH)
    }
    let program = program(&Rules::of(Role::Vcpu, Phase::Run, &guest()));
    let end = wait(fork(|| {
        let may_go: &'static AtomicU32 = forever(AtomicU32::new(0)).unwrap();
        spawn(disobey, may_go, 0, 65536).unwrap();
        install(program.instructions()).unwrap();
        may_go.store(1, Ordering::Release);
        loop {
            core::hint::spin_loop();
        }
    }));
    assert_eq!(end, End::Killed(SIGSYS));
}

/// A memory file of so many bytes.
fn memory_file(size_bytes: usize) -> Fd {
    const MEMFD_CREATE: usize = 319;
    const FTRUNCATE: usize = 77;
    let name = c"lock-test";
    // SAFETY: 1. the name is borrowed for the length of the call, which reads it.
    let fd = unsafe { call(MEMFD_CREATE, [name.as_ptr().addr(), 1, 0, 0, 0, 0]) }.unwrap();
    // SAFETY: 1. numbers.
    unsafe { call(FTRUNCATE, [fd, size_bytes, 0, 0, 0, 0]) }.unwrap();
    Fd::new(u32::try_from(fd).unwrap())
}

/// Gives `fd` the number that the list has for it.
fn place_at(fd: Fd, number: u32) {
    const DUP2: usize = 33;
    // SAFETY: 1. numbers; in a child, whose other descriptors nobody uses any more.
    unsafe { call(DUP2, [fd.number() as usize, number as usize, 0, 0, 0, 0]) }.unwrap();
}

/// A child that has locked itself down as `role` and waits for the word to go.
struct LockedChild {
    pid: usize,
    page: Shared,
    handoff: Handoff,
}

impl LockedChild {
    fn start(role: Role, after: fn()) -> Self {
        let mut handoff = Handoff::empty();
        handoff.layers_absent = layer::MDWE | layer::MSEAL | layer::LANDLOCK;
        let file = memory_file(start_page::BYTES);
        let page = Shared::map(file, start_page::BYTES).unwrap();
        let pid = fork(|| {
            place_at(file, VcpuFds::START);
            let lock = Lock::begin(role, &handoff).unwrap();
            let start = StartPage::map(Fd::new(VcpuFds::START)).unwrap();
            lock.finish(&handoff, start).unwrap();
            start.wait_for_go();
            after();
        });
        let state = page.word(STATE);
        while state.load(Ordering::Acquire) == start_page::BUILDING {
            core::hint::black_box(futex::wait(state, start_page::BUILDING, Some(100)).is_ok());
        }
        assert_eq!(state.load(Ordering::Acquire), LOCKED);
        Self { pid, page, handoff }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }

    fn go(self) -> End {
        let word = self.page.word(start_page::GO);
        word.store(1, Ordering::Release);
        futex::wake_all(word).unwrap();
        wait(self.pid)
    }
}

#[test]
fn a_locked_process_is_what_it_says() {
    for role in [Role::Vcpu, Role::Device] {
        let child = LockedChild::start(role, || exit_group(7));
        let layers = child.page.word(LAYERS).load(Ordering::Relaxed);
        assert_eq!(layers & layer::ALWAYS, layer::ALWAYS);

        let status = child.file("status");
        let says = |line: &str| status.lines().any(|l| l == line);
        assert!(says("NoNewPrivs:\t1") && says("Seccomp:\t2"), "{status}");
        assert!(says("Seccomp_filters:\t2"), "{status}");

        let rows = child.file("limits");
        for limit in limits(role, child.handoff.vcpu_count) {
            let (name, _) = limit.why.split_once(':').unwrap();
            let title = match name {
                "FSIZE" => "Max file size",
                "DATA" => "Max data size",
                "STACK" => "Max stack size",
                "CORE" => "Max core file size",
                "NPROC" => "Max processes",
                "NOFILE" => "Max open files",
                "MEMLOCK" => "Max locked memory",
                "AS" => "Max address space",
                "LOCKS" => "Max file locks",
                "SIGPENDING" => "Max pending signals",
                "MSGQUEUE" => "Max msgqueue size",
                "NICE" => "Max nice priority",
                "RTPRIO" => "Max realtime priority",
                _ => panic!("{name}"),
            };
            let row = rows.lines().find(|row| row.starts_with(title)).unwrap();
            let value = limit.value.to_string();
            let mut words = row[title.len()..].split_whitespace();
            assert_eq!(words.next(), Some(value.as_str()), "{row}");
            assert_eq!(words.next(), Some(value.as_str()), "{row}");
        }

        let fds = fs::read_dir(format!("/proc/{}/fd", child.pid)).unwrap();
        assert_eq!(fds.count(), 0);
        if layers & layer::MSEAL != 0 {
            assert_sealed(&child.file("smaps"));
        }
        assert_eq!(child.go(), End::Exited(7));
    }
}

/// The start page and the program's code have the flag of sealed mappings, and nothing is writable and executable.
fn assert_sealed(smaps: &str) {
    let mut head = "";
    let mut sealed = 0;
    for line in smaps.lines() {
        if line.contains('-') && line.split(' ').nth(1).is_some_and(|p| p.len() == 4) {
            head = line;
            assert!(!head.contains("wx"), "{head}");
        }
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let is_ours = head.starts_with("200000000000-") || head.contains("/jailed-");
            assert!(!is_ours || flags.contains(" sl"), "{head}: {flags}");
            sealed += usize::from(is_ours);
        }
    }
    assert!(sealed > 3, "{smaps}");
}

#[test]
fn what_was_locked_cannot_be_undone() {
    /// Tries to put a wider filter on.
    fn refilter() {
        let allow_all = [Instruction::new(0x06, 0, 0, 0x7FFF_0000)];
        core::hint::black_box(install(&allow_all).is_ok());
    }
    /// Tries to raise a limit.
    fn raise() {
        core::hint::black_box(limit(7, 1024).is_ok());
    }
    /// Tries to map memory.
    fn remember() {
        core::hint::black_box(forever(0_u8).is_ok());
    }
    for attempt in [refilter, raise, remember] {
        for role in [Role::Vcpu, Role::Device] {
            let child = LockedChild::start(role, attempt);
            assert_eq!(child.go(), End::Killed(SIGSYS));
        }
    }
}
