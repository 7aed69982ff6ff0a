//! Made-up hosts for tests: a folder that looks like a host's sysfs and `/dev`.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! # let folder = tempfile::tempdir()?;
//! use iommu::fake::FakeHost;
//! let root = FakeHost::new(folder.path())
//!     .bridge("0000:00:02.0", 1)
//!     .pf("0000:01:00.0", 12).driver("igb")
//!     .vf("0000:01:10.0", "0000:01:00.0", 13).msix(3)
//!     .write()?;
//! let topology = iommu::topology::Topology::read(&root);
//! # assert!(topology.is_ok());
//! # Ok(())
//! # }
//! ```
//! Methods after [`FakeHost::pf`], [`FakeHost::vf`], [`FakeHost::bridge`] and [`FakeHost::device`] change the function
//! named last; methods with a group change that group. Nothing is written before [`FakeHost::write`].

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::sysfs::SysRoot;

/// A host in the making.
#[derive(Clone, Debug)]
pub struct FakeHost {
    folder: PathBuf,
    functions: Vec<FakeFunction>,
    groups: BTreeMap<u32, FakeGroup>,
    has_iommufd: bool,
    has_iommu: bool,
    files: BTreeMap<PathBuf, String>,
}

#[derive(Clone, Debug, Default)]
struct FakeFunction {
    bdf: String,
    physfn: Option<String>,
    group: Option<u32>,
    driver: Option<String>,
    vfio_dev: Option<String>,
    has_cdev: bool,
    config: Vec<u8>,
    attributes: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug)]
struct FakeGroup {
    domain_type: String,
    reserved: Vec<String>,
    others: Vec<String>,
}

impl Default for FakeGroup {
    fn default() -> Self {
        Self {
            domain_type: "DMA-FQ".to_owned(),
            // Every x86 host reserves the interrupt window.
            reserved: vec!["0x00000000fee00000 0x00000000feefffff msi".to_owned()],
            others: Vec::new(),
        }
    }
}

impl FakeHost {
    /// A host with an IOMMU, type1, safe module parameters, and no function, to be written to `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let files = [
            (
                "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
                "N",
            ),
            ("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N"),
            ("sys/bus/pci/drivers_probe", ""),
            ("dev/vfio/vfio", ""),
        ];
        Self {
            folder: folder.into(),
            functions: Vec::new(),
            groups: BTreeMap::new(),
            has_iommufd: false,
            has_iommu: true,
            files: files
                .iter()
                .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
                .collect(),
        }
    }

    /// The same host, to be written to another folder.
    #[must_use]
    pub fn at(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Adds a physical function, an 82576 network card unless changed, translated for the driver `igb`.
    #[must_use]
    pub fn pf(self, bdf: &str, group: u32) -> Self {
        self.device(bdf, group)
            .ids(0x8086, 0x10c9, 0x02_0000)
            .driver("igb")
            .bar(0, 0xfe80_0000, 0x2_0000)
            .attribute("sriov_totalvfs", "7")
            .attribute("sriov_numvfs", "0")
            .attribute("sriov_drivers_autoprobe", "1")
            .reset_methods("flr bus")
    }

    /// Adds a virtual function of `pf`, an 82576 VF unless changed, with no driver, three vectors of MSI-X and FLR.
    #[must_use]
    pub fn vf(mut self, bdf: &str, pf: &str, group: u32) -> Self {
        let count = self
            .functions
            .iter()
            .filter(|function| function.physfn.as_deref() == Some(pf))
            .count();
        if let Some(pf) = self
            .functions
            .iter_mut()
            .find(|function| function.bdf == pf)
        {
            pf.attributes
                .insert("sriov_numvfs", (count + 1).to_string());
        }
        let place = 0xfe00_0000 + 0x8000 * u64::try_from(self.functions.len()).unwrap_or(0);
        let mut host = self
            .device(bdf, group)
            .ids(0x8086, 0x10ca, 0x02_0000)
            .bar(0, place, 0x4000)
            .bar(3, place + 0x4000, 0x4000)
            .msix(3)
            .reset_methods("flr");
        if let Some(vf) = host.functions.last_mut() {
            vf.physfn = Some(pf.to_owned());
        }
        host
    }

    /// Adds a bridge with the driver `pcieport`.
    #[must_use]
    pub fn bridge(self, bdf: &str, group: u32) -> Self {
        let mut host = self
            .device(bdf, group)
            .ids(0x8086, 0x3420, 0x06_0400)
            .driver("pcieport");
        if let Some(bridge) = host.functions.last_mut() {
            set(&mut bridge.config, 0x0e, &[1]);
        }
        host
    }

    /// Adds a function that is nothing in particular.
    #[must_use]
    pub fn device(mut self, bdf: &str, group: u32) -> Self {
        self.groups.entry(group).or_default();
        self.functions.push(FakeFunction {
            bdf: bdf.to_owned(),
            group: Some(group),
            config: vec![0; 256],
            ..FakeFunction::default()
        });
        self.ids(0x1234, 0x11e8, 0x00_ff00)
            .attribute("numa_node", "-1")
            .attribute("driver_override", "(null)")
    }

    /// Changes vendor, device and class.
    #[must_use]
    pub fn ids(self, vendor: u16, device: u16, class: u32) -> Self {
        self.attribute("vendor", &format!("{vendor:#06x}"))
            .attribute("device", &format!("{device:#06x}"))
            .attribute("class", &format!("{class:#08x}"))
    }

    /// Binds to a driver.
    #[must_use]
    pub fn driver(self, driver: &str) -> Self {
        self.last(|function| function.driver = Some(driver.to_owned()))
    }

    /// Unbinds.
    #[must_use]
    pub fn no_driver(self) -> Self {
        self.last(|function| function.driver = None)
    }

    /// Binds to `vfio-pci`, with a device node `name` (`vfio3`).
    #[must_use]
    pub fn vfio(self, name: &str) -> Self {
        self.vfio_without_node(name)
            .last(|function| function.has_cdev = true)
    }

    /// Binds to `vfio-pci` as on a kernel without device nodes, which shows `vfio-dev/NAME` all the same.
    #[must_use]
    pub fn vfio_without_node(self, name: &str) -> Self {
        self.driver("vfio-pci")
            .last(|function| function.vfio_dev = Some(name.to_owned()))
    }

    /// Takes the function out of its group, as on a host without IOMMU.
    #[must_use]
    pub fn no_group(self) -> Self {
        self.last(|function| function.group = None)
    }

    /// Sets the NUMA node.
    #[must_use]
    pub fn numa_node(self, node: u32) -> Self {
        self.attribute("numa_node", &node.to_string())
    }

    /// Sets `reset_method`; an empty text is a function that cannot be reset.
    #[must_use]
    pub fn reset_methods(self, methods: &str) -> Self {
        self.attribute("reset_method", methods)
    }

    /// Places a 64-bit memory BAR; `len` zero removes it.
    #[must_use]
    pub fn bar(self, index: usize, start: u64, len: u64) -> Self {
        self.last(|function| {
            let old = function.attributes.entry("resource").or_default();
            let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
            lines.resize(lines.len().max(index + 1).max(13), line(0, 0, 0));
            if let Some(place) = lines.get_mut(index) {
                *place = match len.checked_sub(1).and_then(|last| start.checked_add(last)) {
                    Some(end) => line(start, end, 0x14_0204),
                    None => line(0, 0, 0),
                };
            }
            *old = lines.join("\n");
        })
    }

    /// Gives it MSI-X with `vectors` entries: the table in BAR 3 at 0, the pending bits in BAR 3 at 0x2000.
    #[must_use]
    pub fn msix(self, vectors: u16) -> Self {
        self.last(|function| {
            let [low, high] = vectors.saturating_sub(1).to_le_bytes();
            set(&mut function.config, 0x06, &[0x10, 0]);
            set(&mut function.config, 0x34, &[0x70]);
            set(
                &mut function.config,
                0x70,
                &[0x11, 0, low, high, 3, 0, 0, 0, 3, 0x20, 0, 0],
            );
        })
    }

    /// Gives it MSI with `2^log` vectors.
    #[must_use]
    pub fn msi(self, log: u8) -> Self {
        self.last(|function| {
            set(&mut function.config, 0x06, &[0x10, 0]);
            set(&mut function.config, 0x34, &[0x50]);
            set(&mut function.config, 0x50, &[0x05, 0, log << 1, 0]);
        })
    }

    /// Replaces configuration space, e.g. by 64 bytes, as without privilege.
    #[must_use]
    pub fn config(self, bytes: &[u8]) -> Self {
        self.last(|function| function.config = bytes.to_vec())
    }

    /// Sets any attribute of the function named last.
    #[must_use]
    pub fn attribute(self, name: &'static str, text: &str) -> Self {
        self.last(|function| {
            function.attributes.insert(name, text.to_owned());
        })
    }

    /// Sets a group's `type`.
    #[must_use]
    pub fn group_type(mut self, group: u32, domain_type: &str) -> Self {
        self.groups.entry(group).or_default().domain_type = domain_type.to_owned();
        self
    }

    /// Adds a reserved region to a group, both addresses inclusive.
    #[must_use]
    pub fn reserved(mut self, group: u32, first: u64, last: u64, kind: &str) -> Self {
        let line = format!("{first:#018x} {last:#018x} {kind}");
        self.groups.entry(group).or_default().reserved.push(line);
        self
    }

    /// Adds a member that is no PCI function to a group.
    #[must_use]
    pub fn other_member(mut self, group: u32, name: &str) -> Self {
        self.groups
            .entry(group)
            .or_default()
            .others
            .push(name.to_owned());
        self
    }

    /// Gives it `/dev/iommu`, and iommufd's module parameter.
    #[must_use]
    pub fn iommufd(mut self) -> Self {
        self.has_iommufd = true;
        self.file("sys/module/iommufd/parameters/allow_unsafe_interrupts", "N")
    }

    /// Takes the IOMMU away: no groups, nothing in `/sys/class/iommu`.
    #[must_use]
    pub fn no_iommu(mut self) -> Self {
        self.has_iommu = false;
        self
    }

    /// Sets any file, e.g. a module parameter.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(PathBuf::from(path), text.to_owned());
        self
    }

    /// Writes it all, and returns the root to read it from.
    ///
    /// # Errors
    /// A VF's PF has not been added, or whatever the file system says.
    pub fn write(&self) -> io::Result<SysRoot> {
        for (path, text) in &self.files {
            put(&self.folder.join(path), text)?;
        }
        fs::create_dir_all(self.folder.join("sys/bus/pci/devices"))?;
        if self.has_iommufd {
            put(&self.folder.join("dev/iommu"), "")?;
        }
        if self.has_iommu {
            fs::create_dir_all(self.folder.join("sys/class/iommu/dmar0"))?;
            for (id, group) in &self.groups {
                self.write_group(*id, group)?;
            }
        }
        for function in &self.functions {
            self.write_function(function)?;
        }
        Ok(SysRoot::new(&self.folder))
    }

    fn write_group(&self, id: u32, group: &FakeGroup) -> io::Result<()> {
        let folder = self.folder.join(format!("sys/kernel/iommu_groups/{id}"));
        put(&folder.join("type"), &group.domain_type)?;
        put(&folder.join("reserved_regions"), &group.reserved.join("\n"))?;
        for name in &group.others {
            fs::create_dir_all(folder.join("devices").join(name))?;
        }
        Ok(())
    }

    /// Links are made into the PF's folder, so a forgotten PF would appear as an empty function.
    fn check_pf(&self, pf: &str) -> io::Result<()> {
        if self.functions.iter().any(|function| function.bdf == pf) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("the PF {pf} has not been added"),
        ))
    }

    fn write_function(&self, function: &FakeFunction) -> io::Result<()> {
        let folder = self.folder.join("sys/bus/pci/devices").join(&function.bdf);
        fs::create_dir_all(&folder)?;
        for (name, text) in &function.attributes {
            put(&folder.join(name), text)?;
        }
        fs::write(folder.join("config"), &function.config)?;
        if let Some(driver) = &function.driver {
            let place = self.folder.join("sys/bus/pci/drivers").join(driver);
            put(&place.join("unbind"), "")?;
            link(&format!("../../drivers/{driver}"), &folder.join("driver"))?;
        }
        if let Some(pf) = &function.physfn {
            self.check_pf(pf)?;
            link(&format!("../{pf}"), &folder.join("physfn"))?;
            self.link_virtfn(pf, &function.bdf)?;
        }
        if let Some(id) = function.group.filter(|_| self.has_iommu) {
            let group = format!("../../../../kernel/iommu_groups/{id}");
            link(&group, &folder.join("iommu_group"))?;
            let devices = self
                .folder
                .join(format!("sys/kernel/iommu_groups/{id}/devices"));
            fs::create_dir_all(&devices)?;
            let device = format!("../../../../bus/pci/devices/{}", function.bdf);
            link(&device, &devices.join(&function.bdf))?;
            if function.vfio_dev.is_some() {
                put(&self.folder.join(format!("dev/vfio/{id}")), "")?;
            }
        }
        if let Some(name) = &function.vfio_dev {
            fs::create_dir_all(folder.join("vfio-dev").join(name))?;
            if function.has_cdev {
                put(&self.folder.join("dev/vfio/devices").join(name), "")?;
            }
        }
        Ok(())
    }

    /// Links a VF into its PF's folder, under the next number.
    fn link_virtfn(&self, pf: &str, vf: &str) -> io::Result<()> {
        let folder = self.folder.join("sys/bus/pci/devices").join(pf);
        let vfs = self
            .functions
            .iter()
            .filter(|function| function.physfn.as_deref() == Some(pf));
        for (index, function) in vfs.enumerate() {
            if function.bdf == vf {
                link(&format!("../{vf}"), &folder.join(format!("virtfn{index}")))?;
            }
        }
        Ok(())
    }

    fn last(mut self, change: impl FnOnce(&mut FakeFunction)) -> Self {
        if let Some(function) = self.functions.last_mut() {
            change(function);
        }
        self
    }
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, format!("{text}\n"))
}

/// Makes a symbolic link, in place of an earlier one.
fn link(target: &str, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, path),
    }
}

fn set(config: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in config.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn line(start: u64, end: u64, flags: u64) -> String {
    format!("{start:#018x} {end:#018x} {flags:#018x}")
}
