//! The verbs themselves: exit statuses, errors, colours.

use std::process;

use narrows::{error::Color, view};

use crate::hosts::{
    Look, Made, healthy, no_iommu_intel, remapping_off, shared_group, switch_without_acs,
    without_vfs,
};

/// Runs the program on a host; gives its status and what it printed.
fn narrows(look: &Look, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = process::Command::new(env!("CARGO_BIN_EXE_narrows"))
        .arg("--root")
        .arg(&look.folder)
        .args(arguments)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn doctor_ends_with_3_where_it_refuses() {
    for (name, host, arguments, status) in [
        ("fit", healthy as Made, &[] as &[&str], 0),
        ("fit-all", healthy, &["--all"], 0),
        ("fit-vf", healthy, &["0000:01:10.0", "81:00.1"], 0),
        ("fit-pf", healthy, &["0000:01:00.0"], 3),
        ("one-left", shared_group, &[], 0),
        (
            "the-others",
            shared_group,
            &["0000:01:10.0", "0000:01:10.2"],
            3,
        ),
        ("none-left", switch_without_acs, &[], 3),
        ("no-vfs", without_vfs, &[], 0),
        ("remapping", remapping_off, &[], 3),
        ("iommu", no_iommu_intel, &[], 3),
    ] {
        let look = Look::at(&format!("status-{name}"), host());
        let arguments = [&["doctor"], arguments].concat();
        let (code, stdout, stderr) = narrows(&look, &arguments);
        assert_eq!(
            (code, stderr.as_str()),
            (Some(status), ""),
            "{name}\n{stdout}"
        );
        let json = narrows(&look, &[arguments.as_slice(), &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&json.1).unwrap();
        assert_eq!(json["verdict"] == "refuse", status == 3, "{name}");
    }
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let look = Look::at("absent", healthy());
    let (code, stdout, stderr) = narrows(&look, &["doctor", "0000:01:10.1"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.starts_with("error[device-absent]: function 0000:01:10.1 does not exist")
            && stderr.contains("did you mean 0000:01:1"),
        "{stderr}"
    );
    assert_eq!(narrows(&look, &["doctor", "1:2:3"]).0, Some(64));
    assert_eq!(
        narrows(&look, &["inventory", "--svg", "--json"]).0,
        Some(64)
    );
    assert_eq!(narrows(&look, &["explain", "no-such-id"]).0, Some(64));
    assert_eq!(narrows(&look, &["explain"]).0, Some(0));
    let (code, stdout, _) = narrows(&look, &["inventory"]);
    assert_eq!(code, Some(0));
    assert_eq!(stdout, view::tree(&look.scene(false), Color::Never));
}

#[test]
fn a_root_that_is_no_host_is_no_host_without_iommu() {
    for verb in ["doctor", "inventory"] {
        let output = process::Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["--root", "/nowhere", verb])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error[host-unreadable]"), "{text}");
    }
}

#[test]
fn colour_marks_words_and_never_stands_alone() {
    let look = Look::at("colour", shared_group());
    let plain = narrows(&look, &["doctor"]).1;
    assert!(!plain.contains('\x1b'));
    let colourful = narrows(&look, &["doctor", "--color", "always"]).1;
    assert!(colourful.contains("\x1b[1;31m✗ refuse"));
    let mut bare = String::new();
    for (index, piece) in colourful.split("\x1b[").enumerate() {
        bare.push_str(match index {
            0 => piece,
            _ => piece.split_once('m').unwrap().1,
        });
    }
    assert_eq!(bare, plain);
}
