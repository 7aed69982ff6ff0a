//! The host file: what PFs, VFs and pools the host should have, read and checked without looking at the host.

mod types;

pub use self::types::{
    BlockSize, Eraser, Eswitch, Hold, HostSpec, Interlock, Kind, MacChoice, MacRange, Mbps,
    NamespaceFor, NamespaceFrom, NamespaceSpec, NicPlaces, NicPolicy, NvmePolicy, Overrides,
    PfMatch, PfSpec, Pool, PoolOptOut, PoolPolicy, PoolRef, Safety, Vlan, VlanProto,
};
