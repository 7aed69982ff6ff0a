//! DMA to what is not the guest's: the host's memory, other guests' memory, other devices.

use std::fs;

use super::{
    Attacker,
    bare_edu::BareEdu,
    dma::assert_only_own_bytes,
    guest::{RESULT, with_edu},
    hardware,
    physical::{self, Canary, GuestRam},
};
use crate::{guest::GuestFile, host};

const CANARY: u8 = 0xC3;
const VICTIM: u8 = 0xB7;
const OWN: u8 = 0xE5;
/// A page of the victim's RAM.
const VICTIM_PAGE: u64 = 0x80_0000;

/// Something that no device of a guest may reach, and its physical address. It is not zero there.
struct Target {
    name: String,
    at: u64,
}

fn target(name: impl Into<String>, at: u64) -> Target {
    Target {
        name: name.into(),
        at,
    }
}

/// Where a process's stack lies that it uses now.
fn stack(name: &str, pid: u32) -> Target {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = text.lines().find(|line| line.ends_with("[stack]")).unwrap();
    let end = line
        .split_whitespace()
        .next()
        .unwrap()
        .split_once('-')
        .unwrap()
        .1;
    let end = u64::from_str_radix(end, 16).unwrap();
    let at =
        physical::address_in(&pid.to_string(), end - 4096).expect("the stack's top is present");
    // The program's name and environment, at the end of the page.
    target(format!("the stack of {name}"), at + 4096 - 32)
}

/// The first address of the kernel's code.
fn kernel_code() -> Target {
    let text = fs::read_to_string("/proc/iomem").unwrap();
    let line = text
        .lines()
        .find(|line| line.ends_with(": Kernel code"))
        .unwrap();
    let start = line.trim().split_once('-').unwrap().0;
    target("the kernel's code", u64::from_str_radix(start, 16).unwrap())
}

/// The root table of the IOMMU, from the bus of the devices on.
fn root_table() -> Target {
    let file = "/sys/kernel/debug/iommu/intel/dmar_translation_struct";
    let text = fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find(|line| line.contains("Root Table Address"))
        .expect(file);
    let word = line.split_whitespace().last().unwrap();
    let at = u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    target("the IOMMU's root table", at)
}

/// Claim: by no address does a guest's device reach the host's memory, another guest's, or another device's registers.
/// Attacks: D08 (canary of the host), D09 (another guest's RAM), D10 (stacks of V, D and S, kernel, IOMMU root table), D11
/// (registers of the NIC's and the NVMe's PF). Everything is read; canary and victim are also written.
/// Control: the same device with the IOMMU's translation off reads each of them and writes canary and victim; with it on
/// again, and nothing mapped, it does not.
#[test]
#[ignore = "needs a lab host"]
fn physical_memory_of_the_host_is_out_of_reach() {
    let canary = Canary::new(1, CANARY);
    let mut victim = Attacker::start(&GuestFile::attacker("dma-victim").device(&host::nvme(0)));
    let victim_ram = GuestRam::of(&victim.guest);
    victim.fill(VICTIM_PAGE, VICTIM);
    let mut guest = Attacker::start(&with_edu("dma-host"));
    let ram = GuestRam::of(&guest.guest);
    let targets = [
        target("a canary of the host", canary.physical(0)),
        target("another guest's RAM", victim_ram.physical(VICTIM_PAGE)),
        stack("V", guest.guest.child_pid("narrows-vcpu")),
        stack("D", guest.guest.child_pid("narrows-device")),
        stack("S", guest.guest.pid()),
        stack("K", guest.guest.keeper_pid()),
        kernel_code(),
        root_table(),
        // The version register of NVMe; the device status of the NIC.
        target(
            "the NVMe PF's registers",
            hardware::bar_address(&host::fact("NVME_PF"), 0) + 8,
        ),
        target(
            "the NIC PF's registers",
            hardware::bar_address(&host::fact("NIC_PF"), 0) + 8,
        ),
    ];

    guest.enable(1);
    for target in &targets {
        guest.edu_load(OWN);
        guest.edu_in(target.at, 0, 16);
        guest.edu_out(RESULT, 0, 4096);
        assert_only_own_bytes(&target.name, &ram.bytes(RESULT, 4096));
    }
    guest.edu_load(OWN);
    for target in &targets[..2] {
        guest.edu_out(target.at, 0, 4096);
    }
    assert!(
        canary.holds(CANARY),
        "LEAK: the guest's device wrote the host's memory"
    );
    let page = victim_ram.bytes(VICTIM_PAGE, 4096);
    assert_eq!(
        page, [VICTIM; 4096],
        "LEAK: the guest's device wrote another guest's RAM"
    );
    assert_eq!(
        canary.physical(0),
        targets[0].at,
        "the canary moved: the test tells nothing"
    );
    // The stacks are gone with the guest; the rest stays for the control.
    guest.off();

    let edu = BareEdu::without_iommu();
    let seen = Canary::new(1, 0);
    let read = |target: &Target| {
        seen.fill(0);
        edu.read(target.at, 0, 16);
        edu.write(seen.physical(0), 0, 16);
        seen.page(0)[..16].to_vec()
    };
    for target in targets
        .iter()
        .filter(|target| !target.name.contains("stack"))
    {
        assert_ne!(
            read(target),
            [0; 16],
            "the control failed: {} is not read",
            target.name
        );
    }
    assert_eq!(read(&targets[0]), [CANARY; 16]);
    assert_eq!(read(&targets[1]), [VICTIM; 16]);
    seen.fill(OWN);
    edu.read(seen.physical(0), 0, 4096);
    edu.write(targets[0].at, 0, 4096);
    edu.write(targets[1].at, 0, 4096);
    assert!(
        canary.holds(OWN),
        "the control failed: the canary is not written"
    );
    let page = victim_ram.bytes(VICTIM_PAGE, 4096);
    assert_eq!(
        page, [OWN; 4096],
        "the control failed: the victim is not written"
    );

    canary.fill(CANARY);
    edu.restore_iommu();
    edu.write(targets[0].at, 0, 4096);
    assert!(
        canary.holds(CANARY),
        "LEAK: the IOMMU is on, nothing is mapped, and the device writes"
    );
    drop(edu);
    victim.off();
}
