//! Where vectors go: the list of routes V gives to KVM.
//!
//! The interrupt number (GSI) of a vector is its place in the count over all functions; its irqfd exists from the
//! start, and it is delivered where its route says. KVM takes only whole lists, so changes that nothing can notice
//! yet are collected ([`crate::ring::RouteUpdate`]).

use crate::handoff::{Function, InterruptKind};
use crate::ring::RouteUpdate;
use crate::sys::kvm::Vm;
use crate::sys::kvm_abi::{Messages, MsiRoute, RouteList};
use crate::sys::syscall::Errno;
use crate::sys::thread::zeroed;

/// The routes of all vectors: room for as many as any guest has, of which only the pages in use are there.
#[derive(Debug)]
pub struct Routes {
    /// By interrupt number: message address and data; address 0 for no route.
    messages: &'static mut Messages,
    list: &'static mut RouteList,
    is_dirty: bool,
}

impl Routes {
    /// No vector goes anywhere.
    ///
    /// # Errors
    /// The errno of `mmap` or `mseal`.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            messages: zeroed()?,
            list: zeroed()?,
            is_dirty: false,
        })
    }

    /// Notes a change of the function whose first vector is interrupt `first_gsi`.
    pub fn update(&mut self, first_gsi: u32, update: &RouteUpdate) {
        let first = first_gsi.saturating_add(update.first_vector) as usize;
        let places = self.messages.iter_mut().skip(first);
        for (place, nth) in places.zip(0..update.count) {
            let message = (update.address, update.data | nth);
            self.is_dirty |= *place != message;
            *place = message;
        }
    }

    /// Gives KVM what has changed: whether anything had.
    ///
    /// # Errors
    /// The errno of `KVM_SET_GSI_ROUTING`.
    pub fn flush(&mut self, vm: Vm) -> Result<bool, Errno> {
        if !self.is_dirty {
            return Ok(false);
        }
        self.make_list();
        vm.set_routes(self.list)?;
        self.is_dirty = false;
        Ok(true)
    }

    /// Makes the list that KVM takes: the vectors that have a route.
    fn make_list(&mut self) -> &[MsiRoute] {
        let routes = (0..).zip(self.messages.iter());
        self.list.replace(
            routes
                .filter(|(_, (address, _))| *address != 0)
                .map(|(gsi, (address, data))| MsiRoute::new(gsi, *address, *data)),
        );
        self.list.as_slice()
    }
}

/// What a write to a BAR is to the function's MSI-X table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableWrite {
    /// It does not touch the table.
    Outside,
    /// Only a message's address or data: changes to routes may wait.
    Message,
    /// Something else in the table.
    Other,
}

/// What a write of `size_bytes` aligned bytes at `offset` of BAR `bar` is to the MSI-X table of `function`.
#[must_use]
pub fn table_write(function: &Function, bar: usize, offset: u64, size_bytes: usize) -> TableWrite {
    const ENTRY_BYTES: u64 = 16;
    const CONTROL: u64 = 12;
    let table_bytes = u64::from(function.vectors) * ENTRY_BYTES;
    let in_table = offset.checked_sub(u64::from(function.msix_table_offset));
    match in_table.filter(|at| *at < table_bytes) {
        Some(at)
            if function.interrupt_kind == InterruptKind::Msix as u32
                && function.msix_table_bar as usize == bar =>
        {
            if at % ENTRY_BYTES + size_bytes as u64 <= CONTROL {
                TableWrite::Message
            } else {
                TableWrite::Other
            }
        }
        _ => TableWrite::Outside,
    }
}

#[cfg(test)]
mod irq_test {
    use super::*;

    fn update(first_vector: u32, count: u32, address: u64, data: u32) -> RouteUpdate {
        RouteUpdate {
            first_vector,
            count,
            address,
            data,
            is_live: false,
        }
    }

    #[test]
    fn a_vector_has_the_route_that_was_written_last() {
        let mut routes = Routes::new().unwrap();
        routes.update(4, &update(1, 1, 0xFEE0_1000, 0x31));
        routes.update(4, &update(1, 1, 0xFEE0_2000, 0x32));
        assert_eq!(routes.make_list(), [MsiRoute::new(5, 0xFEE0_2000, 0x32)]);
    }

    #[test]
    fn address_zero_takes_the_route_away() {
        let mut routes = Routes::new().unwrap();
        routes.update(0, &update(0, 1, 0xFEE0_0000, 0x31));
        routes.update(0, &update(0, 1, 0, 0x31));
        assert!(routes.make_list().is_empty());
        assert!(routes.is_dirty);
    }

    #[test]
    fn msi_vectors_count_up_in_the_data() {
        let mut routes = Routes::new().unwrap();
        routes.update(0, &update(0, 4, 0xFEE0_0000, 0x40));
        let data = [0x40, 0x41, 0x42, 0x43];
        let expected: Vec<_> = (0..4)
            .map(|k| MsiRoute::new(k, 0xFEE0_0000, data[k as usize]))
            .collect();
        assert_eq!(routes.make_list(), expected);
    }

    #[test]
    fn the_same_route_again_costs_nothing() {
        let mut routes = Routes::new().unwrap();
        routes.update(0, &update(0, 1, 0xFEE0_0000, 0x31));
        routes.is_dirty = false;
        routes.update(0, &update(0, 1, 0xFEE0_0000, 0x31));
        assert!(!routes.is_dirty);
    }

    #[test]
    fn vectors_beyond_the_last_are_not_kept() {
        let mut routes = Routes::new().unwrap();
        routes.update(u32::MAX, &update(u32::MAX, u32::MAX, 1, 1));
        routes.update(4095, &update(0, 2, 0xFEE0_0000, 1));
        assert_eq!(routes.make_list().len(), 1);
    }

    #[test]
    fn only_whole_messages_may_wait() {
        let function = Function {
            interrupt_kind: InterruptKind::Msix as u32,
            vectors: 2,
            msix_table_bar: 3,
            msix_table_offset: 0x2000,
            ..Function::default()
        };
        let at = |offset, size| table_write(&function, 3, offset, size);
        assert_eq!(at(0x2000, 4), TableWrite::Message);
        assert_eq!(at(0x2000, 8), TableWrite::Message);
        assert_eq!(at(0x2018, 4), TableWrite::Message);
        assert_eq!(at(0x2008, 8), TableWrite::Other);
        assert_eq!(at(0x201C, 4), TableWrite::Other);
        assert_eq!(at(0x2020, 4), TableWrite::Outside);
        assert_eq!(at(0x1FFC, 4), TableWrite::Outside);
        assert_eq!(table_write(&function, 2, 0x2000, 4), TableWrite::Outside);
    }
}
