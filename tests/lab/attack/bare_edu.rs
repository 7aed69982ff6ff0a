//! `edu` driven by the lab host itself, with nothing between it and memory: the control of every DMA attack.
//!
//! Its group's domain is made the identity, in which a device's address is the host's physical address, as if there were
//! no IOMMU. On drop the group gets its domain back.

use std::{fs, thread, time::Duration};

use super::hardware::{self, Registers};
use crate::host;

const SOURCE: usize = 0x80;
const TARGET: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const BUFFER: u64 = 0x4_0000;
const START: u64 = 1;
const TO_RAM: u64 = 2;

/// The device without a guest.
#[derive(Debug)]
pub(crate) struct BareEdu {
    bdf: String,
    registers: Registers,
    domain: String,
}

impl BareEdu {
    /// Takes the device, which nobody may have.
    pub(crate) fn without_iommu() -> Self {
        let bdf = host::fact("EDU");
        assert_eq!(host::driver(&bdf), None, "{bdf} is in use");
        let domain = fs::read_to_string(domain_file(&bdf))
            .unwrap()
            .trim()
            .to_owned();
        let registers = Registers::map(&bdf, 0);
        let edu = Self {
            bdf,
            registers,
            domain,
        };
        edu.set_domain("identity");
        hardware::write_config(&edu.bdf, 4, &[6, 0]);
        edu
    }

    /// Puts the device behind the IOMMU again, with nothing mapped.
    pub(crate) fn restore_iommu(&self) {
        self.set_domain(&self.domain);
    }

    fn set_domain(&self, domain: &str) {
        fs::write(domain_file(&self.bdf), domain).unwrap();
        let now = fs::read_to_string(domain_file(&self.bdf)).unwrap();
        assert_eq!(now.trim(), domain);
    }

    /// The device reads `len` bytes at a bus address to `offset` of its buffer.
    pub(crate) fn read(&self, at: u64, offset: u64, len: u64) {
        self.start(at, BUFFER + offset, len, START);
        self.wait();
    }

    /// The device writes `len` bytes from `offset` of its buffer to a bus address.
    pub(crate) fn write(&self, at: u64, offset: u64, len: u64) {
        self.begin_write(at, offset, len);
        self.wait();
    }

    /// As [`Self::write`], without waiting.
    pub(crate) fn begin_write(&self, at: u64, offset: u64, len: u64) {
        self.start(BUFFER + offset, at, len, START | TO_RAM);
    }

    fn start(&self, source: u64, target: u64, len: u64, command: u64) {
        self.registers.write64(SOURCE, source);
        self.registers.write64(TARGET, target);
        self.registers.write64(COUNT, len);
        self.registers.write64(COMMAND, command);
    }

    /// Waits until the device says that it is done.
    pub(crate) fn wait(&self) {
        for _ in 0..500 {
            if self.registers.read32(COMMAND) & 1 == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the device does not finish");
    }
}

impl Drop for BareEdu {
    fn drop(&mut self) {
        hardware::write_config(&self.bdf, 4, &[2, 0]);
        // In a test that fails already, a second panic would hide the first.
        fs::write(domain_file(&self.bdf), &self.domain).ok();
    }
}

fn domain_file(bdf: &str) -> String {
    format!("/sys/bus/pci/devices/{bdf}/iommu_group/type")
}
