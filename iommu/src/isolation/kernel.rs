//! Checks of how well the kernel itself is guarded: it holds every guest's fence.

use super::{
    Check, CheckId, Evidence, Verdict,
    row::{Find, Found, NOT_READ, Row, evidence},
};
use crate::{error::Blame, topology::Topology};

pub(super) const ROWS: &[Row] = &[
    Row {
        check: Check {
            id: CheckId::KernelLockdown,
            worst: Verdict::Warn,
            title: "root cannot change the running kernel",
            why: "whoever becomes root can take the fences down without a trace",
            remedy: "boot with lockdown=integrity, or with secure boot",
            sources: &["kernel_lockdown(7)"],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(kernel_lockdown),
    },
    Row {
        check: Check {
            id: CheckId::KernelSysctls,
            worst: Verdict::Warn,
            title: "the kernel's own guards are up",
            why: "a process that broke out has more to attack, and learns more",
            remedy: "set them in /etc/sysctl.d",
            sources: &[
                "Documentation/admin-guide/sysctl/kernel.rst (Linux 6.12)",
                "Documentation/admin-guide/sysctl/vm.rst (Linux 6.12)",
                "Documentation/admin-guide/sysctl/fs.rst (Linux 6.12)",
                "Documentation/admin-guide/LSM/Yama.rst (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(kernel_sysctls),
    },
    Row {
        check: Check {
            id: CheckId::KernelTainted,
            worst: Verdict::Warn,
            title: "the kernel is as it was built, and has not failed",
            why: "what the kernel's makers say of its guards may not hold for this one",
            remedy: "reboot without what tainted it",
            sources: &[
                "Documentation/admin-guide/tainted-kernels.rst (Linux 6.12)",
                "drivers/vfio/vfio_main.c, add_taint(TAINT_USER) (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(kernel_tainted),
    },
    Row {
        check: Check {
            id: CheckId::CpuVulnerable,
            worst: Verdict::Warn,
            title: "the CPU's known leaks are closed",
            why: "a guest could read the memory of the host or of other guests through the CPU",
            remedy: "install the newest microcode and kernel, and boot without mitigations=off",
            sources: &[
                "Documentation/admin-guide/hw-vuln/index.rst (Linux 6.12)",
                "Documentation/ABI/testing/sysfs-devices-system-cpu (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(cpu_vulnerable),
    },
    Row {
        check: Check {
            id: CheckId::SmtOn,
            worst: Verdict::Warn,
            title: "no two guests share a core",
            why: "a guest could learn what runs on the other thread of its core",
            remedy: "boot with nosmt, or pin each guest to whole cores",
            sources: &[
                "Documentation/admin-guide/hw-vuln/core-scheduling.rst (Linux 6.12)",
                "Documentation/ABI/testing/sysfs-devices-system-cpu (Linux 6.12)",
            ],
            accepted: None,
            blame: Blame::Host,
        },
        find: Find::Host(smt_on),
    },
];

/// A sysctl, what is wanted of it, and what another value gives away.
struct Sysctl {
    path: &'static str,
    wanted: Wanted,
    /// Whether a kernel without the file has nothing to guard.
    may_be_absent: bool,
    reason: &'static str,
}

enum Wanted {
    AtLeast(i64),
    OneOf(&'static [i64]),
}

const SYSCTLS: &[Sysctl] = &[
    Sysctl {
        path: "proc/sys/kernel/kptr_restrict",
        wanted: Wanted::AtLeast(1),
        may_be_absent: false,
        reason: "addresses of the kernel are shown",
    },
    Sysctl {
        path: "proc/sys/kernel/dmesg_restrict",
        wanted: Wanted::AtLeast(1),
        may_be_absent: false,
        reason: "everybody may read the kernel's log",
    },
    Sysctl {
        path: "proc/sys/kernel/perf_event_paranoid",
        wanted: Wanted::AtLeast(2),
        may_be_absent: true,
        reason: "everybody may measure the kernel",
    },
    Sysctl {
        path: "proc/sys/kernel/unprivileged_bpf_disabled",
        wanted: Wanted::AtLeast(1),
        may_be_absent: true,
        reason: "everybody may load BPF programs",
    },
    Sysctl {
        path: "proc/sys/kernel/kexec_load_disabled",
        wanted: Wanted::AtLeast(1),
        may_be_absent: true,
        reason: "root may start another kernel in place of this one",
    },
    Sysctl {
        path: "proc/sys/kernel/yama/ptrace_scope",
        wanted: Wanted::AtLeast(1),
        may_be_absent: false,
        reason: "a process may read the memory of others of its user",
    },
    Sysctl {
        path: "proc/sys/kernel/io_uring_disabled",
        wanted: Wanted::AtLeast(1),
        may_be_absent: false,
        reason: "everybody may use io_uring",
    },
    Sysctl {
        path: "proc/sys/vm/unprivileged_userfaultfd",
        wanted: Wanted::OneOf(&[0]),
        may_be_absent: true,
        reason: "everybody may stop the kernel at a page fault of theirs",
    },
    Sysctl {
        path: "proc/sys/kernel/randomize_va_space",
        wanted: Wanted::OneOf(&[2]),
        may_be_absent: false,
        reason: "a process's addresses can be guessed",
    },
    Sysctl {
        path: "proc/sys/fs/suid_dumpable",
        wanted: Wanted::OneOf(&[0, 2]),
        may_be_absent: false,
        reason: "a program that changed its user leaves dumps that the user may read",
    },
];

fn kernel_lockdown(topology: &Topology) -> Found {
    const FILE: &str = "sys/kernel/security/lockdown";
    let file = format!("/{FILE}");
    let fix = "boot with lockdown=integrity, or with secure boot";
    let Some(setting) = topology.host.settings.get(FILE) else {
        return Found::warn(NOT_READ, fix).saw(file, "does not exist, or cannot be read");
    };
    // `[none] integrity confidentiality`: the mode in force is in brackets.
    let mode = setting.text.split(['[', ']']).nth(1).unwrap_or(NOT_READ);
    match mode {
        "integrity" | "confidentiality" => Found::pass(mode),
        _ => Found::warn(mode, fix),
    }
    .saw(file, &setting.text)
}

fn kernel_sysctls(topology: &Topology) -> Found {
    let deviating: Vec<Evidence> = SYSCTLS
        .iter()
        .filter_map(|sysctl| {
            let setting = topology.host.settings.get(sysctl.path);
            let said = match setting.map(|setting| setting.text.as_str()) {
                None if topology.host.unread.contains(sysctl.path) => "cannot be read",
                None if sysctl.may_be_absent => return None,
                None => "does not exist",
                Some(text) if sysctl.wanted.holds(text) => return None,
                Some(text) => text,
            };
            let source = format!("/{}", sysctl.path);
            Some(evidence(
                source,
                format!("{said}, not {}: {}", sysctl.wanted.word(), sysctl.reason),
            ))
        })
        .collect();
    match deviating.len() {
        0 => Found::pass("as wanted").saw("/proc/sys", format!("all {} settings", SYSCTLS.len())),
        count => Found::warn(
            format!("{count} of {}", SYSCTLS.len()),
            "set them in /etc/sysctl.d, as far as the host's other work allows",
        )
        .saw_all(deviating),
    }
}

impl Wanted {
    fn holds(&self, text: &str) -> bool {
        text.parse::<i64>().is_ok_and(|value| match self {
            Self::AtLeast(least) => value >= *least,
            Self::OneOf(values) => values.contains(&value),
        })
    }

    fn word(&self) -> String {
        match self {
            Self::AtLeast(least) => format!("{least} or more"),
            Self::OneOf(values) => {
                let values: Vec<String> = values.iter().map(i64::to_string).collect();
                values.join(" or ")
            }
        }
    }
}

/// What each bit of the taint says. *Source:* Documentation/admin-guide/tainted-kernels.rst (v6.12).
const TAINTS: [&str; 19] = [
    "a proprietary module was loaded",
    "a module was loaded by force",
    "the kernel runs on hardware outside of its specification",
    "a module was unloaded by force",
    "the processor reported a machine check",
    "a bad page was met",
    "user space asked for it: VFIO in no-IOMMU mode does, when a device is opened",
    "the kernel died before (oops or bug)",
    "an ACPI table was overridden",
    "the kernel issued a warning",
    "a staging driver was loaded",
    "a workaround for a firmware bug is in use",
    "a module from outside of the kernel's tree was loaded",
    "an unsigned module was loaded",
    "a soft lockup occurred",
    "the kernel was live-patched",
    "the distribution's own mark",
    "the kernel was built with randomised structures",
    "an in-kernel test was run",
];

fn kernel_tainted(topology: &Topology) -> Found {
    const FILE: &str = "proc/sys/kernel/tainted";
    let file = format!("/{FILE}");
    let fix = "reboot without what tainted it, and see the kernel's log";
    let text = topology
        .host
        .settings
        .get(FILE)
        .map(|setting| setting.text.as_str());
    let Some(mask) = text.and_then(|text| text.parse::<u64>().ok()) else {
        return Found::warn(NOT_READ, fix).saw(file, text.unwrap_or("cannot be read"));
    };
    if mask == 0 {
        return Found::pass("no").saw(file, "0");
    }
    let bits = (0..u64::BITS).filter(|bit| mask >> bit & 1 != 0);
    Found::warn(mask.to_string(), fix).saw_all(bits.map(|bit| {
        let meaning = TAINTS.get(usize::try_from(bit).unwrap_or(usize::MAX));
        evidence(
            &file,
            format!(
                "bit {bit}: {}",
                meaning.unwrap_or(&"unknown to this version")
            ),
        )
    }))
}

fn cpu_vulnerable(topology: &Topology) -> Found {
    const FOLDER: &str = "/sys/devices/system/cpu/vulnerabilities";
    let fix = "install the newest microcode and kernel, and boot without mitigations=off";
    let files = &topology.host.vulnerabilities;
    if files.is_empty() {
        return Found::warn(NOT_READ, fix).saw(FOLDER, "empty, or it cannot be read");
    }
    let open: Vec<_> = files
        .iter()
        .filter(|(_, text)| says_vulnerable(text))
        .collect();
    let unknown: Vec<_> = files.iter().filter(|(_, text)| is_unknown(text)).collect();
    let found = match (open.len(), unknown.len()) {
        (0, 0) => {
            return Found::pass("none").saw(
                FOLDER,
                format!("all {} are mitigated or do not apply", files.len()),
            );
        }
        (0, _) => Found::warn(NOT_READ, fix),
        (count, _) => Found::warn(format!("{count} of {}", files.len()), fix),
    };
    found.saw_all(open.into_iter().chain(unknown).map(|(name, text)| {
        let said = match text.is_empty() {
            true => "cannot be read",
            false => text,
        };
        evidence(format!("{FOLDER}/{name}"), said)
    }))
}

/// Whether the kernel does not know either, as below a hypervisor that does not tell.
fn is_unknown(text: &str) -> bool {
    let says_so = text
        .split([';', ',', ':', '('])
        .any(|part| part.trim().to_ascii_lowercase().starts_with("unknown"));
    (text.is_empty() || says_so) && !says_vulnerable(text)
}

/// Whether one of the statements of a file says so. `SMT vulnerable` has a check of its own.
fn says_vulnerable(text: &str) -> bool {
    text.split([';', ',']).any(|part| {
        let part = part.to_ascii_lowercase();
        part.contains("vulnerable") && !part.contains("smt vulnerable")
    })
}

fn smt_on(topology: &Topology) -> Found {
    const FILE: &str = "sys/devices/system/cpu/smt/control";
    let file = format!("/{FILE}");
    let fix = "boot with nosmt, or pin each guest to whole cores";
    match topology
        .host
        .settings
        .get(FILE)
        .map(|setting| setting.text.as_str())
    {
        Some(text @ ("off" | "forceoff" | "notsupported" | "notimplemented")) => {
            Found::pass(text).saw(file, text)
        }
        Some(text) => Found::warn(text, fix).saw(file, text),
        None => Found::warn(NOT_READ, fix).saw(file, "cannot be read"),
    }
}
