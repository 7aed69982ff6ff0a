//! The keys of the guest file. `docs/guest-file.md` describes them for operators.

use std::{fs, path::Path};

use jailed::handoff::MAX_VCPUS;
use serde::{Deserialize, de::value::StrDeserializer};

use super::{
    device::devices,
    near::nearest,
    peers::peers,
    reader::{FileKind, Placed, Reader, Table},
    sandbox::{SandboxSpec, sandbox},
    types::{ConsoleSpec, GuestSpec, MemorySpec, Places, RootSpec},
    values::{check_cmdline, check_memory, check_name, size},
};
use crate::error::{ErrorId, Location, Report};

const KEYS: &[&str] = &[
    "name",
    "vcpus",
    "memory",
    "kernel",
    "initramfs",
    "cmdline",
    "machine_words",
    "on_reboot",
    "on_dma_fault",
    "interface",
    "root",
    "console",
    "device",
    "peer",
    "sandbox",
];
const MEMORY_KEYS: &[&str] = &["size", "hugepages", "numa_node"];
const ROOT_KEYS: &[&str] = &["image", "mode"];
const CONSOLE_KEYS: &[&str] = &["mode", "path"];

/// The largest number of a NUMA node that the file may name.
pub(super) const MAX_NUMA_NODE: usize = 1023;

impl GuestSpec {
    /// Reads and checks the guest file at `path`.
    ///
    /// # Errors
    ///
    /// `spec-unreadable`, or every problem of the file ([`GuestSpec::parse`]).
    pub fn read(path: &Path) -> Result<Self, Vec<Report>> {
        let text = fs::read_to_string(path).map_err(|error| {
            vec![Report::new(
                ErrorId::SpecUnreadable,
                format!("guest file {} cannot be read", path.display()),
                error.to_string(),
                "check the path and its permissions",
            )]
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a guest file; `path` is for messages and for resolving relative paths.
    ///
    /// # Errors
    ///
    /// Every problem of the file, in its order: `spec-…` and `bad-…`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Report>> {
        let reader = Reader::new(FileKind::Guest, path, text);
        let spec = reader.document().and_then(|document| guest(document, path));
        let problems = reader.into_problems();
        spec.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

fn guest(mut top: Table<'_>, file: &Path) -> Option<GuestSpec> {
    let mut places = Places::default();
    let folder = file.parent().unwrap_or(Path::new(""));
    let path_of = |found: Option<Placed<String>>, place: &mut Option<Location>| {
        found.map(|found| {
            *place = Some(found.place);
            folder.join(found.value)
        })
    };
    let name = top
        .required("name", "\"web-1\"")
        .and_then(|name| checked(&top, name, check_name));
    let vcpus = top.number("vcpus", 1..=MAX_VCPUS);
    let kernel = top.required("kernel", "\"vmlinuz\"");
    let kernel = path_of(kernel, &mut places.kernel);
    let initramfs = top.string("initramfs");
    let initramfs = path_of(initramfs, &mut places.initramfs);
    let cmdline = top
        .string("cmdline")
        .and_then(|line| checked(&top, line, check_cmdline));
    let machine_words = top.boolean("machine_words");
    let on_reboot = choice(&mut top, "on_reboot", &["restart", "exit"]);
    let on_dma_fault = choice(&mut top, "on_dma_fault", &["stop", "log"]);
    let interface = choice(&mut top, "interface", &["auto", "iommufd", "type1"]);
    let memory = memory(&mut top, &mut places);
    let root = top.table("root").and_then(|mut table| {
        let image = table.required("image", "\"root.erofs\"");
        let image = path_of(image, &mut places.root);
        let mode = choice(&mut table, "mode", &["read-only", "copy"]);
        table.finish(ROOT_KEYS);
        Some(RootSpec {
            image: image?,
            mode: mode.map(|m| m.value).unwrap_or_default(),
        })
    });
    let console = top
        .table("console")
        .and_then(|table| console(table, folder));
    let home = memory.as_ref().and_then(|memory| memory.numa_node);
    let asked = devices(top.tables("device"), home);
    let all = asked.is_whole.then_some(asked.by_bdf.as_slice());
    let peers = peers(top.tables("peer"), all, interface.as_ref());
    let sandbox = match top.table("sandbox") {
        Some(table) => sandbox(table, vcpus.as_ref().map_or(1, |v| v.value)),
        None => Some(SandboxSpec::default()),
    };
    top.finish(KEYS);
    places.vcpus = vcpus.as_ref().map(|v| v.place.clone());
    places.interface = interface.as_ref().map(|v| v.place.clone());
    Some(GuestSpec {
        name: name?,
        vcpus: vcpus.map_or(1, |v| v.value),
        memory: memory?,
        kernel: kernel?,
        initramfs,
        cmdline: cmdline.unwrap_or_default(),
        machine_words: machine_words.is_none_or(|v| v.value),
        on_reboot: on_reboot.map(|v| v.value).unwrap_or_default(),
        on_dma_fault: on_dma_fault.map(|v| v.value).unwrap_or_default(),
        interface: interface.map(|v| v.value).unwrap_or_default(),
        root,
        console: console.unwrap_or_default(),
        devices: asked.by_bdf,
        pool_devices: asked.by_pool,
        peers,
        sandbox: sandbox?,
        places,
    })
}

/// `memory = "512M"` or `[memory]`.
fn memory(top: &mut Table<'_>, places: &mut Places) -> Option<MemorySpec> {
    if top.has_string("memory") || !top.has("memory") {
        let text = top.required("memory", "\"512M\"")?;
        places.memory = Some(text.place.clone());
        return sized(top, text, None, None);
    }
    let mut table = top.table("memory")?;
    let text = table.required("size", "\"512M\"");
    places.memory = text.as_ref().map(|t| t.place.clone());
    let hugepages = choice(&mut table, "hugepages", &["2M", "1G"]);
    places.hugepages = hugepages.as_ref().map(|h| h.place.clone());
    let node = table.number("numa_node", 0..=MAX_NUMA_NODE);
    places.numa_node = node.as_ref().map(|n| n.place.clone());
    let memory = text.and_then(|text| {
        sized(
            &table,
            text,
            hugepages.map(|h| h.value),
            node.map(|n| n.value),
        )
    });
    table.finish(MEMORY_KEYS);
    memory
}

fn sized(
    table: &Table<'_>,
    text: Placed<String>,
    hugepages: Option<super::HugepageSize>,
    numa_node: Option<u32>,
) -> Option<MemorySpec> {
    let memory = size(&text.value).and_then(|size| {
        check_memory(size, hugepages)?;
        Ok(MemorySpec {
            size,
            hugepages,
            numa_node,
        })
    });
    match memory {
        Ok(memory) => Some(memory),
        Err(report) => table.problem(report, text.place),
    }
}

fn console(mut table: Table<'_>, folder: &Path) -> Option<ConsoleSpec> {
    let mode: Option<Placed<String>> = choice(&mut table, "mode", &["off", "stdio", "file"]);
    let path = table.string("path");
    let bad = |why: &str, fix: &str| {
        Report::new(
            ErrorId::BadConsole,
            "the console's keys contradict each other",
            why,
            fix,
        )
    };
    let console = match (mode.as_ref().map(|m| m.value.as_str()), path) {
        (Some("file"), Some(path)) => Some(ConsoleSpec::File(folder.join(path.value))),
        (Some("file"), None) => {
            let place = mode.map(|m| m.place).or(table.place().cloned())?;
            table.problem(
                bad(
                    "mode is \"file\", but there is no path",
                    "add `path = \"console.log\"`",
                ),
                place,
            )
        }
        (_, Some(path)) => {
            let why = "there is a path, but mode is not \"file\"";
            table.problem(
                bad(why, "remove path, or write `mode = \"file\"`"),
                path.place,
            )
        }
        (Some("stdio"), None) => Some(ConsoleSpec::Stdio),
        (_, None) => Some(ConsoleSpec::Off),
    };
    table.finish(CONSOLE_KEYS);
    console
}

/// The word at `key`, when it is one of `words`.
pub(super) fn choice<'de, T: Deserialize<'de>>(
    table: &mut Table<'_>,
    key: &str,
    words: &'static [&'static str],
) -> Option<Placed<T>> {
    let found = table.string(key)?;
    let word = words.iter().find(|word| **word == found.value);
    let value = word.and_then(|word| {
        let word: StrDeserializer<'de, serde::de::value::Error> = StrDeserializer::new(word);
        T::deserialize(word).ok()
    });
    match value {
        Some(value) => Some(Placed {
            value,
            place: found.place,
        }),
        None => {
            let fix = match nearest(&found.value, words) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write one of those".to_owned(),
            };
            let report = Report::new(
                ErrorId::BadChoice,
                format!("{:?} is not a value of `{key}`", found.value),
                format!("it may be {}", words.join(", ")),
                fix,
            );
            table.problem(report, found.place)
        }
    }
}

/// The value, when `check` has nothing against it.
fn checked(
    table: &Table<'_>,
    found: Placed<String>,
    check: fn(&str) -> Result<(), Report>,
) -> Option<String> {
    match check(&found.value) {
        Ok(()) => Some(found.value),
        Err(report) => table.problem(report, found.place),
    }
}
