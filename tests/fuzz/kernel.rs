//! V's loader with arbitrary kernel images: what is written lies in RAM, where the image and the map say.

use std::{
    io::{Seek, SeekFrom, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use jailed::{
    handoff::{Handoff, RamRange},
    sys::{memory::GuestRam, syscall::Fd},
    vcpu::boot::{self, Entry, Images},
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::input::{Executions, Input, any_bytes};

const MIB: u64 = 1 << 20;
/// RAM of the guest: address, length and place in the file, which holds more than RAM before, between and behind.
const RAM: [(u64, u64, u64); 2] = [(0, 2 * MIB, PAGE), (3 * MIB, MIB, 2 * MIB + 2 * PAGE)];
const PAGE: u64 = 4096;
const FILE_BYTES: u64 = 3 * MIB + 3 * PAGE;
const INITRAMFS: &[u8] = &[0x5A; 5000];

#[test]
fn images_land_in_ram_only() {
    let file = |name: &str| std::fs::File::from(memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
    let (ram_file, initramfs) = (file("narrows-fuzz-ram"), file("narrows-fuzz-initramfs"));
    ftruncate(&ram_file, FILE_BYTES).unwrap();
    (&initramfs).write_all(INITRAMFS).unwrap();
    let handoff = handoff();
    let ram = std::sync::Mutex::new(Ram {
        mapped: GuestRam::map(fd(&ram_file), handoff.ram()).unwrap(),
        file: ram_file,
        kernel: file("narrows-fuzz-kernel"),
        initramfs,
        handoff,
    });
    let executions = Executions::of("kernel");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            ram.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .one(&mut Input::new(bytes));
        });
    executions.say();
}

fn handoff() -> Box<Handoff> {
    let mut handoff = Box::new(Handoff::empty());
    handoff.ram_count = 2;
    for (range, (gpa, len_bytes, file_offset)) in handoff.ram.iter_mut().zip(RAM) {
        *range = RamRange {
            gpa,
            len_bytes,
            file_offset,
        };
    }
    handoff.has_initramfs = 1;
    handoff.cmdline[..5].copy_from_slice(b"quiet");
    handoff.cmdline_len = 5;
    handoff
}

fn fd(file: &std::fs::File) -> Fd {
    Fd::new(u32::try_from(file.as_raw_fd()).unwrap())
}

#[derive(Debug)]
struct Ram {
    mapped: GuestRam,
    file: std::fs::File,
    kernel: std::fs::File,
    initramfs: std::fs::File,
    handoff: Box<Handoff>,
}

impl Ram {
    fn one(&mut self, input: &mut Input<'_>) {
        let image = if input.below(2) == 0 {
            bzimage(input)
        } else {
            elf(input)
        };
        // Emptied and grown again, it is all zeros.
        ftruncate(&self.file, 0).unwrap();
        ftruncate(&self.file, FILE_BYTES).unwrap();
        self.kernel.set_len(0).unwrap();
        self.kernel.seek(SeekFrom::Start(0)).unwrap();
        self.kernel.write_all(&image).unwrap();
        let images = Images {
            kernel: fd(&self.kernel),
            initramfs: fd(&self.initramfs),
        };
        let loaded = boot::load(&mut self.mapped, &self.handoff, images);
        for page in [0, 2 * MIB + PAGE, 3 * MIB + 2 * PAGE] {
            assert_eq!(
                self.read(page, 4096),
                [0; 4096],
                "written at {page:#x} of the file"
            );
        }
        if let Ok(entry) = loaded {
            self.check(&image, entry);
        }
    }

    fn check(&self, image: &[u8], entry: Entry) {
        let word = |at: u64| u32::from_le_bytes(self.part(at, 4).unwrap().try_into().unwrap());
        let long = |at: u64| u64::from_le_bytes(self.part(at, 8).unwrap().try_into().unwrap());
        assert_eq!(self.part(0x2_0000, 6), Some(b"quiet\0".to_vec()));
        let (place, initramfs) = match entry {
            Entry::Linux64(place) => {
                let setup = if image[0x1F1] == 0 { 4 } else { image[0x1F1] };
                let payload = &image[512 * (1 + usize::from(setup))..];
                let found = self.part(place.raw() - 0x200, payload.len());
                assert!(
                    found.as_deref() == Some(payload),
                    "the payload is not there"
                );
                (
                    place.raw(),
                    (u64::from(word(0x7218)), u64::from(word(0x721C))),
                )
            }
            Entry::Pvh(place) => {
                let modules = long(0x6010);
                (place.raw(), (long(modules), long(modules + 8)))
            }
        };
        assert!(place >= MIB, "entry at {place:#x}");
        // Nothing of an image goes to the first MiB.
        assert_eq!(self.part(0, 0x500), Some(vec![0; 0x500]));
        let (start, len) = initramfs;
        assert_eq!((len, start % PAGE), (INITRAMFS.len() as u64, 0));
        assert!(start >= MIB);
        let found = self.part(start, INITRAMFS.len());
        assert!(
            found.as_deref() == Some(INITRAMFS),
            "the initramfs is not there"
        );
    }

    /// The bytes at a guest-physical address, if they lie in one range of RAM.
    fn part(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let (gpa, _, start) = RAM
            .into_iter()
            .find(|(gpa, bytes, _)| *gpa <= at && at + len as u64 <= gpa + bytes)?;
        Some(self.read(at - gpa + start, len))
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

/// A bzImage that is nearly right.
fn bzimage(input: &mut Input<'_>) -> Vec<u8> {
    let len = 2048 + usize::try_from(input.below(9000)).unwrap();
    let mut image = vec![0xCC; len.max(0x290)];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[input.pick(&[3, 0, 1, 255])]);
    put(0x1FE, &[0x55, 0xAA]);
    put(0x201, &[input.pick(&[0x6A, 0, 255])]);
    put(0x202, b"HdrS");
    put(0x206, &[input.pick(&[0x0F, 0x0C, 0x0B]), 2]);
    put(
        0x22C,
        &input
            .pick(&[0x7FFF_FFFF_u32, 0x0080_0000, u32::MAX, 0])
            .to_le_bytes(),
    );
    put(
        0x230,
        &input
            .pick(&[0x20_0000_u32, 0x1000, 1, 0, 3, 0x8000_0000])
            .to_le_bytes(),
    );
    put(0x234, &[input.pick(&[0, 1])]);
    put(0x236, &[input.pick(&[1, 1, 1, 0]), 0]);
    put(0x238, &input.pick(&[2047_u32, 5, 4]).to_le_bytes());
    put(
        0x258,
        &input
            .pick(&[MIB, 2 * MIB, 3 * MIB, 0, 16 * MIB, u64::MAX - 4095])
            .to_le_bytes(),
    );
    put(
        0x260,
        &input
            .pick(&[0x1_0000_u32, 0x20_0000, 0, u32::MAX])
            .to_le_bytes(),
    );
    scratch(input, &mut image);
    image
}

/// An ELF kernel that is nearly right.
fn elf(input: &mut Input<'_>) -> Vec<u8> {
    let count = 1 + input.below(4);
    let mut image = vec![0xDD; 8192 + usize::try_from(input.below(4096)).unwrap()];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7FELF\x02\x01\x01");
    put(16, &[input.pick(&[2, 3, 2, 1]), 0, 62, 0]);
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0]);
    put(56, &u16::try_from(count).unwrap().to_le_bytes());
    let near = [MIB, 2 * MIB - PAGE, 2 * MIB, 3 * MIB, 0, u64::MAX];
    for n in 0..usize::try_from(count).unwrap() {
        let at = 64 + 56 * n;
        let is_note = n == 0;
        let file_bytes = if is_note {
            20
        } else {
            u64::from(input.below(4096))
        };
        let more = if input.once_in(6) {
            input.number()
        } else {
            input.below(4096).into()
        };
        let offset = if is_note {
            4096
        } else {
            4096 + u64::from(input.below(4096))
        };
        let fields = [
            offset,
            0,
            input.pick(&near),
            file_bytes,
            more.saturating_add(file_bytes),
        ];
        put(at, &[if is_note { 4 } else { 1 }, 0, 0, 0]);
        for (field, value) in fields.into_iter().enumerate() {
            put(at + 8 + 8 * field, &value.to_le_bytes());
        }
    }
    let entry = input.pick(&near);
    put(4096, &[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
    put(4108, b"Xen\0");
    put(
        4112,
        &entry.saturating_add(input.below(64).into()).to_le_bytes(),
    );
    scratch(input, &mut image);
    image
}

/// Changes a few bytes anywhere, most in the head; sometimes the end is missing.
fn scratch(input: &mut Input<'_>, image: &mut Vec<u8>) {
    for _ in 0..input.below(4) {
        let end = input.pick(&[0x290, 0x290, 0x290, 8192]);
        let at = input.below(end) as usize % image.len();
        image[at] = input.byte();
    }
    if input.once_in(8) {
        image.truncate(input.below(4096) as usize);
    }
}
