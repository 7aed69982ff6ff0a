//! The words of a template: placeholders become what a run says, lists take the place of their names.

use std::{collections::BTreeMap, path::Path};

use super::{Setup, host};
use crate::record::{Interface, Pages};

/// Placeholders that every word may have, and what they become.
pub(super) type Values = BTreeMap<&'static str, String>;

/// What a setup says, for all words but those of one device.
pub(super) fn values(setup: &Setup<'_>, added: &str) -> Values {
    let guest = setup.guest;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let cmdline = match added {
        "" => setup.cmdline.to_owned(),
        added => format!("{} {added}", setup.cmdline),
    };
    BTreeMap::from([
        ("{kernel}", path(setup.kernel)),
        ("{bzimage}", path(&bzimage(setup.kernel))),
        ("{initramfs}", setup.initramfs.map(path).unwrap_or_default()),
        ("{cmdline}", cmdline),
        ("{memory_mib}", guest.memory_mib.to_string()),
        (
            "{memory_bytes}",
            (u64::from(guest.memory_mib) << 20).to_string(),
        ),
        ("{vcpus}", guest.vcpus.to_string()),
        ("{scratch}", path(setup.scratch)),
    ])
}

/// The same kernel as a bzImage: beside `vmlinux-NAME` lies `vmlinuz-NAME`.
pub(super) fn bzimage(kernel: &Path) -> std::path::PathBuf {
    let name = kernel.file_name().unwrap_or_default().to_string_lossy();
    kernel.with_file_name(name.replacen("vmlinux", "vmlinuz", 1))
}

/// What a device's words may have besides. A node that is not there is empty; the VMM says so then.
pub(super) fn device_values(function: &str, nth: usize) -> Values {
    BTreeMap::from([
        ("{bdf}", function.to_owned()),
        ("{nth}", nth.to_string()),
        ("{sysfs}", format!("/sys/bus/pci/devices/{function}")),
        ("{group}", host::group(function).unwrap_or_default()),
        ("{cdev}", host::cdev(function).unwrap_or_default()),
    ])
}

/// A word with its placeholders filled in, in one pass: what a value holds is not looked at again.
pub(super) fn fill(word: &str, values: &Values) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let found = values.iter().find(|(name, _)| from.starts_with(**name));
        rest = if let Some((name, value)) = found {
            filled.push_str(value);
            from.get(name.len()..).unwrap_or_default()
        } else {
            filled.push('{');
            from.get(1..).unwrap_or_default()
        };
    }
    filled + rest
}

/// The key of a table by interface.
pub(super) fn interface_key(interface: Interface) -> &'static str {
    match interface {
        Interface::Iommufd => "iommufd",
        Interface::Type1 => "type1",
    }
}

/// The key of a table by pages.
pub(super) fn pages_key(pages: Pages) -> &'static str {
    match pages {
        Pages::Default => "default",
        Pages::Small => "4k",
        Pages::TwoMib => "2m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_filled_in_again() {
        let values = Values::from([("{a}", "{b}".into()), ("{b}", "x".into())]);
        assert_eq!(fill("1{a}2{b}3{c}{", &values), "1{b}2x3{c}{");
    }

    #[test]
    fn bzimage_lies_beside_the_elf_file() {
        let kernel = Path::new("/lab/guest/vmlinux-lab");
        assert_eq!(bzimage(kernel), Path::new("/lab/guest/vmlinuz-lab"));
    }
}
