//! `narrows ps` as text.

use iommu::bdf::Bdf;
use serde::Serialize;

use super::paint::{Ink, paint};
use crate::{
    error::{Color, printable},
    state::{Guest, GuestState},
};

/// A guest that does not run and keeps VFs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptGuest {
    /// Its name.
    pub name: String,
    /// Since when it has them: RFC 3339.
    pub since: String,
    /// Its VFs.
    pub vfs: Vec<Bdf>,
}

/// A table of guests.
#[must_use]
pub fn guests_text(guests: &[Guest], kept: &[KeptGuest], color: Color) -> String {
    if guests.is_empty() && kept.is_empty() {
        return "no guest runs here\n".to_owned();
    }
    let names = guests.iter().map(|guest| &guest.name);
    let names = names.chain(kept.iter().map(|guest| &guest.name));
    let width = names.map(|name| name.len()).max().unwrap_or(0).max(5);
    let mut text = format!(
        "{}\n",
        paint(
            color,
            Ink::Strong,
            &format!(
                "{:<width$}  STATE      {:>7}  {:>9}  VFS",
                "GUEST", "PID", "AGE"
            )
        )
    );
    for guest in guests {
        let ink = match guest.state {
            GuestState::Running => Ink::Good,
            GuestState::Preparing => Ink::Odd,
            GuestState::Dead => Ink::Bad,
        };
        let age = guest.age_seconds.map_or_else(|| "-".to_owned(), age);
        text.push_str(&format!(
            "{:<width$}  {}  {:>7}  {age:>9}  {}\n",
            printable(&guest.name),
            paint(color, ink, &format!("{:<9}", guest.state.word())),
            guest.pid,
            list(&guest.vfs),
        ));
    }
    for guest in kept {
        text.push_str(&format!(
            "{:<width$}  {}  {:>7}  {:>9}  {}\n",
            printable(&guest.name),
            paint(color, Ink::Faint, "kept     "),
            "-",
            "-",
            list(&guest.vfs),
        ));
    }
    text
}

fn list(vfs: &[Bdf]) -> String {
    match vfs {
        [] => "-".to_owned(),
        vfs => vfs.iter().map(Bdf::to_string).collect::<Vec<_>>().join(" "),
    }
}

/// Seconds as the two largest units.
fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (7260, "2h01m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn guests_that_keep_vfs_without_running_are_in_the_list() {
        let guest = Guest {
            name: "web-1".to_owned(),
            state: GuestState::Running,
            pid: 812,
            since: "2026-11-22T05:03:02Z".to_owned(),
            age_seconds: Some(61),
            vfs: vec!["0000:01:10.0".parse().expect("a BDF")],
        };
        let kept = KeptGuest {
            name: "db".to_owned(),
            since: guest.since.clone(),
            vfs: guest.vfs.clone(),
        };
        assert_eq!(
            guests_text(&[guest], &[kept], Color::Never),
            "GUEST  STATE          PID        AGE  VFS\n\
             web-1  running        812      1m01s  0000:01:10.0\n\
             db     kept             -          -  0000:01:10.0\n"
        );
    }
}
