//! What the documents name exists: files, headings, tests, and the figures of a run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `place` (or it itself) with this extension.
fn files(place: &Path, extension: &str) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .flat_map(|path| files(&path, extension))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}

/// The documents with their text.
fn documents() -> Vec<(PathBuf, String)> {
    ["README.md", "CHANGELOG.md", "docs"]
        .iter()
        .flat_map(|place| files(&workspace().join(place), "md"))
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            Some((path, text))
        })
        .collect()
}

/// The text without fenced blocks, which hold examples.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The names that a reader can link to: one a heading.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .map(|heading| {
            heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// What stands in backticks.
fn words(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let spans = prose.split('`').skip(1).step_by(2);
    spans.map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let text = prose(&text);
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = match file {
                "" => path.clone(),
                _ => path.parent().unwrap().join(file),
            };
            let found = fs::read_to_string(&to).map_or(to.is_dir(), |text| {
                anchor.is_empty() || anchors(&text).contains(anchor)
            });
            if !found {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_test_that_is_named_exists() {
    let sources: String = ["src", "iommu/src", "tests"]
        .iter()
        .flat_map(|place| files(&workspace().join(place), "rs"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    for (path, text) in documents() {
        // Tests are named by whole sentences; nothing else is.
        // Where claims are backed by tests, every such word is one.
        let least = if path.ends_with("docs/THREAT-MODEL.md") {
            1
        } else {
            4
        };
        let is_sentence =
            |w: &&String| w.matches('_').count() >= least && !w.contains(char::is_uppercase);
        for word in words(&text).iter().filter(is_sentence) {
            let is_there = sources.contains(&format!("fn {word}("));
            assert!(is_there, "{}: there is no test {word}", path.display());
        }
    }
}

#[test]
fn every_counter_and_step_is_described() {
    let read = |path| fs::read_to_string(workspace().join(path)).unwrap();
    let described = words(&read("docs/guest-file.md"));
    let stats = read("src/supervisor/stats.rs");
    let counters = stats
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(Counter::")?.split('"').nth(1));
    let supervisor = read("src/supervisor/keeper.rs");
    let steps = supervisor
        .lines()
        .filter_map(|line| line.trim().strip_prefix("stats.step(\"")?.split('"').next());
    let named: Vec<&str> = counters.chain(steps).collect();
    assert!(
        named.len() > 20,
        "stats.rs reads otherwise: this test checks nothing"
    );
    for name in named {
        assert!(described.contains(name), "docs/guest-file.md lacks {name}");
    }
}
