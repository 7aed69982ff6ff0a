//! What the CPUID instruction tells the guest: what KVM supports, masked by a table.
//!
//! A leaf without a row reads zero. One package, one thread per core, APIC id = index of the vCPU.
//!
//! *Source:* `Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; Documentation/virt/kvm/x86/cpuid.rst (v6.12)`.

use crate::sys::kvm_abi::{Cpuid, CpuidEntry};

/// Which bits of a leaf the guest sees.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The leaf.
    pub leaf: u32,
    /// The subleaf, or all of them.
    pub subleaf: Option<u32>,
    /// The bits of eax, ebx, ecx, edx that are kept from what KVM supports.
    pub keep: [u32; 4],
    /// The bits that are set whatever KVM says.
    pub set: [u32; 4],
    /// Why.
    pub reason: &'static str,
}

const ALL: u32 = u32::MAX;
const NONE: u32 = 0;
const KEEP_ALL: [u32; 4] = [ALL; 4];
const SET_NONE: [u32; 4] = [NONE; 4];

const fn row(leaf: u32, keep: [u32; 4], reason: &'static str) -> Row {
    Row {
        leaf,
        subleaf: None,
        keep,
        set: SET_NONE,
        reason,
    }
}

const fn bits<const N: usize>(bits: [u32; N]) -> u32 {
    let (mut mask, mut at) = (0, 0);
    while at < N {
        mask |= 1 << bits[at];
        at += 1;
    }
    mask
}

/// Leaf 1 ecx: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, SDBG, xTPR, PDCM, DCA.
const LEAF_1_ECX_OFF: u32 = bits([2, 3, 4, 5, 6, 7, 8, 11, 14, 15, 18]);
/// Leaf 1 ecx: x2APIC, TSC deadline, hypervisor.
const LEAF_1_ECX_ON: u32 = bits([21, 24, 31]);
/// Leaf 1 edx: serial number, debug store, ACPI thermal, thermal monitor, pending break.
const LEAF_1_EDX_OFF: u32 = bits([18, 21, 22, 29, 31]);
/// Leaf 7.0 ebx: SGX, RDT monitoring, RDT allocation, processor trace.
const LEAF_7_EBX_OFF: u32 = bits([2, 12, 15, 25]);
/// Leaf 7.0 ecx: user wait, key locker, ENQCMD, SGX launch control.
const LEAF_7_ECX_OFF: u32 = bits([5, 23, 29, 30]);
/// Leaf 7.0 edx: PCONFIG, architectural LBR, AMX bf16, tile, int8, core capabilities.
const LEAF_7_EDX_OFF: u32 = bits([18, 19, 22, 24, 25, 30]);
/// Leaf 7.1 eax: architectural PMU extension, AMX fp16, LAM stays.
const LEAF_7_1_EAX_OFF: u32 = bits([8, 21]);
/// KVM: clock, no delay on ports, clock 2, steal time, end of interrupt, unhalt, TLB flush, send IPI, poll control,
/// yield, stable clock.
const KVM_FEATURES: u32 = bits([0, 1, 3, 5, 6, 7, 9, 11, 12, 13, 24]);
/// Leaf 0x80000001 ecx: SVM, extended APIC space, OS workaround, IBS, SKINIT, watchdog, LWP, node id MSR, core, bridge
/// and L2 performance counters, performance TSC, MONITORX.
const EXTENDED_1_ECX_OFF: u32 = bits([2, 3, 9, 10, 12, 13, 15, 19, 23, 24, 27, 28, 29]);

/// The table.
pub const TABLE: &[Row] = &[
    row(0, KEEP_ALL, "vendor and highest leaf"),
    Row {
        leaf: 1,
        subleaf: None,
        keep: [ALL, 0xFFFF, !LEAF_1_ECX_OFF, !LEAF_1_EDX_OFF],
        set: [NONE, NONE, LEAF_1_ECX_ON, NONE],
        reason: "no nesting, monitor, debug store or thermal control; x2APIC and deadline timer are KVM's",
    },
    row(2, KEEP_ALL, "cache descriptors"),
    row(4, KEEP_ALL, "caches (Intel)"),
    row(
        6,
        [1 << 2, NONE, NONE, NONE],
        "only that the APIC timer never stops",
    ),
    Row {
        leaf: 7,
        subleaf: Some(0),
        keep: [2, !LEAF_7_EBX_OFF, !LEAF_7_ECX_OFF, !LEAF_7_EDX_OFF],
        set: SET_NONE,
        reason: "no enclaves, tracing, cache control, tiles: they need host state that V does not set up",
    },
    Row {
        leaf: 7,
        subleaf: Some(1),
        keep: [!LEAF_7_1_EAX_OFF, NONE, NONE, bits([4, 5, 14])],
        set: SET_NONE,
        reason: "instructions without state of their own",
    },
    Row {
        leaf: 7,
        subleaf: Some(2),
        keep: [NONE, NONE, NONE, ALL],
        set: SET_NONE,
        reason: "speculation controls",
    },
    row(0xB, KEEP_ALL, "topology: made here"),
    Row {
        leaf: 0xD,
        subleaf: Some(0),
        keep: [!bits([17, 18]), ALL, ALL, ALL],
        set: SET_NONE,
        reason: "state that XSAVE saves, without tiles",
    },
    row(0xD, KEEP_ALL, "layout of what XSAVE saves"),
    row(0x15, KEEP_ALL, "frequency of the TSC"),
    row(0x16, KEEP_ALL, "frequencies"),
    row(0x1F, KEEP_ALL, "topology: made here"),
    row(0x4000_0000, KEEP_ALL, "KVM's name"),
    row(
        0x4000_0001,
        [KVM_FEATURES, NONE, NONE, NONE],
        "clock and hints; no asynchronous faults (RAM is pinned), no extended message ids, no calls that leave KVM",
    ),
    row(0x8000_0000, KEEP_ALL, "highest extended leaf"),
    row(
        0x8000_0001,
        [ALL, ALL, !EXTENDED_1_ECX_OFF, ALL],
        "no nesting, profiling or monitor",
    ),
    row(0x8000_0002, KEEP_ALL, "name of the processor"),
    row(0x8000_0003, KEEP_ALL, "name of the processor"),
    row(0x8000_0004, KEEP_ALL, "name of the processor"),
    row(0x8000_0005, KEEP_ALL, "first level caches (AMD)"),
    row(0x8000_0006, KEEP_ALL, "second and third level caches"),
    row(
        0x8000_0007,
        [NONE, NONE, NONE, 1 << 8],
        "only that the TSC is invariant",
    ),
    row(
        0x8000_0008,
        [ALL, ALL, NONE, NONE],
        "address sizes, speculation controls; the number of cores is made here",
    ),
    row(0x8000_001A, KEEP_ALL, "widths of instructions"),
    row(0x8000_001D, KEEP_ALL, "caches (AMD)"),
    row(0x8000_001E, KEEP_ALL, "topology: made here"),
    row(0x8000_0021, KEEP_ALL, "speculation facts (AMD)"),
];

/// What vCPU `vcpu` of `vcpus` is told, from what KVM supports; `None` where that is more than fits.
#[must_use]
pub fn guest_cpuid(supported: &[CpuidEntry], vcpu: u32, vcpus: u32) -> Option<Cpuid> {
    let mut cpuid = Cpuid::new();
    let topology = Topology { vcpu, vcpus };
    for entry in supported {
        let Some(row) = row_of(entry) else { continue };
        // Leaves of which every subleaf is made here.
        if matches!(entry.function, 0xB | 0x1F) {
            if entry.index == 0 && !topology.levels(entry).into_iter().all(|e| cpuid.push(e)) {
                return None;
            }
        } else if !cpuid.push(topology.adapt(masked(entry, row))) {
            return None;
        }
    }
    Some(cpuid)
}

/// The first row that `entry` falls under.
fn row_of(entry: &CpuidEntry) -> Option<&'static Row> {
    TABLE.iter().find(|row| {
        row.leaf == entry.function && row.subleaf.is_none_or(|subleaf| subleaf == entry.index)
    })
}

fn masked(entry: &CpuidEntry, row: &Row) -> CpuidEntry {
    let [eax, ebx, ecx, edx] = row.keep;
    let [set_eax, set_ebx, set_ecx, set_edx] = row.set;
    CpuidEntry {
        eax: entry.eax & eax | set_eax,
        ebx: entry.ebx & ebx | set_ebx,
        ecx: entry.ecx & ecx | set_ecx,
        edx: entry.edx & edx | set_edx,
        ..*entry
    }
}

/// Which vCPU of how many.
#[derive(Clone, Copy)]
struct Topology {
    vcpu: u32,
    vcpus: u32,
}

impl Topology {
    /// How many low bits of an APIC id number the cores.
    fn core_bits(self) -> u32 {
        self.vcpus.next_power_of_two().trailing_zeros()
    }

    /// Writes this vCPU's place into the leaves that tell it.
    fn adapt(self, entry: CpuidEntry) -> CpuidEntry {
        const HTT: u32 = 1 << 28;
        const CMP_LEGACY: u32 = 1 << 1;
        let is_many = self.vcpus > 1;
        let shared_by = (1 << self.core_bits()) - 1;
        let kept = |word: u32, flag: u32| word & !flag | if is_many { flag } else { 0 };
        match entry.function {
            1 => CpuidEntry {
                ebx: entry.ebx & 0xFFFF | self.vcpus << 16 | self.vcpu << 24,
                edx: kept(entry.edx, HTT),
                ..entry
            },
            // Of the caches, the third level is shared by all cores.
            4 | 0x8000_001D if entry.eax & 0x1F != 0 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { shared_by << 14 } else { 0 };
                let cores = if entry.function == 4 {
                    shared_by << 26
                } else {
                    0
                };
                CpuidEntry {
                    eax: entry.eax & 0x3FFF | sharing | cores,
                    ..entry
                }
            }
            0x8000_0001 => CpuidEntry {
                ecx: kept(entry.ecx, CMP_LEGACY),
                ..entry
            },
            0x8000_0008 => CpuidEntry {
                ecx: self.core_bits() << 12 | (self.vcpus - 1),
                ..entry
            },
            0x8000_001E => CpuidEntry {
                eax: self.vcpu,
                ebx: self.vcpu,
                ecx: 0,
                edx: 0,
                ..entry
            },
            _ => entry,
        }
    }

    /// The subleaves of leaves 0xB and 0x1F: threads, cores, the end.
    fn levels(self, entry: &CpuidEntry) -> [CpuidEntry; 3] {
        const SUBLEAF_COUNTS: u32 = 1;
        const THREADS: u32 = 1 << 8;
        const CORES: u32 = 2 << 8;
        let level = |index, eax, ebx, kind| CpuidEntry {
            function: entry.function,
            index,
            flags: SUBLEAF_COUNTS,
            eax,
            ebx,
            ecx: index | kind,
            edx: self.vcpu,
            padding: [0; 3],
        };
        [
            level(0, 0, 1, THREADS),
            level(1, self.core_bits(), self.vcpus, CORES),
            level(2, 0, 0, 0),
        ]
    }
}
