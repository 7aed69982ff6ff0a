//! RAM in a file, and a guest of four instructions on the KVM of this machine.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::kvm::{Kvm, Vm};
use super::kvm_abi::{MsiRoute, Regs, RouteList};
use super::kvm_kept::{KeptWrite, KeptWrites};
use super::kvm_vcpu::{Exit, Vcpu};
use super::memory::{FillError, GuestRam};
use super::spin::Spin;
use super::syscall::{Errno, Fd};
use crate::addr::Gpa;
use crate::handoff::RamRange;

const RAM_BYTES: u64 = 4 << 20;

fn fd(file: &impl AsRawFd) -> Fd {
    Fd::new(u32::try_from(file.as_raw_fd()).unwrap())
}

/// Guest RAM in a file without a name.
fn ram() -> (File, GuestRam) {
    let path = std::env::temp_dir().join(format!(
        "narrows-kvm-test-{:?}",
        std::thread::current().id()
    ));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(RAM_BYTES).unwrap();
    let range = RamRange {
        gpa: 0,
        len_bytes: RAM_BYTES,
        file_offset: 0,
    };
    let ram = GuestRam::map(fd(&file), &[range]).unwrap();
    (file, ram)
}

fn vm(kvm: &File) -> Vm {
    let vm = Kvm::new(fd(kvm)).create_vm().unwrap();
    vm.enable_cap(121, 0).unwrap();
    vm
}

fn kvm() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .unwrap()
}

#[test]
fn ram_takes_what_lies_inside_and_nothing_else() {
    let (file, mut ram) = ram();
    assert_eq!(ram.write(Gpa::new(RAM_BYTES - 3), b"end"), Ok(()));
    assert_eq!(
        ram.write(Gpa::new(RAM_BYTES - 2), b"end"),
        Err(FillError::NotRam)
    );
    assert_eq!(
        ram.write(Gpa::new(u64::MAX), b"end"),
        Err(FillError::NotRam)
    );
    let mut copy = |at, offset| ram.write_file(Gpa::new(at), fd(&file), offset, 3);
    assert_eq!(copy(0, RAM_BYTES - 3), Ok(()));
    assert_eq!(copy(4, RAM_BYTES - 2), Err(FillError::Ended));
    assert_eq!(copy(RAM_BYTES, 0), Err(FillError::NotRam));
    let mut first = [0; 7];
    file.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, *b"end\0nd\0");
}

#[test]
fn mappings_lie_in_a_large_page_as_the_guest_sees_them() {
    let (_file, ram) = ram();
    for (range, mapping) in ram.ranges() {
        let (host, guest) = (mapping.host().addr() as u64, range.start().raw());
        assert_eq!(host % (2 << 20), guest % (2 << 20));
    }
}

/// A vCPU that stands before `code`.
fn payload(vm: Vm, ram: &mut GuestRam, code: &[u8]) -> Vcpu {
    for (range, mapping) in ram.ranges() {
        vm.set_memory(0, range.start(), mapping, false).unwrap();
    }
    ram.write(Gpa::new(0x1000), code).unwrap();
    let vcpu = vm.vcpu(vm.create_vcpu(0).unwrap()).unwrap();
    let mut sregs = vcpu.sregs().unwrap();
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&mut sregs).unwrap();
    let mut regs = Regs {
        rip: 0x1000,
        rflags: 2,
        ..Regs::default()
    };
    vcpu.set_regs(&mut regs).unwrap();
    vcpu
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_payload_reads_and_writes_a_port() {
    let (kvm, (_file, mut ram)) = (kvm(), ram());
    // mov al, 'x'; mov dx, 0x3F8; out dx, al; in al, dx
    let vcpu = payload(vm(&kvm), &mut ram, b"\xB0x\xBA\xF8\x03\xEE\xEC");
    let Exit::PortWrite(write) = vcpu.run() else {
        unreachable!("no write to a port");
    };
    assert_eq!((write.port, write.size_bytes, write.count), (0x3F8, 1, 1));
    assert_eq!(vcpu.port_value(write, 0), u32::from(b'x'));
    let Exit::PortRead(read) = vcpu.run() else {
        unreachable!("no read of a port");
    };
    vcpu.set_port_value(read, 0, u32::from(b'y'));
    assert_eq!(read.port, 0x3F8);
}

/// What KVM keeps for `vcpu` of the writes to ports up to the UART's first, in the order in which it is done.
fn kept_writes(kvm: &File, vm: Vm, vcpu: Vcpu) -> impl Fn() -> Vec<KeptWrite> {
    const COALESCED_MMIO: u32 = 15;
    let page = Kvm::new(fd(kvm)).check_extension(COALESCED_MMIO).unwrap();
    let kept = Vm::kept_writes(vcpu, page).unwrap();
    vm.keep_port_writes(0, 0x3F8).unwrap();
    move || {
        let done = Spin::new(Vec::new());
        kept.catch_up(&done, Vec::push).unwrap();
        done.with(core::mem::take)
    }
}

/// A byte for the UART.
fn byte(value: u8) -> KeptWrite {
    KeptWrite {
        port: 0x3F8,
        size_bytes: 1,
        value: u32::from(value),
    }
}

/// How many writes may wait. Before Linux 6.12, KVM takes a ring for full that is half so where its first half begins
/// it (`coalesced_mmio_has_room`).
fn is_full_ring(writes: usize) -> bool {
    let most = KeptWrites::MOST as usize;
    writes == most || writes == most.div_ceil(2)
}

#[test]
#[ignore = "needs /dev/kvm"]
fn kept_writes_wait_for_the_next_exit_and_a_full_ring_makes_one() {
    let (kvm, (_file, mut ram)) = (kvm(), ram());
    let vm = vm(&kvm);
    // mov al, 'x'; mov dx, 0x3F8; out dx, al; out dx, ax; in al, dx; again: out dx, al; jmp again
    let code = b"\xB0x\xBA\xF8\x03\xEE\xEF\xEC\xEE\xEB\xFD";
    let vcpu = payload(vm, &mut ram, code);
    let waiting = kept_writes(&kvm, vm, vcpu);
    // A word goes over the last port that is kept, a byte does not.
    assert!(matches!(vcpu.run(), Exit::PortWrite(write) if write.size_bytes == 2));
    assert_eq!(waiting(), [byte(b'x')]);
    assert_eq!(waiting(), []);
    let Exit::PortRead(read) = vcpu.run() else {
        unreachable!("no read of a port");
    };
    vcpu.set_port_value(read, 0, u32::from(b'x'));
    assert!(matches!(vcpu.run(), Exit::PortWrite(write) if write.size_bytes == 1));
    let writes = waiting();
    assert!(is_full_ring(writes.len()), "{}", writes.len());
    assert!(writes.into_iter().all(|write| write == byte(b'x')));
    assert_eq!(vm.keep_port_writes(2, 1), Err(Errno::INVALID));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_string_longer_than_the_ring_is_written_whole() {
    const TEXT: Gpa = Gpa::new(0x2000);
    let (kvm, (_file, mut ram)) = (kvm(), ram());
    let vm = vm(&kvm);
    let text: Vec<u8> = (0..500_u16).map(|nth| (nth % 251) as u8).collect();
    ram.write(TEXT, &text).unwrap();
    // mov si, 0x2000; mov cx, 500; mov dx, 0x3F8; rep outsb; in al, dx
    let code = b"\xBE\x00\x20\xB9\xF4\x01\xBA\xF8\x03\xF3\x6E\xEC";
    let vcpu = payload(vm, &mut ram, code);
    let waiting = kept_writes(&kvm, vm, vcpu);
    let (mut written, mut exits) = (Vec::new(), 0);
    loop {
        let exit = vcpu.run();
        written.extend(waiting());
        let Exit::PortWrite(write) = exit else {
            assert!(matches!(exit, Exit::PortRead(_)), "{exit:?}");
            break;
        };
        assert_eq!((write.port, write.count), (0x3F8, 1), "one by one");
        exits += 1;
        let [value, ..] = vcpu.port_value(write, 0).to_le_bytes();
        written.push(byte(value));
    }
    let expected: Vec<KeptWrite> = text.iter().copied().map(byte).collect();
    assert_eq!(written, expected);
    assert!((2..=5).contains(&exits), "{exits}");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn routes_are_replaced_as_a_whole_and_may_be_none() {
    let kvm = kvm();
    let vm = vm(&kvm);
    let routes = crate::sys::thread::zeroed::<RouteList>().unwrap();
    assert_eq!(vm.set_routes(routes), Ok(()));
    routes.replace((0..4096).map(|gsi| MsiRoute::new(gsi, 0xFEE0_0000, 0x40)));
    assert_eq!(vm.set_routes(routes), Ok(()));
    assert_eq!(vm.set_irqfd(fd(&kvm), 0), Err(Errno(22)));
}
