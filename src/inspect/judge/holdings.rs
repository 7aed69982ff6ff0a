//! What a process has in memory, and its threads.

use super::{Answer, Look, Mismatches, unread};
use crate::inspect::{
    expected::{ExpectedMap, Holding},
    facts::Map,
};

pub(super) fn mappings(look: &Look<'_>) -> Answer {
    let own = match &look.facts.maps {
        Ok(own) => own,
        Err(fact) => return unread(fact),
    };
    let mut mismatches = Mismatches::default();
    mismatches.unless(!own.is_empty(), || "it has no mappings".to_owned());
    for map in own {
        mismatches.unless(!(map.is_writable && map.is_executable), || {
            format!("{} can be written and run", words(map))
        });
        let meant = match &look.expected.maps {
            Holding::Exactly(meant) => meant,
            Holding::NoneLike(names) => {
                let is_like = names.iter().any(|name| map.path.starts_with(name));
                mismatches.unless(!is_like, || format!("{} is mapped", words(map)));
                continue;
            }
        };
        let is_meant = meant.iter().any(|e| e.fits(&map.path, &protection(map)));
        mismatches.unless(is_meant, || {
            format!("{} is not meant to be there", words(map))
        });
    }
    for (path, file) in &look.expected.place.memory {
        for map in own.iter().filter(|map| map.path == *path) {
            mismatches.unless((file.device, file.inode) == map.file, || {
                format!("{} is another file of this name", words(map))
            });
        }
    }
    let exact = match &look.expected.maps {
        Holding::Exactly(meant) => meant.as_slice(),
        Holding::NoneLike(_) => &[],
    };
    for expected in exact {
        let Some(meant) = expected.len_bytes else {
            continue;
        };
        let like = own
            .iter()
            .filter(|map| expected.fits(&map.path, &protection(map)));
        let len_bytes: u64 = like.map(Map::len_bytes).sum();
        mismatches.unless(len_bytes == meant, || {
            format!(
                "{}: {len_bytes} bytes are mapped, not {meant}",
                expected.why
            )
        });
    }
    let len_bytes: u64 = own.iter().map(Map::len_bytes).sum();
    let evidence = format!(
        "{} mappings, {} KiB, none that can be written and run",
        own.len(),
        len_bytes >> 10
    );
    (evidence, mismatches.0)
}

/// What does not change any more is sealed.
pub(super) fn seals(look: &Look<'_>) -> Answer {
    let own = match &look.facts.maps {
        Ok(own) => own,
        Err(fact) => return unread(fact),
    };
    let Holding::Exactly(meant) = &look.expected.maps else {
        return (
            "no mapping of it is meant to be sealed".to_owned(),
            Vec::new(),
        );
    };
    let (mut mismatches, mut count) = (Mismatches::default(), 0);
    for map in own {
        let protection = protection(map);
        let is_like = |e: &&ExpectedMap| e.fits(&map.path, &protection);
        if meant.iter().find(is_like).is_some_and(|e| e.is_sealed) {
            count += 1;
            mismatches.unless(map.is_sealed, || format!("{} is not sealed", words(map)));
        }
    }
    mismatches.unless(count > 0, || "nothing is sealed".to_owned());
    (format!("{count} mappings are sealed"), mismatches.0)
}

pub(super) fn threads(look: &Look<'_>) -> Answer {
    let own = match &look.facts.threads {
        Ok(own) => own,
        Err(fact) => return unread(fact),
    };
    let (mut workers, mut mismatches) = (0_usize, Mismatches::default());
    for thread in own {
        match &thread.is_worker {
            Ok(is_worker) => workers += usize::from(*is_worker),
            Err(fact) => mismatches.0.extend(unread(fact).1),
        }
    }
    let (threads, meant) = (own.len() - workers, look.expected.threads);
    mismatches.unless(u32::try_from(threads) == Ok(meant), || {
        format!("it has {threads} threads, not {meant}")
    });
    let most = look.expected.workers;
    mismatches.unless(u32::try_from(workers).is_ok_and(|w| w <= most), || {
        format!("the kernel has {workers} threads of its own in it, {most} at most are meant")
    });
    let of_kernel = match workers {
        0 => String::new(),
        _ => format!(", and {workers} that never leave the kernel"),
    };
    (format!("{threads} threads{of_kernel}"), mismatches.0)
}

fn protection(map: &Map) -> String {
    let letter = |is: bool, yes: char, no: char| if is { yes } else { no };
    [
        letter(map.is_readable, 'r', '-'),
        letter(map.is_writable, 'w', '-'),
        letter(map.is_executable, 'x', '-'),
        letter(map.is_shared, 's', 'p'),
    ]
    .iter()
    .collect()
}

fn words(map: &Map) -> String {
    let path = match map.path.as_str() {
        "" => "memory without a name",
        path => path,
    };
    format!("{:#x}-{:#x} {} {path}", map.start, map.end, protection(map))
}
