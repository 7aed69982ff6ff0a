//! Which address each VF gets: the one that the file fixes, else the one that it was given before, else the lowest free
//! one of its pool's range, else one made from the host's seed. The same file on the same host gives the same.

use std::collections::{BTreeMap, HashMap};

use iommu::{bdf::Bdf, topology::Mac};

use super::{
    desired::records_of,
    facts::{Anchor, Observed},
    matching::Matched,
    records::Records,
    wish::Wish,
};
use crate::{
    error::{ErrorId, Report},
    spec::host::{HostSpec, MacChoice, MacRange, PoolPolicy},
};

/// What a VF gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// This address.
    Mac(Mac),
    /// None.
    None,
    /// One that needs the host's seed, which the first apply makes.
    Later,
}

/// A VF: its PF and index.
type Vf = (Bdf, u32);

/// Who has an address: a VF, or something that cannot give it away.
enum Owner {
    Vf(Vf, String),
    Other(String),
}

/// Addresses for all VFs of NIC pools.
pub(super) fn assign(
    spec: &HostSpec,
    observed: &Observed,
    records: &Records,
    matched: &[Matched<'_>],
) -> Result<BTreeMap<Vf, Given>, Vec<Report>> {
    let wishes = wishes(spec, matched);
    let mut taken = taken(observed, records, &wishes);
    let mut given = BTreeMap::new();
    let mut problems = Vec::new();
    for (vf, (wish, _)) in &wishes {
        if let MacChoice::Fixed(mac) = wish.mac() {
            match taken.get(&mac) {
                Some(owner) if !owner.is(*vf) => {
                    problems.push(twice(mac, *vf, owner, wish));
                }
                _ => {
                    taken.insert(mac, Owner::Vf(*vf, format!("VF {} of {}", vf.1, vf.0)));
                    given.insert(*vf, Given::Mac(mac));
                }
            }
        }
    }
    for (vf, (wish, anchor)) in &wishes {
        if let Some(mac) = kept(records, *vf, wish.mac(), anchor)
            && taken.get(&mac).is_none_or(|owner| owner.is(*vf))
        {
            taken.insert(mac, Owner::Vf(*vf, wish_name(*vf)));
            given.insert(*vf, Given::Mac(mac));
        }
    }
    let mut cursors: HashMap<Mac, u64> = HashMap::new();
    for (vf, (wish, anchor)) in &wishes {
        if given.contains_key(vf) {
            continue;
        }
        let one = match wish.mac() {
            // It was refused above.
            MacChoice::Fixed(_) => continue,
            MacChoice::None => Given::None,
            MacChoice::Generated => match records.seed {
                None => Given::Later,
                Some(seed) => Given::Mac(generated(&seed, anchor, vf.1, |mac| {
                    !taken.contains_key(&mac)
                })),
            },
            MacChoice::Range(range) => {
                let cursor = cursors.entry(range.first).or_insert(number(range.first));
                match lowest(range, cursor, |mac| !taken.contains_key(&mac)) {
                    Some(mac) => Given::Mac(mac),
                    None => {
                        problems.push(exhausted(range, *vf, wish));
                        continue;
                    }
                }
            }
        };
        if let Given::Mac(mac) = one {
            taken.insert(mac, Owner::Vf(*vf, wish_name(*vf)));
        }
        given.insert(*vf, one);
    }
    if problems.is_empty() {
        Ok(given)
    } else {
        Err(problems)
    }
}

impl Owner {
    fn is(&self, vf: Vf) -> bool {
        matches!(self, Self::Vf(own, _) if *own == vf)
    }

    fn who(&self) -> &str {
        match self {
            Self::Vf(_, who) | Self::Other(who) => who,
        }
    }
}

fn wish_name(vf: Vf) -> String {
    format!("VF {} of {}", vf.1, vf.0)
}

/// What the file says of each VF of a NIC pool, in the order of addresses, with what tells its card.
fn wishes<'a>(spec: &'a HostSpec, matched: &[Matched<'a>]) -> BTreeMap<Vf, (Wish<'a>, &'a Anchor)> {
    let mut all = BTreeMap::new();
    for (pf, facts, _) in matched {
        for (index, of) in &pf.pools {
            if let Some(pool) = spec.pool(&of.name)
                && let PoolPolicy::Nic(policy) = &pool.policy
            {
                let wish = Wish::new(policy, pf.overrides.get(index));
                all.insert((facts.bdf, *index), (wish, &facts.anchor));
            }
        }
    }
    all
}

/// Addresses that are not free: of the host's interfaces, of PFs, of VFs that the file does not concern, and of VFs
/// that guests have.
fn taken(
    observed: &Observed,
    records: &Records,
    wishes: &BTreeMap<Vf, (Wish<'_>, &Anchor)>,
) -> HashMap<Mac, Owner> {
    let mut taken = HashMap::new();
    for mac in &observed.macs {
        taken.insert(*mac, Owner::Other("an interface of this host".to_owned()));
    }
    for pf in observed.pfs.values() {
        let own = pf.nic().and_then(|nic| nic.address);
        let permanent = match pf.anchor {
            Anchor::Mac(mac) => Some(mac),
            Anchor::Serial(_) | Anchor::Slot(_) => None,
        };
        for mac in own.into_iter().chain(permanent) {
            taken.insert(mac, Owner::Other(format!("the PF {}", pf.bdf)));
        }
        for vf in &pf.vfs {
            if let Some(mac) = vf.nic.and_then(|nic| nic.mac)
                && !wishes.contains_key(&(pf.bdf, vf.index))
            {
                let who = format!("VF {} of {}, which is in no pool", vf.index, pf.bdf);
                taken.insert(mac, Owner::Other(who));
            }
        }
        let recorded = records_of(records, pf).into_iter().flat_map(|all| &all.vfs);
        for (index, record) in recorded {
            if let (Some(mac), Some(lease)) = (record.mac, &record.lease) {
                let who = format!("VF {index} of {}, which {} has", pf.bdf, lease.guest);
                taken.insert(mac, Owner::Vf((pf.bdf, *index), who));
            }
        }
    }
    taken
}

/// The address that a VF was given before, where the file still lets it have that.
fn kept(records: &Records, (pf, index): Vf, choice: MacChoice, anchor: &Anchor) -> Option<Mac> {
    let all = records.pfs.get(&pf).filter(|all| all.anchor == *anchor)?;
    let mac = all.vfs.get(&index)?.mac?;
    match choice {
        MacChoice::Range(range) => (range.first <= mac && mac <= range.last).then_some(mac),
        MacChoice::Generated => (mac.0[0] == GENERATED).then_some(mac),
        MacChoice::Fixed(_) | MacChoice::None => None,
    }
}

/// The first byte of generated addresses: locally administered, for one interface.
const GENERATED: u8 = 0x02;

/// An address of 40 bits from the host's seed, the card and the VF's index: the first that is free.
fn generated(seed: &[u8; 16], anchor: &Anchor, index: u32, is_free: impl Fn(Mac) -> bool) -> Mac {
    let card = match anchor {
        Anchor::Mac(mac) => format!("mac {mac}"),
        Anchor::Serial(serial) => format!("serial {serial}"),
        Anchor::Slot(bdf) => format!("slot {bdf}"),
    };
    let mut attempt: u32 = 0;
    loop {
        let parts = [
            seed.as_slice(),
            card.as_bytes(),
            &index.to_le_bytes(),
            &attempt.to_le_bytes(),
        ];
        let bytes = mixed(hashed(parts)).to_le_bytes();
        let mac = Mac([GENERATED, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]);
        if is_free(mac) {
            return mac;
        }
        attempt = attempt.wrapping_add(1);
    }
}

/// FNV-1a of 64 bits.
fn hashed(parts: [&[u8]; 4]) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The last step of splitmix64: bits that differ in one place differ in many.
fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The lowest free address of a range from `cursor` on, which is moved past it: addresses are only ever taken.
fn lowest(range: MacRange, cursor: &mut u64, is_free: impl Fn(Mac) -> bool) -> Option<Mac> {
    while *cursor <= number(range.last) {
        let [_, _, bytes @ ..] = cursor.to_be_bytes();
        *cursor += 1;
        if is_free(Mac(bytes)) {
            return Some(Mac(bytes));
        }
    }
    None
}

fn number(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn twice(mac: Mac, vf: Vf, owner: &Owner, wish: &Wish<'_>) -> Report {
    Report::new(
        ErrorId::MacListedTwice,
        format!("VF {} of {} cannot have the address {mac}", vf.1, vf.0),
        format!("{} has it", owner.who()),
        "choose another one, or leave `mac` out: then one is made",
    )
    .at(Some(wish.place("mac").clone()))
}

fn exhausted(range: MacRange, vf: Vf, wish: &Wish<'_>) -> Report {
    Report::new(
        ErrorId::MacRangeSmall,
        format!(
            "no address of its pool's range is left for VF {} of {}",
            vf.1, vf.0
        ),
        format!(
            "{} to {}: all are given, or something of this host has them",
            range.first, range.last
        ),
        "make the range larger, or write `mac = \"generated\"`",
    )
    .at(Some(wish.place("mac").clone()))
}
