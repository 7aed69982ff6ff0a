//! Where each box goes: a lane for each NUMA node, a column for each level of the tree.

use iommu::topology::Function;

use super::{
    super::{
        forest::{Branch, Bus},
        words::Kind,
    },
    MARGIN,
};

/// Width of a function's box.
pub(super) const WIDTH: u32 = 316;
/// Between columns: room for wires and the outlines of groups.
pub(super) const GAP: u32 = 48;
/// Between boxes of one column: room for two outlines.
pub(super) const SPACE: u32 = 18;
/// Width of a root bus's name.
const BUS_WIDTH: u32 = 90;
/// How far below its top edge a box is wired.
pub(super) const WIRE: u32 = 20;

/// More leaves than this below one function stand side by side, this many in a row.
const TALLEST: usize = 12;
const ROW: usize = 4;

/// Everything in its place.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) lanes: Vec<Lane>,
    pub(super) buses: Vec<BusName>,
    /// Parents before their children.
    pub(super) places: Vec<Place<'a>>,
    pub(super) right: u32,
    pub(super) bottom: u32,
}

/// The functions of one NUMA node.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) top: u32,
    pub(super) bottom: u32,
}

/// The name of a root bus.
#[derive(Debug)]
pub(super) struct BusName {
    pub(super) name: String,
    pub(super) x: u32,
    pub(super) y: u32,
}

/// A box.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) branch: &'a Branch<'a>,
    /// The box it hangs below; `None` on a root bus.
    pub(super) above: Option<usize>,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) height: u32,
    /// Where the wire to it starts, and where it turns.
    pub(super) wire_from: (u32, u32),
    pub(super) turn: u32,
}

/// Places every branch of every bus.
pub(super) fn place<'a>(buses: &'a [Bus<'a>]) -> Layout<'a> {
    let mut layout = Layout {
        lanes: Vec::new(),
        buses: Vec::new(),
        places: Vec::new(),
        right: 760,
        bottom: 44,
    };
    let mut nodes: Vec<Option<u32>> = buses
        .iter()
        .flat_map(|bus| bus.branches.iter().map(node))
        .collect();
    // No node known is the last lane.
    nodes.sort_by_key(|node| (node.is_none(), *node));
    nodes.dedup();
    for node_of_lane in nodes {
        let top = layout.bottom;
        layout.bottom += 36;
        for bus in buses {
            let branches = bus.branches.iter().filter(|b| node(b) == node_of_lane);
            layout.bus(&bus.name, branches);
        }
        layout.lanes.push(Lane {
            name: match node_of_lane {
                Some(node) => format!("NUMA node {node}"),
                None => "NUMA node not known".to_owned(),
            },
            top,
            bottom: layout.bottom,
        });
        layout.bottom += 14;
    }
    layout
}

/// The first NUMA node that a branch names.
fn node(branch: &Branch<'_>) -> Option<u32> {
    let own = branch.first.numa_node;
    own.or_else(|| branch.branches.iter().find_map(node))
}

impl<'a> Layout<'a> {
    fn bus(&mut self, name: &str, branches: impl Iterator<Item = &'a Branch<'a>>) {
        let mut branches = branches.peekable();
        if branches.peek().is_none() {
            return;
        }
        let (x, y) = (MARGIN + 14, self.bottom);
        self.buses.push(BusName {
            name: name.to_owned(),
            x,
            y: y + WIRE + 4,
        });
        let wire_from = (x + BUS_WIDTH, y + WIRE);
        for branch in branches {
            let y = self.bottom;
            let x = x + BUS_WIDTH + GAP;
            let end = self.branch(branch, None, (x, y), (wire_from, turn(x)));
            self.bottom = end + SPACE;
        }
    }

    /// Places a branch with its top left corner at a point, and gives the lower end of all that is below it.
    fn branch(
        &mut self,
        branch: &'a Branch<'a>,
        above: Option<usize>,
        (x, y): (u32, u32),
        (wire_from, turn_at): ((u32, u32), u32),
    ) -> u32 {
        let height = height(branch);
        let index = self.places.len();
        self.places.push(Place {
            branch,
            above,
            x,
            y,
            height,
            wire_from,
            turn: turn_at,
        });
        self.right = self.right.max(x + WIDTH + MARGIN);
        let mut end = y + height;
        let (left, mut next) = (x + WIDTH + GAP, y);
        let wire = ((x + WIDTH, y + WIRE), turn(left));
        let leaves = branch.branches.iter().all(|b| b.branches.is_empty());
        let row = match leaves && branch.branches.len() > TALLEST {
            true => ROW,
            false => 1,
        };
        for chunk in branch.branches.chunks(row) {
            let (mut at, mut lower) = (left, next);
            for below in chunk {
                lower = lower.max(self.branch(below, Some(index), (at, next), wire));
                at += WIDTH + SPACE;
            }
            next = lower + SPACE;
            end = end.max(lower);
        }
        end
    }
}

/// Where the wires to a column turn.
fn turn(column: u32) -> u32 {
    column.saturating_sub(GAP / 2)
}

fn height(branch: &Branch<'_>) -> u32 {
    let function: &Function = branch.first;
    match (Kind::of(function), branch.others.is_empty()) {
        (Kind::Vf | Kind::Bridge(_), true) => 42,
        (Kind::Vf | Kind::Bridge(_), false) | (Kind::Pf | Kind::Device, _) => 58,
    }
}
