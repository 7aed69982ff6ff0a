//! What was not measured, as far as records and templates tell it: nobody writes that by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::{pick, tables, words};
use crate::{
    plan::{self, Wanted},
    record::{Board, Case, Interface},
    vmm::{HARDENED, Peer, TEMPLATES, Vmm},
};

/// Each as an item of a list.
#[must_use]
pub fn absent(board: &Board) -> Vec<String> {
    let mut items = Vec::new();
    let cases = tables::CASES.into_iter();
    let (there, gone): (Vec<_>, Vec<_>) =
        cases.partition(|(case, ..)| !pick::shapes(board, *case).is_empty());
    if !gone.is_empty() {
        let titles: Vec<_> = gone
            .iter()
            .map(|(_, title, _)| words::inside(title))
            .collect();
        items.push(format!("in this run: {}", titles.join("; ")));
    }
    let mut lacks = BTreeSet::new();
    let mut open = Vec::new();
    for (case, title, _) in there {
        // Of those that lack the same: one item, and what they lack in the order of the plan.
        let mut by_vmms: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
        for wanted in plan::wanted(case, board.quick, 1) {
            let without = without(board, case, &wanted, &mut lacks);
            if !without.is_empty() {
                by_vmms.entry(without).or_default().push(shape(&wanted));
            }
        }
        for (vmms, shapes) in by_vmms {
            let title = words::inside(title);
            let vmms = vmms.join(", ");
            open.push(format!("no run of {vmms}, {title}: {}", shapes.join("; ")));
        }
    }
    items.extend(lacks);
    items.extend(open);
    items.extend(no_program(board));
    items
}

/// The VMMs that have no record of it, but for those whose template says why; that goes into `lacks`.
fn without<'a>(
    board: &'a Board,
    case: Case,
    wanted: &Wanted,
    lacks: &mut BTreeSet<String>,
) -> Vec<&'a str> {
    let is_there = |name: &str| {
        board.records.iter().any(|record| {
            record.case == case
                && record.vmm == name
                && record.interface == Some(wanted.interface)
                && record.guest == Some(wanted.guest)
        })
    };
    // Of a hardened one nothing else is wanted.
    let is_wanted = |name: &&str| case == Case::Surface || !name.ends_with(HARDENED);
    let names = board.vmms.iter().map(|vmm| vmm.name.as_str());
    let names = names.filter(is_wanted);
    let gone = names.filter(|name| !is_there(name));
    gone.filter(|name| {
        let peer = Peer::load(name, None).ok();
        let why = peer.and_then(|peer| peer.lacks(wanted.interface, &wanted.guest));
        let is_known = why.is_some();
        lacks.extend(why);
        !is_known
    })
    .collect()
}

fn shape(wanted: &Wanted) -> String {
    let interface = match wanted.interface {
        Interface::Iommufd => "iommufd",
        Interface::Type1 => "type1",
    };
    format!("{}, by {interface}", words::guest(wanted.guest))
}

/// The peers of which no program was given, by whether their templates ever ran.
fn no_program(board: &Board) -> Vec<String> {
    let is_gone = |name: &&str| !board.vmms.iter().any(|vmm| vmm.name == **name);
    let (mut ran, mut never) = (Vec::new(), Vec::new());
    for name in TEMPLATES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| is_gone(name))
    {
        let version = Peer::load(name, None).ok();
        match version.as_ref().and_then(Peer::ran) {
            Some(version) => ran.push(format!("{name} (ran with {version})")),
            None => never.push(name.to_owned()),
        }
    }
    let item = |names: &[String], what: &str| {
        let names = (!names.is_empty()).then(|| names.join(", "));
        names.map(|names| format!("{names}: no program was given (`--peer`){what}"))
    };
    let items = [
        item(&ran, ""),
        item(
            &never,
            "; what starts them is from their documentation and never ran",
        ),
    ];
    items.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::absent;
    use crate::{
        plan,
        record::{Board, Case, Interface},
        report::sample,
    };

    /// A board of one record for everything that is wanted of a case, but for what `is_left` says.
    fn board(case: Case, vmms: &[&str], is_left: impl Fn(&str, &plan::Wanted) -> bool) -> Board {
        let mut board = sample::board();
        board.vmms.retain(|vmm| vmms.contains(&vmm.name.as_str()));
        for name in vmms {
            if !board.vmms.iter().any(|vmm| vmm.name == *name) {
                let (name, version) = ((*name).to_owned(), "1".to_owned());
                board.vmms.push(crate::record::Vmm { name, version });
            }
            for wanted in plan::wanted(case, false, 1) {
                if !is_left(name, &wanted) {
                    let mut record = sample::record(case, name, wanted.interface);
                    record.guest = Some(wanted.guest);
                    board.records.push(record);
                }
            }
        }
        board
    }

    #[test]
    fn sizes_without_a_record_are_said() {
        let is_large = |_: &str, wanted: &plan::Wanted| wanted.guest.memory_mib > 8192;
        let text = absent(&board(Case::Mapping, &["narrows", "qemu"], is_large)).join("\n");
        let wanted = "no run of narrows, qemu, memory for devices: \
            1 vCPU, 16 GiB in 2 MiB pages, 1 NVMe VF, no console, by iommufd; \
            1 vCPU, 16 GiB in 4 KiB pages, 1 NVMe VF, no console, by iommufd\n";
        assert!(text.contains(wanted), "{text}");
        assert!(!text.contains("8 GiB"), "{text}");
        let text = absent(&board(Case::Mapping, &["narrows", "qemu"], |_, _| false)).join("\n");
        assert!(!text.contains("no run of"), "{text}");
    }

    #[test]
    fn an_interface_of_one_vmm_is_said_of_it_alone() {
        let is_left = |name: &str, wanted: &plan::Wanted| {
            name == "qemu" && wanted.interface == Interface::Type1 && wanted.guest == plan::NIC
        };
        let text = absent(&board(Case::Life, &["narrows", "qemu"], is_left)).join("\n");
        let wanted =
            "no run of qemu, starts and stops: 1 vCPU, 256 MiB, 1 NIC VF, no console, by type1\n";
        assert!(text.contains(wanted), "{text}");
        assert_eq!(text.matches("no run of").count(), 1, "{text}");
    }

    #[test]
    fn what_a_template_lacks_is_said_once_with_its_reason() {
        let is_left =
            |name: &str, wanted: &plan::Wanted| name == "alioth" && wanted.guest.nvmes > 0;
        let items = absent(&board(Case::Start, &["narrows", "alioth"], is_left));
        let of_alioth: Vec<_> = items
            .iter()
            .filter(|item| item.contains("alioth"))
            .collect();
        assert_eq!(of_alioth.len(), 1, "{items:#?}");
        assert!(
            of_alioth[0].starts_with("alioth, guests with a VF of an NVMe controller: it panics")
        );
        // What it could do and did not is another matter.
        let items = absent(&board(Case::Start, &["narrows", "alioth"], |name, _| {
            name == "alioth"
        }));
        let text = items.join("\n");
        assert!(
            text.contains("no run of alioth, from power-on to init: 1 vCPU, 256 MiB, 1 NIC VF"),
            "{text}"
        );
    }

    #[test]
    fn peers_without_a_program_are_said() {
        let text = absent(&sample::board()).join("\n");
        assert!(
            text.contains("alioth (ran with 0.12.0): no program was given"),
            "{text}"
        );
        assert!(
            text.contains("cloud-hypervisor, crosvm, firecracker, kvmtool: no program"),
            "{text}"
        );
        assert!(!text.contains("qemu"), "{text}");
    }
}
