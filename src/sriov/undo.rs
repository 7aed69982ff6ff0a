//! What takes each step back, and what each step touches.

use iommu::bdf::Bdf;

use super::{
    facts::NicAttributes,
    step::{AttributeName, AttributeValue, DriveSnapshot, ResourceKind, Step, Undo},
};

impl Step {
    /// What takes it back, in the order in which that is done.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others have a counterpart"
    )]
    #[must_use]
    pub fn undo(&self) -> Undo {
        let mut back = self.clone();
        match &mut back {
            Self::Link { up, .. } => *up = !*up,
            Self::Autoprobe { from, to, .. } => std::mem::swap(from, to),
            Self::Attribute { stays: true, .. } => {
                return Undo::Impossible("the driver cannot clear an address once one is set");
            }
            Self::Attribute {
                from: Some(from),
                to,
                ..
            } => std::mem::swap(from, to),
            // Of a VF that the same plan makes: it goes with its VF.
            Self::Attribute { from: None, .. } | Self::Reset { .. } => return Undo::Nothing,
            Self::Assign { from, to, .. } => std::mem::swap(from, to),
            _ => return self.counterpart(),
        }
        Undo::Steps(vec![back])
    }

    /// The undo of a step that is taken back by a step of another kind.
    fn counterpart(&self) -> Undo {
        let step = match self.clone() {
            Self::Unbind {
                pf,
                index,
                vf,
                driver,
            } => Self::Bind {
                pf,
                index,
                vf,
                driver,
            },
            Self::Bind {
                pf,
                index,
                vf,
                driver,
            } => Self::Unbind {
                pf,
                index,
                vf,
                driver,
            },
            Self::Destroy {
                pf,
                count,
                snapshot,
                interface,
                drive,
            } => {
                let mut steps = remade(pf, count, &snapshot, interface);
                for drive in drive.iter() {
                    steps.extend(given_again(pf, drive));
                }
                return Undo::Steps(steps);
            }
            Self::Create {
                pf,
                count,
                snapshot,
                interface,
            } => Self::Destroy {
                pf,
                count,
                snapshot,
                interface,
                drive: None,
            },
            Self::Offline {
                pf,
                controller,
                cntlid,
                queues,
                vectors,
            } => {
                let assign = |resource, to| Self::Assign {
                    pf,
                    controller: controller.clone(),
                    cntlid,
                    resource,
                    from: 0,
                    to,
                };
                return Undo::Steps(vec![
                    assign(ResourceKind::Vectors, vectors),
                    assign(ResourceKind::Queues, queues),
                    Self::Online {
                        pf,
                        controller: controller.clone(),
                        cntlid,
                    },
                ]);
            }
            // Its resources are those of the steps before, which are taken back next.
            Self::Online {
                pf,
                controller,
                cntlid,
            } => Self::Offline {
                pf,
                controller,
                cntlid,
                queues: 0,
                vectors: 0,
            },
            Self::Detach {
                pf,
                controller,
                nsid,
                cntlid,
            } => Self::Attach {
                pf,
                controller,
                nsid,
                cntlid,
            },
            Self::Attach {
                pf,
                controller,
                nsid,
                cntlid,
            } => Self::Detach {
                pf,
                controller,
                nsid,
                cntlid,
            },
            Self::NamespaceCreate { .. } => {
                return Undo::Impossible(
                    "the namespace's id is known to the journal alone, which has its deletion",
                );
            }
            Self::Erase { .. } => return Undo::Impossible("what was erased is gone"),
            Self::NamespaceDelete { .. } => {
                return Undo::Impossible("a deleted namespace is gone with what was on it");
            }
            Self::Link { .. }
            | Self::Autoprobe { .. }
            | Self::Attribute { .. }
            | Self::Assign { .. }
            | Self::Reset { .. } => return Undo::Nothing,
        };
        Undo::Steps(vec![step])
    }

    /// Its undo, once `Seen::Namespace` has told the id of the namespace that it made.
    #[expect(clippy::wildcard_enum_match_arm, reason = "one step makes a namespace")]
    #[must_use]
    pub fn undo_of_namespace(&self, nsid: u32) -> Undo {
        match self.clone() {
            Self::NamespaceCreate {
                pf,
                controller,
                name,
                ..
            } => Undo::Steps(vec![Self::NamespaceDelete {
                pf,
                controller,
                nsid,
                name,
            }]),
            other => other.undo(),
        }
    }

    /// Whether nothing takes it back once it is done: it comes at the very end of a plan.
    #[must_use]
    pub fn is_irreversible(&self) -> bool {
        matches!(self, Self::Erase { .. } | Self::NamespaceDelete { .. })
    }

    /// The PF that it is about.
    #[must_use]
    pub fn pf(&self) -> Bdf {
        match self {
            Self::Link { pf, .. }
            | Self::Autoprobe { pf, .. }
            | Self::Unbind { pf, .. }
            | Self::Bind { pf, .. }
            | Self::Destroy { pf, .. }
            | Self::Create { pf, .. }
            | Self::Attribute { pf, .. }
            | Self::Offline { pf, .. }
            | Self::Assign { pf, .. }
            | Self::Reset { pf, .. }
            | Self::Online { pf, .. }
            | Self::NamespaceCreate { pf, .. }
            | Self::Detach { pf, .. }
            | Self::Attach { pf, .. }
            | Self::Erase { pf, .. }
            | Self::NamespaceDelete { pf, .. } => *pf,
        }
    }

    /// The index of the VF that it is about, where it is about one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "four steps name a VF")]
    #[must_use]
    pub fn vf(&self) -> Option<u32> {
        match self {
            Self::Unbind { index, .. }
            | Self::Bind { index, .. }
            | Self::Attribute { index, .. }
            | Self::Reset { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// The secondary, or primary, controller that it is about, where it is about one.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "five steps name a controller"
    )]
    #[must_use]
    pub fn cntlid(&self) -> Option<u16> {
        match self {
            Self::Offline { cntlid, .. }
            | Self::Assign { cntlid, .. }
            | Self::Online { cntlid, .. }
            | Self::Detach { cntlid, .. }
            | Self::Attach { cntlid, .. } => Some(*cntlid),
            _ => None,
        }
    }
}

/// VFs again, with the settings that others had: new functions all the same.
fn remade(pf: Bdf, count: u32, snapshot: &[NicAttributes], interface: Option<String>) -> Vec<Step> {
    let mut steps = vec![Step::Create {
        pf,
        count,
        snapshot: Vec::new(),
        interface: interface.clone(),
    }];
    let Some(interface) = interface else {
        return steps;
    };
    for (index, was) in (0..).zip(snapshot) {
        let values = AttributeName::ALL
            .iter()
            .filter_map(|name| was.value(*name))
            .filter(|value| *value != AttributeValue::Mac(None));
        steps.extend(values.map(|to| Step::Attribute {
            pf,
            interface: interface.clone(),
            index,
            from: None,
            to,
            stays: false,
        }));
    }
    steps
}

/// What the controllers of a drive had before their functions went. A function is reset between, for its table of interrupts.
fn given_again(pf: Bdf, drive: &DriveSnapshot) -> Vec<Step> {
    let mut steps = Vec::new();
    for had in &drive.secondaries {
        let (controller, cntlid) = (drive.controller.clone(), had.cntlid);
        let resources = [
            (ResourceKind::Vectors, had.vectors),
            (ResourceKind::Queues, had.queues),
        ];
        steps.extend(
            resources
                .into_iter()
                .filter(|(_, to)| *to > 0)
                .map(|(resource, to)| Step::Assign {
                    pf,
                    controller: controller.clone(),
                    cntlid,
                    resource,
                    from: 0,
                    to,
                }),
        );
        if had.vf > 0 {
            steps.push(Step::Reset {
                pf,
                index: u32::from(had.vf) - 1,
                vf: None,
            });
        }
        if had.is_online {
            steps.push(Step::Online {
                pf,
                controller,
                cntlid,
            });
        }
    }
    steps
}

impl AttributeName {
    /// All, in the order in which they are put back.
    pub const ALL: [Self; 7] = [
        Self::Spoofchk,
        Self::Trust,
        Self::QueryRss,
        Self::Mac,
        Self::Vlan,
        Self::Rate,
        Self::State,
    ];
}

impl AttributeValue {
    /// Of which attribute it is a value.
    #[must_use]
    pub const fn name(self) -> AttributeName {
        match self {
            Self::Spoofchk(_) => AttributeName::Spoofchk,
            Self::Trust(_) => AttributeName::Trust,
            Self::QueryRss(_) => AttributeName::QueryRss,
            Self::Mac(_) => AttributeName::Mac,
            Self::Vlan(_) => AttributeName::Vlan,
            Self::Rate { .. } => AttributeName::Rate,
            Self::State(_) => AttributeName::State,
        }
    }
}

impl NicAttributes {
    /// The value of one attribute; `None` where it is not told. An address of zeros is a value of its own:
    /// `Mac(None)`.
    #[must_use]
    pub fn value(&self, name: AttributeName) -> Option<AttributeValue> {
        match name {
            AttributeName::Spoofchk => self.spoofchk.map(AttributeValue::Spoofchk),
            AttributeName::Trust => self.trust.map(AttributeValue::Trust),
            AttributeName::QueryRss => self.query_rss.map(AttributeValue::QueryRss),
            AttributeName::Mac => Some(AttributeValue::Mac(self.mac)),
            AttributeName::Vlan => self.vlan.map(AttributeValue::Vlan),
            AttributeName::Rate => match (self.min_tx, self.max_tx) {
                (None, None) => None,
                (min, max) => Some(AttributeValue::Rate {
                    min: min.unwrap_or_default(),
                    max: max.unwrap_or_default(),
                }),
            },
            AttributeName::State => self.state.map(AttributeValue::State),
        }
    }

    /// The same with one attribute set to `value`.
    #[must_use]
    pub fn with(mut self, value: AttributeValue) -> Self {
        match value {
            AttributeValue::Spoofchk(on) => self.spoofchk = Some(on),
            AttributeValue::Trust(on) => self.trust = Some(on),
            AttributeValue::QueryRss(on) => self.query_rss = Some(on),
            AttributeValue::Mac(mac) => self.mac = mac,
            AttributeValue::Vlan(vlan) => self.vlan = Some(vlan),
            AttributeValue::Rate { min, max } => {
                self.min_tx = Some(min);
                self.max_tx = Some(max);
            }
            AttributeValue::State(state) => self.state = Some(state),
        }
        self
    }
}
