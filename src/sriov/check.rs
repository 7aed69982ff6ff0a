//! The host file against the machine: what it asks of a PF that the PF cannot be. One row per check; matching of PFs and
//! addresses, which concern several PFs, are in `matching` and `macs`.

use super::{
    check_nvme,
    facts::PfFacts,
    matching::kind_of,
    records::PfRecords,
    step::AttributeValue,
    wish::{RESTING, Wish, can_set},
};
use crate::{
    error::{ErrorId, Id, Location, Report},
    spec::host::{
        Eswitch, Hold, HostSpec, Kind, MacChoice, PfSpec, Pool, PoolPolicy, Profile, Quirk,
    },
};

/// A `[[pf]]` with the PF that it means.
pub(super) struct Subject<'a> {
    pub(super) spec: &'a HostSpec,
    pub(super) pf: &'a PfSpec,
    pub(super) facts: &'a PfFacts,
    pub(super) profile: &'a Profile,
    /// None where they are of another card.
    pub(super) records: Option<&'a PfRecords>,
}

impl<'a> Subject<'a> {
    /// The pool of a VF.
    pub(super) fn pool(&self, index: u32) -> Option<&'a Pool> {
        self.spec.pool(&self.pf.pools.get(&index)?.name)
    }

    /// VFs of NIC pools.
    fn nics(&self) -> impl Iterator<Item = (u32, Wish<'a>)> {
        self.pf.pools.keys().filter_map(|index| {
            let PoolPolicy::Nic(policy) = &self.pool(*index)?.policy else {
                return None;
            };
            Some((*index, Wish::new(policy, self.pf.overrides.get(index))))
        })
    }

    /// The id of a namespace that Narrows made by this name, and that is still the one that it made.
    pub(super) fn made(&self, name: &str) -> Option<u32> {
        let there = &self.facts.nvme()?.namespaces;
        let records = &self.records?.namespaces;
        records
            .iter()
            .find(|(nsid, record)| {
                record.is_made
                    && record.name == name
                    && there.get(nsid).is_some_and(|one| one.id == record.id)
            })
            .map(|(nsid, _)| *nsid)
    }
}

/// One check.
pub(super) struct Row {
    /// What it reports.
    pub(super) id: ErrorId,
    /// Why it is one.
    pub(super) reason: &'static str,
    /// Its findings.
    pub(super) run: fn(&Subject<'_>) -> Vec<Report>,
}

/// All checks of one PF, in the order in which they are reported.
pub(super) const ROWS: [Row; 17] = [
    Row {
        id: ErrorId::PfAssigned,
        reason: "a PF that a guest may have is not this host's to change",
        run: assigned,
    },
    Row {
        id: ErrorId::PoolKind,
        reason: "words of a NIC say nothing to a drive",
        run: kind,
    },
    Row {
        id: ErrorId::VfsOvercommitted,
        reason: "the kernel answers ERANGE, after the old VFs are gone",
        run: count,
    },
    Row {
        id: ErrorId::EswitchUnsupported,
        reason: "in switchdev mode VFs have no attributes of their own",
        run: eswitch,
    },
    Row {
        id: ErrorId::AttributeUnsupported,
        reason: "a driver without the operation leaves the guest without what the file promises",
        run: attributes,
    },
    Row {
        id: ErrorId::BadRate,
        reason: "a rate between two steps of the hardware is rounded by the driver, and drifts for ever",
        run: granularity,
    },
    Row {
        id: ErrorId::FactsUnread,
        reason: "a rate cannot be compared with a link whose speed nobody knows",
        run: unknown_link,
    },
    Row {
        id: ErrorId::RateBeyondLink,
        reason: "the driver answers EINVAL at lease, when a guest waits",
        run: beyond_link,
    },
    Row {
        id: ErrorId::RateOvercommitted,
        reason: "promises that are more than the link are none",
        run: overcommitted,
    },
    Row {
        id: ErrorId::AttributeUnsupported,
        reason: "a drive without 1Ch has no secondary controllers to give resources to",
        run: check_nvme::unmanaged,
    },
    Row {
        id: ErrorId::ResourcesOvercommitted,
        reason: "the drive answers 1/21 at the last VF, after the others were changed",
        run: check_nvme::resources,
    },
    Row {
        id: ErrorId::NamespaceUnmanaged,
        reason: "drives announce what they do not carry out: the log of commands counts",
        run: check_nvme::commands,
    },
    Row {
        id: ErrorId::NamespaceAbsent,
        reason: "a typing error here would attach another tenant's namespace",
        run: check_nvme::absent,
    },
    Row {
        id: ErrorId::NamespaceOvercommitted,
        reason: "nothing is deleted to make room",
        run: check_nvme::capacity,
    },
    Row {
        id: ErrorId::NamespaceShared,
        reason: "data that two controllers reach is no tenant's own",
        run: check_nvme::shared,
    },
    Row {
        id: ErrorId::EraseUnsupported,
        reason: "an erase that takes all namespaces takes those of other tenants",
        run: check_nvme::erase,
    },
    Row {
        id: ErrorId::NvmeVfManages,
        reason: "a guest that attaches namespaces reaches those of all",
        run: check_nvme::vf_manages,
    },
];

/// Everything that the PF cannot be.
pub(super) fn all(subject: &Subject<'_>) -> Vec<Report> {
    let mut found = Vec::new();
    for row in &ROWS {
        let reports = (row.run)(subject);
        debug_assert!(
            reports.iter().all(|report| report.id == Id::Tool(row.id)),
            "{}",
            row.reason
        );
        let is_decisive = matches!(row.id, ErrorId::PfAssigned | ErrorId::PoolKind);
        let stops = is_decisive && !reports.is_empty();
        found.extend(reports);
        if stops {
            // The others would ask a device that shows nothing of itself.
            break;
        }
    }
    found
}

fn assigned(on: &Subject<'_>) -> Vec<Report> {
    if on.facts.driver.as_deref() != Some("vfio-pci") {
        return Vec::new();
    }
    vec![at(
        &on.pf.place,
        ErrorId::PfAssigned,
        format!("{} is itself given away", on.facts.bdf),
        "it is bound to vfio-pci".to_owned(),
        "wait until it is back: `narrows ps` and `narrows recover --dry-run` say who has it",
    )]
}

fn kind(on: &Subject<'_>) -> Vec<Report> {
    let is = kind_of(on.facts);
    let wrong = on.pf.pools.values().find_map(|of| {
        let pool = on.spec.pool(&of.name)?;
        (Some(pool.kind()) != is).then_some((pool, of))
    });
    let Some((pool, of)) = wrong else {
        return Vec::new();
    };
    let driver = on.facts.driver.as_deref().unwrap_or("no driver");
    let what = format!("{} is not of the kind of pool {}", on.facts.bdf, pool.name);
    let is = match is {
        Some(Kind::Nic) => "it is a NIC".to_owned(),
        Some(Kind::Nvme) => "it is an NVMe drive".to_owned(),
        None => format!("with {driver} it shows neither an interface nor a controller"),
    };
    let fix = "put its VFs into a pool of their kind, or bind the PF to its driver";
    vec![at(&of.place, ErrorId::PoolKind, what, is, fix)]
}

fn count(on: &Subject<'_>) -> Vec<Report> {
    let (wanted, total) = (on.pf.vfs, on.facts.total);
    let most = on.profile.count.max_vfs.unwrap_or(u32::MAX);
    let by_firmware = on.profile.quirks.contains(&Quirk::VfsByFirmware);
    if wanted <= most && (wanted <= total || by_firmware) {
        return Vec::new();
    }
    let mut why = format!("sriov_totalvfs is {total}");
    if let Some(most) = on.profile.count.max_vfs {
        why.push_str(&format!(
            "; profile {} says at most {most}",
            on.profile.name
        ));
    }
    vec![at(
        &on.pf.vfs_place,
        ErrorId::VfsOvercommitted,
        format!("{} cannot have {wanted} VFs", on.facts.bdf),
        why,
        format!("write `vfs = {}` or less", total.min(most)),
    )]
}

fn eswitch(on: &Subject<'_>) -> Vec<Report> {
    let is = on.facts.nic().and_then(|nic| nic.eswitch);
    let asked = on.pf.eswitch == Some(Eswitch::Switchdev);
    let has = is == Some(Eswitch::Switchdev) && !on.pf.pools.is_empty();
    if !asked && !has {
        return Vec::new();
    }
    let why = match asked {
        true => "the file asks for `switchdev`, whose representors Narrows does not set up",
        false => "it is in `switchdev` mode, where VFs have no attributes of their own",
    };
    let fix = format!(
        "`devlink dev eswitch set pci/{} mode legacy`, which destroys its VFs",
        on.facts.bdf
    );
    let what = format!("the switch of {} is not for pools", on.facts.bdf);
    vec![at(
        &on.pf.place,
        ErrorId::EswitchUnsupported,
        what,
        why.to_owned(),
        fix,
    )]
}

/// Values that the driver cannot set; the resting ones need not be set where nobody says them.
fn attributes(on: &Subject<'_>) -> Vec<Report> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (index, wish) in on.nics() {
        let reads = on.facts.vfs.iter().find(|vf| vf.index == index);
        let reads = reads.and_then(|vf| vf.nic);
        let fixed = match wish.mac() {
            MacChoice::Fixed(mac) => Some(("mac", AttributeValue::Mac(Some(mac)))),
            MacChoice::Range(_) | MacChoice::Generated | MacChoice::None => None,
        };
        for (key, value) in wish.values().into_iter().chain(fixed) {
            let is_read = reads.is_some_and(|nic| nic.value(value.name()) == Some(value));
            let place = wish.place(key);
            if can_set(&on.profile.attributes, value)
                || RESTING.contains(&value)
                || is_read
                || seen.contains(&(place.line, key))
            {
                continue;
            }
            seen.push((place.line, key));
            found.push(at(
                place,
                ErrorId::AttributeUnsupported,
                format!(
                    "VFs of {} cannot have {key} {}",
                    on.facts.bdf,
                    value.in_words()
                ),
                format!(
                    "profile {} ({}) does not have it",
                    on.profile.name, on.profile.origin
                ),
                "leave the key out, or use VFs of another card for this pool",
            ));
        }
    }
    found
}

/// VFs with a rate, with their rates.
fn rated<'a>(on: &Subject<'a>) -> impl Iterator<Item = (u32, Wish<'a>)> {
    on.nics().filter(|(_, wish)| {
        let (min, max) = wish.rates();
        min.0 > 0 || max.0 > 0
    })
}

fn granularity(on: &Subject<'_>) -> Vec<Report> {
    let Some(rules) = on.profile.attributes.max_tx_rate else {
        return Vec::new();
    };
    let step = rules.granularity.0.max(1);
    let odd = rated(on).find(|(_, wish)| wish.rates().1.0 % step != 0);
    odd.map(|(index, wish)| {
        let max = wish.rates().1;
        at(
            wish.place("max_tx_rate"),
            ErrorId::BadRate,
            format!("VF {index} of {} cannot have a rate of {max}", on.facts.bdf),
            format!(
                "profile {} has steps of {}",
                on.profile.name, rules.granularity
            ),
            format!("write a multiple of {step}"),
        )
    })
    .into_iter()
    .collect()
}

fn unknown_link(on: &Subject<'_>) -> Vec<Report> {
    let Some(nic) = on.facts.nic() else {
        return Vec::new();
    };
    // One that apply will set up is not there yet; a rate that comes with a lease is compared at the lease, too.
    let comes_up = !nic.is_up && on.pf.up.unwrap_or(on.profile.order.pf_up_before_vfs);
    let now = |wish: &Wish<'_>| wish.hold() == Hold::Always || wish.rates().0.0 > 0;
    let first = rated(on).find(|(_, wish)| now(wish));
    let Some((_, wish)) = first.filter(|_| nic.link.is_none() && !comes_up) else {
        return Vec::new();
    };
    let name = nic.interface.as_deref().unwrap_or("its interface");
    vec![at(
        wish.place("max_tx_rate"),
        ErrorId::FactsUnread,
        format!("VFs of {} cannot get a rate yet", on.facts.bdf),
        format!(
            "/sys/class/net/{name}/speed tells nothing: the link is down, or its speed is not known"
        ),
        "bring the link up first, or leave the rate out",
    )]
}

fn beyond_link(on: &Subject<'_>) -> Vec<Report> {
    let rules = on.profile.attributes.max_tx_rate;
    let Some(link) = on.facts.nic().and_then(|nic| nic.link) else {
        return Vec::new();
    };
    if rules.is_some_and(|rules| !rules.at_most_link) {
        return Vec::new();
    }
    let over = rated(on).find(|(_, wish)| wish.rates().1 > link || wish.rates().0 > link);
    over.map(|(index, wish)| {
        let (min, max) = wish.rates();
        let (key, rate) = if max > link {
            ("max_tx_rate", max)
        } else {
            ("min_tx_rate", min)
        };
        at(
            wish.place(key),
            ErrorId::RateBeyondLink,
            format!("VF {index} of {} cannot send {rate}", on.facts.bdf),
            format!("the link of the PF has {link}"),
            format!("write {} or less; or see why the link is slow", link.0),
        )
    })
    .into_iter()
    .collect()
}

fn overcommitted(on: &Subject<'_>) -> Vec<Report> {
    let Some(link) = on.facts.nic().and_then(|nic| nic.link) else {
        return Vec::new();
    };
    let promised: u64 = rated(on).map(|(_, wish)| u64::from(wish.rates().0.0)).sum();
    let first = rated(on).find(|(_, wish)| wish.rates().0.0 > 0);
    let Some((_, wish)) = first.filter(|_| promised > u64::from(link.0)) else {
        return Vec::new();
    };
    vec![at(
        wish.place("min_tx_rate"),
        ErrorId::RateOvercommitted,
        format!(
            "{} cannot keep the rates that its VFs are promised",
            on.facts.bdf
        ),
        format!("together they are {promised} Mbit/s; the link has {link}"),
        "lower `min_tx_rate`, or put fewer VFs into the pool",
    )]
}

/// A report with its place in the file.
pub(super) fn at(
    place: &Location,
    id: ErrorId,
    what: String,
    why: String,
    fix: impl Into<String>,
) -> Report {
    Report::new(id, what, why, fix).at(Some(place.clone()))
}
