//! A guest that programs its vectors to go where they must not, and fires them without end.
//!
//! The vectors are those of an NVMe VF (MSI-X), where a completion fires vector 0, and of `edu` (MSI), which fires when it is
//! told.

use std::{fs, os::fd::OwnedFd, time::Instant};

use super::{
    Attacker,
    guest::{TARGET, add_edu},
    hardware::{self, LogMark},
    interrupt_window,
    physical::GuestRam,
};
use crate::{guest::GuestFile, host, seal};

const CONFIG: u64 = 0xE000_8000;
const MSIX: u8 = 0x11;
const APIC: u64 = 0xFEE0_0000;
const VECTOR: u8 = 0x51;

/// An attacker with an NVMe VF in slot 1 whose MSI-X is on.
struct Vectors {
    guest: Attacker,
    /// Where the guest finds table, pending bits and control.
    table: u64,
    pending: u64,
    control: u64,
}

impl Vectors {
    fn start(name: &str) -> Self {
        let bdf = host::nvme(0);
        let msix = u64::try_from(hardware::capability(&bdf, MSIX)).unwrap();
        let mut guest = Attacker::start(&GuestFile::attacker(name).device(&bdf));
        guest.start_nvme(1);
        let bar = guest.bar(1, 0);
        let table = bar + guest.read(4, CONFIG + msix + 4);
        let pending = bar + guest.read(4, CONFIG + msix + 8);
        let mut vectors = Self {
            guest,
            table,
            pending,
            control: CONFIG + msix + 2,
        };
        vectors.program(0, APIC, VECTOR.into());
        vectors.guest.write(2, vectors.control, 0x8000);
        vectors
    }

    /// Programs an entry and unmasks it.
    fn program(&mut self, entry: u64, address: u64, data: u64) {
        let at = self.table + 16 * entry;
        self.guest.write(4, at, address & 0xFFFF_FFFF);
        self.guest.write(4, at + 4, address >> 32);
        self.guest.write(4, at + 8, data);
        self.guest.write(4, at + 12, 0);
    }

    fn mask(&mut self, is_masked: bool) {
        self.guest.write(4, self.table + 12, is_masked.into());
    }

    /// Lets the device fire vector 0 once, and gives it time.
    fn fire(&mut self) {
        assert_eq!(self.guest.value(&format!("nvme-identify {TARGET:#x}")), 0);
        self.guest.tell("wait 5");
    }

    /// How often vectors have come, all together.
    fn total(&mut self) -> u64 {
        self.guest.counts().values().sum()
    }

    /// Fails unless the vector, rightly programmed, comes once.
    fn assert_works(&mut self) {
        self.program(0, APIC, VECTOR.into());
        // What waited comes now.
        self.guest.tell("wait 5");
        let before = self.guest.counts().get(&VECTOR).copied().unwrap_or(0);
        self.fire();
        assert_eq!(
            self.guest.counts().get(&VECTOR),
            Some(&(before + 1)),
            "the control failed"
        );
    }
}

/// Claim: a message that is none to a local APIC goes nowhere: no interrupt, and no write to memory. Attack: F01; and F03:
/// to a processor that does not exist. Control: the same vector, rightly programmed, comes before and after.
#[test]
#[ignore = "needs a lab host"]
fn message_to_elsewhere_goes_nowhere() {
    let mut vectors = Vectors::start("vector-elsewhere");
    let ram = GuestRam::of(&vectors.guest.guest);
    let (alarms, log) = (hardware::alarms(), LogMark::now());
    vectors.assert_works();
    let low = ram.bytes(0x40_0000, 4096);
    let total = vectors.total();
    let elsewhere = [
        0x40_0000,
        0xFEC0_0000,
        CONFIG,
        vectors.table,
        0x1_FEE0_0000,
        0xFEF0_0000,
        0xFED0_0000,
    ];
    // Physical destination 0x20, logical destination 0x20: there is only processor 0.
    for address in elsewhere
        .into_iter()
        .chain([APIC | 0x20 << 12, APIC | 0x20 << 12 | 4])
    {
        vectors.program(0, address, VECTOR.into());
        vectors.fire();
        assert_eq!(
            vectors.total(),
            total,
            "a message to {address:#x} was delivered"
        );
    }
    assert_eq!(
        ram.bytes(0x40_0000, 4096),
        low,
        "a message was written to memory"
    );
    vectors.assert_works();
    assert_eq!(hardware::alarms(), alarms);
    log.assert_calm();
    vectors.guest.off();
}

/// Claim: NMIs, external interrupts and forbidden vectors that a guest programs stay its own: the host gets none. Attack:
/// F02, F03 (to all processors). Control: the guest itself gets its NMI.
#[test]
#[ignore = "needs a lab host"]
fn strange_delivery_stays_in_the_guest() {
    const NMI: u64 = 4 << 8;
    let mut vectors = Vectors::start("vector-strange");
    let (alarms, log) = (hardware::alarms(), LogMark::now());
    for (address, data) in [
        (APIC, 0x05),
        (APIC, 0x0F),
        (APIC, 7 << 8 | 0x30),
        (APIC, 3 << 8 | 0x30),
        (APIC, 1 << 15 | 0x53),
        (APIC | 0xFF << 12, 0x54),
        (APIC | 0xFF << 12 | 0xC, 0x55),
    ] {
        vectors.program(0, address, data);
        vectors.fire();
    }
    vectors.program(0, APIC, NMI | 0x30);
    vectors.fire();
    assert_eq!(
        vectors.guest.counts().get(&2),
        Some(&1),
        "the control failed: the guest's own NMI"
    );
    vectors.assert_works();
    assert_eq!(
        hardware::alarms(),
        alarms,
        "LEAK: the guest's messages reached the host"
    );
    log.assert_calm();
    vectors.guest.off();
}

/// Claim: a system management interrupt or an INIT that a guest sends itself ends or resets that guest at worst. Attack:
/// F02. Control: the neighbour works on.
#[test]
#[ignore = "needs a lab host"]
fn guest_that_resets_itself_by_message_harms_nobody() {
    let mut neighbour =
        Attacker::start(&GuestFile::attacker("vector-neighbour").device(&host::nvme(1)));
    neighbour.start_nvme(1);
    let (alarms, log) = (hardware::alarms(), LogMark::now());
    for (name, mode) in [("smi", 2), ("init", 5)] {
        let mut vectors = Vectors::start(&format!("vector-{name}"));
        vectors.program(0, APIC, mode << 8);
        vectors.guest.begin(&format!("nvme-identify {TARGET:#x}"));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        vectors.guest.guest.signal("TERM");
        let (status, transcript) = vectors.guest.guest.end();
        // Stopped by us, or before that by its own doing.
        assert!(
            matches!(status.code(), Some(20..=25)),
            "{name}: {status} {}",
            transcript.text()
        );
        assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
        host::assert_vf_returned(&host::nvme(0));
    }
    assert_eq!(hardware::alarms(), alarms);
    log.assert_calm();
    neighbour.off();
}

/// Claim: a masked vector that fires is pending, is not delivered, is not lost, and comes once when it is unmasked; by the
/// entry's mask and by the function's. Attack: F07. Control: unmasked it comes each time.
#[test]
#[ignore = "needs a lab host"]
fn masked_vector_waits_and_comes_once() {
    let mut vectors = Vectors::start("vector-masked");
    vectors.assert_works();
    for by_function in [false, true] {
        let before = vectors.total();
        if by_function {
            vectors.guest.write(2, vectors.control, 0xC000);
        } else {
            vectors.mask(true);
        }
        assert_eq!(vectors.guest.read(4, vectors.pending) & 1, 0);
        for _ in 0..3 {
            vectors.fire();
        }
        assert_eq!(vectors.total(), before, "a masked vector was delivered");
        assert_eq!(
            vectors.guest.read(4, vectors.pending) & 1,
            1,
            "a masked vector is not pending"
        );
        if by_function {
            vectors.guest.write(2, vectors.control, 0x8000);
        } else {
            vectors.mask(false);
        }
        vectors.guest.tell("wait 5");
        assert_eq!(vectors.total(), before + 1, "not once");
        assert_eq!(vectors.guest.read(4, vectors.pending) & 1, 0);
    }
    vectors.guest.off();
}

/// Claim: masking and unmasking without end, and arming and disarming, leak no descriptor, no vector of the host and no
/// entry of its remapping table. Attack: F06. Control: while vectors are armed, the host shows as many. The VF has two
/// vectors: what a device with thousands of them does (F05, F10) is not shown here.
#[test]
#[ignore = "needs a lab host"]
fn flapping_masks_leak_nothing() {
    let mut vectors = Vectors::start("vector-flap");
    let pid = vectors.guest.guest.child_pid("narrows-device");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let rows = || {
        let bdf = host::nvme(0);
        hardware::interrupts()
            .keys()
            .filter(|name| name.contains("vfio") && name.contains(&bdf))
            .count()
    };
    let now = || (descriptors(), rows(), interrupt_window::entries().len());
    let before = now();
    // Both vectors of the VF, for they are armed together.
    assert_eq!(
        before.1, 2,
        "the control failed: the host shows {} vectors",
        before.1
    );
    let mask = vectors.table + 12;
    vectors
        .guest
        .tell(&format!("alternate 4 {mask:#x} 1 0 2000"));
    assert_eq!(now(), before);
    let control = vectors.control;
    vectors
        .guest
        .tell(&format!("alternate 2 {control:#x} 0xc000 0x8000 500"));
    vectors
        .guest
        .tell(&format!("alternate 2 {control:#x} 0 0x8000 100"));
    assert_eq!(now(), before);
    vectors.assert_works();
    vectors.guest.off();
    assert_eq!(rows(), 0);
}

/// Claim: vectors fired as fast as the device can disturb neither another guest nor the host. Attack: F04.
/// Control: the interrupts arrive at their own guest.
#[test]
#[ignore = "needs a lab host"]
fn vector_storm_disturbs_nobody() {
    const MSI: u64 = CONFIG + 0x40;
    let mut storm = Attacker::start(&add_edu(GuestFile::attacker("vector-storm")));
    let mut neighbour = Attacker::start(&GuestFile::attacker("vector-calm").device(&host::nvme(0)));
    neighbour.start_nvme(1);
    storm.enable(1);
    storm.write(4, MSI + 4, APIC);
    storm.write(4, MSI + 8, 0);
    storm.write(2, MSI + 0xC, VECTOR.into());
    storm.write(2, MSI + 2, 1);
    let (alarms, log) = (hardware::alarms(), LogMark::now());
    let started = Instant::now();
    storm.begin("edu-storm");
    let mut rounds = 0;
    while started.elapsed().as_secs() < 2 {
        assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
        rounds += 1;
    }
    // Any line ends the storm, and is then obeyed as the next command.
    storm.begin("wait 50");
    let answer = storm.answer();
    storm.answer();
    let fired = u64::from_str_radix(answer["value"].trim_start_matches("0x"), 16).unwrap();
    let came = storm.counts().get(&VECTOR).copied().unwrap_or(0);
    // Interrupts that come while one is still waiting are one, as on any machine.
    assert!(
        fired > 1000 && came > 10 && came <= fired,
        "fired {fired}, came {came}"
    );
    assert!(rounds > 5, "the neighbour had {rounds} rounds");
    assert_eq!(hardware::alarms(), alarms);
    log.assert_calm();
    storm.off();
    neighbour.off();
}

/// Claim: a vector that fires while it is masked, however often, blocks neither the device nor D, also where what counts
/// it is full; it comes once when it is unmasked. Attack: F08. Control: the count of the latch rises while it is masked.
#[test]
#[ignore = "needs a lab host"]
fn full_latch_blocks_nobody() {
    let mut vectors = Vectors::start("vector-full");
    vectors.assert_works();
    let device = vectors.guest.guest.child_pid("narrows-device");
    vectors.mask(true);
    let total = vectors.total();
    let count_of = |number: u64| {
        let text = fs::read_to_string(format!("/proc/{device}/fdinfo/{number}")).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("eventfd-count:"));
        Some(u64::from_str_radix(line?.trim(), 16).unwrap())
    };
    vectors.guest.begin(&format!("nvme-storm {TARGET:#x}"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    vectors.guest.begin("wait 5");
    let answer = vectors.guest.answer();
    vectors.guest.answer();
    let fired = u64::from_str_radix(answer["value"].trim_start_matches("0x"), 16).unwrap();
    let counted: Vec<(u64, OwnedFd)> = seal::stolen(device)
        .into_iter()
        .filter(|(number, ..)| count_of(*number).is_some_and(|count| count > 0))
        .map(|(number, _, fd)| (number, fd))
        .collect();
    let [(number, latch)] = &counted[..] else {
        panic!("the control failed: not one latch has counted: {counted:?}");
    };
    let count = count_of(*number).unwrap();
    assert!(
        fired > 100 && count > 10,
        "the control failed: fired {fired}, counted {count}"
    );
    // Nobody fires as often as fills it in the time of a test, so the test adds what is missing.
    let full = u64::MAX - 1;
    rustix::io::write(latch, &(full - count).to_ne_bytes()).unwrap();
    assert_eq!(count_of(*number), Some(full));
    for _ in 0..20 {
        vectors.fire();
    }
    assert_eq!(vectors.total(), total, "a masked vector was delivered");
    assert_eq!(vectors.guest.read(4, vectors.pending) & 1, 1);
    assert_eq!(vectors.guest.guest.child_pid("narrows-device"), device);
    vectors.mask(false);
    vectors.guest.tell("wait 5");
    assert_eq!(vectors.total(), total + 1, "not once");
    assert_eq!(count_of(*number), Some(0));
    vectors.assert_works();
    vectors.guest.off();
}

/// Claim: a guest whose processor interrupts itself without end, by messages and by a timer of the shortest period,
/// disturbs neither another guest nor the host. Attack: F09. Control: the interrupts of both kinds arrive.
#[test]
#[ignore = "needs a lab host"]
fn storm_of_a_processor_at_itself_disturbs_nobody() {
    const TIMER: u8 = 0x61;
    let mut storm = Attacker::start(&GuestFile::attacker("apic-storm"));
    let mut neighbour = Attacker::start(&GuestFile::attacker("apic-calm").device(&host::nvme(0)));
    neighbour.start_nvme(1);
    let (alarms, log) = (hardware::alarms(), LogMark::now());
    let started = Instant::now();
    storm.begin(&format!("apic-storm {VECTOR:#x} {TIMER:#x}"));
    let mut rounds = 0;
    while started.elapsed().as_secs() < 2 {
        assert_eq!(neighbour.value(&format!("nvme-identify {TARGET:#x}")), 0);
        rounds += 1;
    }
    // Any line ends the storm, and is then obeyed as the next command.
    storm.begin("wait 1");
    let answer = storm.answer();
    storm.answer();
    let sent = u64::from_str_radix(answer["value"].trim_start_matches("0x"), 16).unwrap();
    let counts = storm.counts();
    let came = |vector: u8| counts.get(&vector).copied().unwrap_or(0);
    // Interrupts that come while one is still waiting are one, as on any machine.
    assert!(
        sent > 1000 && came(VECTOR) > 10 && came(VECTOR) <= sent && came(TIMER) > 10,
        "sent {sent}, came {counts:?}"
    );
    assert!(rounds > 5, "the neighbour had {rounds} rounds");
    assert_eq!(hardware::alarms(), alarms);
    log.assert_calm();
    storm.off();
    neighbour.off();
}
