//! Made-up hosts for tests: a folder that looks like a host's sysfs and `/dev`.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! # let folder = tempfile::tempdir()?;
//! use iommu::fake::FakeHost;
//! let root = FakeHost::new(folder.path())
//!     .bridge("0000:00:02.0", 1)
//!     .pf("0000:01:00.0", 12).under("0000:00:02.0").driver("igb")
//!     .vf("0000:01:10.0", "0000:01:00.0", 13).msix(3)
//!     .write()?;
//! let topology = iommu::topology::Topology::read(&root);
//! # assert!(topology.is_ok());
//! # Ok(())
//! # }
//! ```
//! A host is healthy unless changed: whoever looks for what is wrong with it finds nothing. Its `/sys` has the kernel's
//! shape, so that links lead where they do there.
//!
//! Methods after [`FakeHost::pf`], [`FakeHost::vf`], [`FakeHost::bridge`] and [`FakeHost::device`] change the function
//! named last; methods with a group change that group. Nothing is written before [`FakeHost::write`].

use std::{collections::BTreeMap, path::PathBuf};

mod config;
mod host;
mod policy;
mod registers;
mod sriov;
mod write;

use config::FakeConfig;
use host::FakeIommu;
use sriov::FakeSriov;

/// A host in the making.
#[derive(Clone, Debug)]
pub struct FakeHost {
    folder: PathBuf,
    functions: Vec<FakeFunction>,
    groups: BTreeMap<u32, FakeGroup>,
    has_iommufd: bool,
    iommu: Option<FakeIommu>,
    /// Whether interrupts are remapped, where a test says so; else they are where there is an IOMMU.
    remapping: Option<bool>,
    kernel: String,
    files: BTreeMap<PathBuf, String>,
    modes: BTreeMap<PathBuf, u32>,
    sriov: FakeSriov,
}

#[derive(Clone, Debug, Default)]
struct FakeFunction {
    bdf: String,
    physfn: Option<String>,
    group: Option<u32>,
    driver: Option<String>,
    vfio_dev: Option<String>,
    has_cdev: bool,
    config: FakeConfig,
    under: Option<String>,
    driver_version: Option<String>,
    /// Folders below the function's, such as `net/eth0`.
    children: Vec<String>,
    /// What a test changes of the policy that its PF's driver has for it, in words of `vf_info`.
    policy: Vec<(String, String)>,
    /// Whether its interface tells nothing of VFs.
    is_silent: bool,
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
            domain_type: "DMA".to_owned(),
            // Every x86 host reserves the interrupt window.
            reserved: vec!["0x00000000fee00000 0x00000000feefffff msi".to_owned()],
            others: Vec::new(),
        }
    }
}

impl FakeHost {
    /// A healthy host with VT-d, type1, and no function, to be written to `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            functions: Vec::new(),
            groups: BTreeMap::new(),
            has_iommufd: false,
            iommu: Some(FakeIommu::default()),
            remapping: None,
            kernel: "6.12.0".to_owned(),
            files: host::healthy_files(),
            modes: BTreeMap::new(),
            sriov: FakeSriov::default(),
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
            .attribute("sriov_drivers_autoprobe", "0")
            .reset_methods("flr bus")
            .command(0x0406)
            .aer_capability()
            .errors(0, 0, 0)
            .link("8.0 GT/s PCIe", "8")
    }

    /// Adds a virtual function of `pf`, an 82576 VF unless changed, with no driver, three vectors of MSI-X and FLR; below
    /// the same bridge as its PF.
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
            // In its own space it has neither (PCIe r6.0 §9.3.4.1).
            vf.config.ids(0xffff, 0xffff, 0x02_0000);
        }
        host
    }

    /// Adds a root port with the driver `pcieport` and all that ACS can do switched on, but for direct translated requests.
    #[must_use]
    pub fn bridge(self, bdf: &str, group: u32) -> Self {
        self.device(bdf, group)
            .ids(0x8086, 0x3420, 0x06_0400)
            .driver("pcieport")
            .express(4)
            .command(0x0407)
            .acs(0x5f, 0x1d)
            .aer_capability()
            .errors(0, 0, 0)
            .link("8.0 GT/s PCIe", "8")
    }

    /// Adds a `PCIe` endpoint that is nothing in particular.
    #[must_use]
    pub fn device(mut self, bdf: &str, group: u32) -> Self {
        self.groups.entry(group).or_default();
        self.functions.push(FakeFunction {
            bdf: bdf.to_owned(),
            group: Some(group),
            config: FakeConfig::whole(),
            ..FakeFunction::default()
        });
        self.ids(0x1234, 0x11e8, 0x00_ff00)
            .express(0)
            .bar(0, 0, 0)
            .attribute("numa_node", "-1")
            .attribute("driver_override", "(null)")
    }

    /// Puts it below a bridge, which must be added too; without, it is on a root bus.
    #[must_use]
    pub fn under(self, bridge: &str) -> Self {
        self.last(|function| function.under = Some(bridge.to_owned()))
    }

    /// Changes vendor, device and class.
    #[must_use]
    pub fn ids(self, vendor: u16, device: u16, class: u32) -> Self {
        self.last(|function| function.config.ids(vendor, device, class))
            .attribute("vendor", &format!("{vendor:#06x}"))
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
        self.resource(index, start, len, 0x14_0204)
    }

    /// Places the expansion ROM; `len` zero removes it.
    #[must_use]
    pub fn rom(self, start: u64, len: u64) -> Self {
        self.resource(6, start, len, 0x4_6200)
    }

    fn resource(self, index: usize, start: u64, len: u64, flags: u64) -> Self {
        self.last(|function| {
            let old = function.attributes.entry("resource").or_default();
            let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
            lines.resize(lines.len().max(index + 1).max(13), line(0, 0, 0));
            if let Some(place) = lines.get_mut(index) {
                *place = match len.checked_sub(1).and_then(|last| start.checked_add(last)) {
                    Some(end) => line(start, end, flags),
                    None => line(0, 0, 0),
                };
            }
            *old = lines.join("\n");
        })
    }

    /// Sets what the kernel has counted of its errors.
    #[must_use]
    pub fn errors(self, correctable: u64, nonfatal: u64, fatal: u64) -> Self {
        let text = |first: &str, key: &str, total: u64| format!("{first} {total}\n{key} {total}");
        self.attribute(
            "aer_dev_correctable",
            &text("RxErr", "TOTAL_ERR_COR", correctable),
        )
        .attribute(
            "aer_dev_nonfatal",
            &text("Undefined", "TOTAL_ERR_NONFATAL", nonfatal),
        )
        .attribute(
            "aer_dev_fatal",
            &text("Undefined", "TOTAL_ERR_FATAL", fatal),
        )
    }

    /// Sets the version that its driver's module states.
    #[must_use]
    pub fn driver_version(self, version: &str) -> Self {
        self.last(|function| function.driver_version = Some(version.to_owned()))
    }

    /// Changes what the driver of its PF enforces on it, in the words of [`crate::sysfs::SysRoot::vf_info`]: `spoofchk off
    /// mac none`; `?` leaves a word out, as a driver does that has no such switch.
    #[must_use]
    pub fn vf_policy(self, words: &str) -> Self {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.last(|function| {
            let pairs = words.chunks(2).filter_map(|pair| match pair {
                [key, value] => Some(((*key).to_owned(), (*value).to_owned())),
                _ => None,
            });
            function.policy.extend(pairs);
        })
    }

    /// Makes the interfaces of all PFs tell nothing of VFs, as those of some drivers.
    #[must_use]
    pub fn no_vf_policies(mut self) -> Self {
        for function in &mut self.functions {
            function.is_silent = true;
        }
        self
    }

    /// Adds a network interface of the host that it carries.
    #[must_use]
    pub fn interface(self, name: &str) -> Self {
        self.last(|function| function.children.push(format!("net/{name}")))
    }

    /// Adds an `NVMe` controller of the host that it carries.
    #[must_use]
    pub fn controller(self, name: &str) -> Self {
        self.last(|function| function.children.push(format!("nvme/{name}")))
    }

    /// Sets speed and width of its link, in the kernel's words: `8.0 GT/s PCIe`, `8`.
    #[must_use]
    pub fn link(self, speed: &str, width: &str) -> Self {
        self.attribute("current_link_speed", speed)
            .attribute("current_link_width", width)
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

    fn last(mut self, change: impl FnOnce(&mut FakeFunction)) -> Self {
        if let Some(function) = self.functions.last_mut() {
            change(function);
        }
        self
    }
}

fn line(start: u64, end: u64, flags: u64) -> String {
    format!("{start:#018x} {end:#018x} {flags:#018x}")
}
