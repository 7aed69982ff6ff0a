//! The layers of the jail: what stands between a process of a guest and the host, one row each. Facts only; `host` reads
//! which of them this kernel has, `plan` refuses where one is absent, `jail` puts processes into them.
#![forbid(unsafe_code)]

mod table;

use std::fmt;

use serde::{Serialize, Serializer};

use self::table::ROWS;
pub use self::table::Row;

/// The controllers that a guest's cgroups need.
pub const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the row of the table says what each is")]
pub enum Layer {
    Seccomp = 0,
    NoNewPrivs,
    Capabilities,
    Uid,
    UserNamespace,
    MountNamespace,
    PidNamespace,
    NetNamespace,
    IpcNamespace,
    UtsNamespace,
    CgroupNamespace,
    TimeNamespace,
    Cgroup,
    Rlimits,
    NotDumpable,
    Mdwe,
    Mseal,
    Landlock,
    CoreScheduling,
    FilterReadable,
}

impl Layer {
    /// How many there are.
    pub const COUNT: usize = Self::FilterReadable as usize + 1;

    /// All layers, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.layer)
    }

    /// The layer of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|layer| layer.name() == name)
    }

    /// Its stable name, e.g. `mount-namespace`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What is fixed about it.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Whether a guest may run without it where the kernel lacks it and the guest file says so.
    #[must_use]
    pub fn may_be_absent(self) -> bool {
        self.row().excepted.is_ok()
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Layer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A set of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSet(u32);

impl LayerSet {
    /// Whether `layer` is in it.
    #[must_use]
    pub const fn contains(self, layer: Layer) -> bool {
        self.0 & (1 << layer as u32) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as bits; those of [`jailed::manifest::layer`] are the same.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Adds `layer`.
    pub const fn insert(&mut self, layer: Layer) {
        self.0 |= 1 << layer as u32;
    }

    /// The layers, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::all().filter(move |layer| self.contains(*layer))
    }
}

impl FromIterator<Layer> for LayerSet {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        let mut set = Self::default();
        layers.into_iter().for_each(|layer| set.insert(layer));
        set
    }
}

impl Serialize for LayerSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Whether a host has a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Presence {
    /// The kernel offers it.
    Available {
        /// What says so.
        evidence: String,
    },
    /// The kernel does not offer it.
    Absent {
        /// What says so.
        evidence: String,
    },
    /// What it removes is not there.
    NotNeeded {
        /// What says so.
        evidence: String,
    },
    /// Nothing tells.
    Unknown {
        /// What was looked for.
        evidence: String,
    },
}

impl Presence {
    /// What says so.
    #[must_use]
    pub fn evidence(&self) -> &str {
        match self {
            Self::Available { evidence }
            | Self::Absent { evidence }
            | Self::NotNeeded { evidence }
            | Self::Unknown { evidence } => evidence,
        }
    }

    /// `available`, `absent`, `not needed` or `unknown`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Available { .. } => "available",
            Self::Absent { .. } => "absent",
            Self::NotNeeded { .. } => "not needed",
            Self::Unknown { .. } => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_layer_has_its_row_its_name_and_its_reasons() {
        let names: BTreeSet<&str> = Layer::all().map(Layer::name).collect();
        assert_eq!(names.len(), Layer::COUNT);
        for layer in Layer::all() {
            let row = layer.row();
            assert_eq!(Layer::from_name(row.name), Some(layer));
            let is_kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(row.name.chars().all(is_kebab), "{}", row.name);
            let (Ok(reason) | Err(reason)) = row.excepted;
            for text in [row.removes, row.since, row.fix, reason] {
                assert!(
                    !text.is_empty() && !text.ends_with('.'),
                    "{}: {text}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn what_every_kernel_has_cannot_be_done_without() {
        let never: Vec<&str> = Layer::all()
            .filter(|layer| !layer.may_be_absent())
            .map(Layer::name)
            .collect();
        assert_eq!(
            never,
            [
                "seccomp",
                "no-new-privs",
                "capabilities",
                "uid",
                "user-namespace",
                "mount-namespace",
                "pid-namespace",
                "net-namespace",
                "ipc-namespace",
                "uts-namespace",
                "rlimits",
                "not-dumpable",
            ]
        );
    }

    #[test]
    fn bits_are_those_of_the_handoff() {
        use jailed::manifest::layer;
        for (one, bit) in [
            (Layer::Seccomp, layer::SECCOMP),
            (Layer::NoNewPrivs, layer::NO_NEW_PRIVS),
            (Layer::Capabilities, layer::CAPABILITIES),
            (Layer::Uid, layer::UID),
            (Layer::UserNamespace, layer::USER_NAMESPACE),
            (Layer::MountNamespace, layer::MOUNT_NAMESPACE),
            (Layer::PidNamespace, layer::PID_NAMESPACE),
            (Layer::NetNamespace, layer::NET_NAMESPACE),
            (Layer::IpcNamespace, layer::IPC_NAMESPACE),
            (Layer::UtsNamespace, layer::UTS_NAMESPACE),
            (Layer::CgroupNamespace, layer::CGROUP_NAMESPACE),
            (Layer::TimeNamespace, layer::TIME_NAMESPACE),
            (Layer::Cgroup, layer::CGROUP),
            (Layer::Rlimits, layer::RLIMITS),
            (Layer::NotDumpable, layer::NOT_DUMPABLE),
            (Layer::Mdwe, layer::MDWE),
            (Layer::Mseal, layer::MSEAL),
            (Layer::Landlock, layer::LANDLOCK),
            (Layer::CoreScheduling, layer::CORE_SCHEDULING),
        ] {
            assert_eq!(LayerSet::from_iter([one]).bits(), bit, "{one}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: LayerSet = [Layer::Mseal, Layer::TimeNamespace].into_iter().collect();
        let held: Vec<Layer> = set.iter().collect();
        assert_eq!(held, [Layer::TimeNamespace, Layer::Mseal]);
        assert!(!set.contains(Layer::Seccomp) && !set.is_empty());
        assert!(LayerSet::default().is_empty());
    }
}
