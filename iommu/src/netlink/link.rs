//! The numbers of rtnetlink's messages about interfaces and their VFs.
//!
//! *Source:* `include/uapi/linux/rtnetlink.h`, `include/uapi/linux/if_link.h` (v6.12).

use super::Question;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;

/// `ifinfomsg`: family, padding, type, index, flags, which flags are meant.
pub(crate) const LINK_LEN: usize = 16;
/// The interface is up.
pub(crate) const IFF_UP: u32 = 1;

pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_VFINFO_LIST: u16 = 22;
pub(crate) const IFLA_EXT_MASK: u16 = 29;
pub(crate) const IFLA_PARENT_DEV_NAME: u16 = 56;
/// The VFs, without counters: those of many VFs would not fit into one attribute. Kernels before 6.1 send them anyway.
pub(crate) const VFS_WITHOUT_COUNTERS: u32 = 1 | 1 << 3;

/// A VF in [`IFLA_VFINFO_LIST`]. The value of each attribute in it begins with the VF's number.
pub(crate) const IFLA_VF_INFO: u16 = 1;
/// An address in 32 bytes.
pub(crate) const IFLA_VF_MAC: u16 = 1;
/// VLAN and priority; of what protocol the tag is, only [`IFLA_VF_VLAN_LIST`] says.
pub(crate) const IFLA_VF_VLAN: u16 = 2;
pub(crate) const IFLA_VF_SPOOFCHK: u16 = 4;
/// 0 the PF's, 1 up, 2 down.
pub(crate) const IFLA_VF_LINK_STATE: u16 = 5;
/// Least and most, in Mbit/s.
pub(crate) const IFLA_VF_RATE: u16 = 6;
pub(crate) const IFLA_VF_RSS_QUERY_EN: u16 = 7;
pub(crate) const IFLA_VF_TRUST: u16 = 9;
/// Since Linux 4.9; it holds one [`IFLA_VF_VLAN_INFO`].
pub(crate) const IFLA_VF_VLAN_LIST: u16 = 12;
/// VLAN, priority, and in network order the protocol of the tag.
pub(crate) const IFLA_VF_VLAN_INFO: u16 = 1;

/// A question about an interface, or an order to it: by its index, or with 0 by an attribute with its name.
#[must_use]
pub(crate) fn question(
    kind: u16,
    netlink_flags: u16,
    index: u32,
    flags: u32,
    change: u32,
) -> Question {
    let mut link = vec![0; 4];
    for number in [index, flags, change] {
        link.extend(number.to_ne_bytes());
    }
    Question::new(kind, netlink_flags, &link)
}
