//! Names of system calls and of the requests that matter here.
//!
//! *Source:* `arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/linux/{kvm,vfio,iommufd}.h (v6.12)`.

use std::ops::RangeInclusive;

/// `ioctl`.
pub const IOCTL: u32 = 16;
/// `KVM_RUN`.
pub const KVM_RUN: u64 = 0xAE80;

/// Requests by name.
const REQUESTS: &[(u64, &str)] = &[
    (KVM_RUN, "KVM_RUN"),
    (0x4020_AE46, "KVM_SET_USER_MEMORY_REGION"),
    (0x40A0_AE49, "KVM_SET_USER_MEMORY_REGION2"),
    (0x4008_AE6A, "KVM_SET_GSI_ROUTING"),
    (0x4020_AE76, "KVM_IRQFD"),
    (0x4040_AE79, "KVM_IOEVENTFD"),
    (0x3B6E, "VFIO_DEVICE_SET_IRQS"),
    (0x3B6F, "VFIO_DEVICE_RESET"),
    (0x3B71, "VFIO_IOMMU_MAP_DMA"),
    (0x3B72, "VFIO_IOMMU_UNMAP_DMA"),
    (0x3B83, "IOMMU_IOAS_COPY"),
    (0x3B85, "IOMMU_IOAS_MAP"),
    (0x3B86, "IOMMU_IOAS_UNMAP"),
    (0x3B8F, "IOMMU_IOAS_MAP_FILE"),
];

/// Requests that map memory for devices.
const MAPS: &[u64] = &[0x3B71, 0x3B83, 0x3B85, 0x3B8F];

/// Calls by name: those that VMMs make often. Others are shown by number.
const CALLS: &[(u32, &str)] = &[
    (0, "read"),
    (1, "write"),
    (2, "open"),
    (3, "close"),
    (4, "stat"),
    (5, "fstat"),
    (7, "poll"),
    (8, "lseek"),
    (9, "mmap"),
    (10, "mprotect"),
    (11, "munmap"),
    (12, "brk"),
    (13, "rt_sigaction"),
    (14, "rt_sigprocmask"),
    (15, "rt_sigreturn"),
    (16, "ioctl"),
    (17, "pread64"),
    (18, "pwrite64"),
    (19, "readv"),
    (20, "writev"),
    (21, "access"),
    (24, "sched_yield"),
    (25, "mremap"),
    (28, "madvise"),
    (32, "dup"),
    (33, "dup2"),
    (39, "getpid"),
    (41, "socket"),
    (44, "sendto"),
    (45, "recvfrom"),
    (46, "sendmsg"),
    (47, "recvmsg"),
    (53, "socketpair"),
    (56, "clone"),
    (59, "execve"),
    (60, "exit"),
    (61, "wait4"),
    (62, "kill"),
    (72, "fcntl"),
    (77, "ftruncate"),
    (83, "mkdir"),
    (87, "unlink"),
    (89, "readlink"),
    (97, "getrlimit"),
    (101, "ptrace"),
    (131, "sigaltstack"),
    (157, "prctl"),
    (158, "arch_prctl"),
    (160, "setrlimit"),
    (165, "mount"),
    (186, "gettid"),
    (202, "futex"),
    (203, "sched_setaffinity"),
    (204, "sched_getaffinity"),
    (217, "getdents64"),
    (218, "set_tid_address"),
    (219, "restart_syscall"),
    (228, "clock_gettime"),
    (230, "clock_nanosleep"),
    (231, "exit_group"),
    (232, "epoll_wait"),
    (233, "epoll_ctl"),
    (237, "mbind"),
    (247, "waitid"),
    (257, "openat"),
    (262, "newfstatat"),
    (267, "readlinkat"),
    (270, "pselect6"),
    (271, "ppoll"),
    (272, "unshare"),
    (273, "set_robust_list"),
    (281, "epoll_pwait"),
    (290, "eventfd2"),
    (293, "pipe2"),
    (302, "prlimit64"),
    (312, "kcmp"),
    (317, "seccomp"),
    (318, "getrandom"),
    (319, "memfd_create"),
    (322, "execveat"),
    (332, "statx"),
    (334, "rseq"),
    (424, "pidfd_send_signal"),
    (426, "io_uring_enter"),
    (434, "pidfd_open"),
    (435, "clone3"),
    (436, "close_range"),
    (441, "epoll_pwait2"),
    (444, "landlock_create_ruleset"),
    (445, "landlock_add_rule"),
    (446, "landlock_restrict_self"),
    (462, "mseal"),
];

/// The numbers that the kernel has system calls for: what a thread without a filter may make. Those in between are kept for
/// other conventions, and what lies behind was not yet given away.
///
/// *Source:* `arch/x86/entry/syscalls/syscall_64.tbl (v7.0)`.
const GIVEN: [RangeInclusive<u32>; 2] = [0..=335, 424..=471];

/// Whether the kernel has a system call of this number.
#[must_use]
pub fn is_given(number: u32) -> bool {
    GIVEN.iter().any(|range| range.contains(&number))
}

/// How many there are.
#[must_use]
pub fn count_given() -> u64 {
    GIVEN.into_iter().map(|range| range.count() as u64).sum()
}

/// The name of a call; of `ioctl` with its request.
#[must_use]
pub fn name(number: u32, second_argument: u64) -> String {
    if number == IOCTL {
        let known = REQUESTS
            .iter()
            .find(|(request, _)| *request == second_argument & 0xFFFF_FFFF);
        return match known {
            Some((_, name)) => format!("ioctl {name}"),
            None => "ioctl, others".to_owned(),
        };
    }
    match CALLS.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("call {number}"),
    }
}

/// Whether a request maps memory for devices.
#[must_use]
pub fn is_map(request: u64) -> bool {
    MAPS.contains(&(request & 0xFFFF_FFFF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_from_others() {
        assert_eq!(name(16, 0xAE80), "ioctl KVM_RUN");
        assert_eq!(name(16, 0xFFFF_FFFF_0000_3B71), "ioctl VFIO_IOMMU_MAP_DMA");
        assert_eq!(name(16, 0x5401), "ioctl, others");
        assert_eq!(name(202, 0xAE80), "futex");
        assert_eq!(name(9999, 0), "call 9999");
    }

    #[test]
    fn every_call_with_a_name_is_given() {
        assert!(CALLS.iter().all(|(number, _)| is_given(*number)));
        assert!(!is_given(400));
        assert_eq!(count_given(), 384);
    }

    #[test]
    fn no_number_and_no_request_has_two_names() {
        for (at, (number, _)) in CALLS.iter().enumerate() {
            assert!(CALLS[at + 1..].iter().all(|(other, _)| other != number));
        }
        for (at, (request, _)) in REQUESTS.iter().enumerate() {
            assert!(REQUESTS[at + 1..].iter().all(|(other, _)| other != request));
        }
    }
}
