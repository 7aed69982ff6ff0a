//! What a run of the scoreboard wants of every VMM: the lab does it, and the page says what of it has no record.

use crate::record::{Case, Guest, Interface, Pages};

/// The interfaces, the better one first.
pub const INTERFACES: [Interface; 2] = [Interface::Iommufd, Interface::Type1];
/// Sizes of the guests whose memory is mapped.
const GIB: [u32; 4] = [1, 4, 8, 16];

/// A guest that is started by an interface, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kernel interface to its devices.
    pub interface: Interface,
    /// The guest.
    pub guest: Guest,
    /// How often; more than zero.
    pub runs: u32,
}

/// A guest of one vCPU and 256 MiB, without a console.
#[must_use]
pub const fn guest(nics: u32, nvmes: u32) -> Guest {
    Guest {
        vcpus: 1,
        memory_mib: 256,
        pages: Pages::Default,
        nics,
        nvmes,
        console: false,
    }
}

/// The guest of the goals.
pub const NVME: Guest = guest(0, 1);
/// The guest of the cases in which every VMM takes part, also one that takes no NVMe controller.
pub const NIC: Guest = guest(1, 0);
/// A guest with one VF of each kind.
const BOTH: Guest = guest(1, 1);

/// Everything that is wanted of a case, where `runs` are asked for.
#[must_use]
pub fn wanted(case: Case, is_quick: bool, runs: u32) -> Vec<Wanted> {
    // One run by the better interface where it must be quick.
    let few = if is_quick { [1, 0] } else { [runs; 2] };
    let rows = match case {
        Case::Start => start(is_quick, runs),
        Case::Surface => vec![(NIC, few)],
        Case::Steady => [BOTH, NIC].map(|guest| (guest, few)).into(),
        Case::Calls | Case::Life => [NVME, NIC].map(|guest| (guest, few)).into(),
        Case::Instructions if is_quick => [NVME, NIC].map(|guest| (guest, [runs, 0])).into(),
        Case::Instructions => [NVME, NIC, guest(0, 4)]
            .map(|guest| (guest, [runs; 2]))
            .into(),
        Case::Mapping => mapping(is_quick, runs),
        Case::Code => Vec::new(),
    };
    let each = |(guest, runs): (Guest, [u32; 2])| {
        let pairs = INTERFACES.into_iter().zip(runs);
        pairs.map(move |(interface, runs)| Wanted {
            interface,
            guest,
            runs,
        })
    };
    let all = rows.into_iter().flat_map(each);
    all.filter(|wanted| wanted.runs > 0).collect()
}

/// The guests of the goals; then slopes over VFs from the first of them on, and over vCPUs.
fn start(is_quick: bool, runs: u32) -> Vec<(Guest, [u32; 2])> {
    let console = Guest {
        console: true,
        ..NVME
    };
    let of_vcpus = |vcpus| Guest { vcpus, ..NVME };
    if is_quick {
        let mut rows = vec![(NVME, [runs, 1])];
        rows.extend([console, NIC, BOTH, guest(0, 4), of_vcpus(2)].map(|guest| (guest, [1, 0])));
        return rows;
    }
    let mut rows: Vec<_> = [NVME, console, NIC, BOTH]
        .map(|guest| (guest, [runs; 2]))
        .into();
    let slopes = [
        guest(0, 2),
        guest(0, 4),
        guest(0, 7),
        of_vcpus(2),
        of_vcpus(4),
    ];
    rows.extend(slopes.map(|guest| (guest, [runs, 0])));
    rows
}

/// Sizes and pages; two sizes by the other interface too, which is a slope.
fn mapping(is_quick: bool, runs: u32) -> Vec<(Guest, [u32; 2])> {
    let sizes = if is_quick { &GIB[..1] } else { &GIB[..] };
    let of_size = |(nth, gib): (usize, &u32)| {
        let runs = match nth {
            _ if is_quick => [1, 0],
            0 | 1 => [runs; 2],
            _ => [runs, 0],
        };
        let memory_mib = gib << 10;
        [Pages::TwoMib, Pages::Small].map(|pages| {
            let guest = Guest {
                memory_mib,
                pages,
                ..NVME
            };
            (guest, runs)
        })
    };
    sizes.iter().enumerate().flat_map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: [Case; 7] = [
        Case::Start,
        Case::Surface,
        Case::Calls,
        Case::Steady,
        Case::Life,
        Case::Instructions,
        Case::Mapping,
    ];

    #[test]
    fn a_quick_run_is_a_part_of_a_full_one() {
        for case in MEASURED {
            let full = wanted(case, false, 3);
            for quick in wanted(case, true, 3) {
                let same =
                    |one: &&Wanted| (one.guest, one.interface) == (quick.guest, quick.interface);
                let full = full.iter().find(same).expect("it is in the full run");
                assert!((1..=full.runs).contains(&quick.runs), "{quick:?}");
            }
        }
    }

    #[test]
    fn nothing_is_wanted_twice() {
        for (case, is_quick) in MEASURED
            .into_iter()
            .flat_map(|case| [(case, true), (case, false)])
        {
            let all = wanted(case, is_quick, 5);
            for (at, one) in all.iter().enumerate() {
                let again =
                    |other: &Wanted| (other.guest, other.interface) == (one.guest, one.interface);
                assert!(!all[at + 1..].iter().any(again), "{case:?}: {one:?}");
            }
        }
    }

    #[test]
    fn a_vmm_without_nvme_takes_part_in_every_case_but_mapping() {
        for (case, is_quick) in MEASURED
            .into_iter()
            .flat_map(|case| [(case, true), (case, false)])
        {
            let takes_part = wanted(case, is_quick, 1).iter().any(|one| one.guest == NIC);
            assert_eq!(takes_part, case != Case::Mapping, "{case:?}");
        }
    }
}
