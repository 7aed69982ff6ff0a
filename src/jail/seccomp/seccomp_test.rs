use std::collections::BTreeSet;

use super::*;

fn fds() -> SupervisorFds {
    SupervisorFds {
        read: vec![0, 5],
        write: vec![1, 2],
        socket: vec![7],
        terminal: vec![0],
        held: vec![9],
    }
}

/// What the filter makes of a call: the instructions it has, run as the kernel does.
fn is_allowed(filter: &BpfProgram, call: i64, args: [u64; 6]) -> bool {
    const ARCH: u32 = 0xC000_003E;
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&u32::try_from(call).unwrap().to_ne_bytes());
    data[4..8].copy_from_slice(&ARCH.to_ne_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
    }
    let (mut at, mut value) = (0, 0_u32);
    loop {
        let op = &filter[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
        match op.code {
            0x20 => {
                let offset = op.k as usize;
                value = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x15 => at += jump(value == op.k),
            0x25 => at += jump(value > op.k),
            0x35 => at += jump(value >= op.k),
            0x54 => value &= op.k,
            0x05 => at += op.k as usize,
            0x06 => return op.k == libc::SECCOMP_RET_ALLOW,
            code => panic!("instruction {code:#x}"),
        }
    }
}

#[test]
fn only_the_calls_of_the_table_pass() {
    let filter = supervisor_filter(&fds()).unwrap();
    let rules = rules(&fds());
    let calls: BTreeSet<i64> = rules.iter().map(|rule| i64::from(rule.call)).collect();
    for call in 0..1024 {
        let own: Vec<_> = rules.iter().filter(|r| i64::from(r.call) == call).collect();
        let conditioned = own.iter().any(|rule| rule.checks[0].is_some());
        // The filter takes rules of one call together: one without a condition has to be alone.
        assert!(
            conditioned || own.len() <= 1,
            "a call has two rows: {own:?}"
        );
        let args = [99, 0, 0, 0, 0, 0];
        let expected = calls.contains(&call) && !conditioned;
        assert_eq!(is_allowed(&filter, call, args), expected, "call {call}");
    }
}

#[test]
fn descriptors_are_told_apart() {
    let filter = supervisor_filter(&fds()).unwrap();
    let on = |call, fd| is_allowed(&filter, call, [fd, 0, 0, 0, 0, 0]);
    for fd in 0..16 {
        assert_eq!(on(libc::SYS_read, fd), [0, 5].contains(&fd), "read {fd}");
        assert_eq!(on(libc::SYS_write, fd), [1, 2].contains(&fd), "write {fd}");
        assert_eq!(on(libc::SYS_sendto, fd), fd == 7, "sendto {fd}");
        assert!(!on(libc::SYS_sendmsg, fd), "descriptors can be sent");
    }
    // The kernel looks at the low half of a descriptor only, and so does the filter.
    assert!(on(libc::SYS_read, 0xFFFF_FFFF_0000_0005));
    let ioctl = |fd, request| is_allowed(&filter, libc::SYS_ioctl, [fd, request, 0, 0, 0, 0]);
    assert!(ioctl(0, 0x5402));
    assert!(!ioctl(0, 0x5412), "TIOCSTI types for the operator");
    assert!(!ioctl(1, 0x5402));
}

#[test]
fn a_call_that_has_no_descriptor_to_go_to_is_not_allowed_at_all() {
    let filter = supervisor_filter(&SupervisorFds::default()).unwrap();
    for call in [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_sendmsg,
        libc::SYS_ioctl,
    ] {
        assert!(!is_allowed(&filter, call, [0; 6]), "{call}");
    }
}

#[test]
fn memory_is_neither_run_nor_a_files() {
    let filter = supervisor_filter(&fds()).unwrap();
    let mmap =
        |protection, flags| is_allowed(&filter, libc::SYS_mmap, [0, 4096, protection, flags, 0, 0]);
    assert!(mmap(3, 0x22));
    assert!(!mmap(7, 0x22), "executable");
    assert!(!mmap(3, 2), "of a file");
    assert!(!is_allowed(
        &filter,
        libc::SYS_mprotect,
        [0, 4096, 5, 0, 0, 0]
    ));
    assert!(!mmap(3, 0x32), "in place of another");
    assert!(rules(&fds()).iter().all(|rule| !rule.why.is_empty()));
}

/// The order in which descriptors are found says nothing: a filter that is made again for the same ones is the same.
#[test]
fn equal_descriptors_make_equal_filters() {
    let fds = fds();
    let mut other = fds.clone();
    other.read = vec![5, 0, 5];
    other.write.reverse();
    let instructions = |fds| {
        let filter = supervisor_filter(fds).unwrap();
        let all = filter.iter().map(|op| (op.code, op.jt, op.jf, op.k));
        all.collect::<Vec<_>>()
    };
    assert_eq!(instructions(&fds), instructions(&other));
    assert_eq!(fds.numbers(), [0, 1, 2, 5, 7, 9]);
}
