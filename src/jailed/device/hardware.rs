//! The calls on one function's descriptors that bring the model's effects about.

use super::{
    outcome::Effect,
    vectors::{Run, VectorSet},
};
use crate::{
    handoff::{self, DeviceFds},
    ring::{Counter, DeviceCall, DeviceSide},
    sys::{
        file,
        poll::{self, Waited},
        syscall::{Errno, Fd},
        vfio::{self, Irq},
    },
};

/// The descriptors of one function.
#[derive(Clone, Copy, Debug)]
pub struct Hardware {
    device: Fd,
    fds: DeviceFds,
    irq: Irq,
    first_vector: u32,
    vectors: u32,
    config_offset: u64,
}

/// A device call that failed.
pub(super) type Failed = (DeviceCall, Errno);

impl Hardware {
    /// The hardware behind a function of the handoff, whose vectors begin at `first_vector` of all.
    #[must_use]
    pub const fn new(
        device: Fd,
        fds: DeviceFds,
        facts: &handoff::Function,
        is_msix: bool,
        first_vector: u32,
    ) -> Self {
        Self {
            device,
            fds,
            irq: if is_msix { Irq::Msix } else { Irq::Msi },
            first_vector,
            vectors: facts.vectors,
            config_offset: facts.config_offset,
        }
    }

    /// Writes the command register.
    ///
    /// # Errors
    /// The errno.
    pub fn write_command(&self, command: u16) -> Result<(), Errno> {
        const COMMAND: u64 = 4;
        let offset = self.config_offset.saturating_add(COMMAND);
        file::write_at(self.device, &command.to_le_bytes(), offset).map(drop)
    }

    /// Brings one effect about.
    pub(super) fn perform(&self, ring: &DeviceSide, effect: Effect) -> Result<(), Failed> {
        match effect {
            Effect::HardwareCommand(command) => {
                ring.count(Counter::HardwareConfigWrites, 1);
                self.write_command(command)
                    .map_err(|errno| (DeviceCall::WriteCommand, errno))
            }
            Effect::EnableVectors(count) => self.enable(ring, count),
            Effect::Retarget { before, after } => self.retarget(ring, before, after),
            Effect::DisableVectors => {
                ring.count(Counter::SetIrqs, 1);
                vfio::disarm(self.device, self.irq).map_err(|errno| (DeviceCall::SetIrqs, errno))
            }
            Effect::Reset => {
                ring.count(Counter::Resets, 1);
                vfio::reset(self.device).map_err(|errno| (DeviceCall::Reset, errno))
            }
            Effect::RegionWrite {
                offset,
                size_bytes,
                value,
            } => {
                ring.count(Counter::RegionAccesses, 1);
                let bytes = value.to_le_bytes();
                let bytes = bytes.get(..size_bytes).unwrap_or(&[]);
                // Memory may be disabled: as on hardware, the write is lost then.
                core::hint::black_box(file::write_at(self.device, bytes, offset).is_ok());
                Ok(())
            }
        }
    }

    /// Arms `count` vectors with their latches, emptied of what an earlier use left.
    fn enable(&self, ring: &DeviceSide, count: u32) -> Result<(), Failed> {
        for vector in 0..count.min(self.vectors) {
            file::take_signal(self.latch(vector)).map_err(|errno| (DeviceCall::Eventfd, errno))?;
        }
        let all = Run {
            first: 0,
            count,
            is_delivered: false,
        };
        self.send(ring, all)
    }

    fn retarget(
        &self,
        ring: &DeviceSide,
        before: VectorSet,
        after: VectorSet,
    ) -> Result<(), Failed> {
        for run in before.changes(after) {
            self.send(ring, run)?;
            if run.is_delivered {
                // After the change of target, so that what fires meanwhile is in one place or the other, and once.
                (run.first..run.first.saturating_add(run.count))
                    .try_for_each(|vector| self.deliver_latched(ring, vector))
                    .map_err(|errno| (DeviceCall::Eventfd, errno))?;
            }
        }
        Ok(())
    }

    /// Sends neighbouring vectors to the guest or to their latches.
    fn send(&self, ring: &DeviceSide, run: Run) -> Result<(), Failed> {
        ring.count(Counter::SetIrqs, 1);
        let end = run.first.saturating_add(run.count).min(self.vectors);
        let target = |vector| {
            if run.is_delivered {
                self.vector(vector)
            } else {
                self.latch(vector)
            }
        };
        vfio::send_to(
            self.device,
            self.irq,
            run.first,
            (run.first..end).map(target),
        )
        .map_err(|errno| (DeviceCall::SetIrqs, errno))
    }

    /// Fires a vector once if its latch counted.
    fn deliver_latched(&self, ring: &DeviceSide, vector: u32) -> Result<(), Errno> {
        if file::take_signal(self.latch(vector))? {
            ring.count(Counter::LatchedInterrupts, 1);
            file::signal(self.vector(vector))?;
        }
        Ok(())
    }

    /// One bit for each latch that counted.
    pub(super) fn pending(&self, first_vector: u32, count: u32) -> u64 {
        let mut latches = [Waited::NOTHING; 64];
        for (place, vector) in latches
            .iter_mut()
            .zip(first_vector..first_vector.saturating_add(count))
        {
            if vector < self.vectors {
                *place = Waited::readable(self.latch(vector));
            }
        }
        if poll::wait(&mut latches, Some(0)).is_err() {
            return 0;
        }
        let bits = latches.iter().zip(0_u32..64);
        bits.fold(0, |all, (latch, bit)| {
            all | u64::from(latch.is_readable()) << bit
        })
    }

    /// Reads a register; all ones where it does not answer, as on hardware.
    pub(super) fn read_region(&self, ring: &DeviceSide, offset: u64, size_bytes: usize) -> u64 {
        ring.count(Counter::RegionAccesses, 1);
        let mut bytes = [0; 8];
        let read = bytes
            .get_mut(..size_bytes)
            .map(|bytes| file::read_at(self.device, bytes, offset));
        if read == Some(Ok(size_bytes)) {
            u64::from_le_bytes(bytes)
        } else {
            u64::MAX
        }
    }

    const fn vector(&self, vector: u32) -> Fd {
        Fd::new(self.fds.vector(self.first_vector.saturating_add(vector)))
    }

    const fn latch(&self, vector: u32) -> Fd {
        Fd::new(self.fds.latch(self.first_vector.saturating_add(vector)))
    }
}
