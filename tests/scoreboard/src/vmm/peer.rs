//! Other VMMs: each is a template, `peers/NAME.toml`, and perhaps the path of its program.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Setup, Vmm, host,
    template::{TEMPLATES, Template},
    words::{self, Values},
};
use crate::record::{Guest, Interface};

/// Behind the name of a VMM that has all its fences up.
pub const HARDENED: &str = "-hardened";

/// A VMM that is started by its template.
#[derive(Clone, Debug)]
pub struct Peer {
    name: String,
    program: PathBuf,
    is_hardened: bool,
    template: Template,
}

impl Peer {
    /// By its name, which a template has, and the path of its program where it is not the usual one.
    ///
    /// # Errors
    /// There is no such template.
    pub fn load(name: &str, program: Option<&Path>) -> io::Result<Self> {
        let text = TEMPLATES.iter().find(|(known, _)| *known == name);
        let Some((_, text)) = text else {
            let known: Vec<_> = TEMPLATES.iter().map(|(known, _)| *known).collect();
            let what = format!("no template {name}; there are: {}", known.join(", "));
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        };
        let template: Template = toml::from_str(text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self {
            name: name.to_owned(),
            is_hardened: false,
            program: program.map_or_else(|| template.program.clone().into(), Path::to_path_buf),
            template,
        })
    }

    /// The version that the template ran with in the lab; `None` where it never ran there.
    #[must_use]
    pub fn ran(&self) -> Option<&str> {
        Some(self.template.ran.as_str()).filter(|ran| !ran.is_empty())
    }

    /// A list by its name in brackets; `None` where the word is none.
    fn list(&self, name: &str, setup: &Setup<'_>, values: &Values) -> Option<Vec<String>> {
        let template = &self.template;
        let interface = words::interface_key(setup.interface);
        let of = |table: &BTreeMap<String, Vec<String>>, key| {
            table.get(key).cloned().unwrap_or_default()
        };
        let list = match name {
            "[initramfs]" if setup.initramfs.is_some() => template.initramfs.clone(),
            "[context]" if !setup.functions.is_empty() => of(&template.context, interface),
            "[initramfs]" | "[context]" => Vec::new(),
            "[console]" if setup.guest.console => template.console.on.clone(),
            "[console]" => template.console.off.clone(),
            "[pages]" => of(&template.pages, words::pages_key(setup.guest.pages)),
            "[devices]" => {
                let each = of(&template.devices, interface);
                let fill = |(nth, function): (usize, &String)| {
                    let own = words::device_values(function, nth);
                    let fill = move |word: &String| words::fill(word, &own);
                    each.iter().map(fill).collect::<Vec<_>>()
                };
                setup.functions.iter().enumerate().flat_map(fill).collect()
            }
            _ => return None,
        };
        Some(list.iter().map(|word| words::fill(word, values)).collect())
    }

    /// The words of its command line.
    fn arguments(&self, setup: &Setup<'_>) -> Vec<String> {
        let values = words::values(setup, &self.template.cmdline);
        let expand = |word: &String| {
            self.list(word, setup, &values)
                .unwrap_or_else(|| vec![words::fill(word, &values)])
        };
        let added = self.template.hardened.iter().filter(|_| self.is_hardened);
        let words = self.template.words.iter().chain(added);
        words.flat_map(expand).collect()
    }

    /// What its configuration file holds, if it has one.
    fn config(&self, setup: &Setup<'_>) -> Option<String> {
        let values = words::values(setup, &self.template.cmdline);
        let mut text = self.template.config.clone()?;
        for name in [
            "[initramfs]",
            "[console]",
            "[pages]",
            "[context]",
            "[devices]",
        ] {
            let list = self.list(name, setup, &values).unwrap_or_default();
            text = text.replace(name, &list.join(","));
        }
        Some(words::fill(&text, &values))
    }

    fn wants_bzimage(&self) -> bool {
        let bzimage = |word: &String| word.contains("{bzimage}");
        self.template.words.iter().any(bzimage) || self.template.config.iter().any(bzimage)
    }
}

impl Vmm for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> io::Result<String> {
        let version = first_line(Command::new(&self.program).args(&self.template.version))?;
        Ok(if self.is_hardened {
            format!("{version}, with {}", self.template.hardened.join(" "))
        } else {
            version
        })
    }

    fn lacks(&self, interface: Interface, guest: &Guest) -> Option<String> {
        let name = &self.name;
        let interface = words::interface_key(interface);
        let pages = words::pages_key(guest.pages);
        if guest.nics + guest.nvmes > 0 && !self.template.devices.contains_key(interface) {
            return Some(format!("{name} has no {interface}"));
        }
        if !self.template.pages.contains_key(pages) {
            return Some(format!("{name} has no {pages} pages"));
        }
        let mut lacks = self.template.lacks.iter();
        let (device, why) = lacks.find(|(device, _)| device.count(guest) > 0)?;
        Some(format!("{name}, {}: {why}", device.guests()))
    }

    fn hardened(&self) -> Option<Box<dyn Vmm>> {
        let has_more = !self.is_hardened && !self.template.hardened.is_empty();
        has_more.then(|| {
            let mut hardened = self.clone();
            hardened.name.push_str(HARDENED);
            hardened.is_hardened = true;
            Box::new(hardened) as Box<dyn Vmm>
        })
    }

    fn refuses(&self, setup: &Setup<'_>) -> Option<String> {
        if self.wants_bzimage() {
            let image = words::bzimage(setup.kernel);
            if image == setup.kernel || !image.exists() {
                return Some(format!("{} starts no ELF kernel", self.name));
            }
        }
        lacks_iommufd(setup)
    }

    fn prepare(&self, setup: &Setup<'_>) -> io::Result<()> {
        host::set_pages(setup.guest.pages)?;
        fs::create_dir_all(setup.scratch)?;
        if let Some(config) = self.config(setup) {
            fs::write(setup.scratch.join("config"), config)?;
        }
        host::bind(setup.functions)
    }

    fn command(&self, setup: &Setup<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(setup));
        // A terminal that cannot be opened is none: the VMM says so then.
        let terminal = self.template.stdin.as_ref();
        let stdin = terminal.and_then(|path| fs::File::open(path).ok());
        command.stdin(stdin.map_or_else(Stdio::null, Stdio::from));
        command
    }

    fn clean_up(&self, setup: &Setup<'_>) -> io::Result<()> {
        host::unbind(setup.functions)
    }

    fn is_ram(&self, mapping: &str) -> bool {
        self.template.ram.iter().any(|name| mapping.contains(name))
    }
}

/// Whether devices are wanted by an interface that this kernel has not.
pub(super) fn lacks_iommufd(setup: &Setup<'_>) -> Option<String> {
    let wanted = setup.interface == Interface::Iommufd && !setup.functions.is_empty();
    (wanted && !Path::new("/dev/iommu").exists()).then(|| "this host has no iommufd".to_owned())
}

/// The first line of what a program says to its standard output, else to its standard error.
pub(super) fn first_line(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    let streams = [output.stdout, output.stderr];
    let lines = streams.iter().filter_map(|stream| {
        let text = String::from_utf8_lossy(stream);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        line.map(str::to_owned)
    });
    lines.into_iter().next().ok_or_else(|| {
        let program = command.get_program().to_string_lossy().into_owned();
        io::Error::other(format!("{program} says nothing of its version"))
    })
}

#[cfg(test)]
#[path = "peer_test.rs"]
pub(super) mod tests;
