use std::collections::BTreeSet;

use iommu::isolation::{CheckId, Verdict};

use super::{Blame, Color, ErrorId, Exit, Id, Location, Report, exit_of, render};

const DOCS: &str = include_str!("../../docs/errors.md");

fn report(id: impl Into<Id>) -> Report {
    Report::new(
        id,
        "cannot assign VF 0000:3b:02.1",
        "group 41 is shared",
        "assign both",
    )
}

#[test]
fn every_error_is_documented_and_every_section_is_an_error() {
    let ids: BTreeSet<&str> = Id::all().map(Id::name).collect();
    let sections: BTreeSet<&str> = DOCS.lines().filter_map(|l| l.strip_prefix("## ")).collect();
    assert_eq!(ids, sections);
    assert_eq!(
        ids.len(),
        ErrorId::COUNT + CheckId::COUNT,
        "no name is used twice"
    );
    for id in Id::all() {
        let is_kebab = id
            .name()
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(is_kebab, "{id}");
        let who = match id.blame() {
            Blame::Operator => "operator",
            Blame::Host => "host",
            Blame::Device => "device",
            Blame::Guest => "guest",
            Blame::Us => "Narrows",
        };
        let ends = match id {
            Id::Check(check) if check.check().worst == Verdict::Warn => "Only warns.".to_owned(),
            Id::Check(check) if check.check().worst == Verdict::Fixable => {
                "Narrows puts it right.".to_owned()
            }
            Id::Check(_) | Id::Tool(_) => format!("Exit status {}.", id.exit() as u8),
        };
        let line = format!("## {id}\n\nFault: {who}. {ends}\n");
        assert!(DOCS.contains(&line), "{line}");
    }
}

#[test]
fn what_accepting_a_check_gives_up_is_documented_and_of_no_other() {
    let sections = DOCS.split("\n## ").skip(1);
    for section in sections {
        let (name, text) = section.split_once('\n').unwrap();
        let accepted = CheckId::from_name(name).and_then(|id| id.check().accepted);
        // Lines are filled; a sentence may go over several.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match accepted {
            Some(accepted) => {
                let sentence = format!("Accepting it: {accepted}.");
                assert!(text.contains(&sentence), "{name}: {sentence}");
            }
            None => assert!(!text.contains("Accepting it:"), "{name}"),
        }
    }
}

#[test]
fn a_report_says_what_why_and_what_to_do() {
    let text = report(CheckId::GroupShared)
        .and("its driver is ixgbevf")
        .to_string();
    assert_eq!(
        text,
        "error[group-shared]: cannot assign VF 0000:3b:02.1\n  \
           why: group 41 is shared\n  \
           why: its driver is ixgbevf\n  \
           fix: assign both\n  \
           more: narrows explain group-shared"
    );
}

#[test]
fn the_caret_stands_below_what_is_meant() {
    let location = Location {
        file: "guest.toml".into(),
        line: 12,
        column: 8,
        width: 3,
        text: "\tbdf = x\u{e9}y".to_owned(),
    };
    let text = report(ErrorId::BadBdf).at(Some(location)).to_string();
    let lines: Vec<&str> = text.lines().skip(1).take(4).collect();
    assert_eq!(
        lines,
        [
            "  --> guest.toml:12:8",
            "     |",
            "  12 | \tbdf = x\u{e9}y",
            "     | \t      ^^^"
        ]
    );
}

#[test]
fn foreign_text_cannot_steer_the_terminal() {
    let location = Location {
        file: "g\x1b.toml".into(),
        line: 1,
        column: 3,
        width: 2,
        text: "\x1b[\x07x".to_owned(),
    };
    let mut report = report(ErrorId::BadBdf).at(Some(location));
    report.what = "a\x1b[2Jb".to_owned();
    report.why = vec!["c\u{9b}d\nerror: forged".to_owned()];
    report.fix = "e\u{202e}f\u{2069}\x7f".to_owned();
    assert_eq!(
        report.to_string(),
        "error[bad-bdf]: a\\x1b[2Jb\n  \
           --> g\\x1b.toml:1:3\n    \
             |\n  \
           1 | \\x1b[\\x07x\n    \
             |      ^^^^^\n  \
           why: c\\x9bd\\nerror: forged\n  \
           fix: e\\u{202e}f\\u{2069}\\x7f\n  \
           more: narrows explain bad-bdf"
    );
}

#[test]
fn colour_only_marks_the_label() {
    let text = render::text(&report(CheckId::NoIommu), "error", Color::Always);
    assert!(text.starts_with("\x1b[1;31merror[no-iommu]\x1b[0m: cannot"));
}

#[test]
fn json_carries_the_same() {
    let json =
        serde_json::to_value(report(ErrorId::DeviceNotClean).blamed_on(Blame::Host)).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "id": "device-not-clean",
            "what": "cannot assign VF 0000:3b:02.1",
            "why": ["group 41 is shared"],
            "fix": "assign both",
            "blame": "host",
        })
    );
}

#[test]
fn only_refusals_alone_end_as_refused() {
    let (refused, failed) = (report(CheckId::NoIommu), report(ErrorId::DeviceAbsent));
    assert_eq!(exit_of(&[]), Exit::Done);
    assert_eq!(exit_of(std::slice::from_ref(&refused)), Exit::Refused);
    assert_eq!(exit_of(&[refused.clone(), refused.clone()]), Exit::Refused);
    assert_eq!(exit_of(&[refused, failed]), Exit::Failed);
}
