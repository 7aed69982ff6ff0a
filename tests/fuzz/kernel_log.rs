//! The kernel log, as the supervisor reads faults of the IOMMU from it: records of a process, lines with something else.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
};

use iommu::{
    bdf::Bdf,
    events::{Access, DmaFault, KernelLog, Next, Record},
};

use crate::{
    input::{Executions, Input, any_bytes},
    log_reading::{Line, Source, head_of},
};

#[test]
fn faults_are_those_of_the_kernel_and_of_their_function() {
    let executions = Executions::of("kernel_log");
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
    let true_line = True::of(input);
    true_line.check();

    let mut line = true_line.text();
    damage(input, &mut line);
    same(
        DmaFault::parse(&line).as_ref(),
        Line::read(&line).as_ref(),
        &line,
    );

    records(
        input,
        &[true_line.text(), line, "a line of another kind".to_owned()],
    );
    let rest = input.rest();
    assert_eq!(
        Record::parse(rest).map(|record| (record.sequence, record.facility, record.text)),
        head_of(rest)
    );
    let text = String::from_utf8_lossy(rest);
    same(
        DmaFault::parse(&text).as_ref(),
        Line::read(&text).as_ref(),
        &text,
    );
}

/// The program's reading of a line is our own.
fn same(found: Option<&DmaFault>, expected: Option<&Line>, line: &str) {
    assert_eq!(
        found.is_some(),
        expected.is_some(),
        "{line:?}: {found:?} {expected:?}"
    );
    let (Some(found), Some(expected)) = (found, expected) else {
        return;
    };
    assert_eq!(
        (found.access, found.address),
        (expected.access, expected.address),
        "{line:?}"
    );
    assert_eq!(found.reason, expected.reason, "{line:?}");
    assert!(found.reason.len() <= 80 && found.reason.bytes().all(|b| (b' '..=b'~').contains(&b)));
    is_put_down_to(found, expected.source, line);
}

/// The fault is that function's and no other's: not in another domain that the line tells, nor with another bit.
fn is_put_down_to(found: &DmaFault, source: Source, line: &str) {
    let bdf = |packed: u32| {
        let [function, bus, low, high] = packed.to_le_bytes();
        Bdf::new(
            u16::from_le_bytes([low, high]),
            bus,
            function >> 3,
            function & 7,
        )
        .unwrap()
    };
    let own = source.packed();
    assert!(found.requester.is(bdf(own)), "{line:?}");
    for bit in 0..32 {
        let is_taken = found.requester.is(bdf(own ^ 1 << bit));
        assert_eq!(
            is_taken,
            bit >= 16 && source.domain.is_none(),
            "bit {bit}: {line:?}"
        );
    }
}

/// Some records in a row, of the kernel and of others, numbered as they like.
fn records(input: &mut Input<'_>, lines: &[String]) {
    let (kernel, reader) = UnixDatagram::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let mut log = KernelLog::of(File::from(OwnedFd::from(reader)));
    let (mut next, mut lost): (Option<u64>, u64) = (None, 0);
    for _ in 0..input.below(4) {
        let sequence = if input.once_in(4) {
            input.number()
        } else {
            next.unwrap_or_default()
                .saturating_add(input.below(3).into())
        };
        let priority = input.pick(&[3, 6, 11, 14, 8, 24, 191, 7, 0]);
        let line = &lines[input.below(3) as usize];
        let rest = input.pick(&["", ",caller=T1", ",a;b"]);
        let tail = input.pick(&["", "\n", "\n SUBSYSTEM=pci\n DEVICE=+pci:0000:04:00.0\n"]);
        let mut record = format!("{priority},{sequence},17,-{rest};{line}{tail}").into_bytes();
        if input.once_in(8) {
            let at = input.below(24) as usize % record.len();
            record[at] = input.byte();
        }
        kernel.send(&record).unwrap();
        let head = head_of(&record);
        if let Some((sequence, ..)) = head {
            let gap = next.map_or(0, |next| sequence.saturating_sub(next));
            (lost, next) = (lost.saturating_add(gap), Some(sequence.saturating_add(1)));
        }
        let text = head
            .filter(|(_, facility, _)| *facility == 0)
            .map(|(_, _, text)| text);
        let expected = text.and_then(Line::read);
        let found = match log.read().unwrap() {
            Next::Fault(fault) => Some(fault),
            Next::Other => None,
            Next::Nothing => panic!("a record is left out"),
        };
        same(
            found.as_ref(),
            expected.as_ref(),
            &String::from_utf8_lossy(&record),
        );
        assert_eq!(log.lost(), lost);
    }
    assert_eq!(log.read().unwrap(), Next::Nothing);
}

/// A fault as one of the drivers logs it, and what it was.
#[derive(Debug)]
struct True {
    form: u32,
    source: Source,
    access: Access,
    address: u64,
}

impl True {
    fn of(input: &mut Input<'_>) -> Self {
        let form = input.below(9);
        let [function, bus, low, high] = input.bytes();
        let domain = input.pick(&[0, u16::from_le_bytes([low, high])]);
        // VT-d's driver tells no domain.
        let domain = (form >= 5).then_some(domain);
        let is_write = input.below(2) == 1;
        Self {
            form,
            source: Source {
                domain,
                bus,
                function,
            },
            access: match form {
                4 | 7 => Access::Interrupt,
                8 => Access::Request,
                _ if is_write => Access::Write,
                _ => Access::Read,
            },
            address: input.number(),
        }
    }

    /// *Source:* `drivers/iommu/intel/dmar.c`, `drivers/iommu/amd/iommu.c`; v5.4 to v7.2.
    fn text(&self) -> String {
        let Source { bus, function, .. } = self.source;
        let (device, function) = (function >> 3, function & 7);
        let domain = self.source.domain.unwrap_or_default();
        let long = format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}");
        let address = self.address;
        let (name, flags) = match self.access {
            Access::Write => ("Write", 0x20),
            Access::Interrupt => ("Read", 0x08),
            Access::Read | Access::Request => ("Read", 0),
        };
        match self.form {
            0 => format!(
                "DMAR: [DMA {name} NO_PASID] Request device [{bus:02x}:{device:02x}.{function}] fault addr {address:#x} [fault reason 0x05] PTE {name} access is not set"
            ),
            1 => format!(
                "DMAR: [DMA {name} PASID 0x1f] Request device [0x{bus:02x}:0x{device:02x}.{function}] fault addr {address:#x} [fault reason 0x71] SM: Present bit is clear"
            ),
            2 => format!(
                "DMAR: [DMA {name}] Request device [{bus:02x}:{device:02x}.{function}] fault addr {address:x} [fault reason 06] PTE {name} access is not set"
            ),
            3 => format!(
                "DMAR: [DMA {name}] Request device [{bus:02x}:{device:02x}.{function}] PASID ffffffff fault addr {address:x} [fault reason 06] PTE {name} access is not set"
            ),
            4 => format!(
                "DMAR: [INTR-REMAP] Request device [{bus:02x}:{device:02x}.{function}] fault index {address:#x} [fault reason 0x22] Present field in the IRTE entry is clear"
            ),
            5 => format!(
                "vfio-pci {long}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000f address={address:#x} flags={flags:#06x}]"
            ),
            6 => format!(
                "AMD-Vi: Event logged [IO_PAGE_FAULT device={long} domain=0x000f address={address:#x} flags={flags:#06x}]"
            ),
            7 => format!(
                "vfio-pci {long}: AMD-Vi: Event logged [RMP_PAGE_FAULT vmg_tag=0x0001, gpa={address:#x}, flags_rmp=0x0001, flags={flags:#06x}]"
            ),
            _ => format!(
                "pci 0000:00:00.2: AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device={long} pasid=0x00000 address={address:#x} flags=0x0a00]"
            ),
        }
    }

    /// It is read as it was made, and never with something before it.
    fn check(&self) {
        let line = self.text();
        let found = DmaFault::parse(&line).unwrap();
        assert_eq!(
            (found.access, found.address),
            (self.access, self.address),
            "{line}"
        );
        is_put_down_to(&found, self.source, &line);
        for before in [" ", "x: ", "audit: ", "comm=a b c: ", "DMAR: "] {
            assert_eq!(
                DmaFault::parse(&format!("{before}{line}")),
                None,
                "{before}{line}"
            );
        }
    }
}

/// Changes, cuts and joins a line.
fn damage(input: &mut Input<'_>, line: &mut String) {
    const PIECES: &[&str] = &[
        "",
        "0",
        "x",
        "0x",
        "]",
        "[",
        " ",
        ":",
        ".",
        "=",
        ",",
        ";",
        "\n",
        "\r",
        "g",
        "8",
        "é",
        "\u{0}",
        "] ",
        "] Request device [",
        " [fault reason ",
        "PASID ",
        "fault addr ",
        "fault index ",
        " device=0000:05:00.0",
        " address=0x1",
        " gpa=0x2",
        " flags=0x28",
        "AMD-Vi: Event logged [",
        "DMAR: [",
        "IO_PAGE_FAULT ",
        "0001:",
        "+1",
        "-",
    ];
    for _ in 0..input.below(4) {
        let mut place = || {
            let at = input.below(u32::try_from(line.len()).unwrap() + 1) as usize;
            (0..=at)
                .rev()
                .find(|at| line.is_char_boundary(*at))
                .unwrap()
        };
        let (one, other) = (place(), place());
        let range = match other.abs_diff(one) {
            // Mostly few characters are lost.
            0..6 => one.min(other)..one.max(other),
            _ => one..one,
        };
        line.replace_range(range, input.pick(PIECES));
    }
}
