//! How much each process of a guest may have: the limits of its cgroups, made from the guest's size. Those of the process
//! itself are in [`jailed::manifest::limits()`] for V and D, in [`super::own`] for S.

use jailed::manifest::{Role, tasks};

use super::ids::Member;

/// The guest, as far as limits go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// vCPUs.
    pub vcpus: u32,
    /// RAM in bytes.
    pub ram_bytes: u64,
    /// Images in bytes, those that are copied into memory and those that are read.
    pub images_bytes: u64,
    /// Processor time of V, in hundredths of one processor.
    pub cpu_percent: u32,
    /// What the guest's processes and the kernel on their behalf may have besides, in bytes.
    pub overhead_bytes: u64,
}

/// One file of a cgroup and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which cgroup; `None` is the guest's, which holds the others.
    pub member: Option<Member>,
    /// The file.
    pub file: &'static str,
    /// Its content.
    pub value: String,
    /// Whether a kernel may lack the file.
    pub is_optional: bool,
    /// Why it is what it is.
    pub why: &'static str,
}

const MIB: u64 = 1 << 20;
/// The length of a period of `cpu.max`, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The settings of a guest's cgroups.
///
/// RAM is charged to the supervisor's, which makes it present; page tables of processor and KVM to V's. They have 8 bytes
/// for each page of 4 KiB, in four tables at most: V's, KVM's, its reverse map, and the IOMMU's.
#[must_use]
pub fn settings(size: &Size) -> Vec<Setting> {
    let tables = size.ram_bytes.saturating_add(size.images_bytes) / 128;
    let vcpu_memory = tables + 32 * MIB;
    let device_memory = 16 * MIB;
    let whole = [
        size.ram_bytes,
        size.images_bytes,
        tables,
        vcpu_memory,
        device_memory,
        size.overhead_bytes,
    ];
    let whole = whole.into_iter().fold(0_u64, u64::saturating_add);
    let quota = |percent: u32| format!("{} {PERIOD_US}", u64::from(percent) * PERIOD_US / 100);
    let (guest, supervisor) = (None, Some(Member::Supervisor));
    let (vcpu, device) = (Some(Member::Vcpu), Some(Member::Device));
    let must = |member, file, value, why| Setting {
        member,
        file,
        value,
        is_optional: false,
        why,
    };
    let pids = |role| tasks(role, size.vcpus).to_string();
    let memory = |bytes: u64| bytes.to_string();
    let all_at_once = "what is short of memory ends whole";
    vec![
        must(
            guest,
            "memory.max",
            memory(whole),
            "RAM, images, tables, and what its processes need besides",
        ),
        Setting {
            // A kernel without swap has no such file.
            is_optional: true,
            ..must(
                guest,
                "memory.swap.max",
                memory(0),
                "a guest's memory goes to no disk",
            )
        },
        // No memory.max of its own: the guest's RAM is charged here, and the guest's limit holds it.
        must(
            supervisor,
            "pids.max",
            BOTH.to_owned(),
            "S and K, neither of which starts a thread once the guest is built; V and D start in cgroups of their own",
        ),
        must(
            supervisor,
            "cpu.max",
            quota(200),
            "S copies what the guest writes, K fills memory: one thread each",
        ),
        must(
            vcpu,
            "memory.max",
            memory(vcpu_memory),
            "page tables of processor and KVM, and its own memory",
        ),
        must(vcpu, "memory.oom.group", "1".to_owned(), all_at_once),
        must(
            vcpu,
            "pids.max",
            pids(Role::Vcpu),
            "one a vCPU, and one of KVM's from Linux 6.13 on",
        ),
        must(
            vcpu,
            "cpu.max",
            quota(size.cpu_percent),
            "what the guest file gives it",
        ),
        must(
            device,
            "memory.max",
            memory(device_memory),
            "its model of a few devices",
        ),
        must(device, "memory.oom.group", "1".to_owned(), all_at_once),
        must(
            device,
            "pids.max",
            pids(Role::Device),
            "one that answers and one that watches",
        ),
        must(
            device,
            "cpu.max",
            quota(100),
            "it answers one vCPU after the other",
        ),
    ]
}

/// `pids.max` of S and K while no guest runs: threads that make RAM, sixteen at most, that wait for a function each, and the
/// two.
pub(super) const WITH_THREADS: &str = "64";
/// The same while one runs, and until it is inspected: neither starts a thread.
pub(super) const BOTH: &str = "2";

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        vcpus: 4,
        ram_bytes: 1 << 30,
        images_bytes: 256 * MIB,
        cpu_percent: 400,
        overhead_bytes: 64 * MIB,
    };

    fn value(size: &Size, member: Option<Member>, file: &str) -> String {
        let all = settings(size);
        let found = all.iter().find(|s| s.member == member && s.file == file);
        found.unwrap().value.clone()
    }

    #[test]
    fn limits_go_by_the_guests_size() {
        let vcpu = Some(Member::Vcpu);
        assert_eq!(value(&SIZE, vcpu, "pids.max"), "5");
        assert_eq!(value(&SIZE, vcpu, "cpu.max"), "400000 100000");
        // 1280 MiB / 128 = 10 MiB of tables.
        assert_eq!(value(&SIZE, vcpu, "memory.max"), (42 * MIB).to_string());
        let whole = 1024 + 256 + 10 + 42 + 16 + 64;
        assert_eq!(value(&SIZE, None, "memory.max"), (whole * MIB).to_string());
        assert_eq!(value(&SIZE, Some(Member::Device), "pids.max"), "2");
    }

    /// A flood of the console, or a bug, in S or K stays in what they need.
    #[test]
    fn the_supervisors_side_has_limits_of_its_own() {
        let supervisor = Some(Member::Supervisor);
        assert_eq!(value(&SIZE, supervisor, "pids.max"), "2");
        assert_eq!(value(&SIZE, supervisor, "cpu.max"), "200000 100000");
    }

    #[test]
    fn every_setting_has_its_reason() {
        assert!(
            settings(&SIZE)
                .iter()
                .all(|setting| !setting.why.is_empty())
        );
    }

    #[test]
    fn the_guests_limit_holds_those_of_its_processes_and_its_ram() {
        for ram in [64 * MIB, 1 << 30, 1 << 40, u64::MAX] {
            let size = Size {
                ram_bytes: ram,
                overhead_bytes: 16 * MIB,
                ..SIZE
            };
            let number = |member| value(&size, member, "memory.max").parse::<u64>().unwrap();
            let parts = number(Some(Member::Vcpu)).saturating_add(number(Some(Member::Device)));
            assert!(number(None) >= parts.saturating_add(ram), "{ram:#x}");
        }
    }

    #[test]
    fn every_setting_is_written_once() {
        let all = settings(&SIZE);
        for (index, one) in all.iter().enumerate() {
            let is_again = |other: &Setting| (other.member, other.file) == (one.member, one.file);
            assert!(!all[index + 1..].iter().any(is_again), "{one:?}");
        }
    }
}
