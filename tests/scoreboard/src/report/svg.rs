//! Pictures by hand: bars on a logarithmic scale, and lines. Pure; the same numbers give the same bytes.

use super::picture::{Picture, WIDTH};

const COLOURS: usize = 6;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Before it.
    pub label: String,
    /// Its length, above zero.
    pub value: f64,
    /// Where its goal is.
    pub goal: f64,
    /// Behind it.
    pub note: String,
}

/// Bars from 1, to the left where less, with the goal of each as an upright mark.
#[must_use]
pub fn bars(title: &str, axis: &str, bars: &[Bar]) -> String {
    let (left, right, top, step) = (500.0, WIDTH - 190.0, 50.0, 30.0);
    let all = bars.iter().flat_map(|bar| [bar.value, bar.goal]);
    let lowest = all.clone().fold(1.0, f64::min).max(1e-6).log10().floor();
    let highest = all.fold(1.0, f64::max).log10().ceil().max(lowest + 1.0);
    let x = |value: f64| {
        let share = (value.max(1e-6).log10() - lowest) / (highest - lowest);
        left + share * (right - left)
    };
    let count: f64 = bars.iter().map(|_| 1.0).sum();
    let bottom = top + count * step + 6.0;
    let mut out = Picture::new(title, bottom + 52.0);
    let mut power = lowest;
    while power <= highest {
        let at = x(10_f64.powf(power));
        out.line("grid", (at, top), (at, bottom));
        out.text(
            "small",
            "middle",
            (at, bottom + 18.0),
            &decimal(10_f64.powf(power)),
        );
        power += 1.0;
    }
    let one = x(1.0);
    out.line("axis", (one, top), (one, bottom));
    out.text(
        "small",
        "middle",
        (f64::midpoint(left, right), bottom + 40.0),
        axis,
    );
    let mut y = top + 6.0;
    for bar in bars {
        let at = x(bar.value);
        let class = if bar.value <= bar.goal {
            "met"
        } else {
            "missed"
        };
        out.rect(
            class,
            (at.min(one), y + 4.0),
            ((at - one).abs().max(1.0), step - 12.0),
        );
        let goal = x(bar.goal);
        out.line("goal", (goal, y), (goal, y + step - 4.0));
        out.text("", "end", (left - 10.0, y + 18.0), &bar.label);
        out.text("", "start", (right + 10.0, y + 18.0), &bar.note);
        y += step;
    }
    out.end()
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is.
    pub label: String,
    /// Whether it is drawn stronger.
    pub is_ours: bool,
    /// Which colour it has; lines of one VMM share theirs.
    pub colour: usize,
    /// Whether it is broken, so that a line below it is seen.
    pub is_dashed: bool,
    /// By x.
    pub points: Vec<(f64, f64)>,
}

/// Lines from y = 0, with a goal across them where there is one.
#[must_use]
pub fn lines(title: &str, axes: (&str, &str), lines: &[Line], goal: Option<f64>) -> String {
    let (left, right, top, height) = (80.0, WIDTH - 240.0, 56.0, 300.0);
    let bottom = top + height;
    let points = || lines.iter().flat_map(|line| &line.points);
    let end_x = points().map(|point| point.0).fold(0.0, f64::max);
    let end_y = points()
        .map(|point| point.1)
        .chain(goal)
        .fold(0.0, f64::max);
    let step = round_step(end_y / 5.0);
    let end_y = (end_y / step).ceil().max(1.0) * step;
    let end_x = if end_x > 0.0 { end_x } else { 1.0 };
    let place = |(x, y): (f64, f64)| {
        (
            left + x / end_x * (right - left),
            bottom - y / end_y * height,
        )
    };

    let count: f64 = lines.iter().map(|_| 1.0).sum();
    let mut out = Picture::new(title, (bottom + 52.0).max(top + 30.0 + count * 20.0));
    let mut y = 0.0;
    while y <= end_y + step / 2.0 {
        let at = place((0.0, y)).1;
        out.line("grid", (left, at), (right, at));
        out.text(
            "small",
            "end",
            (left - 8.0, at + 4.0),
            &super::words::number(y),
        );
        y += step;
    }
    let mut xs: Vec<_> = points().map(|point| point.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    for x in xs {
        let at = place((x, 0.0)).0;
        out.line("axis", (at, bottom), (at, bottom + 5.0));
        out.text(
            "small",
            "middle",
            (at, bottom + 20.0),
            &super::words::number(x),
        );
    }
    out.line("axis", (left, bottom), (right, bottom));
    out.text(
        "small",
        "middle",
        (f64::midpoint(left, right), bottom + 42.0),
        axes.0,
    );
    out.text("small", "start", (12.0, top - 12.0), axes.1);
    if let Some(goal) = goal {
        let at = place((0.0, goal)).1;
        out.line("goal", (left, at), (right, at));
        let label = format!("goal: {}", super::words::number(goal));
        out.text("small", "start", (left + 6.0, at - 5.0), &label);
    }
    let mut key = top + 4.0;
    for line in lines {
        let ours = if line.is_ours { " ours" } else { "" };
        let dashed = if line.is_dashed { " dashed" } else { "" };
        let class = format!("line c{}{ours}{dashed}", line.colour % COLOURS);
        out.path(
            &class,
            &line
                .points
                .iter()
                .map(|point| place(*point))
                .collect::<Vec<_>>(),
        );
        out.line(&class, (right + 20.0, key - 4.0), (right + 44.0, key - 4.0));
        out.text("", "start", (right + 52.0, key), &line.label);
        key += 20.0;
    }
    out.end()
}

/// 1, 2 or 5 times a power of ten, at least as large.
fn round_step(wish: f64) -> f64 {
    if wish <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(wish.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let fits = steps
        .iter()
        .map(|step| step * power)
        .find(|step| *step >= wish * 0.999);
    fits.unwrap_or(10.0 * power)
}

/// A power of ten, written out.
fn decimal(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[path = "svg_test.rs"]
mod tests;
