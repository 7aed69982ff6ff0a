//! A step as a line of a plan: a symbol, what it concerns, what it does.

use crate::{
    sriov::{AttributeValue, EraseHow, Step},
    view::paint::Ink,
};

/// What a step does to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    /// Something is made.
    Add,
    /// Something is changed.
    Change,
    /// Something is taken away.
    Remove,
    /// Something is lost for good.
    Lose,
}

impl Symbol {
    pub(super) fn text(self) -> (Ink, &'static str) {
        match self {
            Self::Add => (Ink::Good, "+"),
            Self::Change => (Ink::Odd, "~"),
            Self::Remove => (Ink::Odd, "-"),
            Self::Lose => (Ink::Bad, "✗"),
        }
    }
}

/// What of a PF a step concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The PF itself.
    Pf,
    /// A VF, by index.
    Vf(u32),
    /// A secondary controller, by CNTLID.
    Secondary(u16),
    /// A namespace, by id.
    Namespace(u32),
}

impl Subject {
    /// The subjects of a run of alike steps, first to last.
    pub(super) fn words(self, last: Self) -> String {
        let many = |word: &str, first: u32, last: u32| match first == last {
            true => format!("{word} {first}"),
            false => format!("{word} {first}-{last}"),
        };
        match (self, last) {
            (Self::Vf(first), Self::Vf(last)) => many("VF", first, last),
            (Self::Secondary(first), Self::Secondary(last)) => {
                many("secondary", first.into(), last.into())
            }
            (Self::Namespace(first), Self::Namespace(last)) => many("namespace", first, last),
            _ => "PF".to_owned(),
        }
    }

    /// Whether `next` is the next one of its kind.
    pub(super) fn is_before(self, next: Self) -> bool {
        match (self, next) {
            (Self::Vf(one), Self::Vf(other)) | (Self::Namespace(one), Self::Namespace(other)) => {
                one.checked_add(1) == Some(other)
            }
            (Self::Secondary(one), Self::Secondary(other)) => one.checked_add(1) == Some(other),
            _ => false,
        }
    }
}

/// A step as a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) symbol: Symbol,
    pub(super) subject: Subject,
    pub(super) what: String,
}

/// The line of a step.
pub(super) fn line(step: &Step) -> Line {
    use Symbol::{Add, Change, Lose, Remove};
    let of = |symbol, subject, what: String| Line {
        symbol,
        subject,
        what,
    };
    match step {
        Step::Link { interface, up, .. } => {
            let word = if *up { "up" } else { "down" };
            of(Change, Subject::Pf, format!("link {interface} {word}"))
        }
        Step::Autoprobe { to, .. } => {
            let word = if *to { "may take" } else { "leave" };
            of(
                Change,
                Subject::Pf,
                format!("drivers of the host {word} new VFs"),
            )
        }
        Step::Unbind { index, driver, .. } => of(
            Remove,
            Subject::Vf(*index),
            format!("taken from driver {driver}"),
        ),
        Step::Bind { index, driver, .. } => of(
            Add,
            Subject::Vf(*index),
            format!("given to driver {driver}"),
        ),
        Step::Destroy { count, .. } => of(Remove, Subject::Pf, vfs(*count)),
        Step::Create { count, .. } => of(Add, Subject::Pf, vfs(*count)),
        Step::Attribute {
            index, from, to, ..
        } => {
            let was = from.map_or_else(|| "not told".to_owned(), AttributeValue::in_words);
            let what = format!("{} {}, was {was}", to.name(), to.in_words());
            of(Change, Subject::Vf(*index), what)
        }
        Step::Offline { cntlid, .. } => {
            of(Remove, Subject::Secondary(*cntlid), "offline".to_owned())
        }
        Step::Assign {
            cntlid,
            resource,
            from,
            to,
            ..
        } => {
            let what = format!("{to} {resource}, was {from}");
            of(Change, Subject::Secondary(*cntlid), what)
        }
        Step::Reset { index, .. } => of(Change, Subject::Vf(*index), "reset".to_owned()),
        Step::Online { cntlid, .. } => of(Add, Subject::Secondary(*cntlid), "online".to_owned()),
        Step::NamespaceCreate {
            name, size, block, ..
        } => {
            let what = format!("namespace {name} of {size} bytes in blocks of {block}");
            of(Add, Subject::Pf, what)
        }
        Step::Detach { nsid, cntlid, .. } => {
            let what = format!("detached from controller {cntlid}");
            of(Remove, Subject::Namespace(*nsid), what)
        }
        Step::Attach { nsid, cntlid, .. } => {
            let what = format!("attached to controller {cntlid}");
            of(Add, Subject::Namespace(*nsid), what)
        }
        Step::Erase { nsid, how, .. } => {
            let word = match how {
                EraseHow::Crypto => "its key is destroyed",
                EraseHow::Format => "formatted",
                EraseHow::Overwrite => "overwritten with zeros",
            };
            of(Lose, Subject::Namespace(*nsid), format!("erased: {word}"))
        }
        Step::NamespaceDelete { nsid, name, .. } => {
            of(Lose, Subject::Namespace(*nsid), format!("deleted ({name})"))
        }
    }
}

fn vfs(count: u32) -> String {
    match count {
        1 => "1 VF".to_owned(),
        _ => format!("{count} VFs"),
    }
}
