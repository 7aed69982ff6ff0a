//! Text of sysfs: `resource`, `reserved_regions` and small attributes, read from a host in memory.

use std::path::Path;

use iommu::{
    bdf::Bdf,
    sysfs::{Entry, Kind, SysRoot, Tree},
    topology::Topology,
};

use crate::input::{Executions, Input, any_bytes};

const VF: &str = "0000:01:10.0";
const FUNCTION: &str = "sys/devices/pci0000:01/0000:01:10.0";
const GROUP: &str = "sys/kernel/iommu_groups/13";

#[test]
fn text_is_read_as_it_stands_or_refused() {
    let executions = Executions::of("sysfs");
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

fn one(input: &mut Input<'_>) {
    let resource: Vec<Line> = (0..input.below(9)).map(|_| Line::of(input)).collect();
    let reserved: Vec<Line> = (0..input.below(4)).map(|_| Line::of(input)).collect();
    let mut small = [
        ("numa_node", "-1".to_owned()),
        ("vendor", "0x8086".to_owned()),
        ("class", "0x020000".to_owned()),
        ("device", "0x10ca".to_owned()),
    ];
    let is_usual = !input.once_in(3);
    if !is_usual {
        small[input.below(3) as usize].1 = text(input);
    }
    let mut host = Host(Tree::default());
    host.link(
        &format!("sys/bus/pci/devices/{VF}"),
        "../../../devices/pci0000:01/0000:01:10.0",
    );
    host.link(
        &format!("{FUNCTION}/iommu_group"),
        "../../../kernel/iommu_groups/13",
    );
    host.link(
        &format!("{GROUP}/devices/{VF}"),
        "../../../../devices/pci0000:01/0000:01:10.0",
    );
    host.file(&format!("{GROUP}/type"), "DMA\n");
    for (name, text) in small {
        host.file(&format!("{FUNCTION}/{name}"), &text);
    }
    host.file(&format!("{FUNCTION}/resource"), &joined(&resource, ""));
    host.file(
        &format!("{GROUP}/reserved_regions"),
        &joined(&reserved, " direct"),
    );
    let read = Topology::read(&SysRoot::captured("made-up", host.0));

    let bars = resource
        .iter()
        .take(7)
        .all(|line| line.numbers::<3>().is_some_and(is_range_or_absent));
    let windows = reserved.iter().all(|line| {
        line.numbers::<2>()
            .is_some_and(|[first, last]| first < last.saturating_add(1))
    });
    let Ok(topology) = read else {
        let is_good = bars && windows && is_usual;
        assert!(!is_good, "refused: {read:?} {resource:x?} {reserved:x?}");
        return;
    };
    assert!(bars && windows, "taken: {resource:x?} {reserved:x?}");
    let function = &topology.functions[&VF.parse::<Bdf>().unwrap()];
    for (bar, line) in function.bars.iter().zip(&resource) {
        let [first, last, flags] = line.numbers::<3>().unwrap();
        match bar {
            None => assert_eq!(flags & 0x300, 0),
            Some(bar) => {
                assert_eq!((bar.start, bar.start + (bar.len.raw() - 1)), (first, last));
                assert_eq!(bar.is_memory, flags & 0x200 != 0);
                assert_eq!(bar.is_64bit, flags & 0x10_0000 != 0);
            }
        }
    }
    let (_, group) = topology.group_of(function.bdf).unwrap();
    for (region, line) in group.reserved.iter().zip(&reserved) {
        let [first, last] = line.numbers::<2>().unwrap();
        assert_eq!(region.range.start().raw(), first);
        // The last address of all has none behind it, and is left out.
        let end = last.saturating_add(1);
        assert_eq!(first + region.range.len_bytes().raw(), end);
    }
    assert_eq!(group.reserved.len(), reserved.len());
}

/// A host's files, in memory.
struct Host(Tree);

impl Host {
    fn file(&mut self, path: &str, text: &str) {
        self.add(path, Kind::File(text.as_bytes().to_vec()));
    }

    fn link(&mut self, path: &str, target: &str) {
        self.add(path, Kind::Link(target.into()));
    }

    fn add(&mut self, path: &str, kind: Kind) {
        let entry = Entry { kind, owner: None };
        self.0.insert(Path::new(path), entry).unwrap();
    }
}

fn is_range_or_absent([first, last, flags]: [u64; 3]) -> bool {
    flags & 0x300 == 0 || first <= last && last - first < u64::MAX
}

/// A line of numbers, or something else.
#[derive(Clone, Debug)]
enum Line {
    Numbers([u64; 3]),
    Text(String),
}

impl Line {
    fn of(input: &mut Input<'_>) -> Self {
        if input.once_in(16) {
            return Self::Text(text(input));
        }
        let (first, flags) = (input.number(), input.pick(&[0x200, 0x14_220C, 0x4_0101, 0]));
        let last = if input.once_in(8) {
            input.number()
        } else {
            first.saturating_add(0xFFF)
        };
        Self::Numbers([first, last, flags])
    }

    fn numbers<const N: usize>(&self) -> Option<[u64; N]> {
        match self {
            Self::Numbers(numbers) => numbers[..N].try_into().ok(),
            Self::Text(_) => None,
        }
    }
}

fn joined(lines: &[Line], behind: &str) -> String {
    let count = if behind.is_empty() { 3 } else { 2 };
    let lines = lines.iter().map(|line| match line {
        Line::Text(text) => format!("{text}\n"),
        Line::Numbers(numbers) => {
            let words: Vec<String> = numbers[..count]
                .iter()
                .map(|n| format!("{n:#018x}"))
                .collect();
            format!("{}{behind}\n", words.join(" "))
        }
    });
    lines.collect()
}

/// Words that no reader takes for numbers.
fn text(input: &mut Input<'_>) -> String {
    let odd = [
        "x",
        "0x",
        "-1 -1 -1",
        "0xg 0x1 0x2",
        "0x1",
        "12 13 14",
        "0x10000000000000000 0x0 0x0",
        "\u{FFFD}",
    ];
    input.pick(&odd).to_owned()
}
