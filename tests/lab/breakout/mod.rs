//! Break-outs that fail: an attacker's code in the locked-down V and D, in a build that is never shipped.
//!
//! Every probe has its control in the same run: without any layer it reaches what it is after. What each layer is worth
//! is measured by leaving it away, and by leaving all others away.

mod canaries;
mod figures;

use std::{fs, process::Command};

use self::{canaries::Canaries, figures::Figures};
use crate::{guest::GuestFile, host};

const RESULT: &str = "/tmp/breakout.json";

/// The devices: of both kinds, because their registers and interrupts differ.
fn victim(name: &str) -> GuestFile {
    GuestFile::attacker(name)
        .device(&host::nic(0))
        .device(&host::nvme(0))
}

/// Runs the harness with these words, and gives its figures.
fn harness(file: &GuestFile, more: &[&str], words: &[String]) -> String {
    let path = file.write();
    let mut command = Command::new("narrows");
    command.args(["breakout", &path, "--json", RESULT]);
    command.args(more);
    for word in words {
        command.args(["--word", word]);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    fs::read_to_string(RESULT).unwrap()
}

#[test]
#[ignore = "needs a lab host"]
#[expect(
    clippy::print_stdout,
    reason = "the figures are what this test is run for"
)]
fn no_probe_gets_out_of_v_or_d_and_every_one_has_its_control() {
    let mut canaries = Canaries::new();
    let pinned = host::pinned_pages();
    // A guest of somebody else's, whom nothing of this may disturb.
    let mut neighbour = GuestFile::small("neighbour", "sleep:100000")
        .device(&host::nvme(1))
        .start();
    neighbour.wait_for("GUEST init=");

    let text = harness(&victim("victim"), &[], &canaries.words());
    let figures = Figures::of(&text);
    let summary = figures.summary();
    println!("{}", serde_json::to_string_pretty(&summary).unwrap());
    println!("{}", figures.table());
    // To scripts/breakout, where it is the one that runs this.
    if fs::metadata("/tmp/breakout-wanted").is_ok() {
        fs::write(
            "/dev/ttyS1",
            serde_json::to_string_pretty(&summary).unwrap(),
        )
        .unwrap();
    }

    canaries.assert_unharmed();
    let alive = neighbour.exits();
    assert!(alive > 0, "the neighbour does not run");
    neighbour.signal("TERM");
    let (status, transcript) = neighbour.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
    for bdf in [host::nic(0), host::nvme(0), host::nvme(1)] {
        host::assert_vf_returned(&bdf);
    }
    assert_eq!(host::pinned_pages(), pinned, "memory is still pinned");

    let out = figures.others("full", &["prevented", "absent"]);
    assert!(out.is_empty(), "not prevented:\n{}", out.join("\n"));
    let without_control = figures.others("none", &["reached"]);
    assert!(
        without_control.is_empty(),
        "without a control:\n{}",
        without_control.join("\n")
    );
    let (v, d) = (figures.surface("v"), figures.surface("d"));
    assert_eq!(v.len(), 3, "V makes {v:?}");
    assert!(d.len() <= 10, "D makes {d:?}");
}

/// The memory that V and D share is written by one of them while the other works for a guest that boots: the other goes on,
/// or ends as one does whose peer has broken the protocol, or as its guest does. It does not crash.
#[test]
#[ignore = "needs a lab host"]
fn neither_process_crashes_for_what_the_other_writes() {
    let guest = GuestFile::small("shared", "sleep:600")
        .device(&host::nic(0))
        .device(&host::nvme(0));
    let more = ["--probe", "C20", "--environment", "full", "--attack", "15"];
    let figures = Figures::of(&harness(&guest, &more, &[]));
    let out = figures.others("full", &["prevented"]);
    assert!(out.is_empty(), "{}", out.join("\n"));
}

/// Control of the canary socket, which is judged from outside: a probe that is let reaches it, one that is not does not.
#[test]
#[ignore = "needs a lab host"]
fn socket_of_the_host_is_called_only_where_nothing_stands_between() {
    let canaries = Canaries::new();
    for (environment, is_called) in [("full", false), ("none", true)] {
        let more = ["--probe", "A27", "--environment", environment];
        harness(&victim("caller"), &more, &canaries.words());
        assert_eq!(canaries.was_called(), is_called, "{environment}");
    }
}
