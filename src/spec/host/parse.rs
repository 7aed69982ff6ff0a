//! The keys of the host file. `docs/host-file.md` describes them for operators.

use std::{fs, path::Path, time::Duration};

use toml::de::DeTable;

use super::{
    check::check,
    pf::pf,
    pool::pool,
    types::{HostSpec, PfSpec, Safety},
    values::duration,
};
use crate::{
    error::{ErrorId, Report},
    spec::{
        parse::choice,
        reader::{FileKind, Placed, Reader, Table},
    },
};

pub(super) const KEYS: &[&str] = &[
    "apiVersion",
    "profiles",
    "confirm_within",
    "safety",
    "pool",
    "pf",
];
pub(super) const SAFETY_KEYS: &[&str] = &[
    "protect_default_route",
    "protect_login",
    "protect_disks",
    "forbid_other_managers",
    "require_singleton_group",
];

/// The most pools that a file has.
const MAX_POOLS: usize = 64;
/// The most PFs that a file names.
const MAX_PFS: usize = 256;

impl HostSpec {
    /// Reads and checks the host file at `path`.
    ///
    /// # Errors
    ///
    /// `spec-unreadable`, or every problem of the file ([`HostSpec::parse`]).
    pub fn read(path: &Path) -> Result<Self, Vec<Report>> {
        let text = fs::read_to_string(path).map_err(|error| {
            vec![Report::new(
                ErrorId::SpecUnreadable,
                format!("host file {} cannot be read", path.display()),
                error.to_string(),
                "check the path and its permissions",
            )]
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a host file; `path` is for messages and for resolving relative paths.
    ///
    /// # Errors
    ///
    /// Every problem of the file, in its order.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Report>> {
        let reader = Reader::new(FileKind::Host, path, text);
        let spec = reader.document().and_then(|top| host(top, path, text));
        let problems = reader.into_problems();
        spec.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Whether a text is a host file, as far as it can be told from its keys; anything else is a guest file.
    #[must_use]
    pub fn is_host_file(text: &str) -> bool {
        match DeTable::parse(text) {
            Ok(top) => top
                .get_ref()
                .keys()
                .any(|key| KEYS.contains(&key.get_ref().as_ref())),
            // A slip somewhere does not make it another file.
            Err(_) => text.lines().map(str::trim_start).any(|line| {
                ["[[pf", "[[pool", "[safety"]
                    .iter()
                    .any(|heading| line.starts_with(heading))
            }),
        }
    }
}

fn host(mut top: Table<'_>, file: &Path, text: &str) -> Option<HostSpec> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut warnings = Vec::new();
    let _: Option<Placed<String>> = choice(&mut top, "apiVersion", &["v1alpha1"]);
    let profiles = top.strings("profiles").into_iter();
    let profiles = profiles.map(|path| (folder.join(path.value), path.place));
    let profiles: Vec<_> = profiles.collect();
    let confirm_within: Option<Duration> = top.string("confirm_within").and_then(|text| {
        duration(&text.value).map_or_else(|report| top.problem(report, text.place), Some)
    });
    let safety = match top.table("safety") {
        Some(table) => safety(table, &mut warnings),
        None => Safety::default(),
    };
    let declared = top.tables("pool");
    too_many(&declared, MAX_POOLS, "[[pool]]", ErrorId::TooManyPools);
    let pools: Vec<_> = declared
        .into_iter()
        .filter_map(|table| pool(table, &mut warnings))
        .collect();
    top.requires("pf", "[[pf]]");
    if let (true, Some(place)) = (top.is_empty_list("pf"), top.place_of("pf")) {
        let report = Report::new(
            ErrorId::SpecMissingKey,
            "there is no `[[pf]]`",
            "a host file without a PF says nothing of any host",
            "add a `[[pf]]`",
        );
        let _: Option<()> = top.problem(report, place);
    }
    let tables = top.tables("pf");
    too_many(&tables, MAX_PFS, "[[pf]]", ErrorId::BadNumber);
    let count = tables.len();
    let pfs: Vec<PfSpec> = tables
        .into_iter()
        .filter_map(|table| pf(table, &pools, &mut warnings))
        .collect();
    check(&top, &pools, &pfs, pfs.len() == count);
    top.finish(KEYS);
    Some(HostSpec {
        file: file.to_owned(),
        text: text.to_owned(),
        confirm_within,
        safety,
        pools: pools.into_iter().filter_map(|pool| pool.pool).collect(),
        pfs,
        profiles,
        warnings,
    })
}

fn safety(mut table: Table<'_>, warnings: &mut Vec<Report>) -> Safety {
    let mut is_on = |key: &str| {
        let Some(found) = table.boolean(key) else {
            return true;
        };
        if !found.value {
            let report = Report::new(
                ErrorId::SafetyOff,
                format!("`{key}` is off"),
                "what it guards can be lost by a change of this host, without a question",
                "remove the key; `accept` in one `[[pf]]` is narrower",
            );
            warnings.push(report.at(Some(found.place)));
        }
        found.value
    };
    let safety = Safety {
        protect_default_route: is_on("protect_default_route"),
        protect_login: is_on("protect_login"),
        protect_disks: is_on("protect_disks"),
        forbid_other_managers: is_on("forbid_other_managers"),
        require_singleton_group: is_on("require_singleton_group"),
    };
    table.finish(SAFETY_KEYS);
    safety
}

/// Notes the first table that is one too many.
fn too_many(tables: &[Table<'_>], most: usize, heading: &str, id: ErrorId) {
    let Some(table) = tables.get(most) else {
        return;
    };
    let Some(place) = table.place().cloned() else {
        return;
    };
    let report = Report::new(
        id,
        format!("there are {} `{heading}` tables", tables.len()),
        format!("{most} is the most"),
        "put what is alike into one, or remove some",
    );
    let _: Option<()> = table.problem(report, place);
}
