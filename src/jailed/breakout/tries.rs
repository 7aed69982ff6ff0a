//! The tries of a probe: counted, marked before they are made, judged by what the kernel answers.

use super::{
    attempt::attempt,
    calls,
    record::{MAX_TRIES, Record, Tried},
    words::{Canaries, is_ablated, is_first_only},
};
use crate::{
    handoff::{DeviceFds, FIRST_FD, Handoff, VcpuFds},
    manifest::Role,
    sys::syscall::Errno,
};

/// A running probe.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    handoff: &'a Handoff,
    role: Role,
    record: Record,
    from: usize,
    next: usize,
    left: usize,
}

impl<'a> Tries<'a> {
    pub(super) fn new(handoff: &'a Handoff, role: Role, record: Record, from: usize) -> Self {
        let left = if is_first_only(handoff) { 1 } else { MAX_TRIES };
        Self {
            handoff,
            role,
            record,
            from,
            next: 0,
            left,
        }
    }

    /// One try, unless it was made before.
    pub(super) fn one(&mut self, make: impl FnOnce() -> Tried) {
        let index = self.next;
        self.next += 1;
        if index < self.from || self.left == 0 {
            return;
        }
        self.left -= 1;
        self.record.start(index);
        self.record.finish(index, make());
    }

    /// One try that is one call, reached when it succeeds.
    pub(super) fn call(&mut self, number: usize, args: [usize; 6]) {
        self.call_or(number, args, &[]);
    }

    /// One try that is one call, reached when it succeeds or fails so late that the way there was open.
    pub(super) fn call_or(&mut self, number: usize, args: [usize; 6], late: &[u32]) {
        self.one(|| judge(attempt(number, args), late));
    }

    /// What the process was told.
    pub(super) const fn handoff(&self) -> &'a Handoff {
        self.handoff
    }

    /// Which process this is.
    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// Whether no filter stands between the probe and the kernel, so that what is dangerous would be done.
    pub(super) fn is_unfiltered(&self) -> bool {
        is_ablated(self.handoff, "seccomp")
    }

    /// What the harness made.
    pub(super) fn canaries(&self) -> Canaries<'a> {
        Canaries::of(self.handoff)
    }

    /// Every number behind which a descriptor may be, and some where none is.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = usize> + use<> {
        let behind = match self.role {
            // VM, KVM-VFIO device and vCPUs lie behind the list.
            Role::Vcpu => VcpuFds::of(self.handoff).vcpu(self.handoff.vcpu_count),
            Role::Device => DeviceFds::of(self.handoff).end(),
        };
        (0..behind).chain([1023]).map(wide)
    }

    /// The VFIO devices: D's, or where V's were.
    pub(super) fn devices(&self) -> impl Iterator<Item = usize> + use<> {
        let (vcpu, device) = (VcpuFds::of(self.handoff), DeviceFds::of(self.handoff));
        let role = self.role;
        (0..self.handoff.function_count).map(move |index| {
            wide(match role {
                Role::Vcpu => vcpu.device(index),
                Role::Device => device.device(index),
            })
        })
    }

    /// V's VM, KVM-VFIO device and vCPUs, in this order; in D there are none.
    pub(super) fn machine(&self) -> impl Iterator<Item = usize> + use<> {
        let vcpu = VcpuFds::of(self.handoff);
        let numbers = match self.role {
            Role::Vcpu => vcpu.vm()..vcpu.vcpu(self.handoff.vcpu_count),
            Role::Device => 0..0,
        };
        numbers.map(wide)
    }

    /// The first descriptor of the list, which both processes had once.
    pub(super) const fn first_descriptor() -> usize {
        FIRST_FD as usize
    }
}

/// Reached, or how not.
pub(super) fn judge(answer: Result<usize, Errno>, late: &[u32]) -> Tried {
    match answer {
        Ok(_) => Tried::Reached,
        Err(Errno(errno)) if late.contains(&errno) => Tried::Reached,
        Err(Errno(calls::NO_SUCH_CALL)) => Tried::Absent,
        Err(Errno(errno)) => Tried::Blocked(errno),
    }
}

/// Makes a call whose failure is the answer, and another with what it returned.
pub(super) fn then(
    first: Result<usize, Errno>,
    late: &[u32],
    second: impl FnOnce(usize) -> Tried,
) -> Tried {
    match first {
        Ok(value) => second(value),
        failed @ Err(_) => judge(failed, late),
    }
}

/// The address of a text that ends with a zero.
pub(super) fn at(text: &str) -> usize {
    text.as_ptr().addr()
}

/// A number as an argument.
pub(super) fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(calls::NONE)
}
