//! Text of sysfs: `resource`, `reserved_regions` and small attributes, read through a made-up host.

use std::fs;

use iommu::{bdf::Bdf, fake::FakeHost, sysfs::SysRoot, topology::Topology};

use crate::input::{Executions, Input, any_bytes};

const VF: &str = "0000:01:10.0";
const FUNCTION: &str = "sys/bus/pci/devices/0000:01:10.0";
const GROUP: &str = "sys/kernel/iommu_groups/13";

#[test]
fn text_is_read_as_it_stands_or_refused() {
    let folder = std::env::temp_dir().join(format!("narrows-fuzz-{}", std::process::id()));
    let host = FakeHost::new(&folder)
        .pf("0000:01:00.0", 12)
        .vf(VF, "0000:01:00.0", 13);
    let root = host.write().unwrap();
    let executions = Executions::of("sysfs");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&mut Input::new(bytes), &root);
        });
    executions.say();
    fs::remove_dir_all(folder).unwrap();
}

fn one(input: &mut Input<'_>, root: &SysRoot) {
    let resource: Vec<Line> = (0..input.below(9)).map(|_| Line::of(input)).collect();
    let reserved: Vec<Line> = (0..input.below(4)).map(|_| Line::of(input)).collect();
    let small = [
        ("numa_node", "-1"),
        ("vendor", "0x8086"),
        ("class", "0x020000"),
    ];
    let (name, usual) = input.pick(&small);
    let attribute = if input.once_in(3) {
        text(input)
    } else {
        usual.to_owned()
    };
    let write = |path: String, text: String| fs::write(root.path(path), text).unwrap();
    write(format!("{FUNCTION}/resource"), joined(&resource, ""));
    write(
        format!("{GROUP}/reserved_regions"),
        joined(&reserved, " direct"),
    );
    write(format!("{FUNCTION}/{name}"), attribute.clone());
    let read = Topology::read(root);
    write(format!("{FUNCTION}/{name}"), usual.to_owned());

    let bars = resource
        .iter()
        .take(7)
        .all(|line| line.numbers::<3>().is_some_and(is_range_or_absent));
    let windows = reserved.iter().all(|line| {
        line.numbers::<2>()
            .is_some_and(|[first, last]| first < last.saturating_add(1))
    });
    let Ok(topology) = read else {
        let is_good = bars && windows && attribute == usual;
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
