//! The life of VFs carried out: plans applied, leases taken and given back, namespaces erased, half-done work finished.

mod apply;
#[cfg(test)]
mod apply_test;
mod boot;
mod carry;
mod confirm;
#[cfg(test)]
mod confirm_test;
#[cfg(test)]
mod cuts_test;
mod erase;
mod fault;
mod finish;
mod functions;
mod hands;
mod holders;
mod import;
#[cfg(test)]
mod interleaved_test;
mod job;
pub mod lease;
#[cfg(test)]
mod machine_test;
mod marks;
mod namespaces;
mod network;
mod planning;
#[cfg(test)]
mod planning_test;
mod progress;
mod recover;
#[cfg(test)]
mod recover_test;
mod saved;
mod shows;
mod stop;
mod undo;
mod users;
#[cfg(test)]
mod verdicts_test;
mod verify;
#[cfg(test)]
mod world_test;

pub use self::{
    apply::run,
    confirm::{Awaited, confirm, run_until_confirmed},
    hands::KernelHands,
    import::import,
    job::{Applied, Job, Planned, Planner, Shown, Verb},
    planning::{planning, releasing},
    progress::{Progress, Say},
    recover::{Recovered, Unfinished, finish_leases, recover_host, unfinished},
    saved::SavedPlan,
    stop::Stop,
    verify::{Tenancy, verify},
};
