//! What can be done to a machine, one change at a time, each with what takes it back.

use iommu::{
    bdf::Bdf,
    topology::{LinkPolicy, Mac},
};
use serde::{Deserialize, Serialize};

use super::facts::{NicAttributes, Secondary};
pub use crate::spec::host::Attribute as AttributeName;
use crate::spec::host::{Mbps, Vlan};

/// One change, read back after it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Step {
    /// Sets a PF's link up, or down again.
    Link {
        /// The PF.
        pf: Bdf,
        /// Its interface.
        interface: String,
        /// Up or down.
        up: bool,
    },
    /// Lets drivers of the host take new VFs, or not.
    Autoprobe {
        /// The PF.
        pf: Bdf,
        /// Before.
        from: bool,
        /// After.
        to: bool,
    },
    /// Takes a VF from a driver of the host.
    Unbind {
        /// The PF.
        pf: Bdf,
        /// Its index.
        index: u32,
        /// The VF.
        vf: Bdf,
        /// The driver.
        driver: String,
    },
    /// Gives a VF to a driver of the host: the way back of `Unbind`.
    Bind {
        /// The PF.
        pf: Bdf,
        /// Its index.
        index: u32,
        /// The VF.
        vf: Bdf,
        /// The driver.
        driver: String,
    },
    /// Takes all VFs away.
    Destroy {
        /// The PF.
        pf: Bdf,
        /// How many there are.
        count: u32,
        /// What they were set to, by index, for the way back.
        snapshot: Vec<NicAttributes>,
        /// The PF's interface.
        interface: Option<String>,
        /// What their controllers had, where the PF is a drive: all of it goes with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drive: Option<Box<DriveSnapshot>>,
    },
    /// Makes VFs.
    Create {
        /// The PF.
        pf: Bdf,
        /// How many.
        count: u32,
        /// What they are set to afterwards, by index; empty but for the way back of `Destroy`.
        snapshot: Vec<NicAttributes>,
        /// The PF's interface.
        interface: Option<String>,
    },
    /// Sets one attribute of one VF.
    Attribute {
        /// The PF.
        pf: Bdf,
        /// The PF's interface.
        interface: String,
        /// The VF's index.
        index: u32,
        /// Before; `None` where the driver does not tell it.
        from: Option<AttributeValue>,
        /// After.
        to: AttributeValue,
        /// Whether the driver takes it back in no way: it clears no address.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stays: bool,
    },
    /// Takes a secondary controller offline, and its resources from it.
    Offline {
        /// The PF.
        pf: Bdf,
        /// The controller's name, `nvme0`.
        controller: String,
        /// The secondary.
        cntlid: u16,
        /// Its VQ before.
        queues: u16,
        /// Its VI before.
        vectors: u16,
    },
    /// Gives a secondary controller resources.
    Assign {
        /// The PF.
        pf: Bdf,
        /// The controller's name.
        controller: String,
        /// The secondary.
        cntlid: u16,
        /// Of which kind.
        resource: ResourceKind,
        /// How many before.
        from: u16,
        /// How many after.
        to: u16,
    },
    /// Resets a VF's function.
    Reset {
        /// The PF.
        pf: Bdf,
        /// The VF's index.
        index: u32,
        /// The VF; `None` where it is made by an earlier step.
        vf: Option<Bdf>,
    },
    /// Sets a secondary controller online.
    Online {
        /// The PF.
        pf: Bdf,
        /// The controller's name.
        controller: String,
        /// The secondary.
        cntlid: u16,
    },
    /// Makes a namespace.
    NamespaceCreate {
        /// The PF.
        pf: Bdf,
        /// The controller's name.
        controller: String,
        /// Its name in the host file.
        name: String,
        /// Size in bytes.
        size: u64,
        /// Block size in bytes.
        block: u32,
        /// Whether several controllers may see it.
        shared: bool,
    },
    /// Takes a namespace from a controller.
    Detach {
        /// The PF.
        pf: Bdf,
        /// The commanding controller's name.
        controller: String,
        /// The namespace.
        nsid: u32,
        /// The controller that it is taken from.
        cntlid: u16,
    },
    /// Gives a namespace to a controller.
    Attach {
        /// The PF.
        pf: Bdf,
        /// The commanding controller's name.
        controller: String,
        /// The namespace.
        nsid: u32,
        /// The controller that it is given to.
        cntlid: u16,
    },
    /// Erases a namespace.
    Erase {
        /// The PF.
        pf: Bdf,
        /// The commanding controller's name.
        controller: String,
        /// The namespace.
        nsid: u32,
        /// How.
        how: EraseHow,
        /// The block size that it has afterwards, without metadata: a guest may have given it another.
        block: u32,
    },
    /// Deletes a namespace that Narrows has made.
    NamespaceDelete {
        /// The PF.
        pf: Bdf,
        /// The commanding controller's name.
        controller: String,
        /// The namespace.
        nsid: u32,
        /// Its name in the host file.
        name: String,
    },
}

/// The secondary controllers of a drive that had resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveSnapshot {
    /// The controller's name, `nvme0`.
    pub controller: String,
    /// What each had.
    pub secondaries: Vec<Secondary>,
}

/// An attribute with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeValue {
    /// On or off.
    Spoofchk(bool),
    /// On or off.
    Trust(bool),
    /// On or off.
    QueryRss(bool),
    /// An address; `None` is of zeros.
    Mac(Option<Mac>),
    /// A VLAN.
    Vlan(Vlan),
    /// Both rates: the kernel sets them together.
    Rate {
        /// Promised.
        min: Mbps,
        /// Highest.
        max: Mbps,
    },
    /// What the VF sees of the link.
    State(LinkPolicy),
}

/// A kind of flexible resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// VQ: queues.
    Queues,
    /// VI: interrupt vectors.
    Vectors,
}

/// How a namespace is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EraseHow {
    /// Format NVM with SES 2.
    Crypto,
    /// Format NVM with SES 1.
    Format,
    /// Zeros to every block.
    Overwrite,
}

/// What takes a step back.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    /// These, in this order.
    Steps(Vec<Step>),
    /// It changes nothing that lasts.
    Nothing,
    /// Nothing does: why.
    Impossible(&'static str),
}
