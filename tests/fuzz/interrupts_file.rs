//! `/proc/interrupts`, which tells whether the IOMMU checks interrupts: never so while one goes round it.

use std::path::Path;

use iommu::{
    sysfs::{Entry, Kind, SysRoot, Tree},
    topology::{Remapping, Topology},
};

use crate::input::{Executions, Input, any_bytes};

#[test]
fn interrupts_that_nobody_checks_are_seen() {
    let executions = Executions::of("interrupts_file");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&mut Input::new(bytes));
        });
    executions.say();
}

/// Chips, and whether they are of functions: `true` for those that are remapped.
const CHIPS: &[(&str, Option<bool>)] = &[
    ("IR-PCI-MSI-0000:00:02.0    0-edge", Some(true)),
    ("IR-PCI-MSIX-0000:3b:00.0    7-edge", Some(true)),
    ("IR-PCI-MSI 524288-edge", Some(true)),
    ("vIR-PCI-MSI-0000:00:02.0    0-edge", Some(true)),
    ("IR-HPET-MSI    3-edge", Some(true)),
    ("PCI-MSI-0000:3b:00.0    0-edge", Some(false)),
    ("PCI-MSIX-0000:3b:00.0    0-edge", Some(false)),
    ("PCI-MSI 524288-edge", Some(false)),
    ("PCI-MSI-edge", Some(false)),
    ("IR-IO-APIC    9-fasteoi", None),
    ("IO-APIC    1-edge", None),
    ("DMAR-MSI    0-edge", None),
    ("IOMMU-MSI    0-edge", None),
    ("HPET-MSI    3-edge", None),
    ("", None),
];

fn one(input: &mut Input<'_>) {
    let processors = 1 + input.below(3) as usize;
    let mut text = "            CPU0       CPU1\n".to_owned();
    let (mut plain, mut remapped) = (0, 0);
    for number in 0..input.below(8) {
        let (chip, kind) = input.pick(CHIPS);
        let action = input.pick(&[
            "eth0",
            "nvme0q0, aerdrv",
            "AMD-Vi0-Evt",
            "PCI-MSI",
            "IR-PCI-MSI",
            "",
        ]);
        let action = if chip.is_empty() { "" } else { action };
        let counts = format!("{:>11}", input.word()).repeat(processors);
        text += &format!("{:>4}:{counts}  {chip}      {action}\n", number + 24);
        match kind {
            // An IOMMU's own are remapped nowhere.
            Some(false) if !action.starts_with("AMD-Vi") => plain += 1,
            Some(true) => remapped += 1,
            Some(false) | None => {}
        }
    }
    text += " NMI:          0          0   Non-maskable interrupts\n LOC:       1   PCI-MSI\n ERR:          0\n";
    match read(&text) {
        Remapping::Off { .. } => assert!(plain > 0, "{text}"),
        Remapping::On { .. } => assert!(plain == 0 && remapped > 0, "{text}"),
        Remapping::Unknown => assert!(plain == 0 && remapped == 0, "{text}"),
    }

    for _ in 0..input.below(4) {
        let at = input.below(u32::try_from(text.len()).unwrap() + 1) as usize;
        let at = (0..=at)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap();
        let end = text[at..].char_indices().nth(input.below(3) as usize);
        let end = at + end.map_or(0, |(end, _)| end);
        let pieces = [
            "", "\n", ":", " ", "I", "IR-", "v", "PCI-MSI", " AMD-Vi", "9", "-", "\u{a0}",
            "\u{FFFD}",
        ];
        text.replace_range(at..end, input.pick(&pieces));
    }
    assert_eq!(read(&text), expected(&text), "{text}");
    let rest = input.rest();
    assert_eq!(
        read_bytes(rest.to_vec()),
        expected(&String::from_utf8_lossy(rest))
    );
}

fn read(text: &str) -> Remapping {
    read_bytes(text.as_bytes().to_vec())
}

fn read_bytes(bytes: Vec<u8>) -> Remapping {
    let mut tree = Tree::default();
    let entry = Entry {
        kind: Kind::File(bytes),
        owner: None,
    };
    tree.insert(Path::new("proc/interrupts"), entry).unwrap();
    Topology::read(&SysRoot::captured("made-up", tree))
        .unwrap()
        .host
        .remapping
}

/// The first interrupt of a function that goes round the IOMMU; else the first that does not.
fn expected(text: &str) -> Remapping {
    let lines: Vec<Vec<&str>> = text.lines().filter_map(words).collect();
    let is_message = |chip: &str| chip.starts_with("PCI-MSI");
    let round = lines
        .iter()
        .find(|words| is_message(words[0]) && !words.iter().any(|word| word.starts_with("AMD-Vi")));
    let through = lines.iter().find(|words| {
        let chip = words[0].strip_prefix('v').unwrap_or(words[0]);
        let name = chip.strip_prefix("IR-");
        name.is_some_and(|name| is_message(name) || name.starts_with("HPET"))
    });
    let evidence = |words: &Vec<&str>| words.join(" ");
    match (round.map(evidence), through.map(evidence)) {
        (Some(evidence), _) => Remapping::Off { evidence },
        (None, Some(evidence)) => Remapping::On { evidence },
        (None, None) => Remapping::Unknown,
    }
}

/// What stands behind the number and the counts, if anything.
fn words(line: &str) -> Option<Vec<&str>> {
    let colon = line.find(':')?;
    let number = line[..colon].trim();
    number
        .strip_prefix('+')
        .unwrap_or(number)
        .chars()
        .try_fold(0_u32, |n, c| {
            n.checked_mul(10)?.checked_add(c.to_digit(10)?)
        })?;
    if number.trim_start_matches('+').is_empty() {
        return None;
    }
    let mut words: Vec<&str> = line[colon + 1..].split_whitespace().collect();
    let is_count = |word: &&str| word.chars().all(|c| c.is_ascii_digit());
    let counts = words.iter().take_while(|word| is_count(word)).count();
    words.drain(..counts);
    (!words.is_empty()).then_some(words)
}
