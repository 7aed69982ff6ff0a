//! What the guest is told about its processor.

use std::fmt::Write;

use super::cpuid::{TABLE, guest_cpuid};
use crate::sys::kvm_abi::{Cpuid, CpuidEntry, MAX_CPUID};

fn entry(function: u32, index: u32) -> CpuidEntry {
    CpuidEntry {
        function,
        index,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
        ..CpuidEntry::default()
    }
}

/// What a guest of four vCPUs is told where KVM supports everything.
fn told(vcpu: u32) -> Cpuid {
    let leaves = (0..0x40)
        .chain(0x4000_0000..0x4000_0010)
        .chain(0x8000_0000..0x8000_0030);
    let supported: Vec<_> = leaves.map(|leaf| entry(leaf, 0)).collect();
    guest_cpuid(&supported, vcpu, 4).unwrap()
}

fn leaf(cpuid: &Cpuid, function: u32, index: u32) -> CpuidEntry {
    let mut entries = cpuid.entries().iter();
    let found = entries.find(|e| e.function == function && e.index == index);
    *found.unwrap()
}

#[test]
fn the_table_is_the_golden_one() {
    let mut text = String::new();
    for row in TABLE {
        let subleaf = row.subleaf.map_or("*".to_owned(), |s| s.to_string());
        let hex = |words: [u32; 4]| words.map(|w| format!("{w:08x}")).join(" ");
        writeln!(
            text,
            "{:08x}.{subleaf} keep {} set {}",
            row.leaf,
            hex(row.keep),
            hex(row.set)
        )
        .unwrap();
        writeln!(text, "           {}", row.reason).unwrap();
    }
    assert_eq!(text, include_str!("cpuid.golden.txt"), "\n{text}");
}

#[test]
fn leaves_without_a_row_are_absent() {
    let cpuid = told(0);
    for absent in [
        5,
        0xA,
        0x12,
        0x14,
        0x1D,
        0x4000_0010,
        0x8000_000A,
        0x8000_001F,
        0x8000_0022,
    ] {
        assert!(
            cpuid.entries().iter().all(|e| e.function != absent),
            "{absent:#x}"
        );
    }
}

#[test]
fn nesting_monitor_and_performance_counters_are_off() {
    let cpuid = told(0);
    let (vmx, monitor, svm) = (1 << 5, 1 << 3, 1 << 2);
    assert_eq!(leaf(&cpuid, 1, 0).ecx & (vmx | monitor), 0);
    assert_eq!(leaf(&cpuid, 0x8000_0001, 0).ecx & svm, 0);
    let (async_fault, extended_destination, async_fault_interrupt) = (1 << 4, 1 << 15, 1 << 14);
    let features = leaf(&cpuid, 0x4000_0001, 0).eax;
    assert_eq!(
        features & (async_fault | extended_destination | async_fault_interrupt),
        0
    );
}

#[test]
fn x2apic_deadline_timer_and_hypervisor_are_on_whatever_kvm_says() {
    let bare = CpuidEntry {
        function: 1,
        ..CpuidEntry::default()
    };
    let cpuid = guest_cpuid(&[bare], 0, 1).unwrap();
    assert_eq!(leaf(&cpuid, 1, 0).ecx, 1 << 21 | 1 << 24 | 1 << 31);
}

#[test]
fn every_leaf_tells_the_same_apic_id() {
    for vcpu in 0..4 {
        let cpuid = told(vcpu);
        assert_eq!(leaf(&cpuid, 1, 0).ebx >> 24, vcpu);
        assert_eq!(leaf(&cpuid, 1, 0).ebx >> 16 & 0xFF, 4);
        for index in 0..3 {
            assert_eq!(leaf(&cpuid, 0xB, index).edx, vcpu);
            assert_eq!(leaf(&cpuid, 0x1F, index).edx, vcpu);
        }
        assert_eq!(leaf(&cpuid, 0x8000_001E, 0).eax, vcpu);
    }
}

#[test]
fn one_package_has_a_core_for_each_vcpu() {
    let cpuid = told(0);
    let (threads, cores, end) = (
        leaf(&cpuid, 0xB, 0),
        leaf(&cpuid, 0xB, 1),
        leaf(&cpuid, 0xB, 2),
    );
    assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
    assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 4, 0x201));
    assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
    assert_eq!(leaf(&cpuid, 0x8000_0008, 0).ecx, 2 << 12 | 3);
}

#[test]
fn only_the_last_level_of_caches_is_shared() {
    let cache = |level: u32| CpuidEntry {
        eax: 0xFFFF_C000 | level << 5 | 3,
        ..entry(4, level)
    };
    let cpuid = guest_cpuid(&[cache(2), cache(3)], 0, 4).unwrap();
    assert_eq!(leaf(&cpuid, 4, 2).eax, 3 << 26 | 2 << 5 | 3);
    assert_eq!(leaf(&cpuid, 4, 3).eax, 3 << 26 | 3 << 14 | 3 << 5 | 3);
}

#[test]
fn a_single_vcpu_has_no_siblings() {
    let supported = [entry(1, 0), entry(0x8000_0001, 0)];
    let cpuid = guest_cpuid(&supported, 0, 1).unwrap();
    assert_eq!(leaf(&cpuid, 1, 0).edx & 1 << 28, 0);
    assert_eq!(leaf(&cpuid, 0x8000_0001, 0).ecx & 2, 0);
}

#[test]
fn more_leaves_than_there_is_room_for_are_a_failure() {
    let supported = vec![entry(0xD, 0); MAX_CPUID + 1];
    assert!(guest_cpuid(&supported, 0, 1).is_none());
}
