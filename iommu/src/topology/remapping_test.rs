use super::*;

/// A table with a line of each chip and action, as two processors make it.
fn table(lines: &[&str]) -> String {
    let mut text = "           CPU0       CPU1\n".to_owned();
    for (number, line) in lines.iter().enumerate() {
        text += &format!("{:>4}:        172          0  {line}\n", number + 24);
    }
    text + " NMI:          0          0   Non-maskable interrupts\n ERR:          0\n"
}

fn on(lines: &[&str], words: &str) {
    let evidence = words.to_owned();
    assert_eq!(parse(&table(lines)), Remapping::On { evidence });
}

fn off(lines: &[&str], words: &str) {
    let evidence = words.to_owned();
    assert_eq!(parse(&table(lines)), Remapping::Off { evidence });
}

#[test]
fn chips_of_all_kernels_are_known() {
    on(
        &["IR-PCI-MSI 524288-edge      enp6s0"],
        "IR-PCI-MSI 524288-edge enp6s0",
    );
    on(
        &["IR-PCI-MSIX-0000:0a:00.0    0-edge      nvme0q0"],
        "IR-PCI-MSIX-0000:0a:00.0 0-edge nvme0q0",
    );
    on(
        &["IR-HPET-MSI    3-edge      hpet3"],
        "IR-HPET-MSI 3-edge hpet3",
    );
    on(
        &["vIR-PCI-MSI-0000:00:02.0    0-edge      aerdrv"],
        "vIR-PCI-MSI-0000:00:02.0 0-edge aerdrv",
    );
    off(&["PCI-MSI-edge      eth0"], "PCI-MSI-edge eth0");
    off(
        &["PCI-MSIX-0000:00:01.0   0-edge      virtio0-config"],
        "PCI-MSIX-0000:00:01.0 0-edge virtio0-config",
    );
}

#[test]
fn one_function_that_is_not_remapped_outweighs_those_that_are() {
    let lines = [
        "IR-PCI-MSI-0000:00:02.0    0-edge      aerdrv",
        "PCI-MSIX-0000:3b:00.0    0-edge      nvme0q0",
        "IR-PCI-MSI-0000:00:03.0    0-edge      aerdrv",
    ];
    off(&lines, "PCI-MSIX-0000:3b:00.0 0-edge nvme0q0");
}

#[test]
fn the_iommus_own_interrupts_are_no_evidence() {
    let own = [
        "DMAR-MSI    0-edge      dmar0",
        "IOMMU-MSI    0-edge      AMD-Vi",
        "PCI-MSI 4096-edge      AMD-Vi",
        "PCI-MSI-0000:00:00.2    0-edge      AMD-Vi0-Evt",
    ];
    assert_eq!(parse(&table(&own)), Remapping::Unknown);
    let mut lines = own.to_vec();
    lines.push("IR-PCI-MSI 22528-edge      PCIe PME");
    on(&lines, "IR-PCI-MSI 22528-edge PCIe PME");
}

#[test]
fn what_is_no_message_interrupt_is_no_evidence() {
    for line in [
        "IR-IO-APIC    9-fasteoi   acpi",
        "IO-APIC    1-edge      i8042",
        "",
    ] {
        assert_eq!(parse(&table(&[line])), Remapping::Unknown, "{line}");
    }
    assert_eq!(parse(""), Remapping::Unknown);
    // A name, not a chip.
    let words = " LOC:     577933     543419   IR-PCI-MSI\n";
    assert_eq!(parse(words), Remapping::Unknown);
}
