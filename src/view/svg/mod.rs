//! The inventory as a picture: buses, ports, functions and VFs from left to right, with an outline around each IOMMU
//! group. It needs neither fonts of its own nor scripts, and is the same for the same host.

mod boxes;
mod groups;
mod layout;
mod legend;

use super::{Scene, forest, words};

/// The picture of a host.
#[must_use]
pub fn svg(scene: &Scene<'_>) -> String {
    let buses = forest::grow(scene.topology, scene.is_unfolded);
    let plan = layout::place(&buses);
    let mut body = Drawing::default();
    body.text(MARGIN, 26, "host", &words::host(scene.topology));
    for lane in &plan.lanes {
        body.push(&format!(
            "<rect class=\"lane\" x=\"{MARGIN}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\"/>",
            lane.top,
            plan.right.saturating_sub(MARGIN),
            lane.bottom.saturating_sub(lane.top),
        ));
        body.text(MARGIN + 12, lane.top + 20, "lane-name", &lane.name);
    }
    groups::draw_shared(&mut body, scene.topology, &plan);
    boxes::draw(&mut body, scene, &plan);
    let bottom = legend::draw(&mut body, scene, plan.bottom);
    let (width, height) = (plan.right + MARGIN, bottom + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>PCI functions and IOMMU groups of a host</title>\n\
         <style>{STYLE}</style>\n<defs>{HATCH}</defs>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
        body.text
    )
}

/// Around everything.
const MARGIN: u32 = 16;

const STYLE: &str = "\
text{font-family:'DejaVu Sans','Segoe UI',Helvetica,Arial,sans-serif;font-size:11px;fill:#202124}\
.page{fill:#fff}.host{font-size:14px;font-weight:bold}\
.lane{fill:#f6f7f9;stroke:#dadce0}.lane-name{font-size:12px;font-weight:bold;fill:#5f6368}\
.bdf{font-family:'DejaVu Sans Mono',Consolas,Menlo,monospace;font-size:12px;font-weight:bold}\
.bus{font-family:'DejaVu Sans Mono',Consolas,Menlo,monospace;font-size:12px;fill:#5f6368}\
.faint{fill:#5f6368}.tag{text-anchor:end;font-size:10px;font-weight:bold}\
.host-driver{fill:#e3e5e8}.vfio{fill:#cfe3ff}.free{fill:#fff}\
.none{stroke:#9aa0a6;stroke-dasharray:3 3}\
.wire{fill:none;stroke:#80868b;stroke-width:1.5}\
.vf-wire{fill:none;stroke:#8430ce;stroke-width:1.5;stroke-dasharray:5 3}\
.shared-edge{fill:#c5221f;stroke:#c5221f;stroke-width:3;stroke-linejoin:round}\
.shared-ground{fill:#fff}.shared-hatch{fill:url(#hatch)}.bad{fill:#c5221f}\
.pill{fill:#c5221f}.pill-text{fill:#fff;font-size:10px;font-weight:bold;text-anchor:middle}\
.good{fill:#137333}.odd{fill:#b06000}";

const HATCH: &str = "<pattern id=\"hatch\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" \
                     patternTransform=\"rotate(45)\"><rect width=\"8\" height=\"8\" fill=\"#fde8e6\"/>\
                     <rect width=\"3\" height=\"8\" fill=\"#f28b82\"/></pattern>";

/// Elements in the order in which they are painted.
#[derive(Debug, Default)]
struct Drawing {
    text: String,
}

impl Drawing {
    fn push(&mut self, element: &str) {
        self.text.push_str(element);
        self.text.push('\n');
    }

    fn text(&mut self, x: u32, y: u32, class: &str, words: &str) {
        let words = escape(words);
        self.push(&format!(
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{words}</text>"
        ));
    }
}

/// Text as XML, without characters that XML cannot hold.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The text, cut to `limit` characters.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let head: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", head.trim_end())
}
