//! Claims that hold for every order in which guests, applies, recoveries and boots come, and wherever they are cut off.

use proptest::prelude::*;

use super::{
    machine_test::{Dies, NIC, NVME, bdf},
    world_test::{Verdict, World},
};

const GUESTS: [&str; 3] = ["a", "b", "c"];
/// Those with namespaces more often: what outlives a lease is there.
const POOLS: [&str; 6] = ["one", "two", "disk", "disk", "more", "more"];

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Start {
        guest: usize,
        pool: usize,
        keep: bool,
        dies: Option<Dies>,
    },
    Stop {
        guest: usize,
        dies: Option<Dies>,
    },
    Kill {
        guest: usize,
    },
    Recover {
        dies: Option<Dies>,
    },
    Apply {
        file: u8,
        dies: Option<Dies>,
    },
    Reboot {
        forgets: bool,
    },
    Return {
        is_nic: bool,
        index: u32,
        dies: Option<Dies>,
    },
}

/// The number of a host file: mostly one that has the namespaces of two VFs the other way round.
fn file() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0), 2 => Just(0b00_1000), 3 => 0..128u8]
}

/// Mostly nothing dies.
fn dies() -> impl Strategy<Value = Option<Dies>> {
    prop_oneof![
        4 => Just(None),
        1 => (0..12usize).prop_map(|at| Some(Dies::Before(at))),
        1 => (0..12usize).prop_map(|at| Some(Dies::After(at))),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    let guest = || 0..GUESTS.len();
    prop_oneof![
        6 => (guest(), 0..POOLS.len(), any::<bool>(), dies()).prop_map(
            |(guest, pool, keep, dies)| Happens::Start { guest, pool, keep, dies }
        ),
        4 => (guest(), dies()).prop_map(|(guest, dies)| Happens::Stop { guest, dies }),
        1 => guest().prop_map(|guest| Happens::Kill { guest }),
        3 => dies().prop_map(|dies| Happens::Recover { dies }),
        3 => (prop_oneof![3 => file(), 1 => any::<u8>()], dies()).prop_map(|(file, dies)| Happens::Apply { file, dies }),
        1 => any::<bool>().prop_map(|forgets| Happens::Reboot { forgets }),
        2 => (any::<bool>(), 0..3u32, dies()).prop_map(
            |(is_nic, index, dies)| Happens::Return { is_nic, index, dies }
        ),
    ]
}

fn step(world: &mut World, next: Happens) -> Verdict {
    match next {
        Happens::Start {
            guest,
            pool,
            keep,
            dies,
        } => world.start(GUESTS[guest], POOLS[pool], keep, dies)?,
        Happens::Stop { guest, dies } => world.stop(GUESTS[guest], dies),
        Happens::Kill { guest } => world.kill(GUESTS[guest]),
        Happens::Recover { dies } => world.recover(dies),
        Happens::Apply { file, dies } => world.apply(file, dies),
        Happens::Reboot { forgets } => world.reboot(forgets),
        Happens::Return {
            is_nic,
            index,
            dies,
        } => world.return_lease(bdf(if is_nic { NIC } else { NVME }), index, dies),
    }
    world.check()
}

/// `PROPTEST_CASES` of them, or so many that nobody waits for it.
fn config() -> ProptestConfig {
    let is_asked = std::env::var_os("PROPTEST_CASES").is_some();
    let usual = ProptestConfig {
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    };
    match is_asked {
        true => usual,
        false => ProptestConfig { cases: 48, ..usual },
    }
}

proptest! {
    #![proptest_config(config())]

    /// No VF and no namespace is in two leases, and no guest finds another's data, format, address or VLAN.
    #[test]
    fn no_vf_has_two_leases_and_no_guest_finds_what_is_another_s(
        first in file(),
        all in prop::collection::vec(happens(), 1..40),
    ) {
        let mut world = World::new("interleaved", first);
        for (at, next) in all.iter().enumerate() {
            let verdict = step(&mut world, *next);
            prop_assert!(verdict.is_ok(), "{}: {next:?}: {}", at + 1, verdict.unwrap_err());
        }
    }

    /// Whatever happened, nothing of it stays: `recover`, the host file and the return of kept leases make all free again.
    #[test]
    fn whatever_happened_all_vfs_and_namespaces_come_to_be_clean_again(
        first in file(),
        all in prop::collection::vec(happens(), 1..20),
    ) {
        let mut world = World::new("settled", first);
        for next in &all {
            // What goes wrong on the way is the other claim's.
            step(&mut world, *next).ok();
        }
        let verdict = world.settle();
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }
}

/// What comes of this order, up to all being free again.
fn ordered(name: &str, first: u8, all: &[Happens]) -> Verdict {
    let mut world = World::new(name, first);
    for next in all {
        step(&mut world, *next).map_err(|why| format!("{next:?}: {why}"))?;
    }
    world.settle()
}

fn start(guest: usize, pool: usize, keep: bool) -> Happens {
    let dies = None;
    Happens::Start {
        guest,
        pool,
        keep,
        dies,
    }
}

fn stop(guest: usize) -> Happens {
    Happens::Stop { guest, dies: None }
}

fn apply(file: u8) -> Happens {
    Happens::Apply { file, dies: None }
}

const OFF: Happens = Happens::Reboot { forgets: false };
const RECOVER: Happens = Happens::Recover { dies: None };
const TWO: usize = 1;
const DISK: usize = 2;
const MORE: usize = 4;
/// Bits of a file's number.
const NO_MAC: u8 = 2;
const SWAPPED: u8 = 8;
const ONE_DISK: u8 = 32;
const NO_MORE: u8 = 128;

#[test]
fn address_that_a_guest_has_set_is_not_the_next_one_s() {
    let all = [start(1, TWO, false), stop(1), start(2, TWO, false)];
    ordered("address", NO_MAC, &all).unwrap();
}

#[test]
fn namespace_of_a_kept_lease_is_not_moved_to_another_vf() {
    let all = [
        start(2, DISK, true),
        stop(2),
        apply(SWAPPED | ONE_DISK),
        start(2, MORE, true),
    ];
    ordered("moved", 0, &all).unwrap();
}

#[test]
fn return_of_a_lease_under_another_file_cleans_nothing_of_another_guest() {
    let all = [
        start(0, DISK, true),
        start(1, DISK, true),
        stop(0),
        stop(1),
        apply(SWAPPED),
        Happens::Return {
            is_nic: false,
            index: 0,
            dies: None,
        },
        start(2, DISK, false),
    ];
    ordered("foreign-return", 0, &all).unwrap();
}

#[test]
fn file_that_is_applied_before_what_was_cut_off_is_recovered_loses_no_erase() {
    let all = [start(0, DISK, false), OFF, apply(0), RECOVER];
    ordered("apply-first", 0, &all).unwrap();
}

#[test]
fn kept_lease_can_be_returned_after_a_reboot() {
    for forgets in [false, true] {
        let off = Happens::Reboot { forgets };
        let all = [start(0, DISK, true), stop(0), off];
        ordered("returned-later", 0, &all).unwrap();
    }
}

#[test]
fn kept_lease_ends_though_its_vf_left_the_pool() {
    let all = [
        start(0, DISK, true),
        start(1, DISK, true),
        stop(0),
        stop(1),
        apply(ONE_DISK),
    ];
    ordered("left", 0, &all).unwrap();
}

#[test]
fn kept_lease_ends_though_its_vf_is_in_no_pool() {
    let all = [
        start(0, DISK, true),
        start(1, DISK, true),
        stop(0),
        stop(1),
        apply(ONE_DISK | NO_MORE),
        Happens::Return {
            is_nic: false,
            index: 1,
            dies: None,
        },
    ];
    let mut world = World::new("no-pool", 0);
    for next in all {
        step(&mut world, next).unwrap();
    }
    assert!(
        !world.is_leased(1),
        "the lease of a VF in no pool does not end"
    );
}

#[test]
fn what_a_guest_kept_is_returned_though_the_file_changed_while_it_ran() {
    let all = [start(0, DISK, true), apply(SWAPPED)];
    ordered("changed", 0, &all).unwrap();
}

#[test]
fn claim_that_no_journal_tells_of_ends() {
    let claim = Happens::Start {
        guest: 0,
        pool: DISK,
        keep: false,
        dies: Some(Dies::Before(0)),
    };
    ordered("claimed", 0, &[claim]).unwrap();
    ordered("claimed-off", 0, &[claim, OFF]).unwrap();
    ordered("claimed-moved", 0, &[claim, apply(SWAPPED)]).unwrap();
}
