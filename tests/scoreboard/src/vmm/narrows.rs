//! Narrows itself: one file describes the guest.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Setup, Vmm, host, peer};
use crate::record::{Guest, Interface, Pages};

/// Its program; the other two are found by it.
#[derive(Clone, Debug)]
pub struct Narrows {
    program: PathBuf,
}

impl Narrows {
    /// By the path of `narrows`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }
}

impl Vmm for Narrows {
    fn name(&self) -> &'static str {
        "narrows"
    }

    fn version(&self) -> io::Result<String> {
        peer::first_line(Command::new(&self.program).arg("--version"))
    }

    fn lacks(&self, _interface: Interface, _guest: &Guest) -> Option<String> {
        None
    }

    /// It has no fence that is not always up.
    fn hardened(&self) -> Option<Box<dyn Vmm>> {
        None
    }

    fn refuses(&self, setup: &Setup<'_>) -> Option<String> {
        peer::lacks_iommufd(setup)
    }

    fn prepare(&self, setup: &Setup<'_>) -> io::Result<()> {
        host::set_pages(setup.guest.pages)?;
        fs::create_dir_all(setup.scratch)?;
        fs::write(file(setup.scratch), guest_file(setup))
    }

    fn command(&self, setup: &Setup<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").arg(file(setup.scratch));
        command.stdin(Stdio::null());
        command
    }

    /// It gives its devices back by itself.
    fn clean_up(&self, setup: &Setup<'_>) -> io::Result<()> {
        fs::remove_file(file(setup.scratch))
    }

    fn is_ram(&self, mapping: &str) -> bool {
        mapping.contains("narrows-ram")
    }
}

fn file(scratch: &Path) -> PathBuf {
    scratch.join("guest.toml")
}

/// A string of TOML: whatever it holds, quoted as TOML wants it.
fn quoted(text: impl Into<String>) -> String {
    toml::Value::String(text.into()).to_string()
}

fn guest_file(setup: &Setup<'_>) -> String {
    let guest = setup.guest;
    let interface = match setup.interface {
        Interface::Iommufd => "iommufd",
        Interface::Type1 => "type1",
    };
    let pages = match guest.pages {
        Pages::TwoMib => ", hugepages = \"2M\"",
        Pages::Default | Pages::Small => "",
    };
    let mut lines = vec![
        "name = \"scoreboard\"".to_owned(),
        format!("vcpus = {}", guest.vcpus),
        format!("memory = {{ size = \"{}M\"{pages} }}", guest.memory_mib),
        format!("kernel = {}", quoted(setup.kernel.to_string_lossy())),
        format!("cmdline = {}", quoted(setup.cmdline)),
        format!("interface = \"{interface}\""),
    ];
    if let Some(initramfs) = setup.initramfs {
        lines.push(format!(
            "initramfs = {}",
            quoted(initramfs.to_string_lossy())
        ));
    }
    let console = if guest.console { "stdio" } else { "off" };
    lines.push(format!("\n[console]\nmode = \"{console}\""));
    for function in setup.functions {
        lines.push(format!("\n[[device]]\nbdf = {}", quoted(function)));
    }
    lines.into_iter().fold(String::new(), |mut text, line| {
        // A string takes everything.
        let _never = writeln!(text, "{line}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::peer::tests::{FUNCTIONS, setup};

    #[test]
    fn guest_file_has_what_the_setup_says() {
        let functions = FUNCTIONS.map(str::to_owned);
        let mut setup = setup(&functions);
        setup.guest.pages = Pages::TwoMib;
        let text = guest_file(&setup);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["memory"]["size"].as_str(), Some("256M"));
        assert_eq!(table["memory"]["hugepages"].as_str(), Some("2M"));
        assert_eq!(table["cmdline"].as_str(), Some(setup.cmdline));
        assert_eq!(table["interface"].as_str(), Some("iommufd"));
        assert_eq!(table["console"]["mode"].as_str(), Some("stdio"));
        let devices = table["device"].as_array().unwrap();
        assert_eq!(devices.len(), 2);
        assert_eq!(devices[1]["bdf"].as_str(), Some(FUNCTIONS[1]));
    }

    #[test]
    fn guest_ram_is_told_by_its_name() {
        let narrows = Narrows::new("narrows");
        assert!(narrows.is_ram("/memfd:narrows-ram (deleted)"));
        assert!(!narrows.is_ram("/memfd:narrows-ring (deleted)"));
    }
}
