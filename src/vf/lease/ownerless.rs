//! Namespaces with somebody's data and no lease that tells whose: what is kept was forgotten, or damaged. They are erased by
//! their own records, since nobody may be given them before.

use super::{
    erasing::{erase_one, mark},
    in_a_line,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::Eraser,
    sriov::{Dirt, Hands, LeasedNamespace, NamespaceState},
    state::State,
};

/// Erases them, or only tells with `is_dry`: what is done, and what could not be.
///
/// # Errors
/// `host-busy`; what keeps machine or records from being read.
pub fn erase_ownerless(
    hands: &mut dyn Hands,
    state: &State,
    is_dry: bool,
    say: &mut dyn FnMut(&str),
) -> Result<(Vec<String>, Vec<Report>), Report> {
    let found = ownerless(hands, state)?;
    let (mut steps, mut left) = (Vec::new(), Vec::new());
    if found.is_empty() {
        return Ok((steps, left));
    }
    let in_words = |dirt: &Dirt| {
        format!(
            "erase namespace {} of {}, which may have somebody's data and is nobody's",
            dirt.namespace.nsid, dirt.pf
        )
    };
    if is_dry {
        return Ok((found.iter().map(in_words).collect(), left));
    }
    // No change of the host, and so no lease that is only now made of one of them.
    let _lock = state.lock_host("recover")?;
    for dirt in ownerless(hands, state)? {
        steps.push(in_words(&dirt));
        let begun = state.change_pf(dirt.pf, &dirt.anchor, |pf| {
            mark(pf, &dirt.namespace, NamespaceState::Sanitising, None);
            Ok(())
        });
        let erased = begun
            .map_err(|report| in_a_line(&report))
            .and_then(|()| erase_one(hands, state, &dirt, say));
        if let Err(why) = erased {
            left.push(Report::new(
                ErrorId::HostNotRestored,
                format!(
                    "namespace {} of {} is not erased, and no guest gets it",
                    dirt.namespace.nsid, dirt.pf
                ),
                why,
                "put that right, then: narrows recover",
            ));
        }
    }
    Ok((steps, left))
}

fn ownerless(hands: &mut dyn Hands, state: &State) -> Result<Vec<Dirt>, Report> {
    let observed = hands.observe()?;
    let records = state.records(&observed)?;
    let mut all = Vec::new();
    for (pf, kept) in &records.pfs {
        let nvme = observed.pfs.get(pf).and_then(|facts| facts.nvme());
        for nsid in kept.ownerless() {
            let Some(record) = kept.namespaces.get(&nsid) else {
                continue;
            };
            let found = nvme.and_then(|nvme| nvme.namespaces.get(&nsid));
            let Some(format) = record.format.or_else(|| Some(found?.format())) else {
                continue;
            };
            all.push(Dirt {
                pf: *pf,
                anchor: kept.anchor.clone(),
                erase: Eraser::Auto,
                namespace: LeasedNamespace {
                    nsid,
                    id: record.id.clone(),
                    format,
                    is_shared: false,
                },
            });
        }
    }
    Ok(all)
}
