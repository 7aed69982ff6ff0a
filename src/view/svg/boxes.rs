//! Wires, and the boxes of functions with the outline of their group.

use iommu::topology::Topology;

use super::{
    super::{
        Scene,
        forest::Branch,
        words::{self, AcsState, Fence, Kind},
    },
    Drawing, cut, escape,
    layout::{Layout, Place, WIDTH, WIRE},
};

/// Colours of groups that are not shared, none of them red; neighbours by number differ.
const COLOURS: [&str; 6] = [
    "#1a73e8", "#188038", "#e8710a", "#9334e6", "#12858d", "#b80672",
];
/// Characters of a line of ordinary text that fit into a box.
const LINE: usize = 48;

pub(super) fn draw(body: &mut Drawing, scene: &Scene<'_>, plan: &Layout<'_>) {
    for bus in &plan.buses {
        body.text(bus.x, bus.y, "bus", &bus.name);
    }
    for place in &plan.places {
        wire(body, place);
    }
    for place in &plan.places {
        function(body, scene, place);
    }
}

fn wire(body: &mut Drawing, place: &Place<'_>) {
    let (from_x, from_y) = place.wire_from;
    let class = match Kind::of(place.branch.first) {
        Kind::Vf => "vf-wire",
        Kind::Pf | Kind::Bridge(_) | Kind::Device => "wire",
    };
    let (x, y) = (place.x, place.y + WIRE);
    let middle = place.turn;
    body.push(&format!(
        "<path class=\"{class}\" d=\"M{from_x} {from_y}H{middle}V{y}H{x}\"/>"
    ));
}

fn function(body: &mut Drawing, scene: &Scene<'_>, place: &Place<'_>) {
    let branch = place.branch;
    let outline = outline(scene.topology, branch);
    let style = outline.style();
    body.push("<g>");
    body.push(&format!(
        "<title>{}</title>",
        escape(&tooltip(scene, branch))
    ));
    if !branch.others.is_empty() {
        // A stack: each of its functions has a group of its own.
        for offset in [6, 3] {
            rect(body, place, offset, &style);
        }
    }
    rect(body, place, 0, &style);
    heading(body, place, &outline);
    let acs = words::acs(branch.first);
    let room = if acs.is_some() { LINE - 16 } else { LINE };
    let (x, mut y) = (place.x + 10, place.y + 17);
    for line in lines(scene, branch) {
        y += 16;
        body.text(x, y, "faint", &cut(&line, room));
    }
    if let Some(acs) = acs {
        badge(body, place, &acs);
    }
    body.push("</g>");
}

/// What surrounds a box.
struct Outline {
    tag: String,
    colour: Option<&'static str>,
    is_shared: bool,
}

impl Outline {
    fn style(&self) -> String {
        match self.colour {
            Some(colour) => format!("style=\"stroke:{colour};stroke-width:2\""),
            None => String::new(),
        }
    }
}

fn outline(topology: &Topology, branch: &Branch<'_>) -> Outline {
    let colour = |id: u32| {
        let count = u32::try_from(COLOURS.len()).unwrap_or(1);
        usize::try_from(id % count)
            .ok()
            .and_then(|i| COLOURS.get(i))
            .copied()
    };
    let last = words::fence(topology, branch.last());
    match (words::fence(topology, branch.first), last) {
        (Fence::None, _) => Outline {
            tag: "no group".to_owned(),
            colour: None,
            is_shared: false,
        },
        (Fence::Alone(first), Fence::Alone(last)) if first != last => Outline {
            tag: format!("groups {}", words::groups(branch)),
            colour: colour(first.0),
            is_shared: false,
        },
        (Fence::Alone(id), _) => Outline {
            tag: format!("group {}", id.0),
            colour: colour(id.0),
            is_shared: false,
        },
        (Fence::Shared(id, count), _) => Outline {
            tag: format!("group {}, shared by {count}", id.0),
            colour: Some("#c5221f"),
            is_shared: true,
        },
    }
}

fn rect(body: &mut Drawing, place: &Place<'_>, offset: u32, style: &str) {
    let function = place.branch.first;
    let fill = match (words::is_vfio(function), &function.driver) {
        (true, _) => "vfio",
        (false, Some(_)) => "host-driver",
        (false, None) => "free",
    };
    let none = if style.is_empty() { " none" } else { "" };
    body.push(&format!(
        "<rect class=\"{fill}{none}\" x=\"{}\" y=\"{}\" width=\"{WIDTH}\" height=\"{}\" rx=\"5\" {style}/>",
        place.x + offset,
        place.y + offset,
        place.height,
    ));
}

/// The address, and the group at the right.
fn heading(body: &mut Drawing, place: &Place<'_>, outline: &Outline) {
    let branch = place.branch;
    let (x, y) = (place.x + 10, place.y + 17);
    let (first, last) = (branch.first.bdf, branch.last().bdf);
    let address = match branch.others.is_empty() {
        true => first.to_string(),
        // The domain of the last is that of the first.
        false => format!(
            "{first} … {}",
            last.to_string().get(5..).unwrap_or_default()
        ),
    };
    body.text(x, y, "bdf", &address);
    let right = place.x + WIDTH - 8;
    let colour = outline.colour.unwrap_or("#5f6368");
    let mark = if outline.is_shared { "⚠ " } else { "" };
    body.push(&format!(
        "<text x=\"{right}\" y=\"{y}\" class=\"tag\" style=\"fill:{colour}\">{mark}{}</text>",
        escape(&outline.tag)
    ));
}

/// The lines below the address.
fn lines(scene: &Scene<'_>, branch: &Branch<'_>) -> Vec<String> {
    let function = branch.first;
    let name = words::name(scene, function);
    let driver = match branch.others.is_empty() {
        true => words::driver(function),
        false => function.driver.clone().unwrap_or("no driver".to_owned()),
    };
    let mut facts = vec![driver];
    match Kind::of(function) {
        Kind::Bridge(words) => vec![words::port(scene, function, words)],
        Kind::Vf => {
            facts.extend(words::carries(function).into_iter().next());
            facts.push(words::interrupts(&function.interrupts));
            facts.push(words::resets(function));
            match branch.count() {
                1 => vec![format!("VF, {}", facts.join(", "))],
                count => vec![format!("{count} VFs, {name}"), facts.join(", ")],
            }
        }
        kind @ (Kind::Pf | Kind::Device) => {
            facts.extend(words::carries(function));
            facts.extend(
                function
                    .sriov
                    .map(|s| format!("VFs {}/{}", s.enabled, s.total)),
            );
            facts.extend(words::link(function));
            let role = match (kind, branch.count()) {
                (Kind::Pf, _) => "PF, ".to_owned(),
                (_, 1) => String::new(),
                (_, count) => format!("{count} × "),
            };
            let class = words::class(function);
            vec![format!("{role}{class}, {name}"), facts.join(", ")]
        }
    }
}

/// The state of ACS in the lower right corner of a port.
fn badge(body: &mut Drawing, place: &Place<'_>, acs: &AcsState) {
    let (right, y) = (place.x + WIDTH - 8, place.y + 33);
    let class = match acs {
        AcsState::Weak(words) => {
            let words = cut(words, 22);
            let width = u32::try_from(words.chars().count()).unwrap_or(0) * 7 + 14;
            let x = right.saturating_sub(width);
            body.push(&format!(
                "<rect class=\"pill\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"16\" rx=\"8\"/>",
                y - 12
            ));
            body.text(x + width / 2, y, "pill-text", &words);
            return;
        }
        AcsState::On => "good",
        AcsState::NotRead => "odd",
    };
    body.text(right, y, &format!("tag {class}"), &acs.words());
}

/// What a browser shows when the pointer rests on a box.
fn tooltip(scene: &Scene<'_>, branch: &Branch<'_>) -> String {
    let function = branch.first;
    let mut facts = vec![
        Kind::of(function).words().to_owned(),
        words::class(function),
        words::name(scene, function),
    ];
    facts.push(words::driver(function));
    facts.extend(words::acs(function).map(|acs| acs.words()));
    facts.push(words::interrupts(&function.interrupts));
    facts.push(words::resets(function));
    let addresses: Vec<String> = branch.functions().map(|f| f.bdf.to_string()).collect();
    format!("{}\n{}", addresses.join(" "), facts.join(", "))
}
