//! The ground below the members of each shared group: one red, hatched shape, however far apart they are.

use iommu::topology::{GroupId, Topology};

use super::{
    super::forest,
    Drawing,
    layout::{Layout, Place, SPACE, WIDTH, WIRE},
};

/// How far the ground reaches beyond a box.
const RIM: u32 = 8;
/// Half the width of what joins two boxes.
const HALF: u32 = 6;

/// Left, top, width, height.
type Rect = (u32, u32, u32, u32);

pub(super) fn draw_shared(body: &mut Drawing, topology: &Topology, plan: &Layout<'_>) {
    for (id, group) in &topology.groups {
        if forest::members(group) < 2 {
            continue;
        }
        let rects = ground(*id, plan);
        // Edges first: what lies within the shape is painted over, and the outline of the whole is left.
        for class in ["shared-edge", "shared-ground", "shared-hatch"] {
            for (x, y, width, height) in &rects {
                body.push(&format!(
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\"/>"
                ));
            }
        }
    }
}

/// The rectangles that make up the ground of a group.
fn ground(id: GroupId, plan: &Layout<'_>) -> Vec<Rect> {
    let members: Vec<(usize, &Place<'_>)> = plan
        .places
        .iter()
        .enumerate()
        .filter(|(_, place)| place.branch.first.group == Some(id))
        .collect();
    let mut rects: Vec<Rect> = members.iter().map(|(_, place)| around(place)).collect();
    for (index, (_, place)) in members.iter().enumerate() {
        let before = members.get(..index).unwrap_or_default();
        let is_above = |above: &usize| before.iter().any(|(member, _)| member == above);
        // The nearest one before it in the same column, else whichever came last.
        let same = before.iter().rev().find(|(_, other)| other.x == place.x);
        let neighbour = same.and_then(|(_, other)| between(other, place));
        rects.extend(neighbour);
        if place.above.filter(is_above).is_some() {
            rects.extend(along_wire(place));
        } else if neighbour.is_none() {
            let other = same.or(before.last());
            rects.extend(
                other
                    .map(|(_, other)| beside(other, place))
                    .into_iter()
                    .flatten(),
            );
        }
    }
    rects
}

fn around(place: &Place<'_>) -> Rect {
    (
        place.x.saturating_sub(RIM),
        place.y.saturating_sub(RIM),
        WIDTH + 2 * RIM,
        place.height + 2 * RIM,
    )
}

/// What is left between two boxes of which one stands right below the other.
fn between(upper: &Place<'_>, lower: &Place<'_>) -> Option<Rect> {
    let top = upper.y + upper.height;
    let height = lower.y.checked_sub(top).filter(|height| *height <= SPACE)?;
    Some((upper.x.saturating_sub(RIM), top, WIDTH + 2 * RIM, height))
}

/// From the box above to this one, along the wire.
fn along_wire(place: &Place<'_>) -> [Rect; 3] {
    let (from_x, from_y) = place.wire_from;
    let middle = place.turn;
    let to_y = place.y + WIRE;
    [
        level(from_x, middle, from_y),
        upright(middle, from_y, to_y),
        level(middle, place.x, to_y),
    ]
}

/// From an earlier box down to a later one, behind whatever stands between.
fn beside(earlier: &Place<'_>, later: &Place<'_>) -> [Rect; 2] {
    let x = earlier.x + 14;
    let to_y = later.y + WIRE;
    [
        upright(x, earlier.y + earlier.height, to_y),
        level(x, later.x + 14, to_y),
    ]
}

fn level(from: u32, to: u32, y: u32) -> Rect {
    let (left, right) = (from.min(to), from.max(to));
    (
        left.saturating_sub(HALF),
        y.saturating_sub(HALF),
        right - left + 2 * HALF,
        2 * HALF,
    )
}

fn upright(x: u32, from: u32, to: u32) -> Rect {
    let (top, bottom) = (from.min(to), from.max(to));
    (
        x.saturating_sub(HALF),
        top.saturating_sub(HALF),
        2 * HALF,
        bottom - top + 2 * HALF,
    )
}
