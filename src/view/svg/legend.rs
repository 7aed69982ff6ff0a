//! What the colours mean, and who shares a group.

use super::{
    super::{Scene, forest, tree},
    Drawing, MARGIN,
};

/// Draws below `top`, and gives its own lower end.
pub(super) fn draw(body: &mut Drawing, scene: &Scene<'_>, top: u32) -> u32 {
    let mut y = shared(body, scene, top + 10);
    let swatches = [
        (
            "class=\"host-driver\" stroke=\"#5f6368\"",
            "a driver of the host has it",
        ),
        ("class=\"vfio\" stroke=\"#5f6368\"", "bound to VFIO"),
        ("class=\"free\" stroke=\"#5f6368\"", "no driver"),
        (
            "class=\"free\" style=\"stroke:#188038;stroke-width:2\"",
            "alone in its IOMMU group",
        ),
        (
            "class=\"shared-hatch\" stroke=\"#c5221f\" stroke-width=\"2\"",
            "shares its group: not told apart",
        ),
        ("class=\"free none\"", "no group: not fenced"),
    ];
    let mut x = MARGIN;
    for (style, words) in swatches {
        if x > 600 {
            (x, y) = (MARGIN, y + 22);
        }
        body.push(&format!(
            "<rect {style} x=\"{x}\" y=\"{y}\" width=\"24\" height=\"14\" rx=\"3\"/>"
        ));
        body.text(x + 32, y + 11, "faint", words);
        x += 240;
    }
    y += 22;
    for (x, class, words) in [
        (MARGIN, "wire", "bus"),
        (MARGIN + 240, "vf-wire", "VF of a PF"),
    ] {
        body.push(&format!(
            "<path class=\"{class}\" d=\"M{x} {}h24\"/>",
            y + 7
        ));
        body.text(x + 32, y + 11, "faint", words);
    }
    let x = MARGIN + 480;
    body.push(&format!(
        "<rect class=\"pill\" x=\"{x}\" y=\"{y}\" width=\"24\" height=\"14\" rx=\"7\"/>"
    ));
    body.text(x + 32, y + 11, "faint", "port that lets neighbours through");
    y + 18
}

/// A line for each shared group, with every member.
fn shared(body: &mut Drawing, scene: &Scene<'_>, mut y: u32) -> u32 {
    for (id, group) in &scene.topology.groups {
        if forest::members(group) < 2 {
            continue;
        }
        body.push(&format!(
            "<rect class=\"shared-hatch\" stroke=\"#c5221f\" x=\"{MARGIN}\" y=\"{y}\" width=\"24\" height=\"14\" rx=\"3\"/>"
        ));
        let members = tree::members(scene.topology, *id);
        let mut label = format!("group {} is shared by {}:", id.0, members.len());
        let lines = members.chunks(3);
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.enumerate() {
            let comma = if index == last { "" } else { "," };
            label.push_str(&format!(" {}{comma}", line.join(", ")));
            body.text(MARGIN + 32, y + 11, "bad", &label);
            label = "    ".to_owned();
            y += 18;
        }
        y += 6;
    }
    y + 6
}
