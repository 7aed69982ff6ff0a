//! Made-up SR-IOV: ports of NICs, `NVMe` subsystems, and what the host does with both.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! # let folder = tempfile::tempdir()?;
//! use iommu::fake::FakeHost;
//! let root = FakeHost::new(folder.path())
//!     .pf("0000:01:00.0", 12).interface("eth0")
//!     .nvme_pf("0000:02:00.0", 13, "nvme0").subsystem("nvme0", 4, &[(2, 64 << 20, &[0])])
//!     .block_device("nvme0", 2, "nvme0n1").mount("nvme0n1", "/srv")
//!     .default_route("eth0", "10.9.0.254").address("eth0", "10.9.0.1/24")
//!     .write()?;
//! # assert!(root.exists("sys/class/net/eth0/ifindex"));
//! # Ok(())
//! # }
//! ```

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{FakeHost, write::put};

/// What a test made of SR-IOV.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeSriov {
    /// By interface: whether it is up, and its speed in Mbit/s.
    ports: BTreeMap<String, (bool, u32)>,
    /// Interface, and address with its prefix.
    addresses: Vec<(String, String)>,
    /// Lines of `/proc/net/route`.
    routes: Vec<String>,
    /// Namespaces as block devices: controller, id, name.
    block_devices: Vec<(String, u32, String)>,
    /// Block device, and where it is mounted.
    mounts: Vec<(String, String)>,
}

impl FakeHost {
    /// Adds `count` VFs to a PF, one after the other behind it, each with a group of its own from `group` on.
    #[must_use]
    pub fn vfs_of(mut self, pf: &str, count: u32, group: u32) -> Self {
        let (domain, bus) = (pf.get(..4).unwrap_or("0000"), pf.get(5..7).unwrap_or("00"));
        let bus = u32::from_str_radix(bus, 16).unwrap_or(0);
        for number in 0..count {
            // The first is function 0 of device 16, as with offset 128 and stride 1.
            let at = 0x80 + number;
            let bus = bus + (at >> 8);
            let (device, function) = (at >> 3 & 0x1f, at & 7);
            let bdf = format!("{domain}:{bus:02x}:{device:02x}.{function}");
            self = self.vf(&bdf, pf, group + number);
        }
        self
    }

    /// Sets how many VFs the function named last can have.
    #[must_use]
    pub fn total_vfs(self, total: u32) -> Self {
        self.attribute("sriov_totalvfs", &total.to_string())
    }

    /// Lets drivers take the new VFs of the function named last, or not.
    #[must_use]
    pub fn autoprobe(self, on: bool) -> Self {
        self.attribute("sriov_drivers_autoprobe", if on { "1" } else { "0" })
    }

    /// Sets an interface up or down, with a speed in Mbit/s. Others are up, with 10,000.
    #[must_use]
    pub fn port(mut self, interface: &str, is_up: bool, mbps: u32) -> Self {
        let port = (is_up, mbps);
        self.sriov.ports.insert(interface.to_owned(), port);
        self
    }

    /// Gives an interface an address, such as `10.9.0.1/24`.
    #[must_use]
    pub fn address(mut self, interface: &str, address: &str) -> Self {
        let pair = (interface.to_owned(), address.to_owned());
        self.sriov.addresses.push(pair);
        self
    }

    /// Adds the default route.
    #[must_use]
    pub fn default_route(self, interface: &str, gateway: &str) -> Self {
        self.route(interface, "0.0.0.0", gateway, 0)
    }

    /// Adds a route to a network.
    #[must_use]
    pub fn route(mut self, interface: &str, network: &str, gateway: &str, prefix: u32) -> Self {
        let hex = |text: &str| {
            let address = text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let mask = u32::MAX
            .checked_shl(32_u32.saturating_sub(prefix))
            .unwrap_or(0);
        let mask = u32::from_ne_bytes(mask.to_be_bytes());
        self.sriov.routes.push(format!(
            "{interface}\t{}\t{}\t0003\t0\t0\t0\t{mask:08X}\t0\t0\t0",
            hex(network),
            hex(gateway)
        ));
        self
    }

    /// Adds a physical function that is an `NVMe` controller, bound to the driver `nvme`.
    #[must_use]
    pub fn nvme_pf(self, bdf: &str, group: u32, controller: &str) -> Self {
        self.pf(bdf, group)
            .ids(0x1b36, 0x0010, 0x01_0802)
            .driver("nvme")
            .controller(controller)
    }

    /// Adds a virtual function of an `NVMe` controller.
    #[must_use]
    pub fn nvme_vf(self, bdf: &str, pf: &str, group: u32) -> Self {
        self.vf(bdf, pf, group)
            .attribute("vendor", "0x1b36")
            .attribute("device", "0x0010")
            .attribute("class", "0x010802")
    }

    /// Writes down what a controller tells of its subsystem: `secondaries` secondary controllers, offline and without
    /// resources; and namespaces, shared, with id, size in bytes, and the controllers that they are attached to. A test
    /// that wants another answer sets the file `narrows/nvme/CONTROLLER`.
    #[must_use]
    pub fn subsystem(
        self,
        controller: &str,
        secondaries: u16,
        namespaces: &[(u32, u64, &[u16])],
    ) -> Self {
        let mut lines = vec![
            "cntlid 0".to_owned(),
            format!("serial fake-{controller}"),
            "model Fake NVMe".to_owned(),
            format!("subnqn nqn.2019-08.org.example:{controller}"),
            "capacity 0".to_owned(),
            "unallocated 0".to_owned(),
            "can attach virt format".to_owned(),
        ];
        if secondaries > 0 {
            let total = u32::from(secondaries) * 4;
            for (kind, private) in [("vq", 3), ("vi", 17)] {
                lines.push(format!(
                    "flexible {kind} total {total} assigned 0 to-primary 0 private {private} most 4 granularity 1"
                ));
            }
        }
        for cntlid in 1..=secondaries {
            lines.push(format!("secondary {cntlid} vf {cntlid} offline vq 0 vi 0"));
        }
        for (nsid, size, attached) in namespaces {
            let ids: Vec<String> = attached.iter().map(u16::to_string).collect();
            let attached = match ids.is_empty() {
                true => String::new(),
                false => format!(" attached {}", ids.join(",")),
            };
            lines.push(format!(
                "namespace {nsid} size {size} block 512 shared nguid {nsid:032x}{attached}"
            ));
        }
        self.file(&format!("narrows/nvme/{controller}"), &lines.join("\n"))
    }

    /// Shows a namespace that is attached to the host's own controller as a block device.
    #[must_use]
    pub fn block_device(mut self, controller: &str, nsid: u32, name: &str) -> Self {
        let device = (controller.to_owned(), nsid, name.to_owned());
        self.sriov.block_devices.push(device);
        self
    }

    /// Mounts a block device.
    #[must_use]
    pub fn mount(mut self, device: &str, place: &str) -> Self {
        let mount = (device.to_owned(), place.to_owned());
        self.sriov.mounts.push(mount);
        self
    }

    /// Writes interfaces, routes, addresses, block devices and mounts.
    pub(super) fn write_sriov(&self) -> io::Result<()> {
        let mut indexes: BTreeMap<String, u32> = BTreeMap::new();
        for function in &self.functions {
            let own = self.own_interface(function);
            let place = self.place(function)?;
            for child in function.children.iter().chain(&own) {
                let Some(name) = child.strip_prefix("net/") else {
                    continue;
                };
                let index = 2 + u32::try_from(indexes.len()).unwrap_or(u32::MAX - 2);
                indexes.insert(name.to_owned(), index);
                self.write_port(name, &place.join(child), index)?;
            }
        }
        let mut routes = ROUTES_HEAD.to_owned();
        for route in &self.sriov.routes {
            routes.push('\n');
            routes.push_str(route);
        }
        put(&self.folder.join("proc/net/route"), &routes)?;
        let mut addresses = String::new();
        for (interface, address) in &self.sriov.addresses {
            let index = indexes.get(interface).copied().unwrap_or(1);
            // Writing to a text does not fail.
            writeln!(addresses, "{index} {address} global").map_err(io::Error::other)?;
        }
        put(&self.folder.join("narrows/addresses"), addresses.trim_end())?;
        self.write_disks()
    }

    fn write_port(&self, name: &str, place: &Path, index: u32) -> io::Result<()> {
        let (is_up, mbps) = self
            .sriov
            .ports
            .get(name)
            .copied()
            .unwrap_or((true, 10_000));
        let [_, _, high, low] = index.to_be_bytes();
        let flags = if is_up { "0x1003" } else { "0x1002" };
        for (file, text) in [
            ("ifindex", index.to_string()),
            ("flags", flags.to_owned()),
            ("dev_port", "0".to_owned()),
            ("address", format!("52:54:00:fa:{high:02x}:{low:02x}")),
            ("carrier", u8::from(is_up).to_string()),
            ("speed", mbps.to_string()),
        ] {
            put(&self.sys(place).join(file), &text)?;
        }
        self.link_to(Path::new("class/net").join(name), place)
    }

    fn write_disks(&self) -> io::Result<()> {
        let mut mounts = vec!["21 1 0:1 / / rw - tmpfs tmpfs rw".to_owned()];
        for (number, (controller, nsid, name)) in self.sriov.block_devices.iter().enumerate() {
            let child = format!("nvme/{controller}");
            let above = self
                .functions
                .iter()
                .find(|function| function.children.contains(&child))
                .ok_or_else(|| io::Error::other(format!("no function has {child}")))?;
            let above = self.place(above)?.join(&child);
            let place = above.join(name);
            put(&self.sys(&place).join("nsid"), &nsid.to_string())?;
            put(&self.sys(&place).join("dev"), &format!("259:{number}"))?;
            // The kernel's link names the controller, though `..` would do.
            let link = self.sys(&place).join("device");
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => symlink(format!("../../{controller}"), link)?,
            }
            self.link_to(PathBuf::from(format!("block/{name}")), &place)?;
            self.link_to(PathBuf::from(format!("class/block/{name}")), &place)?;
            for (_, at) in self
                .sriov
                .mounts
                .iter()
                .filter(|(device, _)| device == name)
            {
                mounts.push(format!(
                    "22 21 259:{number} / {at} rw - ext4 /dev/{name} rw"
                ));
            }
        }
        // What is mounted is asked only where there is something to be mounted; a jail is built on other lines of it.
        if self.sriov.block_devices.is_empty() {
            return Ok(());
        }
        put(&self.folder.join("proc/self/mountinfo"), &mounts.join("\n"))
    }
}

const ROUTES_HEAD: &str =
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT";
