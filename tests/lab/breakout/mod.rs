//! Break-outs that fail: an attacker's code in the locked-down V and D, in a build that is never shipped.
//!
//! Every probe has its control in the same run: without any layer it reaches what it is after. What each layer is worth
//! is measured by leaving it away, and by leaving all others away.

mod canaries;
mod figures;
mod neighbour;

use std::{fs, process::Command};

use self::{canaries::Canaries, figures::Figures, neighbour::Neighbour};
use crate::{guest::GuestFile, host};

const RESULT: &str = "/tmp/breakout.json";
/// What is left away, and what is left, group by group; `full` is for itself.
const GROUPS: [&str; 6] = [
    "filter",
    "namespaces",
    "credentials",
    "landlock",
    "limits",
    "memory",
];
/// Probes that reach for other processes, their memory or their devices, and whom a guest's own ones are not enough for.
const AIMED: [(&str, Aim, &str); 11] = [
    (
        "A11",
        Aim::Host,
        "the neighbour's RAM is in the host's memory",
    ),
    ("A15", Aim::Process, "traces it"),
    (
        "A16",
        Aim::Process,
        "reads and writes it, takes its descriptors",
    ),
    ("A17", Aim::Process, "signals it"),
    ("A37", Aim::Host, "goes by the root of another process"),
    ("A44", Aim::Host, "shared memory and queues"),
    ("C04", Aim::Device, "maps for DMA on any descriptor"),
    ("C05", Aim::Device, "unmaps and destroys by guessed numbers"),
    ("C06", Aim::Device, "attaches to tables by guessed numbers"),
    ("C18", Aim::Host, "takes the neighbour's time"),
    ("C19", Aim::Process, "signals it with a message"),
];

/// What an aimed probe is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Nothing but what it finds.
    Host,
    /// The number of a process of the neighbour's.
    Process,
    /// Devices beside the neighbour's, of the same controller.
    Device,
}

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
    // It waits by looking at its console, which would take half of the only processor.
    let neighbour = Neighbour::start(5);
    let before = neighbour.state();
    let neighbour = neighbour.work();

    // By itself, because the keeper then keeps no more than beside any guest.
    let words = canaries.words();
    let whole = harness(&victim("victim"), &["--environment", "full"], &words);
    let less = GROUPS.map(|group| [format!("without-{group}"), format!("only-{group}")]);
    let less = less.as_flattened().iter().map(String::as_str);
    let less: Vec<&str> = less
        .chain(["none"])
        .flat_map(|name| ["--environment", name])
        .collect();
    let others = harness(&victim("victim"), &less, &words);
    let figures = Figures::of(&[&whole, &others]);
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
    let mut neighbour = neighbour.stop();
    let (rounds, seconds) = (neighbour.rounds(), figures.milliseconds() / 1000);
    println!("the neighbour did {rounds} rounds in {seconds} s");
    // It rests for a second after each round, and a round is a small part of its twentieth of the processor.
    assert!(rounds >= seconds / 10, "{rounds} rounds in {seconds} s");
    neighbour.assert_as_before(&before, "the sweep");
    neighbour.off();
    for bdf in [host::nic(0), host::nvme(0), host::nvme(1)] {
        host::assert_vf_returned(&bdf);
    }
    assert_eq!(host::pinned_pages(), pinned, "memory is still pinned");

    assert_eq!(figures.environments(), 2 + 2 * GROUPS.len());
    let crashed = figures.crashed();
    assert!(
        crashed.is_empty(),
        "stopped by no layer:\n{}",
        crashed.join("\n")
    );
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

/// Claim: what reaches for a neighbour leaves it as it was, probe by probe: its processes, descriptors, mappings, what it
/// keeps in its memory, and its device works and brings what it should. Control: another life of the same guest differs.
#[test]
#[ignore = "needs a lab host"]
#[expect(clippy::print_stdout, reason = "a test says what it measured")]
fn what_reaches_for_a_neighbour_leaves_it_as_it_was() {
    let mut neighbour = Neighbour::start(50);
    let before = neighbour.state();
    assert_eq!(neighbour.state(), before, "it changes by itself");
    for (id, aim, why) in AIMED {
        let targets: &[&str] = match aim {
            Aim::Process => &["narrows-vcpu", "keeper"],
            Aim::Host | Aim::Device => &["narrows-vcpu"],
        };
        for target in targets {
            let file = match aim {
                Aim::Device => victim("victim"),
                Aim::Host | Aim::Process => GuestFile::attacker("victim"),
            };
            let word = format!("narrows.canary-pid={}", neighbour.pid_of(target));
            let more = ["--probe", id, "--environment", "full"];
            let figures = Figures::of(&[&harness(&file, &more, &[word])]);
            let out = figures.others("full", &["prevented", "absent"]);
            assert!(out.is_empty(), "{}", out.join("\n"));
            println!("{id} on {target} ({why}): {} ms", figures.milliseconds());
            neighbour.assert_as_before(&before, &format!("{id} on {target}"));
        }
    }
    neighbour.reboot();
    assert_ne!(neighbour.state(), before, "the control failed");
    neighbour.off();
    for bdf in [host::nic(0), host::nvme(0), host::nvme(1)] {
        host::assert_returned(&bdf);
    }
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
    let figures = Figures::of(&[&harness(&guest, &more, &[])]);
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
