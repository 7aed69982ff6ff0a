//! How much each process of a guest may have: limits of the cgroup and of the process, made from the guest's size.

use rustix::process::Resource;

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
    let (guest, vcpu, device) = (None, Some(Member::Vcpu), Some(Member::Device));
    let must = |member, file, value| Setting {
        member,
        file,
        value,
        is_optional: false,
    };
    let may = |member, file, value| Setting {
        is_optional: true,
        ..must(member, file, value)
    };
    vec![
        must(guest, "memory.max", whole.to_string()),
        // A kernel without swap has no such file.
        may(guest, "memory.swap.max", "0".to_owned()),
        must(vcpu, "memory.max", vcpu_memory.to_string()),
        must(vcpu, "memory.oom.group", "1".to_owned()),
        must(vcpu, "pids.max", threads(Member::Vcpu, size).to_string()),
        must(vcpu, "cpu.max", quota(size.cpu_percent)),
        must(device, "memory.max", device_memory.to_string()),
        must(device, "memory.oom.group", "1".to_owned()),
        must(
            device,
            "pids.max",
            threads(Member::Device, size).to_string(),
        ),
        must(device, "cpu.max", quota(100)),
    ]
}

/// How many threads V or D has at most. KVM starts one of its own in V, from Linux 6.13 on; D has one that answers and
/// one that watches.
#[must_use]
pub const fn threads(member: Member, size: &Size) -> u32 {
    match member {
        Member::Supervisor => 1,
        Member::Device => 2,
        Member::Vcpu => size.vcpus + 1,
    }
}

/// The limits that V or D starts with. `descriptors` is how many numbers it may use; it lowers some further itself.
#[must_use]
pub(super) fn process_limits(
    member: Member,
    size: &Size,
    descriptors: u64,
) -> [(Resource, u64); 11] {
    [
        // What is in the list, and what V makes of KVM.
        (Resource::Nofile, descriptors),
        // The same as pids.max, where there is no cgroup.
        (Resource::Nproc, u64::from(threads(member, size))),
        // No file grows: pipes, eventfds and devices are none.
        (Resource::Fsize, 0),
        // A core of V would hold guest RAM.
        (Resource::Core, 0),
        // Nothing is locked: RAM is pinned by the IOMMU's owner.
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        // Nothing sends signals with a value, and none is handled.
        (Resource::Sigpending, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
        // No function calls itself, and threads have stacks of their own.
        (Resource::Stack, MIB),
        (Resource::Locks, 0),
    ]
}

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
