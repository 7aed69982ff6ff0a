//! The rows: what each layer removes, since when kernels have it, and what may follow where one does not.

use super::Layer;

/// What is fixed about a layer.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub layer: Layer,
    /// Its stable name.
    pub name: &'static str,
    /// What a process that has been taken over lacks because of it.
    pub removes: &'static str,
    /// The first Linux that has it, and the option that it is built with.
    pub since: &'static str,
    /// What brings it back where it is absent.
    pub fix: &'static str,
    /// `Ok` where a guest may run without it, with what still holds then; `Err` with why it may not.
    pub excepted: Result<&'static str, &'static str>,
}

/// In the order of [`Layer`].
pub(super) const ROWS: [Row; Layer::COUNT] = [
    Row {
        layer: Layer::Seccomp,
        name: "seccomp",
        removes: "all system calls but those of its list, with their descriptors and arguments",
        since: "Linux 4.14, CONFIG_SECCOMP_FILTER",
        fix: "boot a kernel with CONFIG_SECCOMP_FILTER",
        excepted: Err("it is what keeps the rest of the kernel out of reach"),
    },
    Row {
        layer: Layer::NoNewPrivs,
        name: "no-new-privs",
        removes: "privilege from set-user-ID programs",
        since: "Linux 3.5",
        fix: "boot a kernel from 6.1 on",
        excepted: Err("a filter needs it, and every kernel that Narrows runs on has it"),
    },
    Row {
        layer: Layer::Capabilities,
        name: "capabilities",
        removes: "every privilege of root, for good",
        since: "Linux 4.3",
        fix: "boot a kernel from 6.1 on",
        excepted: Err("without it the process is root"),
    },
    Row {
        layer: Layer::Uid,
        name: "uid",
        removes: "files and processes of other users, other guests among them",
        since: "every Linux",
        fix: "run narrows as root",
        excepted: Err("without it one guest's process could signal and trace another's"),
    },
    Row {
        layer: Layer::UserNamespace,
        name: "user-namespace",
        removes: "every other uid, and any weight of its own uid in other namespaces",
        since: "Linux 3.8, CONFIG_USER_NS",
        fix: "raise /proc/sys/user/max_user_namespaces, or boot a kernel with CONFIG_USER_NS",
        excepted: Err("without it a capability that is won back counts on the host"),
    },
    Row {
        layer: Layer::MountNamespace,
        name: "mount-namespace",
        removes: "the host's files: the root is empty and cannot be written",
        since: "Linux 2.4.19",
        fix: "raise /proc/sys/user/max_mnt_namespaces; where the host runs in the kernel's first RAM file system: boot Linux \
              7.0 or later, or have init move a bind mount of the root over it (`mount --bind / /mnt && cd /mnt && mount \
              --move . / && exec chroot . INIT`)",
        excepted: Err("without it every file that anybody may read is in reach"),
    },
    Row {
        layer: Layer::PidNamespace,
        name: "pid-namespace",
        removes: "other processes: there is no number to name one",
        since: "Linux 2.6.24, CONFIG_PID_NS",
        fix: "raise /proc/sys/user/max_pid_namespaces, or boot a kernel with CONFIG_PID_NS",
        excepted: Err("without it the processes of the host can be named"),
    },
    Row {
        layer: Layer::NetNamespace,
        name: "net-namespace",
        removes: "networks and abstract sockets: there is a loopback interface, and it is down",
        since: "Linux 2.6.29, CONFIG_NET_NS",
        fix: "raise /proc/sys/user/max_net_namespaces, or boot a kernel with CONFIG_NET_NS",
        excepted: Err("without it the host's network can be reached"),
    },
    Row {
        layer: Layer::IpcNamespace,
        name: "ipc-namespace",
        removes: "shared memory, queues and semaphores of others",
        since: "Linux 2.6.19, CONFIG_IPC_NS",
        fix: "raise /proc/sys/user/max_ipc_namespaces, or boot a kernel with CONFIG_IPC_NS",
        excepted: Err("without it shared memory of the host can be named"),
    },
    Row {
        layer: Layer::UtsNamespace,
        name: "uts-namespace",
        removes: "the host's name",
        since: "Linux 2.6.19, CONFIG_UTS_NS",
        fix: "raise /proc/sys/user/max_uts_namespaces, or boot a kernel with CONFIG_UTS_NS",
        excepted: Err("every kernel that has the other namespaces has it"),
    },
    Row {
        layer: Layer::CgroupNamespace,
        name: "cgroup-namespace",
        removes: "the names of the host's cgroups",
        since: "Linux 4.6, CONFIG_CGROUPS",
        fix: "raise /proc/sys/user/max_cgroup_namespaces, or boot a kernel with CONFIG_CGROUPS",
        excepted: Ok("no folder of cgroups is in reach in any case: the root is empty"),
    },
    Row {
        layer: Layer::TimeNamespace,
        name: "time-namespace",
        removes: "the clock offsets that it would share with the host",
        since: "Linux 5.6, CONFIG_TIME_NS",
        fix: "raise /proc/sys/user/max_time_namespaces, or boot a kernel with CONFIG_TIME_NS",
        excepted: Ok("clocks can be read in any case, and nothing can be set without capabilities"),
    },
    Row {
        layer: Layer::Cgroup,
        name: "cgroup",
        removes: "memory, processor time and threads beyond the guest's share",
        since: "Linux 4.15, CONFIG_CGROUPS, CONFIG_MEMCG, CONFIG_CGROUP_PIDS, CONFIG_CFS_BANDWIDTH",
        fix: "boot with cgroup version 2 alone (systemd.unified_cgroup_hierarchy=1), mounted at /sys/fs/cgroup",
        excepted: Ok(
            "limits of each process still hold; a guest can take more processor time and kernel memory",
        ),
    },
    Row {
        layer: Layer::Rlimits,
        name: "rlimits",
        removes: "further descriptors, threads, files and locked memory",
        since: "every Linux",
        fix: "boot a kernel from 6.1 on",
        excepted: Err("every kernel has it"),
    },
    Row {
        layer: Layer::NotDumpable,
        name: "not-dumpable",
        removes: "core files, and tracing by processes of the same user",
        since: "Linux 2.4",
        fix: "boot a kernel from 6.1 on",
        excepted: Err("every kernel has it, and guest RAM must not end up in a file"),
    },
    Row {
        layer: Layer::Mdwe,
        name: "mdwe",
        removes: "memory that is first written and then run",
        since: "Linux 6.3",
        fix: "boot a kernel from 6.3 on",
        excepted: Ok("the filter refuses to map and to protect memory once the guest runs"),
    },
    Row {
        layer: Layer::Mseal,
        name: "mseal",
        removes: "changes of what is mapped where: program, guest RAM, BARs, ring",
        since: "Linux 6.10",
        fix: "boot a kernel from 6.10 on",
        excepted: Ok("the filter refuses to map and to protect memory once the guest runs"),
    },
    Row {
        layer: Layer::Landlock,
        name: "landlock",
        removes: "opening, making and connecting anything by path, a second time",
        since: "Linux 5.13, CONFIG_SECURITY_LANDLOCK",
        fix: "boot with landlock in lsm=, on a kernel with CONFIG_SECURITY_LANDLOCK",
        excepted: Ok("the root is empty in any case"),
    },
    Row {
        layer: Layer::CoreScheduling,
        name: "core-scheduling",
        removes: "what a processor core tells its other thread: no one else runs beside the guest",
        since: "Linux 5.14, CONFIG_SCHED_CORE",
        fix: "boot with nosmt, or a kernel with CONFIG_SCHED_CORE",
        excepted: Ok(
            "the mitigations of the kernel hold; hyperthreads of a core are shared with others",
        ),
    },
    Row {
        layer: Layer::FilterReadable,
        name: "filter-readable",
        removes: "nothing; with it the filters that the kernel really has are compared with the list at every start",
        since: "Linux 4.4, CONFIG_CHECKPOINT_RESTORE",
        fix: "boot a kernel with CONFIG_CHECKPOINT_RESTORE",
        excepted: Ok("that a filter is there is still read from /proc, but not which"),
    },
];

// Every row stands at its layer's place, so that a lookup is an index.
const _: () = {
    let mut index = 0;
    while index < ROWS.len() {
        assert!(ROWS[index].layer as usize == index);
        index += 1;
    }
};
