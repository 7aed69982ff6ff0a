//! The one-way rule: which folder may name what. `src/lib.rs` and `src/jailed/lib.rs` have the order.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One folder's rule.
struct Rule {
    /// Below the root of the workspace; a file or a folder.
    place: &'static str,
    /// The modules of the same package that it may name.
    modules: &'static [&'static str],
    /// Of `jailed`, the modules it may name; `None` where all.
    jailed: Option<&'static [&'static str]>,
    /// Words that may not occur at all.
    forbidden: &'static [&'static str],
}

/// The contract between the supervisor and V and D.
const CONTRACT: Option<&[&str]> = Some(&[
    "addr", "machine", "handoff", "ring", "manifest", "stall", "breakout",
]);
/// What would make a pure folder depend on something else than its arguments.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::time",
    "std::net",
    "std::process",
    "std::io",
];
/// What V and D never name: paths, files, processes and the environment.
const PATHS: &[&str] = &[
    "std::fs",
    "std::path",
    "std::env",
    "std::process",
    "std::net",
    "OpenOptions",
    "PathBuf",
    "Command::new",
];

/// The order of `mod` lines in `src/lib.rs`.
const ORDER: &[&str] = &[
    "error",
    "layers",
    "spec",
    "sriov",
    "sys",
    "state",
    "jail",
    "host",
    "plan",
    "vf",
    "inspect",
    "view",
    "supervisor",
    "cli",
];

const RULES: &[Rule] = &[
    Rule {
        place: "src/error",
        modules: &[],
        jailed: CONTRACT,
        forbidden: &[],
    },
    Rule {
        place: "src/layers",
        modules: &[],
        jailed: Some(&[]),
        forbidden: IMPURE,
    },
    Rule {
        place: "src/spec",
        modules: &["error", "layers"],
        jailed: CONTRACT,
        forbidden: &[],
    },
    Rule {
        place: "src/sriov",
        modules: &["error", "spec"],
        jailed: Some(&[]),
        forbidden: IMPURE,
    },
    Rule {
        place: "src/sys",
        modules: &[],
        jailed: CONTRACT,
        forbidden: &[],
    },
    Rule {
        place: "src/state",
        modules: &["error", "sriov"],
        jailed: Some(&[]),
        forbidden: &[],
    },
    Rule {
        place: "src/jail",
        modules: &["error", "layers", "sys", "state"],
        jailed: CONTRACT,
        forbidden: &[],
    },
    Rule {
        place: "src/host",
        modules: &["error", "layers", "spec", "sriov", "sys"],
        jailed: CONTRACT,
        forbidden: &[],
    },
    Rule {
        place: "src/plan",
        modules: &["error", "layers", "spec", "sriov", "host"],
        jailed: CONTRACT,
        forbidden: IMPURE,
    },
    Rule {
        place: "src/vf",
        modules: &["error", "spec", "sriov", "sys", "state", "host"],
        jailed: Some(&[]),
        forbidden: &["std::env", "std::net"],
    },
    Rule {
        place: "src/inspect",
        modules: &["sys", "jail"],
        jailed: CONTRACT,
        forbidden: &["std::env", "std::net"],
    },
    Rule {
        place: "src/view",
        modules: &[
            "error", "layers", "spec", "sriov", "state", "host", "inspect",
        ],
        jailed: Some(&[]),
        forbidden: IMPURE,
    },
    Rule {
        place: "src/supervisor",
        modules: &[
            "error", "layers", "spec", "sriov", "sys", "state", "jail", "host", "plan", "vf",
            "inspect",
        ],
        jailed: CONTRACT,
        forbidden: &[],
    },
    Rule {
        place: "src/cli",
        modules: &[
            "error",
            "spec",
            "sriov",
            "state",
            "host",
            "plan",
            "vf",
            "inspect",
            "view",
            "supervisor",
        ],
        jailed: Some(&[]),
        forbidden: &[],
    },
    Rule {
        place: "src/main.rs",
        modules: &["cli"],
        jailed: Some(&[]),
        forbidden: &[],
    },
    Rule {
        place: "src/jailed/addr.rs",
        modules: &[],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/machine.rs",
        modules: &["addr"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/handoff.rs",
        modules: &["addr", "machine"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/sys",
        modules: &["addr", "machine", "handoff"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/ring",
        modules: &["addr", "machine", "handoff", "sys"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/stall.rs",
        modules: &["handoff"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/manifest",
        modules: &["addr", "machine", "handoff", "ring", "sys", "manifest"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/lock",
        modules: &[
            "addr", "machine", "handoff", "sys", "manifest", "lock", "stall", "breakout",
        ],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/device",
        modules: &[
            "addr", "machine", "handoff", "ring", "stall", "sys", "manifest", "lock", "breakout",
            "device",
        ],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/breakout",
        modules: &["handoff", "manifest", "ring", "sys", "breakout"],
        jailed: None,
        forbidden: PATHS,
    },
    Rule {
        place: "src/jailed/vcpu",
        modules: &["addr", "machine", "handoff", "ring", "sys", "lock", "vcpu"],
        jailed: None,
        forbidden: PATHS,
    },
];

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that a rule is about and that is no test; tests may read fixtures.
fn sources(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .filter(|path| {
            !path
                .file_stem()
                .is_some_and(|s| s.to_string_lossy().ends_with("test"))
        })
        .filter(|path| {
            !path
                .file_stem()
                .is_some_and(|s| s.to_string_lossy().ends_with("tests"))
        })
        .collect();
    files.sort();
    files
}

/// The text with comments, and everything from a module of tests on, blanked out; lines keep their numbers.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The words behind each `prefix` with the offset of the prefix: `a` for `prefix a::b`; `a` and `c` for
/// `prefix {a::b, c}`.
fn named(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let is_word = code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        if is_word {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.push((at, first_word(rest))),
            Some(list) => found.extend(heads(list).into_iter().map(|word| (at, word))),
        }
    }
    found
}

/// The first words of the top-level items of a list that ends with `}`.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut item, mut heads) = (0, String::new(), Vec::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(first_word(&std::mem::take(&mut item))),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    heads.push(first_word(&item));
    heads.retain(|word| !word.is_empty());
    heads
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// `std::{fs, env}` written as `std::fs std::env`, so that a list hides no word.
fn spelled_out(code: &str) -> Vec<(usize, String)> {
    let lists = ["std::", "core::"].into_iter().flat_map(|prefix| {
        named(code, prefix)
            .into_iter()
            .map(move |(at, word)| (at, format!("std::{word}")))
    });
    lists.collect()
}

fn breaches(rule: &Rule, text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let own = rule
        .place
        .trim_start_matches("src/")
        .trim_start_matches("jailed/");
    let own = own.trim_end_matches(".rs");
    let mut breaches = Vec::new();
    for (at, module) in named(&code, "crate::") {
        if module != own && !rule.modules.contains(&module.as_str()) {
            breaches.push((line(at), format!("may not name crate::{module}")));
        }
    }
    for (at, module) in named(&code, "jailed::") {
        if rule
            .jailed
            .is_some_and(|allowed| !allowed.contains(&module.as_str()))
        {
            breaches.push((line(at), format!("may not name jailed::{module}")));
        }
    }
    let spelled = spelled_out(&code);
    for word in rule.forbidden {
        let plain = code.match_indices(word).map(|(at, _)| at);
        let listed = spelled.iter().filter(|(_, w)| w == word).map(|(at, _)| *at);
        breaches.extend(
            plain
                .chain(listed)
                .map(|at| (line(at), format!("may not name {word}"))),
        );
    }
    breaches.sort();
    breaches.dedup();
    breaches
}

#[test]
fn no_folder_names_what_is_below_it() {
    let mut found = Vec::new();
    for rule in RULES {
        let files = sources(&workspace().join(rule.place));
        assert!(
            !files.is_empty(),
            "{} has moved: its rule checks nothing",
            rule.place
        );
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let name = file
                .strip_prefix(workspace())
                .unwrap()
                .display()
                .to_string();
            for (line, breach) in breaches(rule, &text) {
                found.push(format!("{name}:{line}: {} {breach}", rule.place));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Control: scripts/check builds `jailed` with the feature and without the assertions, which must fail.
#[test]
fn what_is_built_for_the_lab_cannot_be_shipped() {
    let guard = "#[cfg(all(feature = \"breakout\", not(debug_assertions)))]\ncompile_error!";
    for library in ["src/lib.rs", "src/jailed/lib.rs"] {
        let text = fs::read_to_string(workspace().join(library)).unwrap();
        assert!(text.contains(guard), "{library} has no guard");
    }
    for file in sources(&workspace().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            let is_module = pair[1]
                .trim_start_matches("pub ")
                .starts_with("mod breakout;");
            let is_guarded = pair[0] == "#[cfg(feature = \"breakout\")]";
            assert!(!is_module || is_guarded, "{}", file.display());
        }
    }
}

#[test]
fn the_modules_are_listed_in_the_order_of_dependency() {
    let text = fs::read_to_string(workspace().join("src/lib.rs")).unwrap();
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")))
        .map(|name| name.trim_end_matches(';'))
        .collect();
    let expected: Vec<&str> = ORDER
        .iter()
        .copied()
        .filter(|m| listed.contains(m))
        .collect();
    assert_eq!(
        listed, expected,
        "src/lib.rs lists a module that no rule is about, or out of order"
    );
    for module in listed {
        let place = format!("src/{module}");
        assert!(
            RULES.iter().any(|rule| rule.place == place),
            "no rule for {place}"
        );
    }
}

#[test]
fn a_breach_is_found_with_its_line() {
    let plan = RULES.iter().find(|rule| rule.place == "src/plan").unwrap();
    for (text, line, breach) in [
        ("use crate::cli::x;", 1, "may not name crate::cli"),
        (
            "\nuse crate::{error::{A, supervisor}, supervisor};",
            2,
            "may not name crate::supervisor",
        ),
        (
            "use jailed::{addr::Gpa, vcpu};",
            1,
            "may not name jailed::vcpu",
        ),
        ("use std::{fmt, fs};", 1, "may not name std::fs"),
        (
            "fn x() {\n    std::env::var(\"x\");\n}",
            2,
            "may not name std::env",
        ),
    ] {
        assert_eq!(breaches(plan, text), [(line, breach.to_owned())], "{text}");
    }
    for text in [
        "use crate::{error::Report, host::Inventory};",
        "// crate::cli and std::fs",
        "use jailed::machine;",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
        "fn x(mycrate::cli: u8) {}",
    ] {
        assert_eq!(breaches(plan, text), [], "{text}");
    }
    let device = RULES
        .iter()
        .find(|rule| rule.place == "src/jailed/device")
        .unwrap();
    assert_eq!(breaches(device, "use crate::vcpu;").len(), 1);
    assert_eq!(breaches(device, "use crate::device::pci;").len(), 0);
}
