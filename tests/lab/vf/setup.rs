//! docs/host-setup.md, command by command.

use std::{fs, path::Path, process::Command};

use super::bare;
use crate::host;

const PAGE: &str = include_str!("../../../docs/host-setup.md");

/// A fenced block of the page: its language and its lines.
fn blocks() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        blocks.push((
            language,
            lines.by_ref().take_while(|line| *line != "```").collect(),
        ));
    }
    blocks
}

/// Statuses that a command may end with: those of its comment, or 0.
fn statuses(line: &str) -> Vec<i32> {
    let Some((_, comment)) = line.split_once("# status ") else {
        return vec![0];
    };
    comment
        .split([' ', ','])
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
#[ignore = "needs a lab host"]
fn every_command_of_the_setup_page_does_what_the_page_says() {
    bare();
    fs::create_dir_all("/etc/narrows").unwrap();
    let mut ran = 0;
    for (language, lines) in blocks() {
        match language {
            "toml" => {
                let path = lines[0]
                    .strip_prefix("# ")
                    .expect("a file says where it goes");
                let text = lines
                    .join("\n")
                    .replace("\"eth0\"", &format!("\"{}\"", host::fact("NIC_IF")));
                assert!(Path::new(path).starts_with("/etc/narrows"), "{path}");
                fs::write(path, text).unwrap();
            }
            "sh" => {
                for line in lines {
                    let output = Command::new("sh").args(["-c", line]).output().unwrap();
                    let status = output.status.code().unwrap_or(-1);
                    assert!(
                        statuses(line).contains(&status),
                        "{line}: status {status}\n{}\n{}",
                        String::from_utf8_lossy(&output.stdout),
                        String::from_utf8_lossy(&output.stderr)
                    );
                    ran += 1;
                }
            }
            _ => {}
        }
    }
    assert!(ran >= 15, "only {ran} commands were found on the page");
}
