//! The privilege line: the facts that cross from the supervisor to V and D, and the order of their descriptors.
//!
//! One [`Handoff`] is written by the supervisor into a sealed memory file and read by both processes. It has a fixed
//! layout and no pointers, so reading it is a size check and a check of the counts ([`Handoff::check`]), not a parser.
//! The descriptors follow a fixed order ([`VcpuFds`], [`DeviceFds`]), so that their numbers are facts, too.

use crate::machine;

/// The first bytes of a handoff: `NARROWS1`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"NARROWS1");

/// The most ranges that RAM may be split into by reserved regions.
pub const MAX_RAM_RANGES: usize = 8;
/// The most images of persistent memory.
pub const MAX_IMAGES: usize = 4;
/// The most assigned functions.
pub const MAX_FUNCTIONS: usize = 16;
/// The most vCPUs.
pub const MAX_VCPUS: usize = 64;
/// The most interrupt vectors of one function.
pub const MAX_VECTORS: usize = 256;
/// The most directly mapped spans of one BAR.
pub const MAX_SPANS: usize = 4;
/// The longest kernel command line with its closing zero, in bytes.
pub const CMDLINE_BYTES: usize = 2048;
/// Room for the ACPI tables, in bytes.
pub const ACPI_BYTES: usize = 0x4000;

/// A range of guest RAM and where it lies in the RAM file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamRange {
    /// First guest-physical address, page aligned.
    pub gpa: u64,
    /// Length in bytes, a multiple of the page size.
    pub len_bytes: u64,
    /// Offset in the RAM file, in bytes.
    pub file_offset: u64,
}

/// An image that the guest sees as persistent memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageRange {
    /// First guest-physical address, 2 MiB aligned.
    pub gpa: u64,
    /// Length in bytes, a multiple of the page size.
    pub len_bytes: u64,
    /// 1 where the guest may write (to its private copy), 0 where it may not.
    pub writable: u64,
}

/// A part of a BAR that is mapped into the guest, so that access to it never leaves the guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset within the BAR in bytes, page aligned.
    pub offset: u64,
    /// Length in bytes, a multiple of the page size.
    pub len_bytes: u64,
}

/// One BAR of an assigned function; `len_bytes` 0 where the function has none at this index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bar {
    /// Where the guest finds it. Fixed: a guest that moves a BAR loses it.
    pub gpa: u64,
    /// Size in bytes, a power of two, at least a page.
    pub len_bytes: u64,
    /// Offset of the region in the device's descriptor, for `mmap`, `pread64` and `pwrite64`.
    pub region_offset: u64,
    /// 1: a 64-bit BAR, which takes the next index as well.
    pub is_64bit: u32,
    /// 1: prefetchable.
    pub is_prefetchable: u32,
    /// How many of `spans` are used.
    pub span_count: u64,
    /// What is mapped: the BAR without the pages of the MSI-X table and the pending bits.
    pub spans: [Span; MAX_SPANS],
}

/// The kind of message interrupt a function has.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptKind {
    /// None: the function works by polling.
    None = 0,
    /// MSI: address and data in configuration space.
    Msi = 1,
    /// MSI-X: a table in a BAR.
    Msix = 2,
}

/// One assigned function. The guest finds it at bus 0, slot [`machine::slot_of`]`(index)`, function 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// The host's address, `domain << 16 | bus << 8 | slot << 3 | function`: for messages only.
    pub host_bdf: u32,
    /// The [`InterruptKind`] as a number.
    pub interrupt_kind: u32,
    /// How many vectors the guest may use: eventfds exist for exactly these.
    pub vectors: u32,
    /// 1: the kernel can reset the function (`VFIO_DEVICE_FLAGS_RESET`).
    pub can_reset: u32,
    /// Offset of the configuration region in the device's descriptor.
    pub config_offset: u64,
    /// Length of the configuration region in bytes: 256 or 4096.
    pub config_bytes: u64,
    /// MSI-X: the BAR that holds the table (0..6).
    pub msix_table_bar: u32,
    /// MSI-X: offset of the table in that BAR, in bytes.
    pub msix_table_offset: u32,
    /// MSI-X: the BAR that holds the pending bits (0..6).
    pub msix_pba_bar: u32,
    /// MSI-X: offset of the pending bits in that BAR, in bytes.
    pub msix_pba_offset: u32,
    /// MSI-X: entries of the device's own table, of which the guest may use `vectors`; no page of them is mapped.
    pub msix_entries: u32,
    /// Not used, zero: the structure has no padding.
    pub reserved: u32,
    /// The BARs by index.
    pub bars: [Bar; 6],
}

/// All that V and D are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// [`MAGIC`].
    pub magic: u64,
    /// `size_of::<Handoff>()`: the two sides were built together.
    pub size_bytes: u64,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u32,
    /// 1: the guest has a serial console.
    pub has_console: u32,
    /// 1: the initramfs descriptor is one (else it is `/dev/null`).
    pub has_initramfs: u32,
    /// Used entries of `ram`.
    pub ram_count: u32,
    /// Used entries of `images`.
    pub image_count: u32,
    /// Used entries of `functions`.
    pub function_count: u32,
    /// Used bytes of `cmdline`, without the closing zero.
    pub cmdline_len: u32,
    /// Used bytes of `acpi`.
    pub acpi_len: u32,
    /// Layers that may be absent on this kernel, as bits of [`crate::manifest::layer`]; without any other, V and D end.
    pub layers_absent: u32,
    /// Not used, zero: the structure has no padding.
    pub reserved: u32,
    /// RAM, ascending by address, the first from 0.
    pub ram: [RamRange; MAX_RAM_RANGES],
    /// Images.
    pub images: [ImageRange; MAX_IMAGES],
    /// Assigned functions.
    pub functions: [Function; MAX_FUNCTIONS],
    /// The kernel's command line.
    pub cmdline: [u8; CMDLINE_BYTES],
    /// The ACPI tables, to be copied to [`machine::ACPI_START`]; the RSDP comes first.
    pub acpi: [u8; ACPI_BYTES],
}

const _: () = assert!(ACPI_BYTES as u64 <= machine::ACPI_BYTES);
// No padding: the structure crosses as bytes.
const _: () = assert!(size_of::<Bar>() == 4 * 8 + 2 * 4 + MAX_SPANS * size_of::<Span>());
const _: () = assert!(size_of::<Function>() == 10 * 4 + 2 * 8 + 6 * size_of::<Bar>());
const _: () = assert!(
    size_of::<Handoff>()
        == 2 * 8
            + 10 * 4
            + MAX_RAM_RANGES * size_of::<RamRange>()
            + MAX_IMAGES * size_of::<ImageRange>()
            + MAX_FUNCTIONS * size_of::<Function>()
            + CMDLINE_BYTES
            + ACPI_BYTES
);

impl Handoff {
    /// A handoff that describes nothing yet.
    #[must_use]
    pub const fn empty() -> Self {
        const NO_RAM: RamRange = RamRange {
            gpa: 0,
            len_bytes: 0,
            file_offset: 0,
        };
        const NO_IMAGE: ImageRange = ImageRange {
            gpa: 0,
            len_bytes: 0,
            writable: 0,
        };
        const NO_SPAN: Span = Span {
            offset: 0,
            len_bytes: 0,
        };
        const NO_BAR: Bar = Bar {
            gpa: 0,
            len_bytes: 0,
            region_offset: 0,
            is_64bit: 0,
            is_prefetchable: 0,
            span_count: 0,
            spans: [NO_SPAN; MAX_SPANS],
        };
        const NO_FUNCTION: Function = Function {
            host_bdf: 0,
            interrupt_kind: 0,
            vectors: 0,
            can_reset: 0,
            config_offset: 0,
            config_bytes: 0,
            msix_table_bar: 0,
            msix_table_offset: 0,
            msix_pba_bar: 0,
            msix_pba_offset: 0,
            msix_entries: 0,
            reserved: 0,
            bars: [NO_BAR; 6],
        };
        Self {
            magic: MAGIC,
            size_bytes: size_of::<Self>() as u64,
            vcpu_count: 1,
            has_console: 0,
            has_initramfs: 0,
            ram_count: 0,
            image_count: 0,
            function_count: 0,
            cmdline_len: 0,
            acpi_len: 0,
            layers_absent: 0,
            reserved: 0,
            ram: [NO_RAM; MAX_RAM_RANGES],
            images: [NO_IMAGE; MAX_IMAGES],
            functions: [NO_FUNCTION; MAX_FUNCTIONS],
            cmdline: [0; CMDLINE_BYTES],
            acpi: [0; ACPI_BYTES],
        }
    }

    /// Whether every count lies within its array: what must hold before anything else here is read.
    #[must_use]
    pub fn check(&self) -> bool {
        let within = |count: u32, max: usize| usize::try_from(count).is_ok_and(|c| c <= max);
        self.magic == MAGIC
            && self.size_bytes == size_of::<Self>() as u64
            && self.vcpu_count >= 1
            && within(self.vcpu_count, MAX_VCPUS)
            && self.ram_count >= 1
            && within(self.ram_count, MAX_RAM_RANGES)
            && within(self.image_count, MAX_IMAGES)
            && within(self.function_count, MAX_FUNCTIONS)
            && within(self.cmdline_len, CMDLINE_BYTES - 1)
            && within(self.acpi_len, ACPI_BYTES)
            && self.functions().iter().all(|f| {
                within(f.vectors, MAX_VECTORS)
                    && f.bars.iter().all(|b| b.span_count <= MAX_SPANS as u64)
            })
    }

    /// The assigned functions.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        used(&self.functions, self.function_count)
    }

    /// The ranges of RAM.
    #[must_use]
    pub fn ram(&self) -> &[RamRange] {
        used(&self.ram, self.ram_count)
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> &[ImageRange] {
        used(&self.images, self.image_count)
    }

    /// The vectors of all functions before `function`: its first vector's place in the lists of descriptors, and
    /// its first GSI.
    #[must_use]
    pub fn first_vector(&self, function: usize) -> u32 {
        self.functions()
            .iter()
            .take(function)
            .map(|f| f.vectors)
            .sum()
    }

    /// The vectors of all functions.
    #[must_use]
    pub fn vector_count(&self) -> u32 {
        self.functions().iter().map(|f| f.vectors).sum()
    }
}

/// The used front of an array, never more than there is.
fn used<T>(all: &[T], count: u32) -> &[T] {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(all.len());
    all.split_at(count).0
}

/// Descriptors 0, 1 and 2 are `/dev/null`.
pub const FIRST_FD: u32 = 3;

/// How many numbers behind the list V and D look for a descriptor that should not be there.
pub const SEARCHED_BEHIND: u32 = 1024;

/// The numbers of V's descriptors at exec, in order; V closes those that it does not need once the guest is built.
#[derive(Clone, Copy, Debug)]
pub struct VcpuFds {
    images: u32,
    functions: u32,
    vectors: u32,
}

impl VcpuFds {
    /// The [`Handoff`], sealed.
    pub const HANDOFF: u32 = FIRST_FD;
    /// The socket that carries a [`Report`], if there is one. It closes when the process is locked down.
    pub const CONTROL: u32 = FIRST_FD + 1;
    /// The memory shared with D ([`crate::ring`]).
    pub const RING: u32 = FIRST_FD + 2;
    /// V's own start page ([`crate::manifest::start_page`]).
    pub const START: u32 = FIRST_FD + 3;
    /// `/dev/kvm`.
    pub const KVM: u32 = FIRST_FD + 4;
    /// The file of guest RAM.
    pub const RAM: u32 = FIRST_FD + 5;
    /// The kernel image.
    pub const KERNEL: u32 = FIRST_FD + 6;
    /// The initramfs, or `/dev/null`.
    pub const INITRAMFS: u32 = FIRST_FD + 7;

    /// The numbers for this guest.
    #[must_use]
    pub fn of(handoff: &Handoff) -> Self {
        Self {
            images: handoff.image_count,
            functions: handoff.function_count,
            vectors: handoff.vector_count(),
        }
    }

    /// Image `index`.
    #[must_use]
    pub const fn image(&self, index: u32) -> u32 {
        FIRST_FD + 8 + index
    }

    /// The VFIO device of function `index`, for mapping its BARs.
    #[must_use]
    pub const fn device(&self, index: u32) -> u32 {
        self.image(self.images) + index
    }

    /// The eventfd of vector `index` in the count over all functions ([`Handoff::first_vector`]).
    #[must_use]
    pub const fn vector(&self, index: u32) -> u32 {
        self.device(self.functions) + index
    }

    /// The first number behind the last descriptor.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.vector(self.vectors)
    }

    /// The VM: the first that V makes, behind the list. V checks that it and those that follow have these numbers.
    #[must_use]
    pub const fn vm(&self) -> u32 {
        self.end()
    }

    /// The KVM-VFIO device, of a guest that has functions.
    #[must_use]
    pub const fn kvm_vfio(&self) -> Option<u32> {
        if self.functions == 0 {
            None
        } else {
            Some(self.vm() + 1)
        }
    }

    /// vCPU `index`.
    #[must_use]
    pub const fn vcpu(&self, index: u32) -> u32 {
        let first = match self.kvm_vfio() {
            Some(kvm_vfio) => kvm_vfio + 1,
            None => self.vm() + 1,
        };
        first + index
    }
}

/// The numbers of D's descriptors at exec, in order.
#[derive(Clone, Copy, Debug)]
pub struct DeviceFds {
    functions: u32,
    vectors: u32,
}

impl DeviceFds {
    /// The [`Handoff`], sealed.
    pub const HANDOFF: u32 = FIRST_FD;
    /// The socket that carries a [`Report`], if there is one. It closes when the process is locked down.
    pub const CONTROL: u32 = FIRST_FD + 1;
    /// The memory shared with V ([`crate::ring`]).
    pub const RING: u32 = FIRST_FD + 2;
    /// D's own start page ([`crate::manifest::start_page`]).
    pub const START: u32 = FIRST_FD + 3;
    /// Where the console's bytes go: a pipe to the supervisor, non-blocking (`/dev/null` without a console).
    pub const CONSOLE_OUT: u32 = FIRST_FD + 4;
    /// Where the console's bytes come from: a pipe from the supervisor, non-blocking (`/dev/null` without one).
    pub const CONSOLE_IN: u32 = FIRST_FD + 5;

    /// The numbers for this guest.
    #[must_use]
    pub fn of(handoff: &Handoff) -> Self {
        Self {
            functions: handoff.function_count,
            vectors: handoff.vector_count(),
        }
    }

    /// The VFIO device of function `index`.
    #[must_use]
    pub const fn device(&self, index: u32) -> u32 {
        FIRST_FD + 6 + index
    }

    /// The eventfd that `VFIO_PCI_ERR_IRQ_INDEX` of function `index` signals; D arms it.
    #[must_use]
    pub const fn error(&self, index: u32) -> u32 {
        self.device(self.functions) + index
    }

    /// The eventfd that `VFIO_PCI_REQ_IRQ_INDEX` of function `index` signals; D arms it.
    #[must_use]
    pub const fn request(&self, index: u32) -> u32 {
        self.error(self.functions) + index
    }

    /// The eventfd of vector `index` that KVM turns into an interrupt (the same as V's), non-blocking.
    #[must_use]
    pub const fn vector(&self, index: u32) -> u32 {
        self.request(self.functions) + index
    }

    /// The eventfd that takes vector `index` while the guest masks it: its count is the pending bit. Non-blocking.
    #[must_use]
    pub const fn latch(&self, index: u32) -> u32 {
        self.vector(self.vectors) + index
    }

    /// The first number behind the last descriptor.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.latch(self.vectors)
    }
}

/// What V and D were doing when they failed; the supervisor turns it into an error for the operator.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the handoff, or a descriptor of the list is absent or one too many is there.
    Handoff = 1,
    /// Mapping the ring.
    Ring = 2,
    /// Creating the VM (V).
    CreateVm = 3,
    /// A KVM capability is missing (V); `detail` is its number.
    Capability = 4,
    /// Mapping RAM, an image or a BAR, or giving it to KVM (V); `detail` is the guest-physical address.
    MemorySlot = 5,
    /// Adding a function to the KVM-VFIO device (V); `detail` is the function's index.
    KvmVfio = 6,
    /// Making an irqfd or a route (V); `detail` is the vector.
    Irqfd = 7,
    /// The kernel image is not one that can be started (V); `detail` is a [`KernelFault`].
    Kernel = 8,
    /// The kernel or the initramfs does not fit into RAM (V); `detail` is the bytes it would take.
    TooLittleRam = 9,
    /// Reading the kernel or the initramfs (V).
    ReadImage = 10,
    /// Creating or setting up a vCPU (V); `detail` is its index.
    Vcpu = 11,
    /// Starting a thread; `detail` is its index.
    Thread = 12,
    /// Reading configuration space (D); `detail` is the function's index.
    ConfigRead = 13,
    /// Configuration space contradicts the handoff (D); `detail` is the function's index.
    ConfigContradiction = 14,
    /// Arming the error or request interrupt (D); `detail` is the function's index.
    ArmInterrupt = 15,
    /// Locking down; `detail` is the bit of the layer that could not be had ([`crate::manifest::layer`]).
    Lock = 16,
}

/// Why a kernel image was refused.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFault {
    /// Neither a bzImage nor an ELF file.
    UnknownFormat = 1,
    /// A bzImage without a 64-bit entry point, or of a boot protocol before 2.12.
    No64BitEntry = 2,
    /// An ELF file without a PVH entry note.
    NoPvhEntry = 3,
    /// An offset or size in the image points outside of it.
    OutOfRange = 4,
    /// An ELF file that is not x86-64, or not an executable.
    NotX86 = 5,
}

/// The message that V or D sends over the control socket when it fails.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The [`Stage`] as a number.
    pub stage: u32,
    /// The errno of the call that failed, 0 where it was none.
    pub errno: u32,
    /// See [`Stage`].
    pub detail: u64,
}

/// How V or D ended: its exit status.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// V: the guest asked for S5.
    PoweredOff = 10,
    /// V: the guest wrote the reset register.
    RebootRequested = 11,
    /// V: triple fault.
    TripleFault = 12,
    /// V: the guest's kernel reported a panic.
    Panicked = 13,
    /// V: KVM could not go on (internal error, failed entry, unknown exit); see the counters' last exit.
    KvmFailed = 14,
    /// V or D: set-up failed; a [`Report`] was sent.
    SetupFailed = 20,
    /// V or D: the other side of the ring broke the protocol.
    PeerBroken = 21,
    /// V or D: a bug of ours; the process stopped itself.
    Bug = 22,
    /// D: the device reported an uncorrectable error (`VFIO_PCI_ERR_IRQ_INDEX`).
    DeviceFailed = 30,
    /// D: the host asks for the device back (`VFIO_PCI_REQ_IRQ_INDEX`).
    DeviceRequested = 31,
    /// D: a call on the device failed at run time (reset, interrupts, configuration space).
    DeviceCallFailed = 32,
}

impl Ending {
    /// The ending with this exit status.
    #[must_use]
    pub fn from_status(status: u8) -> Option<Self> {
        [
            Self::PoweredOff,
            Self::RebootRequested,
            Self::TripleFault,
            Self::Panicked,
            Self::KvmFailed,
            Self::SetupFailed,
            Self::PeerBroken,
            Self::Bug,
            Self::DeviceFailed,
            Self::DeviceRequested,
            Self::DeviceCallFailed,
        ]
        .into_iter()
        .find(|ending| *ending as u8 == status)
    }
}
