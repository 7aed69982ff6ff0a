//! Walks a TOML document key by key and collects every problem with its place, instead of ending at the first.

use std::{
    borrow::Cow,
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

/// What a file is for, in the words of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// It describes a guest.
    Guest,
    /// It describes a host.
    Host,
    /// It describes a family of devices. All that is wrong with it is `profile-malformed`: who wrote it is somebody else
    /// than who wrote the host file, as a rule.
    Profile,
}

impl FileKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest file",
            Self::Host => "host file",
            Self::Profile => "profile",
        }
    }

    /// Why a key has to be there.
    const fn need(self) -> &'static str {
        match self {
            Self::Guest => "a guest cannot be made without it",
            Self::Host => "the host cannot be set up without it",
            Self::Profile => "a profile leaves nothing to be guessed",
        }
    }
}

/// A file's text, and the problems found in it so far.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    kind: FileKind,
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
    pub(super) fn new(kind: FileKind, file: &'a Path, text: &'a str) -> Self {
        Self {
            kind,
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
                        format!("{} {} is not TOML", self.kind.name(), self.file.display()),
                        error.message().replace('\n', ", "),
                        "correct the marked place",
                    )
                    .at(error.span().map(|span| self.locate(span))),
                );
                None
            }
        }
    }

    pub(super) fn problem(&self, mut report: Report) {
        if self.kind == FileKind::Profile {
            report.id = ErrorId::ProfileMalformed.into();
        }
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
            // The end of a line is one place, though it may be two characters.
            column: self.text[line_start..start]
                .chars()
                .count()
                .min(line.chars().count())
                + 1,
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
        self.requires(key, &format!("{key} = {example}"));
        self.string(key)
    }

    /// Notes that `key` has to be there, unless it is.
    pub(super) fn requires(&self, key: &str, example: &str) {
        if !self.has(key) {
            self.reader.problem(
                Report::new(
                    ErrorId::SpecMissingKey,
                    format!("key `{}{key}` is missing", self.prefix),
                    self.reader.kind.need(),
                    format!("add `{example}`"),
                )
                .at(self.place.clone()),
            );
        }
    }

    /// What is right or wrong, at `key`.
    pub(super) fn boolean(&mut self, key: &str) -> Option<Placed<bool>> {
        let (value, place) = self.take(key)?;
        let DeValue::Boolean(value) = value else {
            return self.wrong_type(key, "true or false", &value, place);
        };
        Some(Placed { value, place })
    }

    /// The whole number at `key`, when it lies within `range`.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Option<Placed<u32>> {
        self.number_or(ErrorId::BadNumber, key, range)
    }

    /// The same; `id` is the error of a number that does not.
    pub(super) fn number_or(
        &mut self,
        id: ErrorId,
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
                        id,
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

    /// Every key with its string, of a table whose keys are the operator's own words.
    pub(super) fn names(mut self) -> Vec<(Placed<String>, Placed<String>)> {
        let entries = std::mem::take(&mut self.entries);
        let expected = "a string";
        let pair = |(key, value): (Spanned<Cow<'a, str>>, Spanned<DeValue<'a>>)| {
            let name = Placed {
                place: self.reader.locate(key.span()),
                value: key.into_inner().into_owned(),
            };
            let place = self.reader.locate(value.span());
            let text = self.as_string(&name.value, expected, value.into_inner(), place)?;
            Some((name, text))
        };
        entries.into_iter().filter_map(pair).collect()
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

    /// Where the value of `key` stands.
    pub(super) fn place_of(&self, key: &str) -> Option<Location> {
        let value = self.entries.get(key)?;
        Some(self.reader.locate(value.span()))
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

    /// What notes problems when the table is used up.
    pub(super) fn reporter(&self) -> &'a Reader<'a> {
        self.reader
    }

    /// Whether `key` is there and is a list of nothing.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let value = self.entries.get(key).map(Spanned::get_ref);
        value.is_some_and(|value| value.as_array().is_some_and(|list| list.is_empty()))
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
