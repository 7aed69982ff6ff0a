//! Which files a process has open, and whether they are the very ones that it was given.

use super::{Answer, Look, Mismatches, unread};
use crate::inspect::{
    expected::{ExpectedDescriptor, FileId, Held},
    facts::Descriptor,
};

pub(super) fn descriptors(look: &Look<'_>) -> Answer {
    let own = match &look.facts.descriptors {
        Ok(own) => own,
        Err(fact) => return unread(fact),
    };
    match &look.expected.descriptors {
        Held::Exactly(meant) => exactly(look, own, meant),
        Held::Among(files, precious) => among(own, files, precious),
    }
}

fn exactly(look: &Look<'_>, own: &[Descriptor], meant: &[ExpectedDescriptor]) -> Answer {
    let mut mismatches = Mismatches::default();
    let mut compared = Compared::default();
    for expected in meant {
        let found = own.iter().find(|d| d.number == expected.number);
        let words = expected.kind.words();
        match found {
            None => mismatches.unless(expected.may_be_closed(), || {
                format!("descriptor {}, {words}, is not there", expected.number)
            }),
            Some(found) => {
                let fits = expected.kind.fits(&found.target, found.flags);
                mismatches.unless(fits, || {
                    format!(
                        "descriptor {} is {} (flags {:o}), not {words}",
                        found.number, found.target, found.flags
                    )
                });
                compared.add(look, expected, found, &mut mismatches);
            }
        }
    }
    for surplus in own {
        let is_meant = meant.iter().any(|d| d.number == surplus.number);
        mismatches.unless(is_meant, || {
            format!(
                "descriptor {} is one too many: {}",
                surplus.number, surplus.target
            )
        });
    }
    let evidence = format!(
        "{} descriptors, each of its kind{}",
        own.len(),
        compared.words()
    );
    (evidence, mismatches.0)
}

/// How many descriptors are more than of their kind: the very files that the keeper knows.
#[derive(Default)]
struct Compared {
    same: usize,
    inodes: usize,
    untold: usize,
}

impl Compared {
    fn add(
        &mut self,
        look: &Look<'_>,
        expected: &ExpectedDescriptor,
        found: &Descriptor,
        mismatches: &mut Mismatches,
    ) {
        let number = found.number;
        let given = expected.given.as_ref();
        let meant = given.and_then(|given| given.file);
        let name = given.and_then(|given| given.name.as_ref());
        let is_other = match (meant, &found.file) {
            (Some(meant), Ok(file)) => meant != *file,
            (None, _) => name.is_some_and(|name| *name != found.target),
            (Some(_), Err(fact)) => return mismatches.0.extend(unread(fact).1),
        };
        mismatches.unless(!is_other, || {
            format!(
                "descriptor {number} is {}, but not the one that it was given",
                found.target
            )
        });
        let mut same = look.live.same.iter();
        match same.find(|(own, _)| *own == number).map(|(_, same)| same) {
            Some(Ok(Some(true))) => self.same += 1,
            Some(Ok(Some(false))) => mismatches.0.push(format!(
                "descriptor {number} is {}, but not the file that the keeper has opened",
                found.target
            )),
            Some(Err(fact)) => mismatches.0.extend(unread(fact).1),
            Some(Ok(None)) | None if meant.is_some() => self.inodes += 1,
            Some(Ok(None)) => self.untold += 1,
            None => {}
        }
    }

    fn words(&self) -> String {
        let mut words = String::new();
        let mut add = |count: usize, what: &str| {
            if count > 0 {
                words.push_str(&format!("; {count} {what}"));
            }
        };
        add(self.same, "the keeper's own (kcmp)");
        add(self.inodes, "by device and inode what it was given");
        add(
            self.untold,
            "by kind alone: this kernel has no kcmp (CONFIG_KCMP)",
        );
        words
    }
}

/// A service manager gave it its standard files and the socket it listened at; everything else is the keeper's.
fn among(own: &[Descriptor], files: &[FileId], precious: &[&str]) -> Answer {
    const STANDARD: u32 = 3;
    let mut mismatches = Mismatches::default();
    let (mut given, mut sockets, mut signals) = (0, 0, 0);
    for found in own {
        let is_precious = precious.iter().any(|name| found.target.starts_with(name));
        let say = |what: &str| format!("descriptor {} {what}: {}", found.number, found.target);
        mismatches.unless(!is_precious, || say("is of a guest"));
        match &found.file {
            _ if found.number < STANDARD => {}
            _ if found.target == "anon_inode:[signalfd]" => signals += 1,
            Ok(file) if files.contains(file) => given += 1,
            Ok(_) if found.target.starts_with("socket:[") => sockets += 1,
            Ok(_) => mismatches.0.push(say("is one too many")),
            Err(fact) => mismatches.0.extend(unread(fact).1),
        }
    }
    mismatches.unless(sockets <= 1, || {
        format!("it has {sockets} sockets that nobody gave it, not one, to the keeper")
    });
    mismatches.unless(signals <= 1, || format!("it hears signals {signals} times"));
    let evidence = format!(
        "{given} files of the keeper's by device and inode; signals, a socket, and what the service manager gave it as 0, 1 and 2"
    );
    (evidence, mismatches.0)
}
