//! All rules of one process in one phase.

use core::fmt;

use super::rule::{MAX_CHECKS, Rule, SeccompData};
use super::{Phase, Role, common, device, table, vcpu};
use crate::handoff::{Handoff, MAX_FUNCTIONS};

/// The most rules: for each function two for each of eight gaps and two more, and three dozen and one others.
pub const MAX_RULES: usize = MAX_FUNCTIONS * 18 + 37;

/// All rules of one process in one phase, the most frequent call first.
#[derive(Clone, Copy)]
pub struct Rules {
    rules: [Rule; MAX_RULES],
    used: usize,
    is_whole: bool,
}

impl Rules {
    /// What `role` may do in `phase`, for a checked `handoff`. Filters add up, so that what runs later is part of what
    /// builds.
    #[must_use]
    pub fn of(role: Role, phase: Phase, handoff: &Handoff) -> Self {
        let mut rules = Self::none();
        let (run, build) = match role {
            Role::Vcpu => (vcpu::RUN, vcpu::BUILD),
            Role::Device => (device::RUN, device::BUILD),
        };
        table::add(&mut rules, run, handoff);
        if phase == Phase::Build {
            table::add(&mut rules, build, handoff);
            table::add(&mut rules, common::BUILD, handoff);
        }
        rules
    }

    const fn none() -> Self {
        const NO_RULE: Rule = Rule {
            call: u32::MAX,
            checks: [None; MAX_CHECKS],
            why: "",
        };
        Self {
            rules: [NO_RULE; MAX_RULES],
            used: 0,
            is_whole: true,
        }
    }

    pub(super) fn push(&mut self, rule: Rule) {
        match self.rules.get_mut(self.used) {
            Some(place) => {
                *place = rule;
                self.used += 1;
            }
            None => self.is_whole = false,
        }
    }

    /// Whether there was room for all: a function of the plan's has at most two gaps. What has no rule is refused.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The rules.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.as_slice().iter()
    }

    /// The rules, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Rule] {
        self.rules.get(..self.used).unwrap_or_default()
    }

    /// Whether a call is allowed; what is not ends the process.
    #[must_use]
    pub fn allows(&self, data: &SeccompData) -> bool {
        self.iter().any(|rule| rule.allows(data))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
