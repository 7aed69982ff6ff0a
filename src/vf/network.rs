//! Links of PFs and attributes of VFs.

use std::{num::NonZeroU32, time::Duration};

use iommu::{bdf::Bdf, set_link::VfAttribute, sysfs::SysRoot, topology::Mac};

use super::{
    fault::{self, Call, await_that, while_busy},
    hands::KernelHands,
};
use crate::{
    host::sriov::attributes_of,
    spec::host::Mbps,
    sriov::{AttributeValue, NicAttributes, StepFault},
    sys::rtnl,
};

/// How long a link that is set up may take until it is there. Without a cable it never is, which is no fault.
const CARRIER: Duration = Duration::from_secs(5);

impl KernelHands {
    /// Sets a PF's link up or down.
    pub(super) fn link(&self, pf: Bdf, interface: &str, up: bool) -> Result<(), StepFault> {
        let doing = format!("set {interface} {}", if up { "up" } else { "down" });
        self.expect_running(&doing)?;
        let index = self.index(&doing, pf, interface)?;
        while_busy(self.patience, || {
            rtnl::set_up(index, up).map_err(|e| fault::refused(Call::Netlink, &doing, e))
        })?;
        let place = format!("sys/class/net/{interface}/flags");
        let text = self.root.read_text(place);
        let text = text.map_err(|e| fault::unread(Call::Netlink, &doing, &e))?;
        let flags = u32::from_str_radix(text.trim_start_matches("0x"), 16);
        if flags.is_ok_and(|flags| (flags & 1 != 0) != up) {
            return Err(fault::ignored(doing, format!("its flags read {text}")));
        }
        if up {
            self.await_carrier(interface, CARRIER)?;
        }
        Ok(())
    }

    /// Waits for a link; that there is none is no fault.
    pub(super) fn await_carrier(&self, interface: &str, limit: Duration) -> Result<(), StepFault> {
        await_that(limit, || Ok(has_carrier(&self.root, interface))).map(drop)
    }

    /// Sets one attribute of one VF.
    pub(super) fn attribute(
        &self,
        pf: Bdf,
        interface: &str,
        index: u32,
        to: AttributeValue,
    ) -> Result<(), StepFault> {
        let doing = format!("set {} of VF {index} of {interface}", word(to));
        let before = self.told(&doing, pf, interface, index)?;
        // A driver may refuse to be told what is so already.
        if reads_as(&before, to) {
            return Ok(());
        }
        self.expect_running(&doing)?;
        let is_rate = matches!(to, AttributeValue::Rate { min, max } if min.0 | max.0 != 0);
        if is_rate && is_up(&self.root, interface) {
            // Some drivers take a rate only once the link's speed is known.
            self.await_carrier(interface, CARRIER)?;
        }
        let number = self.index(&doing, pf, interface)?;
        while_busy(self.patience, || {
            rtnl::set_vf(number, index, order(to))
                .map_err(|errno| fault::refused(Call::Netlink, &doing, errno))
        })?;
        let after = self.told(&doing, pf, interface, index)?;
        if reads_as(&after, to) {
            return Ok(());
        }
        Err(fault::ignored(doing, format!("reads {after:?}")))
    }

    /// Sets all attributes of new VFs that differ from `snapshot`, by index.
    pub(super) fn restore(
        &self,
        pf: Bdf,
        interface: Option<&str>,
        snapshot: &[NicAttributes],
    ) -> Result<(), StepFault> {
        let Some(interface) = interface else {
            return Ok(());
        };
        for (index, wanted) in (0..).zip(snapshot) {
            for value in values(wanted) {
                self.attribute(pf, interface, index, value)?;
            }
        }
        Ok(())
    }

    /// What the driver tells of a VF; that the interface is the PF's comes with it.
    fn told(
        &self,
        doing: &str,
        pf: Bdf,
        interface: &str,
        index: u32,
    ) -> Result<NicAttributes, StepFault> {
        let table = attributes_of(&self.root, interface, pf)
            .map_err(|reason| fault::found(doing, format!("{interface} {reason}")))?;
        table
            .and_then(|table| table.get(&index).copied())
            .ok_or_else(|| fault::found(doing, format!("{interface} tells nothing of VF {index}")))
    }

    fn index(&self, doing: &str, pf: Bdf, interface: &str) -> Result<NonZeroU32, StepFault> {
        let folder = format!("sys/class/net/{interface}");
        let unread = |e| fault::unread(Call::Netlink, doing, &e);
        let device = self.root.read_link_name(format!("{folder}/device"));
        let device = device.map_err(unread)?.unwrap_or_default();
        if device != pf.to_string() {
            let evidence = format!("{interface} is an interface of {device:?}, not of {pf}");
            return Err(fault::found(doing, evidence));
        }
        let text = self.root.read_text(format!("{folder}/ifindex"));
        let text = text.map_err(unread)?;
        text.parse()
            .map_err(|_bad| fault::found(doing, format!("{folder}/ifindex holds {text:?}")))
    }
}

/// Whether an interface has a link; not while it is down.
pub(super) fn has_carrier(root: &SysRoot, interface: &str) -> bool {
    root.read_text(format!("sys/class/net/{interface}/carrier"))
        .is_ok_and(|text| text == "1")
}

fn is_up(root: &SysRoot, interface: &str) -> bool {
    root.read_text(format!("sys/class/net/{interface}/flags"))
        .is_ok_and(|text| {
            let flags = u32::from_str_radix(text.trim_start_matches("0x"), 16);
            flags.is_ok_and(|flags| flags & 1 != 0)
        })
}

fn word(value: AttributeValue) -> &'static str {
    match value {
        AttributeValue::Spoofchk(_) => "spoofchk",
        AttributeValue::Trust(_) => "trust",
        AttributeValue::QueryRss(_) => "query_rss",
        AttributeValue::Mac(_) => "mac",
        AttributeValue::Vlan(_) => "vlan",
        AttributeValue::Rate { .. } => "min_tx_rate and max_tx_rate",
        AttributeValue::State(_) => "state",
    }
}

fn order(value: AttributeValue) -> VfAttribute {
    match value {
        AttributeValue::Spoofchk(on) => VfAttribute::SpoofCheck(on),
        AttributeValue::Trust(on) => VfAttribute::Trust(on),
        AttributeValue::QueryRss(on) => VfAttribute::RssQuery(on),
        AttributeValue::Mac(mac) => VfAttribute::Mac(mac.unwrap_or(Mac([0; 6]))),
        AttributeValue::Vlan(vlan) => VfAttribute::Vlan {
            id: vlan.id,
            qos: vlan.qos,
            proto: vlan.proto,
        },
        AttributeValue::Rate { min, max } => VfAttribute::Rate {
            min_mbps: min.0,
            max_mbps: max.0,
        },
        AttributeValue::State(state) => VfAttribute::Link(state),
    }
}

/// Whether what is told is what is asked for. What is not told is not.
fn reads_as(told: &NicAttributes, asked: AttributeValue) -> bool {
    match asked {
        AttributeValue::Spoofchk(on) => told.spoofchk == Some(on),
        AttributeValue::Trust(on) => told.trust == Some(on),
        AttributeValue::QueryRss(on) => told.query_rss == Some(on),
        AttributeValue::Mac(mac) => told.mac == mac,
        // Without an id the rest means nothing.
        AttributeValue::Vlan(vlan) if vlan.id == 0 => told.vlan.is_some_and(|v| v.id == 0),
        AttributeValue::Vlan(vlan) => told.vlan == Some(vlan),
        AttributeValue::Rate { min, max } => {
            told.min_tx.unwrap_or(Mbps(0)) == min && told.max_tx.unwrap_or(Mbps(0)) == max
        }
        AttributeValue::State(state) => told.state == Some(state),
    }
}

/// The attributes that are told, those that keep a VF in bounds first.
fn values(told: &NicAttributes) -> Vec<AttributeValue> {
    let rate = told.min_tx.is_some() || told.max_tx.is_some();
    [
        told.spoofchk.map(AttributeValue::Spoofchk),
        told.trust.map(AttributeValue::Trust),
        told.query_rss.map(AttributeValue::QueryRss),
        Some(AttributeValue::Mac(told.mac)),
        told.vlan.map(AttributeValue::Vlan),
        rate.then_some(AttributeValue::Rate {
            min: told.min_tx.unwrap_or(Mbps(0)),
            max: told.max_tx.unwrap_or(Mbps(0)),
        }),
        told.state.map(AttributeValue::State),
    ]
    .into_iter()
    .flatten()
    .collect()
}
