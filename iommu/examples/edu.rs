//! Drives QEMU's `edu` device as a hostile one, to show that it reaches what the ledger says and nothing else.
//!
//! ```text
//! edu BDF type1|iommufd [IMAGE]
//! ```
//! IMAGE is a file to map read-only, by default one in memory; another file takes the way by address. One line for
//! each claim, `PASS` or `FAIL`; the status is 1 if any failed. Needs root and an unused edu device with
//! `dma_mask=0xffffffffffffffff`.

#![expect(clippy::print_stdout, reason = "an example shows what it finds")]

use std::{
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    os::{fd::AsFd, unix::fs::FileExt},
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use iommu::{
    addr::{ByteLen, Iova, IovaRange},
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    ledger::{Bars, Kind, Permission},
    space::{AddressSpace, DeviceNode, Interface, Mapping},
    sysfs::SysRoot,
    topology::Topology,
};

const PAGE: u64 = 4096;
const RAM: u64 = 0x10_0000;
const IMAGE: u64 = 0x20_0000;
const UNMAPPED: u64 = 0x5000_0000;
/// Where edu's own buffer of one page is, on its side.
const BUFFER: u64 = 0x4_0000;

// Source: QEMU docs/specs/edu.rst.
const DMA_SOURCE: u64 = 0x80;
const DMA_TARGET: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const DMA_START: u32 = 1;
const DMA_TO_RAM: u32 = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let words: Vec<String> = env::args().skip(1).collect();
    let (bdf, interface) = match words.as_slice() {
        [bdf, interface, ..] => (bdf.parse()?, interface.as_str()),
        _ => return Err("usage: edu BDF type1|iommufd [IMAGE]".into()),
    };
    let interface = match interface {
        "type1" => Interface::Type1,
        "iommufd" => Interface::Iommufd,
        other => return Err(format!("{other} is neither type1 nor iommufd").into()),
    };
    let image = match words.get(2) {
        Some(path) => OpenOptions::new().read(true).write(true).open(path)?,
        None => memory_file(PAGE)?,
    };
    let root = SysRoot::default();
    let binding = Binding::bind(&root, bdf, VFIO_PCI)?;
    let result = attack(&root, bdf, interface, &image);
    binding.restore(&root)?;
    result
}

fn attack(root: &SysRoot, bdf: Bdf, interface: Interface, image: &File) -> Result<bool> {
    let topology = Topology::read(root)?;
    let mut space = AddressSpace::open(interface, root)?;
    let device = space.attach(&DeviceNode::of(&topology, bdf)?)?;
    let mut space = space.attached(Vec::new(), Bars::default())?;
    // Two pages of RAM are mapped; the third, of the same file, is not.
    let ram = memory_file(3 * PAGE)?;
    ram.write_all_at(&page(0x11), 0)?;
    ram.write_all_at(&page(0x55), 2 * PAGE)?;
    image.write_all_at(&page(0x33), 0)?;
    for (at, len, file, permission, kind) in [
        (RAM, 2 * PAGE, &ram, Permission::ReadWrite, Kind::Ram),
        (IMAGE, PAGE, image, Permission::ReadOnly, Kind::Image),
    ] {
        space.map(&Mapping {
            range: IovaRange::new(Iova::new(at), ByteLen::new(len)).ok_or("no such range")?,
            file: file.as_fd(),
            offset: 0,
            permission,
            kind,
        })?;
    }
    let sealed = space.seal();
    println!("{} {:?}", sealed.interface(), sealed.calls());
    device.set_bus_master(&sealed)?;
    let bar = device.region(0)?.offset;
    let edu = Edu {
        file: File::from(device.try_clone()?.into_fd()),
        bar,
    };

    let mut passed = true;
    let mut claim = |name: &str, holds: bool| {
        println!("{} {name}", if holds { "PASS" } else { "FAIL" });
        passed &= holds;
    };
    edu.copy(RAM, BUFFER, 0)?;
    edu.copy(BUFFER, RAM + PAGE, DMA_TO_RAM)?;
    claim(
        "mapped RAM is read and written after the seal",
        holds(&ram, PAGE, 0x11)?,
    );

    edu.copy(IMAGE, BUFFER, 0)?;
    edu.copy(BUFFER, RAM + PAGE, DMA_TO_RAM)?;
    claim("a read-only image is read", holds(&ram, PAGE, 0x33)?);

    edu.copy(RAM, BUFFER, 0)?;
    edu.copy(BUFFER, IMAGE, DMA_TO_RAM)?;
    claim("a read-only image is not written", holds(image, 0, 0x33)?);

    edu.copy(BUFFER, RAM + 2 * PAGE, DMA_TO_RAM)?;
    edu.copy(BUFFER, UNMAPPED, DMA_TO_RAM)?;
    claim(
        "the page behind the mapping is not written",
        holds(&ram, 2 * PAGE, 0x55)?,
    );

    edu.copy(RAM + 2 * PAGE, BUFFER, 0)?;
    edu.copy(BUFFER, RAM + PAGE, DMA_TO_RAM)?;
    claim(
        "the page behind the mapping is not read",
        !holds(&ram, PAGE, 0x55)?,
    );

    device.clear_bus_master()?;
    ram.write_all_at(&page(0x77), PAGE)?;
    edu.copy(BUFFER, RAM + PAGE, DMA_TO_RAM)?;
    claim(
        "without bus master nothing is written",
        holds(&ram, PAGE, 0x77)?,
    );
    Ok(passed)
}

/// The device's registers, through its file.
struct Edu {
    file: File,
    bar: u64,
}

impl Edu {
    /// Copies a page between RAM and the device's buffer, and waits until the device says that it is done.
    fn copy(&self, source: u64, target: u64, direction: u32) -> Result<()> {
        for (register, value) in [
            (DMA_SOURCE, source),
            (DMA_TARGET, target),
            (DMA_COUNT, PAGE),
        ] {
            self.write(register, u32::try_from(value)?)?;
        }
        self.write(DMA_COMMAND, DMA_START | direction)?;
        for _ in 0..500 {
            let mut command = [0; 4];
            self.file
                .read_exact_at(&mut command, self.bar + DMA_COMMAND)?;
            if u32::from_le_bytes(command) & DMA_START == 0 {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err("the device does not finish".into())
    }

    fn write(&self, register: u64, value: u32) -> Result<()> {
        Ok(self
            .file
            .write_all_at(&value.to_le_bytes(), self.bar + register)?)
    }
}

fn page(byte: u8) -> Vec<u8> {
    vec![byte; 4096]
}

fn holds(file: &File, at: u64, byte: u8) -> Result<bool> {
    let mut bytes = page(0);
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.iter().all(|found| *found == byte))
}

/// A file without a name, in memory.
fn memory_file(len: u64) -> Result<File> {
    let path = format!("/tmp/edu-{}", process::id());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    file.set_len(len)?;
    Ok(file)
}
