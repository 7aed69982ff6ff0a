//! `host status`: pools, leases, drift.

use std::collections::BTreeMap;

use serde::Serialize;

use super::row::Row;
use crate::{
    error::{Color, Report, printable},
    sriov::VfState,
    view::paint::{Ink, paint, wrapped},
};

/// A pool in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// VFs in it.
    pub total: u32,
    /// Those that a guest may have.
    pub free: u32,
    /// Those that a guest has without running.
    pub leased: u32,
    /// Those that a guest runs with.
    pub in_use: u32,
    /// Those that are on their way back, or were never reset.
    pub dirty: u32,
    /// Those that did not come back clean.
    pub quarantined: u32,
}

/// What there is to say of a host.
#[derive(Clone, Debug)]
pub struct Status<'a> {
    /// All VFs.
    pub rows: &'a [Row],
    /// What differs from the file, a line each: what, what it is, what it should be.
    pub drift: &'a [String],
    /// What keeps PFs from being looked at or used.
    pub broken: &'a [Report],
    /// The file, and when it was applied.
    pub applied: Option<(&'a str, &'a str)>,
}

/// The pools of the rows, by name.
#[must_use]
pub fn pools(rows: &[Row]) -> Vec<PoolRow> {
    let mut pools: BTreeMap<&str, PoolRow> = BTreeMap::new();
    for row in rows {
        let Some(name) = row.pool.as_deref() else {
            continue;
        };
        let pool = pools.entry(name).or_default();
        name.clone_into(&mut pool.name);
        pool.total += 1;
        let counter = match row.state {
            VfState::Clean => &mut pool.free,
            VfState::Leased => &mut pool.leased,
            VfState::InUse => &mut pool.in_use,
            VfState::Absent | VfState::Created | VfState::Dirty | VfState::Sanitising => {
                &mut pool.dirty
            }
            VfState::Quarantined => &mut pool.quarantined,
        };
        *counter += 1;
    }
    pools.into_values().collect()
}

/// The status as text.
#[must_use]
pub fn status_text(status: &Status<'_>, color: Color) -> String {
    let mut text = match status.applied {
        Some((file, at)) => format!("{} was applied at {at}\n", printable(file)),
        None => "no host file was applied\n".to_owned(),
    };
    let pools = pools(status.rows);
    if !pools.is_empty() {
        let width = pools
            .iter()
            .map(|pool| pool.name.len())
            .max()
            .unwrap_or(0)
            .max(4);
        let head = format!(
            "{:<width$}  TOTAL   FREE LEASED IN USE  DIRTY QUARANTINED",
            "POOL"
        );
        text.push_str(&format!("{}\n", paint(color, Ink::Strong, &head)));
        for pool in &pools {
            text.push_str(&format!(
                "{:<width$} {:>6} {:>6} {:>6} {:>6} {:>6} {:>11}\n",
                printable(&pool.name),
                pool.total,
                pool.free,
                pool.leased,
                pool.in_use,
                pool.dirty,
                pool.quarantined,
            ));
        }
    }
    for row in status.rows {
        if let (Some(guest), VfState::Leased | VfState::InUse) = (&row.guest, row.state) {
            let line = format!("{} is {} by guest {guest}", row.bdf, words(row));
            text.push_str(&format!("{}\n", printable(&line)));
        }
    }
    for line in status.drift {
        let symbol = paint(color, Ink::Odd, "~");
        text.push_str(&format!("{symbol} {}\n", wrapped(line, "    ", 2)));
    }
    text.push_str(&broken_text(status.broken, color));
    text.push_str(&match status.drift.len() {
        0 if !status.broken.is_empty() => String::new(),
        0 if status.applied.is_some() => "no drift: the machine is as the file says\n".to_owned(),
        0 => String::new(),
        1 => "1 difference from the file: `narrows host apply` puts it right\n".to_owned(),
        count => {
            format!("{count} differences from the file: `narrows host apply` puts them right\n")
        }
    });
    text
}

/// A line for each PF that cannot be used, with the remedy.
#[must_use]
pub fn broken_text(broken: &[Report], color: Color) -> String {
    let line = |report: &Report| {
        let symbol = paint(color, Ink::Bad, "!");
        let words = format!("{}: {}; {}", report.what, report.why.join("; "), report.fix);
        format!("{symbol} {}\n", wrapped(&words, "    ", 2))
    };
    broken.iter().map(line).collect()
}

fn words(row: &Row) -> &'static str {
    match (row.state, row.is_kept) {
        (VfState::InUse, _) => "used",
        (_, true) => "kept",
        _ => "leased",
    }
}
