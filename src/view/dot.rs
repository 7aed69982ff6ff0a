//! The inventory as a graph for Graphviz: a cluster for each IOMMU group.

use super::{
    Scene,
    forest::{self, Branch, Bus},
    words::{self, AcsState, Fence, Kind},
};

/// The graph of a host in the language of Graphviz.
#[must_use]
pub fn dot(scene: &Scene<'_>) -> String {
    let buses = forest::grow(scene.topology, scene.is_unfolded);
    let mut text = String::from(
        "digraph host {\n  rankdir=LR; compound=true;\n  \
         node [shape=box, style=filled, fillcolor=white, fontname=\"sans-serif\", fontsize=10];\n  \
         edge [arrowhead=none];\n",
    );
    for bus in &buses {
        text.push_str(&format!(
            "  {} [label={}, shape=plaintext];\n",
            quote(&bus.name),
            quote(&bus.name)
        ));
        for branch in &bus.branches {
            write_branch(&mut text, scene, &bus.name, branch);
        }
    }
    write_groups(&mut text, scene, &buses);
    text.push_str("}\n");
    text
}

fn write_branch(text: &mut String, scene: &Scene<'_>, above: &str, branch: &Branch<'_>) {
    let function = branch.first;
    let node = function.bdf.to_string();
    let kind = Kind::of(function);
    let mut label = match branch.others.is_empty() {
        true => vec![format!("{node} {}", kind.words())],
        false => vec![
            format!("{node} … {}", branch.last().bdf),
            words::count(branch.count(), kind.words(), &format!("{}s", kind.words())),
        ],
    };
    label.push(words::name(scene, function));
    label.push(words::driver(function));
    let acs = words::acs(function);
    label.extend(acs.as_ref().map(AcsState::words));
    let fill = match (words::is_vfio(function), &function.driver) {
        (true, _) => "#d3e5ff",
        (false, Some(_)) => "#e6e6e6",
        (false, None) => "white",
    };
    let border = match acs {
        Some(AcsState::Weak(_)) => ", color=red, penwidth=2",
        Some(AcsState::On | AcsState::NotRead) | None => "",
    };
    let lines: Vec<String> = label.iter().map(|line| escape(line)).collect();
    text.push_str(&format!(
        "  {} [label=\"{}\", fillcolor=\"{fill}\"{border}];\n",
        quote(&node),
        lines.join("\\n")
    ));
    let style = match function.physfn {
        Some(_) => " [style=dashed, color=purple]",
        None => "",
    };
    text.push_str(&format!("  {} -> {}{style};\n", quote(above), quote(&node)));
    for below in &branch.branches {
        write_branch(text, scene, &node, below);
    }
}

fn write_groups(text: &mut String, scene: &Scene<'_>, buses: &[Bus<'_>]) {
    let mut shown = Vec::new();
    for bus in buses {
        collect(&bus.branches, &mut shown);
    }
    for (id, group) in &scene.topology.groups {
        let members: Vec<String> = shown
            .iter()
            .filter(|branch| branch.first.group == Some(*id))
            .map(|branch| quote(&branch.first.bdf.to_string()))
            .collect();
        // A folded run is many groups; its box says so by its label.
        if members.is_empty() {
            continue;
        }
        let fence = shown
            .iter()
            .find(|branch| branch.first.group == Some(*id) && !branch.others.is_empty())
            .map(|branch| words::fence(scene.topology, branch.last()));
        let (label, colour) = match (fence, forest::members(group)) {
            (Some(Fence::Alone(last)), _) => (format!("groups {} to {}", id.0, last.0), "gray"),
            (_, 0 | 1) => (format!("group {}", id.0), "gray"),
            (_, count) => (format!("group {}, shared by {count}", id.0), "red"),
        };
        text.push_str(&format!(
            "  subgraph \"cluster_{}\" {{ label={}; color={colour}; style=rounded; fontsize=9; {}; }}\n",
            id.0,
            quote(&label),
            members.join("; ")
        ));
    }
}

fn collect<'b, 'a>(branches: &'b [Branch<'a>], shown: &mut Vec<&'b Branch<'a>>) {
    for branch in branches {
        shown.push(branch);
        collect(&branch.branches, shown);
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

fn escape(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(harmless).collect();
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
