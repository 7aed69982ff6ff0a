//! Median, spread and slope. Pure.

/// What several runs gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub runs: usize,
}

/// Of at least one value; `None` for none.
#[must_use]
pub fn summary(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let runs = sorted.len();
    let upper = *sorted.get(runs / 2)?;
    let lower = *sorted.get((runs - 1) / 2)?;
    Some(Summary {
        median: f64::midpoint(lower, upper),
        min: *sorted.first()?,
        max: *sorted.last()?,
        runs,
    })
}

/// A straight line through points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// By how much y grows with one more x.
    pub slope: f64,
    /// y at x = 0.
    pub start: f64,
    /// The largest distance of a point from the line, in y.
    pub off_by: f64,
    /// How many points.
    pub points: usize,
}

impl Slope {
    /// Whether the points are a line but for a twentieth of their rise.
    #[must_use]
    pub fn is_line(&self, rise: f64) -> bool {
        self.points < 3 || self.off_by <= rise.abs() / 20.0 || self.off_by < 0.5
    }
}

/// The line with the least squares; `None` for fewer than two different x.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let count: f64 = points.iter().map(|_| 1.0).sum();
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if points.len() < 2 || spread == 0.0 {
        return None;
    }
    let together: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let slope = together / spread;
    let start = mean_y - slope * mean_x;
    let off_by = points
        .iter()
        .map(|(x, y)| (y - start - slope * x).abs())
        .fold(0.0, f64::max);
    Some(Slope {
        slope,
        start,
        off_by,
        points: points.len(),
    })
}

#[cfg(test)]
#[path = "statistic_test.rs"]
mod tests;
