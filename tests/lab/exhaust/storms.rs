//! Instructions that leave the guest, without end.

use std::time::Instant;

use super::load::Pair;
use crate::{attack::hardware::LogMark, guest::GuestFile, host};

/// The least part of its share of the processor that the neighbour keeps.
const KEPT: f64 = 0.9;
/// The least that it gets done with each second of the processor that it has, in parts of what it gets done alone. Both are
/// measured within a second, so that the emulator's speed counts in neither; what is left are caches and translations that
/// another guest takes, also one that only computes, and time of the host's kernel for the attacker that is counted as the
/// neighbour's. A neighbour that is held up in its own share gets nothing done.
const WORK: f64 = 0.5;
/// How many times longer it may take to answer.
const SLOWER: f64 = 8.0;
/// What a storm may write to the log of the run, and to the kernel's.
const LINES: usize = 20;
/// And each second: a reset is two lines of the kernel's, and is held for a second.
const LINES_A_SECOND: u64 = 2;

/// The configuration space of the NVMe function, in the first slot, and its capability of PCI Express.
const CONFIG: u64 = 0xE000_8000;
const EXPRESS: u64 = 0x10;

/// All of them, with their commands. *Source:* attacks G02, G03, G04, G07, G17.
fn storms(express: u64) -> [(&'static str, String); 10] {
    let command = CONFIG + 4;
    // A reset takes long: the attacker looks after each whether it is to end.
    let reset = express + 8;
    [
        ("CPUID", "identify".to_owned()),
        ("RDMSR", "register".to_owned()),
        ("HLT", "halt".to_owned()),
        ("WBINVD", "caches".to_owned()),
        ("ports", "port".to_owned()),
        ("the console", "console".to_owned()),
        (
            "memory where nothing is",
            "write 4 0xd0000000 0 64".to_owned(),
        ),
        ("the command register", format!("write 2 {command:#x} 2 64")),
        (
            "a register that takes nothing",
            format!("write 4 {CONFIG:#x} 0 64"),
        ),
        (
            "resets of the function",
            format!("write 2 {reset:#x} 0x8000 1"),
        ),
    ]
}

/// Claim: whatever a guest does to leave for the host without end, its neighbour has its share of the processor, gets on,
/// and answers; and neither the run nor the kernel logs more than a few lines. Attacks: G02, G03, G04, G07, G17. Control:
/// the same neighbour beside a guest that computes; and the attacks are made.
#[test]
#[ignore = "needs a lab host"]
fn storms_of_exits_take_nothing_from_a_neighbour() {
    let attacker = GuestFile::attacker("exhaust-attacker").device(&host::nvme(0));
    let neighbour = GuestFile::attacker("exhaust-neighbour").device(&host::nvme(1));
    let mut pair = Pair::start(&attacker, &neighbour);
    let express = pair.attacker.capability(CONFIG, EXPRESS);
    let log = LogMark::now();
    let mut worse = Vec::new();
    for (name, command) in storms(express) {
        let (mark, started) = (LogMark::now(), Instant::now());
        let effect = pair.measure(&format!("storm {command}"));
        let lines = mark.lines().len();
        let more = LINES_A_SECOND * started.elapsed().as_secs();
        let is_loud = lines > LINES + usize::try_from(more).unwrap();
        println!("{name}: {effect:.2?}, {lines} lines of the kernel");
        assert!(effect.attacks > 0, "the control failed: no attack was made");
        let is_slow = effect.latency > SLOWER || effect.work < WORK || effect.progress <= 0.0;
        if effect.share < KEPT || is_slow || is_loud {
            worse.push((name, effect, lines));
        }
    }
    log.assert_calm();
    let text = pair.attacker.off().text();
    let lines = text.lines().filter(|line| line.starts_with("narrows["));
    let lines = lines.count();
    println!("{lines} lines of the run");
    pair.neighbour.off();
    assert!(worse.is_empty(), "{worse:#?}");
    assert!(lines <= LINES, "{lines} lines of the run:\n{text}");
}
