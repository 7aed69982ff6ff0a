//! Host and wish become a [`Plan`], or the list of everything that stands in the way. Pure: no file is read here.
#![forbid(unsafe_code)]

mod handoff;
mod types;

pub use self::{
    handoff::{OpenedFunction, Region},
    types::{
        Bar, Binding, Contents, Function, Image, Interface, Interrupts, Memory, Plan, Ram, Span,
    },
};
