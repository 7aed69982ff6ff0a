//! Namespaces with somebody's data and no lease that tells whose: what is kept was forgotten, or damaged. They are erased by
//! their own records, since nobody may be given them before.

use std::collections::BTreeSet;

use iommu::bdf::Bdf;

use super::{
    erasing::{erase_one, mark},
    in_a_line,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::Eraser,
    sriov::{
        Dirt, Hands, LeasedNamespace, NamespaceState, NvmeFacts, Observed, PfFacts, PfRecords,
        Records,
    },
    state::State,
};

/// Erases them, or only tells with `is_dry`: what is done, and what could not be.
///
/// # Errors
/// What keeps machine or records from being read.
pub fn erase_ownerless(
    hands: &mut dyn Hands,
    state: &State,
    is_dry: bool,
    say: &mut dyn FnMut(&str),
) -> Result<(Vec<String>, Vec<Report>), Report> {
    let (mut steps, mut left) = (Vec::new(), Vec::new());
    for (pf, nsid) in ownerless(hands, state)? {
        let words = format!(
            "erase namespace {nsid} of {pf}, which may have somebody's data and is nobody's"
        );
        if is_dry {
            steps.push(words);
            continue;
        }
        // Another recovery may be at it, for hours; and it may have been given away since the list was made.
        let erased = match state.lock_erase(pf) {
            Ok(Some(_lock)) => {
                steps.push(words);
                erase(hands, state, pf, nsid, say)
            }
            Ok(None) => continue,
            Err(report) => Err(in_a_line(&report)),
        };
        if let Err(why) = erased {
            left.push(Report::new(
                ErrorId::HostNotRestored,
                format!("namespace {nsid} of {pf} is not erased, and no guest gets it"),
                why,
                "put that right, then: narrows recover",
            ));
        }
    }
    Ok((steps, left))
}

fn ownerless(hands: &mut dyn Hands, state: &State) -> Result<Vec<(Bdf, u32)>, Report> {
    let records = state.records(&hands.observe()?)?;
    let all = records.pfs.iter();
    Ok(all
        .flat_map(|(pf, kept)| kept.ownerless().into_iter().map(|nsid| (*pf, nsid)))
        .collect())
}

fn erase(
    hands: &mut dyn Hands,
    state: &State,
    pf: Bdf,
    nsid: u32,
    say: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let told = |report: Report| in_a_line(&report);
    let observed = hands.observe().map_err(told)?;
    let records = state.records(&observed).map_err(told)?;
    let dirt = dirt(&observed, &records, pf, nsid)?;
    // From here on no guest is given it: a claim refuses what is not clean.
    let is_left = state.change_pf(pf, &dirt.anchor, |kept| {
        let is_left = kept.ownerless().contains(&nsid);
        if is_left {
            mark(kept, &dirt.namespace, NamespaceState::Sanitising, None);
        }
        Ok(is_left)
    });
    match is_left.map_err(told)? {
        true => erase_one(hands, state, &dirt, say),
        false => Ok(()),
    }
}

fn dirt(observed: &Observed, records: &Records, pf: Bdf, nsid: u32) -> Result<Dirt, String> {
    let kept = records.pfs.get(&pf).ok_or("nothing is kept of its PF")?;
    let record = kept.namespaces.get(&nsid).ok_or("nothing is kept of it")?;
    let nvme = observed.pfs.get(&pf).and_then(PfFacts::nvme);
    let nvme = nvme.ok_or("its PF is no NVMe controller, or gone")?;
    let found = nvme.namespaces.get(&nsid).map(|found| found.format());
    let format = record.format.or(found);
    Ok(Dirt {
        pf,
        anchor: kept.anchor.clone(),
        erase: match record.erase {
            // Whatever the drive says of its own ways.
            None => Eraser::Overwrite,
            // It let stay what was there; now nobody knows what that is.
            Some(Eraser::None) => Eraser::Auto,
            Some(eraser) => eraser,
        },
        namespace: LeasedNamespace {
            nsid,
            id: record.id.clone(),
            format: format.ok_or("its format is not known, and the drive does not tell it")?,
            is_shared: false,
        },
        idle: idle(nvme, kept, records, observed, pf),
    })
}

/// The secondary controllers of VFs that nobody has.
fn idle(
    nvme: &NvmeFacts,
    kept: &PfRecords,
    records: &Records,
    observed: &Observed,
    pf: Bdf,
) -> BTreeSet<u16> {
    let vfs = observed.pfs.get(&pf).map_or(&[][..], |facts| &facts.vfs);
    let is_idle = |index: u32| {
        let is_leased = kept.vfs.get(&index).is_some_and(|vf| vf.lease.is_some());
        let runs = vfs
            .iter()
            .any(|vf| vf.index == index && records.running.contains_key(&vf.bdf));
        !is_leased && !runs
    };
    let secondaries = nvme.secondaries.iter();
    secondaries
        .filter(|one| {
            one.vf
                .checked_sub(1)
                .is_none_or(|index| is_idle(u32::from(index)))
        })
        .map(|one| one.cntlid)
        .collect()
}
