//! Walks a TOML document key by key and collects every problem with its place, instead of ending at the first.

use std::{
    cell::RefCell,
    ops::{Range, RangeInclusive},
    path::Path,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::near::nearest;
use crate::error::{ErrorId, Location, Report};

/// A guest file's text, and the problems found in it so far.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    problems: RefCell<Vec<Report>>,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Location,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self {
            file,
            text,
            problems: RefCell::default(),
        }
    }

    /// The whole document; `None`, with problems noted, where it is not TOML.
    pub(super) fn document(&'a self) -> Option<Table<'a>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(Table {
                reader: self,
                prefix: String::new(),
                place: None,
                entries: table.into_inner(),
            }),
            Err(error) => {
                self.problem(
                    Report::new(
                        ErrorId::SpecSyntax,
                        format!("guest file {} is not TOML", self.file.display()),
                        error.message().replace('\n', ", "),
                        "correct the marked place",
                    )
                    .at(error.span().map(|span| self.locate(span))),
                );
                None
            }
        }
    }

    pub(super) fn problem(&self, report: Report) {
        self.problems.borrow_mut().push(report);
    }

    /// All problems, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Report> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| p.location.as_ref().map(|l| (l.line, l.column)));
        problems
    }

    /// The last boundary of a character at or before `at`.
    fn boundary(&self, at: usize) -> usize {
        (0..=at.min(self.text.len()))
            .rev()
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or(0)
    }

    fn locate(&self, span: Range<usize>) -> Location {
        let start = self.boundary(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let end = span
            .end
            .clamp(start, line_start + line.len().max(start - line_start));
        let end = self.boundary(end);
        Location {
            file: self.file.to_owned(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: self.text[start..end].chars().count().max(1),
            text: line.to_owned(),
        }
    }
}

/// One table of the document, from which keys are taken until none is left.
#[derive(Debug)]
pub(super) struct Table<'a> {
    reader: &'a Reader<'a>,
    /// `""`, `"memory."`, …
    prefix: String,
    /// Where the table begins; `None` for the document.
    place: Option<Location>,
    entries: DeTable<'a>,
}

impl<'a> Table<'a> {
    /// Where the table begins.
    pub(super) fn place(&self) -> Option<&Location> {
        self.place.as_ref()
    }

    /// The string at `key`.
    pub(super) fn string(&mut self, key: &str) -> Option<Placed<String>> {
        let (value, place) = self.take(key)?;
        self.as_string(key, "a string", value, place)
    }

    /// The string at `key`, which has to be there.
    pub(super) fn required(&mut self, key: &str, example: &str) -> Option<Placed<String>> {
        if !self.has(key) {
            self.reader.problem(
                Report::new(
                    ErrorId::SpecMissingKey,
                    format!("key `{}{key}` is missing", self.prefix),
                    "a guest cannot be made without it",
                    format!("add `{key} = {example}`"),
                )
                .at(self.place.clone()),
            );
        }
        self.string(key)
    }

    /// The whole number at `key`, when it lies within `range`.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Option<Placed<u32>> {
        let (value, place) = self.take(key)?;
        let DeValue::Integer(number) = &value else {
            return self.wrong_type(key, "a whole number", &value, place);
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if usize::try_from(number).is_ok_and(|n| range.contains(&n)) => {
                Some(Placed {
                    value: number,
                    place,
                })
            }
            _ => {
                self.reader.problem(
                    Report::new(
                        ErrorId::BadNumber,
                        format!("{number} is out of range for `{}{key}`", self.prefix),
                        format!("it may be {} to {}", range.start(), range.end()),
                        "write a number in that range",
                    )
                    .at(Some(place)),
                );
                None
            }
        }
    }

    /// The strings of the array at `key`.
    pub(super) fn strings(&mut self, key: &str) -> Vec<Placed<String>> {
        let expected = "an array of strings";
        self.array(key, expected)
            .into_iter()
            .filter_map(|(value, place)| self.as_string(key, expected, value, place))
            .collect()
    }

    /// Whether `key` is there and holds a string.
    pub(super) fn has_string(&self, key: &str) -> bool {
        self.entries
            .get(key)
            .is_some_and(|value| value.get_ref().is_str())
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some()
    }

    /// The table at `key`.
    pub(super) fn table(&mut self, key: &str) -> Option<Self> {
        let (value, place) = self.take(key)?;
        self.as_table(key, "a table", value, place)
    }

    /// The tables at `key`, written `[[key]]`.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Self> {
        let expected = "a list of tables, each with its heading in double brackets";
        self.array(key, expected)
            .into_iter()
            .filter_map(|(value, place)| self.as_table(key, expected, value, place))
            .collect()
    }

    /// Ends the table: what has not been taken is not known. `known` are the keys there are.
    pub(super) fn finish(self, known: &[&str]) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            let fix = match nearest(name, known) {
                Some(near) => format!("did you mean `{}{near}`?", self.prefix),
                None => format!("remove it; known here: {}", known.join(", ")),
            };
            self.reader.problem(
                Report::new(
                    ErrorId::SpecUnknownKey,
                    format!("key `{}{name}` is not known", self.prefix),
                    "an unknown key is refused, so that no wish is silently ignored",
                    fix,
                )
                .at(Some(self.reader.locate(key.span()))),
            );
        }
    }

    /// Notes `report` and gives no value.
    pub(super) fn problem<T>(&self, report: Report, place: Location) -> Option<T> {
        self.reader.problem(report.at(Some(place)));
        None
    }

    fn as_string(
        &self,
        key: &str,
        expected: &str,
        value: DeValue<'a>,
        place: Location,
    ) -> Option<Placed<String>> {
        let DeValue::String(text) = value else {
            return self.wrong_type(key, expected, &value, place);
        };
        let value = text.into_owned();
        Some(Placed { value, place })
    }

    fn as_table(
        &self,
        key: &str,
        expected: &str,
        value: DeValue<'a>,
        place: Location,
    ) -> Option<Self> {
        let DeValue::Table(entries) = value else {
            return self.wrong_type(key, expected, &value, place);
        };
        Some(Self {
            reader: self.reader,
            prefix: format!("{}{key}.", self.prefix),
            place: Some(place),
            entries,
        })
    }

    fn array(&mut self, key: &str, expected: &str) -> Vec<(DeValue<'a>, Location)> {
        let Some((value, place)) = self.take(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value else {
            return self
                .wrong_type(key, expected, &value, place)
                .unwrap_or_default();
        };
        let located = |item: Spanned<DeValue<'a>>| {
            let place = self.reader.locate(item.span());
            (item.into_inner(), place)
        };
        array.into_iter().map(located).collect()
    }

    fn take(&mut self, key: &str) -> Option<(DeValue<'a>, Location)> {
        let value: Spanned<DeValue<'a>> = self.entries.remove(key)?;
        let place = self.reader.locate(value.span());
        Some((value.into_inner(), place))
    }

    fn wrong_type<T>(
        &self,
        key: &str,
        expected: &str,
        found: &DeValue<'_>,
        place: Location,
    ) -> Option<T> {
        self.problem(
            Report::new(
                ErrorId::SpecWrongType,
                format!("`{}{key}` has the wrong type", self.prefix),
                format!("it is {expected}; found: {}", found.type_str()),
                format!("write {expected}"),
            ),
            place,
        )
    }
}
