//! The inventory as a tree of text.

use iommu::topology::{Function, GroupId, Topology};

use super::{
    Scene,
    forest::{self, Branch},
    paint::{Ink, paint},
    words::{self, AcsState, Fence, Kind},
};
use crate::error::{Color, printable};

/// The tree of a host, for a person to read.
#[must_use]
pub fn tree(scene: &Scene<'_>, color: Color) -> String {
    let mut page = Page {
        scene,
        color,
        text: format!("{}\n", words::host(scene.topology)),
    };
    for bus in forest::grow(scene.topology, scene.is_unfolded) {
        page.line("", &paint(color, Ink::Strong, &bus.name));
        page.branches("", &bus.branches);
    }
    if scene.topology.functions.is_empty() {
        page.line("", "no PCI functions");
    }
    page.shared_groups();
    page.text
}

struct Page<'a> {
    scene: &'a Scene<'a>,
    color: Color,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, prefix: &str, text: &str) {
        self.text.push_str(prefix);
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn branches(&mut self, prefix: &str, branches: &[Branch<'_>]) {
        for (index, branch) in branches.iter().enumerate() {
            let is_last = index.saturating_add(1) == branches.len();
            let (fork, rest) = if is_last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            let mut lines = self.describe(branch).into_iter();
            if let Some(head) = lines.next() {
                self.line(&format!("{prefix}{fork}"), &head);
            }
            let below = format!("{prefix}{rest}");
            let stem = if branch.branches.is_empty() {
                "   "
            } else {
                "│  "
            };
            for line in lines {
                self.line(&format!("{below}{stem}"), &line);
            }
            self.branches(&below, &branch.branches);
        }
    }

    /// One line, or two for what has more to tell.
    fn describe(&self, branch: &Branch<'_>) -> Vec<String> {
        let function = branch.first;
        let kind = Kind::of(function);
        let facts = self.facts(branch, kind).join(", ");
        let address = self.address(branch);
        match kind {
            Kind::Vf => vec![format!("{address}  {facts}")],
            Kind::Bridge(words) => vec![format!(
                "{address}  {}, {facts}",
                words::port(self.scene, function, words),
            )],
            Kind::Pf | Kind::Device => {
                let role = match (kind, branch.count()) {
                    (Kind::Pf, _) => "PF, ".to_owned(),
                    (_, 1) => String::new(),
                    (_, count) => format!("{count} functions, "),
                };
                let class = words::class(function);
                let name = words::name(self.scene, function);
                vec![
                    format!("{address}  {role}{class}, {name}"),
                    self.faint(&facts),
                ]
            }
        }
    }

    fn address(&self, branch: &Branch<'_>) -> String {
        let (first, last) = (branch.first.bdf, branch.last().bdf);
        let first = paint(self.color, Ink::Strong, &first.to_string());
        let range = match branch.others.is_empty() {
            true => return format!("{first}{}", role_of_vf(branch)),
            false => format!(
                "{first} … {}",
                paint(self.color, Ink::Strong, &last.to_string())
            ),
        };
        match Kind::of(branch.first) {
            Kind::Vf => format!("{range}  {} VFs", branch.count()),
            Kind::Pf | Kind::Bridge(_) | Kind::Device => range,
        }
    }

    fn facts(&self, branch: &Branch<'_>, kind: Kind) -> Vec<String> {
        let function = branch.first;
        let mut facts = Vec::new();
        facts.extend(match (kind, branch.others.is_empty()) {
            // The kernel's own driver of ports says nothing.
            (Kind::Bridge(_), _) => function
                .driver
                .as_deref()
                .filter(|name| *name != "pcieport")
                .map(printable),
            (_, true) => Some(words::driver(function)),
            (_, false) => Some(printable(function.driver.as_deref().unwrap_or("no driver"))),
        });
        facts.extend(carried(branch));
        facts.push(self.group(branch));
        let pf = function
            .physfn
            .and_then(|bdf| self.scene.topology.functions.get(&bdf));
        let node = function
            .numa_node
            .filter(|_| pf.is_none_or(|pf| pf.numa_node != function.numa_node));
        facts.extend(node.map(|node| format!("node {node}")));
        if let Some(acs) = words::acs(function) {
            let ink = match acs {
                AcsState::On => Ink::Good,
                AcsState::Weak(_) => Ink::Bad,
                AcsState::NotRead => Ink::Odd,
            };
            facts.push(paint(self.color, ink, &acs.words()));
        }
        if !matches!(kind, Kind::Vf) {
            facts.extend(words::link(function));
        }
        if !matches!(kind, Kind::Bridge(_)) {
            facts.push(words::interrupts(&function.interrupts));
            facts.push(words::resets(function));
        }
        if let Some(sriov) = function.sriov {
            facts.push(format!("VFs {}/{}", sriov.enabled, sriov.total));
        }
        if let Some(driver) = &function.driver_override {
            facts.push(format!("kept for {}", printable(driver)));
        }
        facts
    }

    fn group(&self, branch: &Branch<'_>) -> String {
        let topology = self.scene.topology;
        let last = words::fence(topology, branch.last());
        match (words::fence(topology, branch.first), last) {
            (Fence::Alone(first), Fence::Alone(last)) if first != last => {
                format!("groups {}", words::groups(branch))
            }
            (Fence::Alone(id), _) => format!("group {}", id.0),
            (Fence::None, _) => "no group".to_owned(),
            (Fence::Shared(id, count), _) => {
                let text = format!("group {} SHARED by {count}", id.0);
                paint(self.color, Ink::Bad, &text)
            }
        }
    }

    fn shared_groups(&mut self) {
        let topology = self.scene.topology;
        let mut heading = Some("shared groups: the IOMMU cannot tell their members apart");
        for (id, group) in &topology.groups {
            if forest::members(group) < 2 {
                continue;
            }
            if let Some(heading) = heading.take() {
                self.line("", &paint(self.color, Ink::Bad, heading));
            }
            let members = members(topology, *id).join(", ");
            self.line("", &format!("  group {}: {members}", id.0));
        }
    }

    fn faint(&self, text: &str) -> String {
        // Inner colours would end the faintness half-way.
        match text.contains('\x1b') {
            true => text.to_owned(),
            false => paint(self.color, Ink::Faint, text),
        }
    }
}

/// `  VF` behind the address of a single VF.
fn role_of_vf(branch: &Branch<'_>) -> &'static str {
    match Kind::of(branch.first) {
        Kind::Vf => "  VF",
        Kind::Pf | Kind::Bridge(_) | Kind::Device => "",
    }
}

/// The interfaces and controllers of a branch: all of one function, first and last of a run.
fn carried(branch: &Branch<'_>) -> Option<String> {
    let names = |function| words::carries(function).join(" ");
    let (first, last) = (names(branch.first), names(branch.last()));
    match (first.is_empty(), branch.others.is_empty()) {
        (true, _) => None,
        (false, true) => Some(first),
        (false, false) => Some(format!("{first} … {last}")),
    }
}

/// The members of a group, each with its driver.
pub(super) fn members(topology: &Topology, id: GroupId) -> Vec<String> {
    let Some(group) = topology.groups.get(&id) else {
        return Vec::new();
    };
    let functions = group.members.iter().map(|bdf| {
        let function = topology.functions.get(bdf);
        let driver = function.map(words::driver);
        format!("{bdf} ({})", driver.as_deref().unwrap_or("not read"))
    });
    functions
        .chain(group.other_members.iter().map(|name| printable(name)))
        .collect()
}

/// What a VF belongs to, in words for a summary.
pub(super) fn belongs(function: &Function) -> String {
    match function.physfn {
        Some(pf) => format!("VF of {pf}"),
        None => Kind::of(function).words().to_owned(),
    }
}
