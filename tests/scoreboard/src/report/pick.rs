//! Figures out of a board: by case, guest, work and column.

use std::collections::BTreeSet;

use super::statistic::{Slope, Summary, slope, summary};
use crate::{
    plan,
    record::{Board, Case, Guest, Interface, Record},
};

/// The VMM that all others are compared with.
pub const OURS: &str = "narrows";

/// A column of a table: a VMM by the interface that it used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    /// As in [`Record::vmm`].
    pub vmm: String,
    /// As in [`Record::interface`].
    pub interface: Option<Interface>,
}

impl Column {
    /// `qemu, type1`.
    #[must_use]
    pub fn title(&self) -> String {
        match self.interface {
            Some(Interface::Iommufd) => format!("{}, iommufd", self.vmm),
            Some(Interface::Type1) => format!("{}, type1", self.vmm),
            None => self.vmm.clone(),
        }
    }

    /// Whether a record is one of its runs.
    #[must_use]
    pub fn is_of(&self, record: &Record) -> bool {
        record.vmm == self.vmm && record.interface == self.interface
    }

    /// Whether it is Narrows.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.vmm == OURS
    }
}

/// The same measurement of every VMM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// As in [`Record::case`].
    pub case: Case,
    /// As in [`Record::guest`].
    pub guest: Option<Guest>,
    /// As in [`Record::work`].
    pub work: String,
}

/// The guest that most goals are about, with a console or without.
#[must_use]
pub const fn goal_guest(console: bool) -> Guest {
    Guest {
        console,
        ..plan::NVME
    }
}

/// Whether a guest is one of the goals'.
#[must_use]
pub fn is_of_goals(guest: Guest) -> bool {
    [goal_guest(false), goal_guest(true), plan::NIC].contains(&guest)
}

/// All shapes of a case that the board has, in order.
#[must_use]
pub fn shapes(board: &Board, case: Case) -> Vec<Shape> {
    let of_case = board.records.iter().filter(|record| record.case == case);
    let all: BTreeSet<_> = of_case
        .map(|record| Shape {
            case,
            guest: record.guest,
            work: record.work.clone(),
        })
        .collect();
    all.into_iter().collect()
}

/// The columns of these records, Narrows first, then as the board names the VMMs.
pub fn columns<'a>(board: &Board, records: impl Iterator<Item = &'a Record>) -> Vec<Column> {
    let all: BTreeSet<_> = records
        .map(|record| Column {
            vmm: record.vmm.clone(),
            interface: record.interface,
        })
        .collect();
    let place = |column: &Column| {
        let named = board.vmms.iter().position(|vmm| vmm.name == column.vmm);
        (!column.is_ours(), named.unwrap_or(usize::MAX))
    };
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|column| (place(column), column.clone()));
    all
}

/// The records of a shape.
pub fn of_shape<'a>(board: &'a Board, shape: &'a Shape) -> impl Iterator<Item = &'a Record> {
    board.records.iter().filter(move |record| {
        record.case == shape.case && record.guest == shape.guest && record.work == shape.work
    })
}

/// A figure of a record, for one of something, where `per` says of what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// The figure, and those that are added to it.
    pub figures: &'static [&'static str],
    /// The figure by which it is divided.
    pub per: Option<&'static str>,
    /// The number of these that it is given for.
    pub times: f64,
}

impl Measure {
    /// A figure as it is.
    #[must_use]
    pub const fn plain(figures: &'static [&'static str]) -> Self {
        Measure {
            figures,
            per: None,
            times: 1.0,
        }
    }

    /// What a record has of it; `None` where it lacks a figure, or the divisor is zero.
    #[must_use]
    pub fn of(&self, record: &Record) -> Option<f64> {
        let figure = |name: &&str| record.figures.get(*name).copied();
        let sum = self.figures.iter().map(figure).sum::<Option<f64>>()?;
        match self.per {
            None => Some(sum * self.times),
            Some(name) => {
                let by = figure(&name).filter(|by| *by > 0.0)?;
                Some(sum / by * self.times)
            }
        }
    }
}

/// What the runs of a column gave.
#[must_use]
pub fn value(board: &Board, shape: &Shape, column: &Column, measure: &Measure) -> Option<Summary> {
    let values: Vec<_> = of_shape(board, shape)
        .filter(|record| column.is_of(record))
        .filter_map(|record| measure.of(record))
        .collect();
    summary(&values)
}

/// Along which a figure may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// VFs of the NVMe controller, with as many of the NIC in each.
    Nvmes,
    /// VFs of the NIC, with as many of the NVMe controller in each.
    Nics,
    /// VFs, as many of each kind.
    Both,
    /// vCPUs.
    Vcpus,
    /// GiB of RAM.
    Memory,
}

impl Along {
    /// The place of a guest on the axis, and what it has in common with the others of its line.
    #[must_use]
    pub fn place(self, guest: Guest) -> Option<(f64, Guest)> {
        let mut rest = guest;
        let x = match self {
            Along::Nvmes => f64::from(std::mem::take(&mut rest.nvmes)),
            Along::Nics => f64::from(std::mem::take(&mut rest.nics)),
            Along::Vcpus => f64::from(std::mem::take(&mut rest.vcpus)),
            Along::Memory => f64::from(std::mem::take(&mut rest.memory_mib)) / 1024.0,
            Along::Both => {
                let vfs = f64::from(std::mem::take(&mut rest.nics)) + f64::from(guest.nvmes);
                rest.nvmes = 0;
                return (guest.nics == guest.nvmes).then_some((vfs, rest));
            }
        };
        Some((x, rest))
    }
}

/// One column's medians along an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Whose.
    pub column: Column,
    /// What is the same in all of its guests; the axis itself is zero there.
    pub rest: Guest,
    /// By x, one each.
    pub points: Vec<(f64, f64)>,
    /// The line through them.
    pub slope: Slope,
}

/// A series before its slope is known.
type Points = (Guest, Column, Vec<(f64, f64)>);

/// Every series of at least two points, by what its guests have in common and then by column.
#[must_use]
pub fn series(board: &Board, case: Case, along: Along, measure: &Measure) -> Vec<Series> {
    let mut found: Vec<Points> = Vec::new();
    for shape in shapes(board, case) {
        let Some((x, rest)) = shape.guest.and_then(|guest| along.place(guest)) else {
            continue;
        };
        for column in columns(board, of_shape(board, &shape)) {
            let Some(y) = value(board, &shape, &column, measure) else {
                continue;
            };
            let same = |entry: &&mut Points| entry.0 == rest && entry.1 == column;
            match found.iter_mut().find(same) {
                Some(entry) => entry.2.push((x, y.median)),
                None => found.push((rest, column, vec![(x, y.median)])),
            }
        }
    }
    let mut all: Vec<_> = found
        .into_iter()
        .filter_map(|(rest, column, mut points)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let slope = slope(&points)?;
            Some(Series {
                column,
                rest,
                points,
                slope,
            })
        })
        .collect();
    let order = columns(board, board.records.iter());
    all.sort_by_key(|one| {
        (
            one.rest,
            order.iter().position(|column| *column == one.column),
        )
    });
    all
}
