//! All probes: what each tries, in which process, and what it leaves behind.

use super::{devices, files, kernel, memory, network, processes, ring, sweep, tries::Tries};
use crate::manifest::Role;

/// One way out that is tried.
#[derive(Clone, Copy)]
pub struct Probe {
    /// As the catalogue has it.
    pub id: &'static str,
    /// What an attacker would have of it.
    pub title: &'static str,
    /// The processes in which it is tried.
    pub roles: &'static [Role],
    /// What it leaves behind where it succeeds.
    pub leaves: Leaves,
    /// What may end it besides the filter. Any other signal is a crash, of which nobody knows what it prevented.
    pub signals: &'static [Ended],
    pub(super) run: fn(&mut Tries<'_>),
}

/// A signal that answers a try.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The first and the last try that it answers.
    pub tries: (usize, usize),
    /// The signal.
    pub signal: i32,
    /// Why it comes, and why it means that the way was closed.
    pub reason: &'static str,
}

const SIGILL: i32 = 4;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;

/// Where the limits let a program be begun and not be loaded.
const PROGRAM_TOO_LARGE: &str =
    "the new program is more than the limits allow, and the old one was given up for it";

impl Probe {
    /// Why this signal answers try `index`; `None` where it does not.
    #[must_use]
    pub fn reason_of(&self, index: usize, signal: i32) -> Option<&'static str> {
        let is_it = |ended: &&Ended| {
            ended.signal == signal && (ended.tries.0..=ended.tries.1).contains(&index)
        };
        self.signals.iter().find(is_it).map(|ended| ended.reason)
    }
}

/// What a probe that succeeds leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing but its process's end.
    Nothing,
    /// A device that has to be reset.
    Device,
    /// The other process, which is attacked and must be there, and its devices.
    Other,
}

impl core::fmt::Debug for Probe {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Probe")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

const BOTH: &[Role] = &[Role::Vcpu, Role::Device];
const V: &[Role] = &[Role::Vcpu];
const D: &[Role] = &[Role::Device];

/// Every probe, in the catalogue's order. What the catalogue lists for V or D and is not here is looked at from outside:
/// filters, descriptors, mappings and credentials by the keeper (B02, C25, C29 to C32), a spinning process by its
/// control group (C24).
pub const PROBES: &[Probe] = &[
    probe(
        "A01",
        "write to the program that runs",
        BOTH,
        files::own_program,
    ),
    probe(
        "A02",
        "leave by a folder that was left open",
        BOTH,
        files::leaked_folder,
    ),
    probe(
        "A08",
        "open a file of the host by its handle",
        BOTH,
        files::by_handle,
    ),
    probe(
        "A09",
        "make a node of the host's disk and memory",
        BOTH,
        files::device_node,
    ),
    probe("A11", "open the host's memory", BOTH, files::raw_memory),
    probe(
        "A12",
        "learn the kernel's addresses",
        BOTH,
        files::kernel_addresses,
    ),
    probe("A13", "load a kernel module", BOTH, kernel::load_module),
    probe("A15", "trace a process of the host", BOTH, processes::trace),
    probe(
        "A16",
        "read a process of the host, take its descriptors",
        BOTH,
        processes::read_process,
    ),
    probe(
        "A17",
        "signal a process of the host",
        BOTH,
        processes::signal,
    ),
    probe(
        "A18",
        "make a user namespace",
        BOTH,
        processes::user_namespace,
    ),
    probe("A19", "load a BPF program", BOTH, kernel::bpf),
    probe("A20", "open a performance counter", BOTH, kernel::perf),
    probe(
        "A21",
        "handle the kernel's page faults",
        BOTH,
        kernel::faults,
    ),
    probe("A22", "set up io_uring", BOTH, kernel::uring),
    probe("A23", "read the host's keys", BOTH, kernel::keys),
    probe(
        "A26",
        "open a socket of any family",
        BOTH,
        network::families,
    ),
    probe(
        "A27",
        "connect to an abstract socket of the host",
        BOTH,
        network::abstract_socket,
    ),
    probe("A30", "read the host's files", BOTH, files::host_files),
    probe(
        "A32",
        "open the host's switches for writing",
        BOTH,
        files::writable_sys,
    ),
    probe("A34", "mount, or take a mount", BOTH, files::mounts),
    probe("A36", "change the root", BOTH, files::change_root),
    probe(
        "A37",
        "leave by another process's root",
        BOTH,
        files::through_proc,
    ),
    Probe {
        signals: &[
            Ended {
                tries: (0, 0),
                signal: SIGILL,
                reason: "the program ran, found that its user had not changed, and ended itself",
            },
            Ended {
                tries: (0, 0),
                signal: SIGSEGV,
                reason: PROGRAM_TOO_LARGE,
            },
        ],
        ..probe(
            "A38",
            "run a program that changes its user",
            BOTH,
            processes::set_uid_program,
        )
    },
    probe(
        "A40",
        "call by another convention",
        BOTH,
        kernel::other_conventions,
    ),
    probe("A41", "reach the processor's ports", BOTH, kernel::ports),
    probe(
        "A44",
        "open the host's shared memory and queues",
        BOTH,
        memory::shared,
    ),
    probe(
        "A45",
        "find and open device nodes",
        BOTH,
        files::device_inventory,
    ),
    Probe {
        signals: &[Ended {
            // The first tries are the calls in the order of their numbers.
            tries: (sweep::URETPROBE as usize, sweep::URETPROBE as usize),
            signal: SIGILL,
            reason: "the kernel's own trampoline, which no filter sees, is for who was probed",
        }],
        ..probe("B01", "make every call there is", BOTH, sweep::calls)
    },
    on_device(
        "B03",
        "make every request on descriptors",
        BOTH,
        sweep::requests,
    ),
    probe(
        "B04",
        "set every option of the process",
        BOTH,
        kernel::options,
    ),
    probe("C01", "open a file", BOTH, files::any_file),
    probe("C02", "create a VM", BOTH, files::new_vm),
    probe("C03", "open VFIO and iommufd", BOTH, files::new_devices),
    on_device(
        "C04",
        "map its own memory for DMA",
        BOTH,
        devices::map_for_dma,
    ),
    on_device("C05", "unmap, destroy, detach", BOTH, devices::unmap),
    on_device(
        "C06",
        "attach the device to another table",
        D,
        devices::attach,
    ),
    probe(
        "C07",
        "map its own memory into the guest",
        V,
        devices::map_for_guest,
    ),
    probe("C08", "add parts to the VM", V, devices::machine_parts),
    Probe {
        signals: &[Ended {
            tries: (0, 1),
            signal: SIGSEGV,
            reason: PROGRAM_TOO_LARGE,
        }],
        ..probe("C10", "run another program", BOTH, processes::other_program)
    },
    probe("C11", "make processes and threads", BOTH, processes::births),
    probe(
        "C12",
        "make new code, change mappings",
        BOTH,
        memory::new_code,
    ),
    probe(
        "C13",
        "pass descriptors by sockets",
        BOTH,
        network::messages,
    ),
    probe(
        "C14",
        "give descriptors other numbers",
        BOTH,
        devices::renumbered,
    ),
    probe("C15", "attack the keeper", BOTH, processes::attack_keeper),
    probe(
        "C16",
        "reach rich interfaces of the kernel",
        BOTH,
        kernel::rich_calls,
    ),
    probe(
        "C17",
        "take more rights, raise limits",
        BOTH,
        processes::more_rights,
    ),
    probe(
        "C18",
        "take more of the processor",
        BOTH,
        processes::scheduling,
    ),
    probe(
        "C19",
        "send signals with messages, make timers",
        BOTH,
        processes::timers,
    ),
    on_other(
        "C20",
        "write garbage to the memory that V and D share",
        BOTH,
        ring::garbage,
    ),
    on_device(
        "C21",
        "reach other registers of the device",
        D,
        devices::other_registers,
    ),
    on_device(
        "C22",
        "arm and fire other interrupts",
        D,
        devices::other_interrupts,
    ),
    Probe {
        signals: &[Ended {
            // `mlockall`, behind two tries that take as much as a guest has.
            tries: (3, 3),
            signal: SIGKILL,
            reason: "it is more than the guest's own cgroup has, which the keeper is in, too",
        }],
        ..probe("C23", "take more memory, keep it", BOTH, memory::growth)
    },
];

/// The probe with this id, if `role` has it.
pub(super) fn find(id: &str, role: Role) -> Option<&'static Probe> {
    PROBES
        .iter()
        .find(|probe| probe.id == id && probe.roles.contains(&role))
}

const fn probe(
    id: &'static str,
    title: &'static str,
    roles: &'static [Role],
    run: fn(&mut Tries<'_>),
) -> Probe {
    Probe {
        id,
        title,
        roles,
        leaves: Leaves::Nothing,
        signals: &[],
        run,
    }
}

const fn on_device(
    id: &'static str,
    title: &'static str,
    roles: &'static [Role],
    run: fn(&mut Tries<'_>),
) -> Probe {
    Probe {
        leaves: Leaves::Device,
        ..probe(id, title, roles, run)
    }
}

const fn on_other(
    id: &'static str,
    title: &'static str,
    roles: &'static [Role],
    run: fn(&mut Tries<'_>),
) -> Probe {
    Probe {
        leaves: Leaves::Other,
        ..probe(id, title, roles, run)
    }
}
