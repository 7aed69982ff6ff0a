//! Host and wish become a [`Plan`], or the list of everything that stands in the way. Pure: no file is read here.
#![forbid(unsafe_code)]

mod acpi;
#[cfg(test)]
mod acpi_test;
mod handoff;
mod layout;
#[cfg(test)]
mod layout_test;
mod types;

pub use self::{
    handoff::{OpenedFunction, Region},
    layout::{gpa_range_of, iova_of},
    types::{
        Bar, Binding, Contents, Function, Image, Interface, Interrupts, Memory, Plan, Ram, Span,
    },
};
