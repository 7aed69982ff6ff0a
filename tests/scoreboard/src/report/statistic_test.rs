//! Medians of even and odd numbers of runs, and lines that are known beforehand.

use proptest::prelude::*;

use super::{Summary, slope, summary};

#[test]
fn no_run_has_no_median() {
    assert_eq!(summary(&[]), None);
}

#[test]
fn one_run_is_its_own_spread() {
    let alone = Summary {
        median: 7.0,
        min: 7.0,
        max: 7.0,
        runs: 1,
    };
    assert_eq!(summary(&[7.0]), Some(alone));
}

#[test]
fn an_even_number_of_runs_has_the_mean_of_the_middle_two() {
    let four = Summary {
        median: 2.5,
        min: 1.0,
        max: 10.0,
        runs: 4,
    };
    assert_eq!(summary(&[10.0, 2.0, 1.0, 3.0]), Some(four));
}

#[test]
fn points_at_one_place_have_no_slope() {
    assert_eq!(slope(&[(1.0, 2.0)]), None);
    assert_eq!(slope(&[(1.0, 2.0), (1.0, 4.0)]), None);
    assert_eq!(slope(&[]), None);
}

#[test]
fn points_off_a_line_are_said_to_be() {
    let line = slope(&[(1.0, 10.0), (2.0, 20.0), (4.0, 40.0)]);
    assert!(line.is_some_and(|line| line.is_line(30.0)));
    let curve = slope(&[(1.0, 1.0), (2.0, 4.0), (4.0, 16.0), (7.0, 49.0)]);
    assert!(curve.is_some_and(|curve| !curve.is_line(48.0)));
}

proptest! {
    #[test]
    fn half_of_the_runs_are_on_each_side_of_the_median(values in prop::collection::vec(-1e9..1e9_f64, 1..20)) {
        let Some(found) = summary(&values) else { return Err(TestCaseError::fail("no summary")) };
        let below = values.iter().filter(|value| **value < found.median).count();
        let above = values.iter().filter(|value| **value > found.median).count();
        prop_assert!(2 * below <= values.len() && 2 * above <= values.len());
        prop_assert!(values.iter().all(|value| (found.min..=found.max).contains(value)));
        prop_assert_eq!(found.runs, values.len());
    }

    #[test]
    fn the_order_of_the_runs_does_not_matter(mut values in prop::collection::vec(-1e9..1e9_f64, 1..20)) {
        let before = summary(&values);
        values.reverse();
        prop_assert_eq!(before, summary(&values));
    }

    #[test]
    fn a_line_is_found_again(a in -100.0..100.0_f64, b in -1000.0..1000.0_f64, more in 1_u8..9) {
        let points: Vec<_> = (0..=more).map(|x| (f64::from(x), a * f64::from(x) + b)).collect();
        let Some(found) = slope(&points) else { return Err(TestCaseError::fail("no slope")) };
        prop_assert!((found.slope - a).abs() < 1e-6 && (found.start - b).abs() < 1e-6);
        prop_assert!(found.off_by < 1e-6);
    }
}
