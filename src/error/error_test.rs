use std::collections::BTreeSet;

use super::{Blame, Color, ErrorId, Exit, Location, Report, exit_of, render};

const DOCS: &str = include_str!("../../docs/errors.md");

fn report(id: ErrorId) -> Report {
    Report::new(
        id,
        "cannot assign VF 0000:3b:02.1",
        "group 41 is shared",
        "assign both",
    )
}

#[test]
fn every_error_is_documented_and_every_section_is_an_error() {
    let ids: BTreeSet<&str> = ErrorId::all().map(ErrorId::name).collect();
    let sections: BTreeSet<&str> = DOCS.lines().filter_map(|l| l.strip_prefix("## ")).collect();
    assert_eq!(ids, sections);
    assert_eq!(ids.len(), ErrorId::COUNT, "no name is used twice");
    for id in ErrorId::all() {
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
        let line = format!(
            "## {id}\n\nFault: {who}. Exit status {}.\n",
            id.exit() as u8
        );
        assert!(DOCS.contains(&line), "{line}");
    }
}

#[test]
fn a_report_says_what_why_and_what_to_do() {
    let text = report(ErrorId::GroupShared)
        .and("its driver is ixgbevf")
        .to_string();
    assert_eq!(
        text,
        "error[group-shared]: cannot assign VF 0000:3b:02.1\n  \
           why: group 41 is shared\n  \
           why: its driver is ixgbevf\n  \
           fix: assign both (docs/errors.md#group-shared)"
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
fn colour_only_marks_the_label() {
    let text = render::text(&report(ErrorId::NoIommu), "error", Color::Always);
    assert!(text.starts_with("\x1b[1;31merror[no-iommu]\x1b[0m: cannot"));
}

#[test]
fn json_carries_the_same() {
    let json = serde_json::to_value(report(ErrorId::DeviceFailed).blamed_on(Blame::Host)).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "id": "device-failed",
            "what": "cannot assign VF 0000:3b:02.1",
            "why": ["group 41 is shared"],
            "fix": "assign both",
            "blame": "host",
        })
    );
}

#[test]
fn only_refusals_alone_end_as_refused() {
    let (refused, failed) = (report(ErrorId::NoIommu), report(ErrorId::DeviceAbsent));
    assert_eq!(exit_of(&[]), Exit::Done);
    assert_eq!(exit_of(std::slice::from_ref(&refused)), Exit::Refused);
    assert_eq!(exit_of(&[refused.clone(), refused.clone()]), Exit::Refused);
    assert_eq!(exit_of(&[refused, failed]), Exit::Failed);
}
