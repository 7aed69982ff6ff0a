//! Where a process is: namespaces, its root, its cgroup.

use super::{Answer, Look, Mismatches, unread};
use crate::inspect::facts::{IdRange, NAMESPACES};

/// A namespace is its own: that of no other process which is known.
pub(super) fn namespace(look: &Look<'_>, name: &str) -> Answer {
    let position = NAMESPACES.iter().position(|known| *known == name);
    let Some((index, own)) = position.and_then(|i| Some((i, look.facts.namespaces.get(i)?))) else {
        return (String::new(), vec![format!("there is no {name} namespace")]);
    };
    let own = match own {
        Ok(own) => *own,
        Err(fact) => return unread(fact),
    };
    if !look.expected.namespaces.contains(&name) {
        return (
            format!("{name}:[{own}], not asked to be its own"),
            Vec::new(),
        );
    }
    let mut mismatches = Mismatches::default();
    for (whose, theirs) in look.others {
        match theirs.get(index) {
            Some(Ok(theirs)) => mismatches.unless(*theirs != own, || {
                format!("its {name} namespace [{own}] is that of {whose}")
            }),
            Some(Err(fact)) => mismatches.0.extend(unread(fact).1),
            None => mismatches.0.push(format!("that of {whose} is not known")),
        }
    }
    let of = match look.others {
        [(whose, _)] => whose.clone(),
        others => format!("{} other processes", others.len()),
    };
    (format!("{name}:[{own}], not that of {of}"), mismatches.0)
}

/// One user and one group, and so no root inside.
pub(super) fn user_namespace(look: &Look<'_>) -> Answer {
    let (evidence, mut mismatches) = namespace(look, "user");
    if !look.expected.namespaces.contains(&"user") {
        return (evidence, mismatches);
    }
    if look.expected.is_service() {
        let seen = match &look.facts.uid_map {
            Ok(ranges) => format!("its users are the service manager's: {ranges:?}"),
            Err(fact) => format!("its users are not known: {}: {}", fact.source, fact.why),
        };
        return (format!("{evidence}; {seen}"), mismatches);
    }
    let own = look.expected.place.uid;
    let alone = IdRange {
        inside: own,
        outside: own,
        count: 1,
    };
    let maps = [
        ("uid_map", &look.facts.uid_map),
        ("gid_map", &look.facts.gid_map),
    ];
    for (name, map) in maps {
        match map {
            Ok(ranges) if ranges.as_slice() == [alone] => {}
            Ok(ranges) => mismatches.push(format!("its {name} has {ranges:?}, not {own} alone")),
            Err(fact) => mismatches.extend(unread(fact).1),
        }
    }
    (format!("{evidence}; it holds {own} alone"), mismatches)
}

/// One mount, which is empty and cannot be written.
pub(super) fn mount_namespace(look: &Look<'_>) -> Answer {
    const OPTIONS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
    let (evidence, mismatches) = namespace(look, "mnt");
    if look.expected.is_service() {
        // Where the programs are found is the service manager's to say.
        let seen = match (&look.facts.root, &look.facts.mounts) {
            (Ok(names), Ok(mounts)) => format!(
                "its root is not empty, but the service manager's: {} entries, {} mounts",
                names.len(),
                mounts.len()
            ),
            (Err(fact), _) | (_, Err(fact)) => {
                format!("its root is not known: {}: {}", fact.source, fact.why)
            }
        };
        return (format!("{evidence}; {seen}"), mismatches);
    }
    let mut mismatches = Mismatches(mismatches);
    match &look.facts.root {
        Ok(names) => mismatches.unless(names.is_empty(), || {
            let some: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            format!("its root is not empty: {}", some.join(", "))
        }),
        Err(fact) => mismatches.0.extend(unread(fact).1),
    }
    match look.facts.mounts.as_deref() {
        Ok([mount]) => {
            let absent: Vec<&str> = OPTIONS
                .into_iter()
                .filter(|option| !mount.options.iter().any(|own| own == option))
                .collect();
            mismatches.unless(absent.is_empty() && mount.place == "/", || {
                format!(
                    "{} at {} is not {}",
                    mount.kind,
                    mount.place,
                    absent.join(", ")
                )
            });
        }
        Ok(mounts) => mismatches
            .0
            .push(format!("it sees {} mounts, not one alone", mounts.len())),
        Err(fact) => mismatches.0.extend(unread(fact).1),
    }
    let evidence = format!(
        "{evidence}; its root is one empty mount, {}",
        OPTIONS.join(", ")
    );
    (evidence, mismatches.0)
}

/// It is the first process of a pid namespace right below the keeper's.
pub(super) fn pid_namespace(look: &Look<'_>) -> Answer {
    let (evidence, mut mismatches) = namespace(look, "pid");
    if !look.expected.namespaces.contains(&"pid") {
        return (evidence, mismatches);
    }
    match look
        .facts
        .status
        .as_ref()
        .map(|status| status.pids.as_slice())
    {
        Ok([_, .., 1]) => {}
        Ok(pids) => mismatches.push(format!(
            "it is not the first process of a namespace: its ids are {pids:?}"
        )),
        Err(fact) => mismatches.extend(unread(fact).1),
    }
    (
        format!("{evidence}; it is the first process there"),
        mismatches,
    )
}

pub(super) fn cgroup(look: &Look<'_>) -> Answer {
    let Some(meant) = &look.expected.place.cgroup else {
        return (String::new(), vec!["it has none of its own".to_owned()]);
    };
    match &look.facts.cgroup {
        Ok(own) if own == meant => (own.clone(), Vec::new()),
        Ok(own) => (own.clone(), vec![format!("it is in {own}, not in {meant}")]),
        Err(fact) => unread(fact),
    }
}
