//! The host file: what PFs, VFs and pools the host should have, read and checked without looking at the host.

mod attributes;
mod check;
mod namespace;
mod parse;
#[cfg(test)]
mod parse_test;
mod pf;
mod pool;
mod profile;
mod profile_attributes;
mod profile_read;
#[cfg(test)]
mod profile_test;
mod profiles;
#[cfg(test)]
mod refused_test;
mod types;
mod values;
mod vf;

pub use self::profile::{
    Attribute, AttributeRules, CountRules, Manages, NvmeRules, OrderRules, Origin, Profile,
    ProfileMatch, Quirk, RateRules,
};
pub use self::profiles::Profiles;
pub use self::types::{
    BlockSize, Eraser, Eswitch, Hold, HostSpec, Interlock, Kind, MacChoice, MacRange, Mbps,
    NamespaceFor, NamespaceFrom, NamespaceSpec, NicPlaces, NicPolicy, NvmePolicy, Overrides,
    PfMatch, PfSpec, Pool, PoolOptOut, PoolPolicy, PoolRef, Safety, Vlan,
};
pub use self::values::duration;

/// Every key that a host file may have.
#[cfg(test)]
fn keys() -> impl Iterator<Item = &'static str> {
    [
        parse::KEYS,
        parse::SAFETY_KEYS,
        pool::KEYS,
        pf::KEYS,
        vf::KEYS,
        namespace::KEYS,
        attributes::NIC_KEYS,
        attributes::NVME_KEYS,
    ]
    .concat()
    .into_iter()
}
