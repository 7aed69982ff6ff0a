//! What of the tree a guest reaches, and what of it counts for `unsafe`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::source::{self, Counts};

/// A part of the tree.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// A file or folder below the root of the workspace.
    pub place: &'static str,
    /// Why it counts.
    pub why: &'static str,
}

/// Code that handles what a guest writes, or runs in a process that a guest shares memory with.
#[rustfmt::skip]
pub const GUEST_REACHABLE: &[Part] = &[
    Part { place: "src/jailed/bin", why: "entry points and the freestanding runtime of V and D" },
    Part { place: "src/jailed/vcpu", why: "every exit of the guest ends here" },
    Part { place: "src/jailed/device", why: "answers accesses to devices' registers that V passes on" },
    Part { place: "src/jailed/ring", why: "what V and D tell each other, and what a guest that took V writes" },
    Part { place: "src/jailed/sys", why: "system calls of V and D" },
    Part { place: "src/jailed/lock", why: "part of both programs, though it runs before the guest" },
    Part { place: "src/jailed/addr.rs", why: "addresses that a guest chooses" },
    Part { place: "src/jailed/handoff.rs", why: "the page of facts that V and D read" },
    Part { place: "src/jailed/machine.rs", why: "the guest's address map" },
    Part { place: "src/jailed/stall.rs", why: "the words by which V and D say that they are alive" },
    Part { place: "src/jailed/lib.rs", why: "the list of the above" },
];

/// Where `unsafe` is counted: all that is shipped.
#[rustfmt::skip]
pub const SHIPPED: &[Part] = &[
    Part { place: "src", why: "the supervisor, the keeper, and below it V and D" },
    Part { place: "iommu/src", why: "VFIO and iommufd" },
];

/// Counts over all files of the parts, without those of tests and of the feature `breakout`.
///
/// # Errors
/// The file that could not be read.
pub fn count(root: &Path, parts: &[Part]) -> io::Result<Counts> {
    let mut files = BTreeSet::new();
    for part in parts {
        collect(&root.join(part.place), &mut files)?;
    }
    let mut left_out = BTreeSet::new();
    let mut counted = Vec::new();
    for path in files {
        let counts = source::count(&read(&path)?);
        let folder = path.parent().unwrap_or(root);
        // The modules of `a.rs` are in `a/`, those of `mod.rs` and `lib.rs` beside it.
        let own = path.with_extension("");
        for name in &counts.left_out {
            for place in [folder, &own] {
                left_out.insert(place.join(name));
                left_out.insert(place.join(format!("{name}.rs")));
            }
        }
        counted.push((path, counts));
    }
    let mut sum = Counts::default();
    for (path, counts) in counted {
        if !path.ancestors().any(|place| left_out.contains(place)) {
            sum.lines += counts.lines;
            sum.unsafe_blocks += counts.unsafe_blocks;
        }
    }
    Ok(sum)
}

fn collect(place: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", place.display()));
    if place.is_dir() {
        for entry in fs::read_dir(place).map_err(named)? {
            collect(&entry.map_err(named)?.path(), files)?;
        }
    } else if place.extension().is_some_and(|extension| extension == "rs") {
        files.insert(place.to_owned());
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {

    use std::path::Path;

    use super::{GUEST_REACHABLE, SHIPPED, count};

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn every_part_is_there_and_has_lines() {
        for part in GUEST_REACHABLE.iter().chain(SHIPPED) {
            assert!(count(root(), &[*part]).unwrap().lines > 0, "{}", part.place);
        }
    }

    #[test]
    fn the_rest_of_the_package_of_v_and_d_is_named_with_its_reason() {
        // The manifest's tables become programs and limits in the supervisor; V and D get them as bytes.
        let other = ["breakout", "manifest", "build.rs", "Cargo.toml"];
        for entry in root().join("src/jailed").read_dir().unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let place = format!("src/jailed/{name}");
            let counts = GUEST_REACHABLE.iter().any(|part| part.place == place);
            assert!(
                counts != other.contains(&name.as_str()),
                "{place} is in neither list or in both"
            );
        }
    }
}
