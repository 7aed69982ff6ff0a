//! S and K as two services: nobody forks, and K hands over what S watches by the socket that joins them.
//!
//! So S never has a privilege: whoever starts it gives it a listening socket and nothing else. K connects, and says
//! first what the guest is, with the console's pipes and the kernel log; the rest are the words of [`super::link`].

mod keeping;
mod opening;
mod peer;
mod watching;

pub use self::{keeping::KeeperEnd, watching::watch};
