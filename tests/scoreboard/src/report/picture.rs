//! A file of SVG, element by element.

use std::fmt::Write;

/// Of every picture.
pub(super) const WIDTH: f64 = 940.0;
/// Readable on white and on black; a theme that says nothing gets the light one.
const STYLE: &str = "\
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.small { font-size: 12px; fill: #59636e; }
.axis { stroke: #818b98; stroke-width: 1; fill: none; }
.grid { stroke: #d1d9e0; stroke-width: 1; fill: none; }
.goal { stroke: #bc4c00; stroke-width: 2; fill: none; }
.met { fill: #1a7f37; } .missed { fill: #cf222e; }
.line { fill: none; stroke-width: 2; }
.c0 { stroke: #0969da; } .c1 { stroke: #8250df; } .c2 { stroke: #bf3989; } .c3 { stroke: #9a6700; } .c4 { stroke: #1a7f37; } .c5 { stroke: #59636e; }
.ours { stroke-width: 3.5; } .dashed { stroke-dasharray: 4 6; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .small { fill: #9198a1; } .axis { stroke: #656c76; } .grid { stroke: #3d444d; }
.goal { stroke: #f0883e; } .met { fill: #3fb950; } .missed { fill: #f85149; }
.c0 { stroke: #4493f8; } .c1 { stroke: #ab7df8; } .c2 { stroke: #db61a2; } .c3 { stroke: #d29922; } .c4 { stroke: #3fb950; } .c5 { stroke: #9198a1; }
}
</style>";

/// An SVG file that grows.
pub(super) struct Picture(String);

impl Picture {
    pub(super) fn new(title: &str, height: f64) -> Self {
        let title = escape(title);
        let mut picture = Picture(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title\">\n\
            <title id=\"title\">{title}</title>\n{STYLE}\n"
        ));
        picture.push(format_args!(
            "<text class=\"title\" x=\"12\" y=\"24\">{title}</text>"
        ));
        picture
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _infallible = writeln!(self.0, "{element}");
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64)) {
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            at.0, at.1, size.0, size.1
        ));
    }

    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.push(format_args!(
            "<polyline class=\"{class}\" points=\"{}\"/>",
            points.join(" ")
        ));
    }

    pub(super) fn text(&mut self, class: &str, anchor: &str, at: (f64, f64), text: &str) {
        self.push(format_args!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at.0,
            at.1,
            escape(text)
        ));
    }

    pub(super) fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// For text in XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
