//! What the makers call their devices: the system's `pci.ids`, where it is installed.

use std::collections::{BTreeMap, BTreeSet};

use iommu::{error::Result, sysfs::SysRoot, topology::Topology};

/// Where distributions put the file.
const PLACES: [&str; 2] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"];
/// The file has 1.4 MB; what is longer is something else.
const LIMIT_BYTES: u64 = 16 << 20;

/// Names of the devices of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciNames {
    vendors: BTreeMap<u16, String>,
    devices: BTreeMap<(u16, u16), String>,
}

impl PciNames {
    /// Reads the names of what `topology` has; none where the file is not installed.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn read(root: &SysRoot, topology: &Topology) -> Result<Self> {
        for place in PLACES {
            if root.exists(place) {
                let bytes = root.read_bytes(place, LIMIT_BYTES)?;
                return Ok(Self::parse(&String::from_utf8_lossy(&bytes), topology));
            }
        }
        Ok(Self::default())
    }

    /// The maker's name.
    #[must_use]
    pub fn vendor(&self, vendor: u16) -> Option<&str> {
        self.vendors.get(&vendor).map(String::as_str)
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self, vendor: u16, device: u16) -> Option<&str> {
        self.devices.get(&(vendor, device)).map(String::as_str)
    }

    /// A file with these names only, in the form of `pci.ids`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (vendor, name) in &self.vendors {
            text.push_str(&format!("{vendor:04x}  {name}\n"));
            for ((_, device), name) in self.devices.range((*vendor, 0)..=(*vendor, u16::MAX)) {
                text.push_str(&format!("\t{device:04x}  {name}\n"));
            }
        }
        text
    }

    /// `VVVV  name` begins a maker, a tab and `DDDD  name` a device of it; the classes at the end begin with `C`.
    pub(super) fn parse(text: &str, topology: &Topology) -> Self {
        let functions = topology.functions.values();
        let wanted: BTreeSet<(u16, u16)> = functions.map(|f| (f.vendor, f.device)).collect();
        let mut names = Self::default();
        let mut maker = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(device) = line.strip_prefix('\t') {
                let Some((vendor, (id, name))) = maker.zip(entry(device)) else {
                    continue;
                };
                if wanted.contains(&(vendor, id)) {
                    names.devices.insert((vendor, id), name.to_owned());
                }
                continue;
            }
            maker = None;
            if let Some((id, name)) = entry(line)
                && wanted.iter().any(|(vendor, _)| *vendor == id)
            {
                names.vendors.insert(id, name.to_owned());
                maker = Some(id);
            }
        }
        names
    }
}

/// Four hexadecimal digits, two spaces, a name.
fn entry(line: &str) -> Option<(u16, &str)> {
    let (id, name) = line.split_once("  ")?;
    let is_id = id.len() == 4 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let id = is_id.then(|| u16::from_str_radix(id, 16).ok()).flatten()?;
    Some((id, name.trim()))
}
