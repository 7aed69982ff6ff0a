//! Steps in words: one line each, for the plan, for progress, and for reports.

use std::fmt;

use iommu::{addr::ByteLen, bdf::Bdf, topology::LinkPolicy};

use super::step::{AttributeValue, EraseHow, ResourceKind, Step};

impl fmt::Display for Step {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are written by `in_nvme_words`"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { pf, interface, up } => {
                let word = if *up { "up" } else { "down" };
                write!(f, "set {interface} ({pf}) {word}")
            }
            Self::Autoprobe { pf, to: true, .. } => {
                write!(f, "let drivers of the host take new VFs of {pf}")
            }
            Self::Autoprobe { pf, to: false, .. } => {
                write!(f, "keep drivers of the host off new VFs of {pf}")
            }
            Self::Unbind {
                index, vf, driver, ..
            } => write!(f, "take VF {index} ({vf}) from {driver}"),
            Self::Bind {
                index, vf, driver, ..
            } => write!(f, "give VF {index} ({vf}) to {driver}"),
            Self::Destroy {
                pf,
                count,
                interface,
                ..
            } => write!(f, "destroy the {count} VFs of {}", Of(*pf, interface)),
            Self::Create {
                pf,
                count,
                interface,
                ..
            } => write!(f, "make {count} VFs of {}", Of(*pf, interface)),
            Self::Attribute {
                interface,
                index,
                from,
                to,
                ..
            } => match from {
                Some(from) => write!(
                    f,
                    "VF {index} of {interface}: {} {} -> {}",
                    to.name(),
                    Value(*from),
                    Value(*to)
                ),
                None => write!(f, "VF {index} of {interface}: {} {}", to.name(), Value(*to)),
            },
            Self::Reset { pf, index, vf } => match vf {
                Some(vf) => write!(f, "reset VF {index} ({vf}) of {pf}"),
                None => write!(f, "reset VF {index} of {pf}"),
            },
            _ => self.in_nvme_words(f),
        }
    }
}

impl Step {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are written by the caller"
    )]
    fn in_nvme_words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline {
                controller, cntlid, ..
            } => write!(f, "take controller {cntlid} of {controller} offline"),
            Self::Assign {
                controller,
                cntlid,
                resource,
                from,
                to,
                ..
            } => write!(
                f,
                "controller {cntlid} of {controller}: {resource} {from} -> {to}"
            ),
            Self::Online {
                controller, cntlid, ..
            } => write!(f, "set controller {cntlid} of {controller} online"),
            Self::NamespaceCreate {
                controller,
                name,
                size,
                block,
                ..
            } => write!(
                f,
                "make namespace {name} of {} in blocks of {block} on {controller}",
                ByteLen::new(*size)
            ),
            Self::Detach {
                controller,
                nsid,
                cntlid,
                ..
            } => write!(
                f,
                "take namespace {nsid} of {controller} from controller {cntlid}"
            ),
            Self::Attach {
                controller,
                nsid,
                cntlid,
                ..
            } => write!(
                f,
                "give namespace {nsid} of {controller} to controller {cntlid}"
            ),
            Self::Erase {
                controller,
                nsid,
                how,
                ..
            } => write!(f, "erase namespace {nsid} of {controller} {how}"),
            Self::NamespaceDelete {
                controller,
                nsid,
                name,
                ..
            } => write!(f, "delete namespace {nsid} ({name}) of {controller}"),
            _ => Ok(()),
        }
    }
}

/// A PF by its interface, where it has one.
struct Of<'a>(Bdf, &'a Option<String>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(interface) => write!(f, "{interface} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A value without the name of its attribute.
struct Value(AttributeValue);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            AttributeValue::Spoofchk(on)
            | AttributeValue::Trust(on)
            | AttributeValue::QueryRss(on) => f.write_str(if on { "on" } else { "off" }),
            AttributeValue::Mac(Some(mac)) => write!(f, "{mac}"),
            AttributeValue::Mac(None) => f.write_str("none"),
            AttributeValue::Vlan(vlan) => write!(f, "{vlan}"),
            AttributeValue::Rate { min, max } => match (min.0, max.0) {
                (0, 0) => f.write_str("none"),
                (0, _) => write!(f, "at most {max}"),
                (_, 0) => write!(f, "at least {min}"),
                _ => write!(f, "{min} to {max}"),
            },
            AttributeValue::State(state) => f.write_str(match state {
                LinkPolicy::Auto => "auto",
                LinkPolicy::Up => "enable",
                LinkPolicy::Down => "disable",
            }),
        }
    }
}

impl AttributeValue {
    /// The value in the words of the host file, without its name.
    #[must_use]
    pub fn in_words(self) -> String {
        Value(self).to_string()
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queues => "queues",
            Self::Vectors => "vectors",
        })
    }
}

impl fmt::Display for EraseHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crypto => "by forgetting its key",
            Self::Format => "by a format",
            Self::Overwrite => "by writing zeros",
        })
    }
}
