//! A VF is given to a guest: claimed, made as its lease says, and in use.

use iommu::bdf::Bdf;

use super::{erasing::mark, patiently};
use crate::{
    error::{ErrorId, Report},
    sriov::{
        Dirt, Event, Hands, Holder, Lease, LeaseTerms, LeasedNamespace, NamespaceState, PfRecords,
        Step, VfState, check_format, foreign, to_leased,
    },
    state::{State, now},
    sys::crash::{self, Step as Point},
    vf::boot,
};

/// Writes down that the VF is the guest's: of two claims, one succeeds.
///
/// # Errors
/// `lease-foreign` with who has it; `recover-needed` where another guest's data is on a namespace; `pool-exhausted` where it
/// is not clean; what keeps the record from being changed.
pub fn claim(
    state: &State,
    guest: &str,
    holder: &Holder,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    let vf = terms.vf;
    boot::check(&holder.boot)?;
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        let now = now();
        pf.enter(&holder.boot, terms.controller.is_some(), &now);
        is_free(pf, guest, Some(holder), terms)?;
        let record = pf.vfs.get(&terms.index);
        let lease = record.and_then(|record| record.lease.as_ref());
        let since = lease.map_or_else(|| now.clone(), |lease| lease.since.clone());
        // What it keeps it keeps until it runs: a start that fails must not cost it.
        let keep = terms.keep || lease.is_some_and(|lease| lease.keep);
        pf.step(terms.index, vf, Event::Leased, &now)?;
        if let Some(record) = pf.vfs.get_mut(&terms.index) {
            record.pool = Some(terms.pool.clone());
            record.lease = Some(Lease {
                guest: guest.to_owned(),
                keep,
                since,
                run: Some(holder.clone()),
                terms: terms.clone(),
            });
        }
        Ok(())
    })?;
    crash::point(Point::Leased);
    Ok(())
}

/// Shows that a claim by `guest` would succeed now; for who has the VF's lock, that it will. Changes nothing.
///
/// # Errors
/// As [`claim`].
pub fn check_free(
    state: &State,
    guest: &str,
    boot: &str,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    boot::check(boot)?;
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        let mut looked_at = pf.clone();
        looked_at.enter(boot, terms.controller.is_some(), &now());
        is_free(&looked_at, guest, None, terms)
    })
}

/// Whether nothing keeps the guest from the VF; `holder` is the run that asks.
fn is_free(
    pf: &PfRecords,
    guest: &str,
    holder: Option<&Holder>,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    let record = pf.vfs.get(&terms.index);
    let lease = record.and_then(|record| record.lease.as_ref());
    if let Some(lease) = lease {
        is_its_own(lease, guest, holder, terms)?;
    }
    let is = record.map_or(VfState::Absent, |record| record.state);
    if !matches!(is, VfState::Clean | VfState::Leased) {
        return Err(not_clean(terms.vf, is));
    }
    let mut all = terms.namespaces.iter();
    all.try_for_each(|wanted| check_clean(pf, wanted, terms.vf, guest, lease.is_some()))
}

/// Refuses a VF with a lease, unless the guest keeps it, with the namespaces that it gets now.
fn is_its_own(
    lease: &Lease,
    guest: &str,
    holder: Option<&Holder>,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    if lease.guest != guest {
        return Err(foreign(terms.vf, &lease.guest, &terms.pool));
    }
    let what = format!("cannot lease {} to guest {guest}", terms.vf);
    // A guest of this name is not the guest of this name that a dead run had, unless it was to keep what it had.
    if !lease.keep && (holder.is_none() || lease.run.as_ref() != holder) {
        return Err(Report::new(
            ErrorId::RecoverNeeded,
            what,
            "a run of a guest of this name had it and has not given it back",
            "narrows recover",
        ));
    }
    if lease.terms.has_namespaces_of(terms) {
        return Ok(());
    }
    Err(Report::new(
        ErrorId::LeaseForeign,
        what,
        format!(
            "it keeps {} with it, and the host file gives it others now",
            lease.terms.namespaces_in_words()
        ),
        format!(
            "give it those in the host file, or end the lease with what is on them: narrows vf return {}",
            terms.vf
        ),
    ))
}

/// Makes a claimed VF what its lease says, and reads it back.
///
/// # Errors
/// `step-failed`, `step-not-done`; what is half done is for [`give_back`](super::give_back).
pub fn take(
    hands: &mut dyn Hands,
    state: &State,
    guest: &str,
    terms: &LeaseTerms,
) -> Result<(), Report> {
    let failed = |why: String| {
        Report::new(
            ErrorId::StepFailed,
            format!("{} is not made what pool {} says", terms.vf, terms.pool),
            why,
            "see the kernel log for the PF's driver, and what differs: narrows host status",
        )
    };
    let observed = hands.observe()?;
    let terms = &as_kept(state, terms)?;
    let steps = to_leased(terms, &observed).map_err(failed)?;
    let mut fresh = Vec::new();
    // Before the guest can write to the first of them; it may have been attached all along.
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        for wanted in &terms.namespaces {
            let record = pf.namespaces.get(&wanted.nsid);
            let is_new = record.is_none_or(|record| record.state == NamespaceState::Clean);
            if is_new && !wanted.is_shared {
                fresh.push(Dirt::of(terms, wanted));
            }
            let last = (!wanted.is_shared).then_some(guest);
            mark(pf, wanted, NamespaceState::Dirty, last);
            if let Some(record) = pf.namespaces.get_mut(&wanted.nsid) {
                (record.erase, record.is_shared) = (Some(terms.erase), wanted.is_shared);
            }
        }
        Ok(())
    })?;
    // Who keeps one may have formatted it; but only who had it.
    for dirt in fresh {
        check_format(&dirt, &observed).map_err(failed)?;
    }
    for step in &steps {
        patiently(hands, step, &mut |_| {}).map_err(|fault| failed(fault.to_string()))?;
        if matches!(step, Step::Attribute { .. }) {
            crash::point(Point::AttributeSet);
        } else if matches!(step, Step::Attach { .. }) {
            crash::point(Point::NamespaceAttached);
        }
    }
    let left = to_leased(terms, &hands.observe()?).map_err(failed)?;
    match left.first() {
        None => Ok(()),
        Some(step) => Err(Report::new(
            ErrorId::StepNotDone,
            format!("{} is not what pool {} says", terms.vf, terms.pool),
            format!("it was set and reads otherwise; still to be done: {step}"),
            "the driver or the controller has ignored it, or somebody changes it: see narrows host status",
        )),
    }
}

/// The terms with what the record says of keeping: a guest may have formatted what it has kept so far.
fn as_kept(state: &State, terms: &LeaseTerms) -> Result<LeaseTerms, Report> {
    let mut own = terms.clone();
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        let record = pf.vfs.get(&terms.index);
        let lease = record.and_then(|record| record.lease.as_ref());
        own.keep |= lease.is_some_and(|lease| lease.keep);
        Ok(())
    })?;
    Ok(own)
}

/// Writes down that the guest runs with it from now on, and whether it keeps it.
///
/// # Errors
/// What keeps the record from being changed.
pub fn bound(state: &State, terms: &LeaseTerms) -> Result<(), Report> {
    state.change_pf(terms.pf, &terms.anchor, |pf| {
        pf.step(terms.index, terms.vf, Event::Bound, &now())?;
        let record = pf.vfs.get_mut(&terms.index);
        if let Some(lease) = record.and_then(|record| record.lease.as_mut()) {
            lease.keep = terms.keep;
        }
        Ok(())
    })
}

/// Refuses a namespace with somebody's data, unless it is what the guest keeps.
fn check_clean(
    pf: &PfRecords,
    wanted: &LeasedNamespace,
    its_vf: Bdf,
    guest: &str,
    is_kept: bool,
) -> Result<(), Report> {
    // Those who share one have it together; nobody else has it beside one who has it alone, or beside them.
    let mut holders = pf.holders_of(wanted.nsid);
    let other =
        holders.find(|(vf, _, is_shared)| vf.bdf != its_vf && !(*is_shared && wanted.is_shared));
    if let Some((other, owner, _)) = other {
        return Err(Report::new(
            ErrorId::LeaseForeign,
            format!("cannot lease {its_vf} to guest {guest}"),
            format!(
                "namespace {} is guest {owner}'s, with {}",
                wanted.nsid, other.bdf
            ),
            format!(
                "give it another namespace in the host file, or end that lease: narrows vf return {}",
                other.bdf
            ),
        ));
    }
    let Some(record) = pf.namespaces.get(&wanted.nsid) else {
        return Ok(());
    };
    let is_its = match wanted.is_shared {
        true => record.is_shared,
        false => is_kept && !record.is_shared && record.last_guest.as_deref() == Some(guest),
    };
    let is_its = is_its && record.state == NamespaceState::Dirty && record.id == wanted.id;
    if record.state == NamespaceState::Clean || is_its {
        return Ok(());
    }
    let who = record.last_guest.as_deref().unwrap_or("a guest");
    Err(Report::new(
        ErrorId::RecoverNeeded,
        format!("cannot lease {its_vf} to guest {guest}"),
        format!(
            "namespace {} may have data of {who}, and is not erased yet",
            wanted.nsid
        ),
        "narrows recover",
    ))
}

fn not_clean(vf: Bdf, is: VfState) -> Report {
    Report::new(
        ErrorId::PoolExhausted,
        format!("cannot lease {vf}"),
        format!("it is {is}, and only a clean VF goes to a guest"),
        match is {
            VfState::Absent | VfState::Created | VfState::Quarantined => "narrows host apply",
            VfState::Clean
            | VfState::Leased
            | VfState::InUse
            | VfState::Dirty
            | VfState::Sanitising => "narrows recover",
        },
    )
}
