//! `vf ls` and `vf why` as text.

use super::row::Row;
use crate::{
    error::{Color, printable},
    sriov::VfState,
    view::paint::{Ink, paint, wrapped},
};

/// A VF in a list.
pub type VfRow = Row;

/// Why a VF is as it is.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The VF.
    pub row: Row,
    /// What its state means, and what would change it.
    pub sentence: &'static str,
    /// What was found, one fact each.
    pub facts: Vec<String>,
}

impl Explanation {
    /// What a state means, and what would change it.
    #[must_use]
    pub const fn of_state(state: VfState) -> &'static str {
        match state {
            VfState::Absent => "its PF has fewer VFs; `narrows host apply` makes them",
            VfState::Created => {
                "it is there, but nobody has reset it and read it back: `narrows host apply` does, for VFs of pools"
            }
            VfState::Clean => {
                "it was reset and read back, and nobody had it since: a guest may have it"
            }
            VfState::Leased => {
                "a guest has it that does not run now; `narrows vf return` ends a lease that was kept"
            }
            VfState::InUse => "a guest runs with it; it comes back when the guest ends",
            VfState::Dirty => {
                "a guest had it, and it is not as its pool rests yet; `narrows recover` finishes what was interrupted"
            }
            VfState::Sanitising => {
                "its namespaces are being erased; `narrows recover` finishes what was interrupted"
            }
            VfState::Quarantined => {
                "it did not come back clean; no guest gets it until `narrows quarantine release`, and `narrows host apply`, which resets it"
            }
        }
    }
}

/// A table of VFs.
#[must_use]
pub fn vfs_text(rows: &[Row], color: Color) -> String {
    if rows.is_empty() {
        return "there are no VFs\n".to_owned();
    }
    let cells: Vec<[String; 6]> = rows.iter().map(cells).collect();
    let head = ["BDF", "PF", "POOL", "GUEST", "SINCE", "ADDRESS"];
    let mut widths = head.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; 6], state: &str| {
        let [bdf, pf, pool, guest, since, address] = cells;
        let [a, b, c, d, e, _] = widths;
        let line = format!(
            "{bdf:<a$}  {pf:<b$}  {pool:<c$}  {state}  {guest:<d$}  {since:<e$}  {address}"
        );
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&head.map(str::to_owned), "STATE      ");
    for (cells, row) in cells.iter().zip(rows) {
        text.push_str(&line(cells, &state(row.state, color)));
    }
    text
}

fn cells(row: &Row) -> [String; 6] {
    let or = |word: Option<&str>| printable(word.unwrap_or("-"));
    let of = row.of.as_deref().unwrap_or("");
    let guest = match (&row.guest, row.is_kept) {
        (Some(guest), true) => format!("{guest} (kept)"),
        (Some(guest), false) => guest.clone(),
        (None, _) => "-".to_owned(),
    };
    let address = match (&row.mac, row.namespaces.as_slice()) {
        (Some(mac), _) => mac.clone(),
        (None, []) => String::new(),
        (None, ids) => format!(
            "namespaces {}",
            ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        ),
    };
    [
        row.bdf.to_string(),
        printable(format!("{of} {}", row.index).trim_start()),
        or(row.pool.as_deref()),
        printable(&guest),
        or(row.since.as_deref()),
        address,
    ]
}

/// A state, padded and in its colour.
pub(super) fn state(state: VfState, color: Color) -> String {
    let ink = match state {
        VfState::Clean => Ink::Good,
        VfState::Leased | VfState::InUse => Ink::Strong,
        VfState::Absent | VfState::Created => Ink::Faint,
        VfState::Dirty | VfState::Sanitising => Ink::Odd,
        VfState::Quarantined => Ink::Bad,
    };
    paint(color, ink, &format!("{:<11}", state.to_string()))
}

/// One VF, explained.
#[must_use]
pub fn vf_text(one: &Explanation, color: Color) -> String {
    let row = &one.row;
    let mut text = format!(
        "{} {}\n",
        paint(color, Ink::Strong, &row.bdf.to_string()),
        state(row.state, color).trim_end()
    );
    let mut line = |label: &str, words: &str| {
        let words = wrapped(words, "           ", 11);
        text.push_str(&format!("  {label:<8} {words}\n"));
    };
    line("means", one.sentence);
    if let Some(why) = &row.why {
        line("why", why);
    }
    if let Some(since) = &row.since {
        line("since", since);
    }
    let of = row.of.as_deref().unwrap_or("no interface");
    line("of", &format!("VF {} of {} ({of})", row.index, row.pf));
    line("pool", row.pool.as_deref().unwrap_or("none"));
    if let Some(guest) = &row.guest {
        let kept = if row.is_kept {
            ", which keeps it between runs"
        } else {
            ""
        };
        line("guest", &format!("{guest}{kept}"));
    }
    if let Some(mac) = &row.mac {
        line("mac", mac);
    }
    for fact in &one.facts {
        line("", fact);
    }
    text
}
