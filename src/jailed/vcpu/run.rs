//! The run loop of a vCPU.
//!
//! On entry: the guest is built; the first thread has locked the process down before the word to go. From here on a
//! thread only makes the calls `ioctl(KVM_RUN)`, `ioctl(KVM_SET_GSI_ROUTING)`, `futex` and `exit_group`, to which the
//! filter holds it ([`crate::manifest`]), allocates nothing and never touches guest RAM. It ends with the process.

use super::irq::{Routes, TableWrite, table_write};
use super::mmio::{Target, target_of};
use super::ports::{Port, port_of};
use super::uart::{FIFO_BYTES, Line, Uart};
use crate::addr::Gpa;
use crate::handoff::{Ending, Handoff, MAX_VCPUS};
use crate::lock::StartPage;
use crate::ring::{Counter, LastExit, PeerBroken, Reply, Request, RequestKind, VcpuSide};
use crate::sys::kvm::Vm;
use crate::sys::kvm_kept::{BadRing, KeptWrites};
use crate::sys::kvm_vcpu::{Exit, PortAccess, Vcpu};
use crate::sys::spin::Spin;
use crate::sys::syscall::exit_group;

/// All that the vCPU threads share.
#[derive(Debug)]
pub struct Guest {
    /// What the guest is made of.
    pub handoff: &'static Handoff,
    /// The way to D.
    pub ring: VcpuSide,
    /// For changes of routes.
    pub vm: Vm,
    /// By index.
    pub vcpus: [Option<Vcpu>; MAX_VCPUS],
    /// Where vectors go. Never locked together with `uart`.
    pub routes: Spin<Routes>,
    /// What the guest wrote to ports without an exit. It is done under the lock of `uart`.
    pub kept: KeptWrites,
    /// The console's registers.
    pub uart: Spin<Uart>,
    /// Where the word to go comes from.
    pub start: StartPage,
}

/// Waits for the word to go, then runs the vCPU `index` until the guest ends.
pub fn run_vcpu(guest: &'static Guest, index: usize) -> ! {
    guest.start.wait_for_go();
    let Some(vcpu) = guest.vcpus.get(index).copied().flatten() else {
        end(Ending::Bug);
    };
    let thread = Thread { guest, index, vcpu };
    loop {
        if let Err(ending) = thread.step() {
            end(ending);
        }
    }
}

fn end(ending: Ending) -> ! {
    exit_group(ending as u8)
}

impl From<PeerBroken> for Ending {
    fn from(_: PeerBroken) -> Self {
        Self::PeerBroken
    }
}

/// A vCPU and who it belongs to.
#[derive(Clone, Copy, Debug)]
struct Thread {
    guest: &'static Guest,
    index: usize,
    vcpu: Vcpu,
}

impl Thread {
    /// Runs the guest until it needs something, and answers it.
    fn step(&self) -> Result<(), Ending> {
        const SYSTEM_EVENT: u64 = 24;
        const SHUTDOWN: u32 = 1;
        const RESET: u32 = 2;
        const CRASH: u32 = 3;
        let exit = self.vcpu.run();
        self.count(Counter::Exits);
        self.catch_up()?;
        match exit {
            Exit::Interrupted => Ok(()),
            Exit::PortRead(access) => {
                self.read_ports(access);
                Ok(())
            }
            Exit::PortWrite(access) => self.write_ports(access),
            Exit::MmioRead { at, size_bytes } => {
                let value = self.read_memory(at, size_bytes)?;
                self.vcpu.set_mmio_value(value);
                Ok(())
            }
            Exit::MmioWrite {
                at,
                size_bytes,
                value,
            } => self.write_memory(at, size_bytes, value),
            Exit::Shutdown => Err(Ending::TripleFault),
            Exit::SystemEvent(SHUTDOWN) => Err(Ending::PoweredOff),
            Exit::SystemEvent(RESET) => Err(Ending::RebootRequested),
            Exit::SystemEvent(CRASH) => Err(Ending::Panicked),
            Exit::SystemEvent(event) => Err(self.failed(SYSTEM_EVENT, u64::from(event))),
            Exit::Failed { reason, detail } => Err(self.failed(u64::from(reason), detail)),
            Exit::CallFailed(errno) => Err(self.failed(LastExit::RUN, u64::from(errno.0))),
        }
    }

    /// Leaves word of an exit that V cannot answer.
    fn failed(&self, reason: u64, detail: u64) -> Ending {
        self.guest.ring.set_last_exit(LastExit {
            reason,
            detail,
            vcpu: self.index as u64,
            reserved: 0,
        });
        Ending::KvmFailed
    }

    /// Does what the guest wrote to ports without an exit, before the exit is answered: it sees an order of its accesses
    /// in which each of a vCPU's comes after those before it. An end is an exit as any other: what led to it is done.
    fn catch_up(&self) -> Result<(), Ending> {
        let line = &self.guest.ring;
        let mut ending = None;
        let done = self.guest.kept.catch_up(&self.guest.uart, |uart, write| {
            let [value, ..] = write.value.to_le_bytes();
            let port = self.port(write.port, write.size_bytes);
            // None of these ports ends a guest; what such a write does is decided in one place all the same.
            ending = ending.or(port.write(value, uart, line));
        });
        match (done, ending) {
            (Err(BadRing(word)), _) => Err(self.failed(LastExit::KEPT_WRITES, word)),
            (Ok(()), Some(ending)) => Err(ending),
            (Ok(()), None) => Ok(()),
        }
    }

    fn read_ports(&self, access: PortAccess) {
        self.count(Counter::PortExits);
        let port = self.port(access.port, access.size_bytes);
        for nth in 0..access.count {
            let line = &self.guest.ring;
            let value = self.guest.uart.with(|uart| port.read(uart, line));
            self.vcpu.set_port_value(access, nth, value);
        }
    }

    fn write_ports(&self, access: PortAccess) -> Result<(), Ending> {
        self.count(Counter::PortExits);
        let port = self.port(access.port, access.size_bytes);
        for nth in 0..access.count {
            let [value, ..] = self.vcpu.port_value(access, nth).to_le_bytes();
            let line = &self.guest.ring;
            let ending = self.guest.uart.with(|uart| port.write(value, uart, line));
            if let Some(ending) = ending {
                return Err(ending);
            }
        }
        Ok(())
    }

    fn port(&self, port: u16, size_bytes: usize) -> Port {
        let has_console = self.guest.handoff.has_console != 0;
        let port = port_of(port, size_bytes, has_console);
        if port == Port::Nothing {
            self.count(Counter::Unclaimed);
        }
        port
    }

    fn read_memory(&self, at: Gpa, size_bytes: usize) -> Result<u64, Ending> {
        self.count(Counter::MmioExits);
        match target_of(self.guest.handoff, at, size_bytes) {
            // The guest has it mapped: KVM asks only where the host could not read its own page.
            Target::Config { .. } | Target::NoFunction => {
                self.count(Counter::ConfigReads);
                Ok(u64::MAX)
            }
            Target::Bar {
                function,
                bar,
                offset,
            } => {
                self.count(Counter::BarReads);
                let reply = self.ask(&Request {
                    kind: RequestKind::BarRead,
                    function,
                    bar,
                    size_bytes,
                    offset,
                    value: 0,
                })?;
                Ok(reply.value)
            }
            Target::Nothing => {
                self.count(Counter::Unclaimed);
                Ok(u64::MAX)
            }
        }
    }

    fn write_memory(&self, at: Gpa, size_bytes: usize, value: u64) -> Result<(), Ending> {
        self.count(Counter::MmioExits);
        match target_of(self.guest.handoff, at, size_bytes) {
            Target::Config { function, offset } => {
                self.count(Counter::ConfigWrites);
                self.flush_routes()?;
                self.ask(&Request {
                    kind: RequestKind::ConfigWrite,
                    function,
                    bar: 0,
                    size_bytes,
                    offset: offset as u64,
                    value,
                })
                .map(drop)
            }
            Target::Bar {
                function,
                bar,
                offset,
            } => {
                self.count(Counter::BarWrites);
                self.write_bar(Request {
                    kind: RequestKind::BarWrite,
                    function,
                    bar,
                    size_bytes,
                    offset,
                    value,
                })
            }
            Target::NoFunction => {
                self.count(Counter::ConfigWrites);
                Ok(())
            }
            Target::Nothing => {
                self.count(Counter::Unclaimed);
                Ok(())
            }
        }
    }

    /// Writes to a BAR; eight bytes of the MSI-X table as two halves, the lower first.
    fn write_bar(&self, request: Request) -> Result<(), Ending> {
        let facts = self.guest.handoff.functions().get(request.function);
        let kind = |request: &Request| {
            facts.map_or(TableWrite::Outside, |function| {
                table_write(function, request.bar, request.offset, request.size_bytes)
            })
        };
        if request.size_bytes == 8 && kind(&request) != TableWrite::Outside {
            let half = |offset, value| Request {
                size_bytes: 4,
                offset,
                value,
                ..request
            };
            self.write_bar(half(request.offset, request.value & 0xFFFF_FFFF))?;
            return self.write_bar(half(request.offset + 4, request.value >> 32));
        }
        if kind(&request) != TableWrite::Message {
            self.flush_routes()?;
        }
        self.ask(&request).map(drop)
    }

    /// Asks D, and follows the change of routes that its answer may bring.
    fn ask(&self, request: &Request) -> Result<Reply, Ending> {
        let reply = self.guest.ring.call(self.index, request)?;
        if let Some(update) = reply.route {
            let first_gsi = self.guest.handoff.first_vector(request.function);
            self.guest.routes.with(|r| r.update(first_gsi, &update));
            if update.is_live {
                self.flush_routes()?;
            }
        }
        Ok(reply)
    }

    fn flush_routes(&self) -> Result<(), Ending> {
        let flushed = self.guest.routes.with(|r| r.flush(self.guest.vm));
        match flushed {
            Ok(has_changed) => {
                if has_changed {
                    self.count(Counter::RouteUpdates);
                }
                Ok(())
            }
            Err(errno) => Err(self.failed(LastExit::ROUTES, u64::from(errno.0))),
        }
    }

    fn count(&self, counter: Counter) {
        self.guest.ring.count(counter, 1);
    }
}

/// The console's line is the ring's two queues; the lock of the UART makes it one thread at a time.
impl Line for VcpuSide {
    fn has_room(&self) -> bool {
        self.console_has_room_for(FIFO_BYTES)
    }

    fn send(&self, byte: u8) {
        if self.console_put(byte) {
            self.count(Counter::ConsoleBytes, 1);
        }
    }

    fn has_input(&self) -> bool {
        self.console_has_input()
    }

    fn receive(&self) -> Option<u8> {
        self.console_get()
    }
}
