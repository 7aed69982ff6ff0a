//! The crates that a package's programs are built of.

use std::{collections::BTreeSet, io, path::Path, process::Command};

/// The crates besides the workspace's own that `cargo tree` names for what is shipped of `package`.
///
/// # Errors
/// `cargo` could not be started, or what it said.
pub fn dependencies(root: &Path, package: &str) -> io::Result<BTreeSet<String>> {
    let output = Command::new("cargo")
        .args(["tree", "--offline", "--locked", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--package", package])
        .current_dir(root)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cargo tree: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("cargo tree: {}", said.trim())));
    }
    Ok(foreign(&String::from_utf8_lossy(&output.stdout)))
}

/// The lines without a path, each once: `name v1.2.3`, perhaps with `(proc-macro)` or `(*)` behind it.
fn foreign(tree: &str) -> BTreeSet<String> {
    let lines = tree.lines().filter(|line| !line.contains("(/"));
    let words = lines.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    words
        .filter(|words| words.len() == 2)
        .map(|words| words.join(" "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::foreign;

    #[test]
    fn own_packages_and_repetitions_are_left_out() {
        let tree = "narrows v0.1.0 (/home/user/narrows)\nclap v4.6.7\nclap_derive v4.6.7 (proc-macro)\n\
            iommu v0.1.0 (/home/user/narrows/iommu)\nlibc v0.2.180\nlibc v0.2.180 (*)\n\n";
        let names: Vec<_> = foreign(tree).into_iter().collect();
        assert_eq!(
            names,
            ["clap v4.6.7", "clap_derive v4.6.7", "libc v0.2.180"]
        );
    }
}
