use jailed::handoff::Handoff;

use super::{
    handoff::{OpenedFunction, Region},
    plan_test::{VF, device, host, planned},
    types::Plan,
};

fn plan() -> Plan {
    let more = format!(
        "vcpus = 2\ncmdline = \"quiet\"\n[root]\nimage = \"r\"\nmode = \"copy\"\n{}max_vectors = 2\n",
        device(VF)
    );
    planned(&host(), &more).unwrap()
}

#[test]
fn without_the_machines_words_the_line_is_the_operators() {
    let more = "cmdline = \"quiet\"\nmachine_words = false\n";
    let plan = planned(&host(), more).unwrap();
    assert_eq!(
        (plan.cmdline.as_str(), plan.machine_words.len()),
        ("quiet", 0)
    );
}

fn opened() -> OpenedFunction {
    let mut bars = [Region::default(); 6];
    bars[0] = Region {
        offset: 0,
        len_bytes: 0x4000,
    };
    bars[3] = Region {
        offset: 3 << 40,
        len_bytes: 0x4000,
    };
    OpenedFunction {
        bars,
        config: Region {
            offset: 7 << 40,
            len_bytes: 4096,
        },
        can_reset: true,
        vectors: 3,
    }
}

#[test]
fn a_handoff_carries_the_plan_and_the_opened_devices() {
    let plan = plan();
    let handoff: Box<Handoff> = plan.handoff(&[opened()]).unwrap();
    assert!(handoff.check());
    assert_eq!(
        (
            handoff.vcpu_count,
            handoff.has_console,
            handoff.has_initramfs
        ),
        (2, 0, 0)
    );
    assert_eq!(&handoff.cmdline[..18], b"pci=noearly quiet\0");
    assert_eq!(
        (handoff.cmdline_len, handoff.acpi_len as usize),
        (17, plan.acpi.len())
    );
    assert_eq!(
        handoff.ram().iter().map(|r| r.len_bytes).sum::<u64>(),
        512 << 20
    );
    assert_eq!(
        (handoff.images()[0].len_bytes, handoff.images()[0].writable),
        (64 << 20, 1)
    );
    let function = &handoff.functions()[0];
    assert_eq!(
        (function.host_bdf, function.interrupt_kind, function.vectors),
        (0x0000_0180, 2, 2)
    );
    assert_eq!(
        (function.config_offset, function.config_bytes),
        (7 << 40, 4096)
    );
    assert_eq!(
        (function.msix_table_bar, function.msix_pba_offset),
        (3, 0x2000)
    );
    let bar = &function.bars[3];
    assert_eq!(
        (bar.region_offset, bar.span_count, bar.spans[1].offset),
        (3 << 40, 2, 0x3000)
    );
    assert_eq!(function.bars[1].len_bytes, 0);
}

#[test]
fn a_device_that_is_not_the_planned_one_is_refused() {
    let plan = plan();
    let changes: [fn(&mut OpenedFunction); 9] = [
        |o| o.bars[0].len_bytes = 0x8000,
        |o| o.bars[3].len_bytes = 0,
        |o| o.config.len_bytes = 0,
        |o| o.can_reset = false,
        |o| o.vectors = 1,
        // A table of another size than the one whose pages are not mapped.
        |o| o.vectors = 4,
        |o| o.vectors = 2048,
        // A write to a BAR would be one to configuration space, or to another BAR.
        |o| o.bars[3].offset = (7 << 40) - 0x2000,
        |o| o.bars[0].offset = 3 << 40,
    ];
    for change in changes {
        let mut opened = opened();
        change(&mut opened);
        let report = plan.handoff(&[opened]).unwrap_err();
        assert_eq!(report.id.name(), "device-changed", "{report}");
    }
    assert_eq!(plan.handoff(&[]).unwrap_err().id.name(), "bug");
}

/// Sysfs promised a BAR of 64 bits where the next register is a BAR of its own.
#[test]
fn a_bar_without_room_for_its_upper_half_is_refused() {
    let lines = "0xfd000000 0xfd003fff 0x140204\n0xfd004000 0xfd007fff 0x140204\n0x0 0x0 0x0\n\
                 0xfd008000 0xfd00bfff 0x140204\n";
    let more = format!("{}max_vectors = 2\n", device(VF));
    let plan = planned(&host().attribute("resource", lines), &more).unwrap();
    let mut opened = opened();
    opened.bars[1] = Region {
        offset: 1 << 40,
        len_bytes: 0x4000,
    };
    let report = plan.handoff(&[opened]).unwrap_err();
    assert_eq!(report.id.name(), "device-changed", "{report}");
}
