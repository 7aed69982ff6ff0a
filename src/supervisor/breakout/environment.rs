//! The environments in which probes run: the whole sandbox, all but one layer, one layer alone, none.

use serde::Serialize;

/// Layers that are left away together, because they rest on each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    /// As `[sandbox] without` and `narrows.ablate` spell them.
    pub(super) layers: &'static [&'static str],
}

/// Every layer but core scheduling, which no probe can see.
pub(super) const GROUPS: [Group; 6] = [
    Group {
        name: "filter",
        layers: &["seccomp"],
    },
    Group {
        name: "namespaces",
        layers: &[
            "user-namespace",
            "mount-namespace",
            "pid-namespace",
            "net-namespace",
            "ipc-namespace",
            "uts-namespace",
            "cgroup-namespace",
            "time-namespace",
        ],
    },
    Group {
        name: "credentials",
        layers: &["uid", "capabilities", "no-new-privs"],
    },
    Group {
        name: "landlock",
        layers: &["landlock"],
    },
    Group {
        name: "limits",
        layers: &["cgroup", "rlimits"],
    },
    Group {
        name: "memory",
        layers: &["mdwe", "mseal", "not-dumpable"],
    },
];

/// An environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Environment {
    /// `full`, `none`, `without-GROUP` or `only-GROUP`.
    pub(super) name: String,
    /// The layers that are left away.
    pub(super) ablated: Vec<&'static str>,
}

impl Environment {
    /// All of them, the whole sandbox first and none last.
    pub(super) fn all() -> Vec<Self> {
        let without = |name: String, is_off: &dyn Fn(&Group) -> bool| Self {
            name,
            ablated: GROUPS
                .iter()
                .filter(|group| is_off(group))
                .flat_map(|group| group.layers)
                .copied()
                .collect(),
        };
        let mut all = vec![without("full".to_owned(), &|_| false)];
        for left_away in GROUPS {
            let name = format!("without-{}", left_away.name);
            all.push(without(name, &|group| group.name == left_away.name));
        }
        for kept in GROUPS {
            let name = format!("only-{}", kept.name);
            all.push(without(name, &|group| group.name != kept.name));
        }
        all.push(without("none".to_owned(), &|_| true));
        all
    }

    /// Whether a try that is refused ends its process.
    pub(super) fn is_filtered(&self) -> bool {
        !self.ablated.contains(&"seccomp")
    }

    /// Whether everything is left away.
    pub(super) fn is_bare(&self) -> bool {
        let mut layers = GROUPS.iter().flat_map(|group| group.layers);
        layers.all(|layer| self.ablated.contains(layer))
    }

    /// Whether nothing is left away.
    pub(super) fn is_full(&self) -> bool {
        self.ablated.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_once_left_away_and_once_alone() {
        let all = Environment::all();
        assert_eq!(all.len(), 2 + 2 * GROUPS.len());
        for (index, group) in GROUPS.iter().enumerate() {
            assert_eq!(all[1 + index].ablated, group.layers);
            let alone = &all[1 + GROUPS.len() + index].ablated;
            assert!(group.layers.iter().all(|layer| !alone.contains(layer)));
            let every: usize = GROUPS.iter().map(|g| g.layers.len()).sum();
            assert_eq!(alone.len() + group.layers.len(), every);
        }
        assert!(all[0].is_full() && all[0].is_filtered());
        assert!(!all[all.len() - 1].is_filtered());
        let bare: Vec<&str> = all
            .iter()
            .filter(|e| e.is_bare())
            .map(|e| e.name.as_str())
            .collect();
        assert_eq!(bare, ["none"]);
    }
}
