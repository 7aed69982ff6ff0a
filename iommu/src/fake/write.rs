//! The folder of a made-up host.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    FakeFunction, FakeGroup, FakeHost,
    host::{FakeIommu, KERNEL_CONFIG},
};
use crate::sysfs::SysRoot;

impl FakeHost {
    /// Writes it all, and returns the root to read it from.
    ///
    /// # Errors
    /// A VF's PF or a function's bridge has not been added, or whatever the file system says.
    pub fn write(&self) -> io::Result<SysRoot> {
        self.write_host()?;
        self.write_iommu()?;
        for function in &self.functions {
            self.write_function(function)?;
        }
        self.write_policies()?;
        self.write_sriov()?;
        for (path, text) in &self.files {
            put(&self.folder.join(path), text)?;
        }
        for (path, mode) in &self.modes {
            self.write_node(path, *mode)?;
        }
        Ok(SysRoot::new(&self.folder))
    }

    pub(super) fn sys(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join("sys").join(path)
    }

    fn write_host(&self) -> io::Result<()> {
        fs::create_dir_all(self.sys("bus/pci/devices"))?;
        let proc = self.folder.join("proc");
        put(&proc.join("sys/kernel/osrelease"), &self.kernel)?;
        put(&proc.join("interrupts"), &self.interrupts())?;
        let config = format!("boot/config-{}", self.kernel);
        put(&self.folder.join(config), KERNEL_CONFIG)?;
        if self.has_iommufd {
            self.write_node(Path::new("dev/iommu"), 0o600)?;
        }
        Ok(())
    }

    /// Writes the IOMMU, the table of the firmware that tells of it, and the groups.
    fn write_iommu(&self) -> io::Result<()> {
        let (unit, folder, registers, table, flags) = match &self.iommu {
            None => return Ok(()),
            Some(FakeIommu::Intel { cap, ecap }) => {
                let registers = [("cap", *cap), ("ecap", *ecap)];
                // A width of 39 bits; interrupts are remapped, DMA is shut out before the kernel runs.
                ("dmar0", "intel-iommu", registers, "DMAR", [38, 0x05])
            }
            Some(FakeIommu::Amd { cap, features }) => {
                let registers = [("cap", *cap), ("features", *features)];
                // Features are told by the table; DMA is shut out before the kernel runs.
                ("ivhd0", "amd-iommu", registers, "IVRS", [0x03, 0])
            }
        };
        let place = format!("devices/virtual/iommu/{unit}");
        for (name, value) in registers {
            put(
                &self.sys(&place).join(folder).join(name),
                &format!("{value:x}"),
            )?;
        }
        self.link_to(Path::new("class/iommu").join(unit), Path::new(&place))?;
        let mut bytes = vec![0; 48];
        for (place, byte) in bytes.iter_mut().zip(table.bytes()) {
            *place = byte;
        }
        for (place, byte) in bytes.iter_mut().skip(36).zip(flags) {
            *place = byte;
        }
        let tables = self.sys("firmware/acpi/tables");
        fs::create_dir_all(&tables)?;
        fs::write(tables.join(table), bytes)?;
        for (id, group) in &self.groups {
            self.write_group(*id, group)?;
        }
        Ok(())
    }

    fn write_group(&self, id: u32, group: &FakeGroup) -> io::Result<()> {
        let folder = self.sys(format!("kernel/iommu_groups/{id}"));
        put(&folder.join("type"), &group.domain_type)?;
        put(&folder.join("reserved_regions"), &group.reserved.join("\n"))?;
        fs::create_dir_all(folder.join("devices"))?;
        for name in &group.others {
            fs::create_dir_all(folder.join("devices").join(name))?;
        }
        Ok(())
    }

    fn write_function(&self, function: &FakeFunction) -> io::Result<()> {
        let place = self.place(function)?;
        let folder = self.sys(&place);
        fs::create_dir_all(&folder)?;
        let bus = Path::new("bus/pci/devices");
        self.link_to(bus.join(&function.bdf), &place)?;
        for (name, text) in &function.attributes {
            put(&folder.join(name), text)?;
        }
        for name in function
            .children
            .iter()
            .chain(&self.own_interface(function))
        {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("config"), self.config_of(function))?;
        self.write_driver(function, &place)?;
        if let Some(pf) = &function.physfn {
            let pf_place = self.place(self.find(pf)?)?;
            self.link_to(place.join("physfn"), &pf_place)?;
            let number = self.vfs(pf).take_while(|vf| vf.bdf != function.bdf).count();
            self.link_to(pf_place.join(format!("virtfn{number}")), &place)?;
        }
        if let (Some(id), Some(_)) = (function.group, &self.iommu) {
            let group = PathBuf::from(format!("kernel/iommu_groups/{id}"));
            self.link_to(place.join("iommu_group"), &group)?;
            self.link_to(group.join("devices").join(&function.bdf), &place)?;
            if function.vfio_dev.is_some() {
                self.write_node(&PathBuf::from(format!("dev/vfio/{id}")), 0o600)?;
            }
        }
        if let Some(name) = &function.vfio_dev {
            fs::create_dir_all(folder.join("vfio-dev").join(name))?;
            if function.has_cdev {
                self.write_node(&Path::new("dev/vfio/devices").join(name), 0o600)?;
            }
        }
        Ok(())
    }

    fn write_driver(&self, function: &FakeFunction, place: &Path) -> io::Result<()> {
        let Some(driver) = &function.driver else {
            return Ok(());
        };
        let folder = Path::new("bus/pci/drivers").join(driver);
        put(&self.sys(folder.join("unbind")), "")?;
        self.link_to(place.join("driver"), &folder)?;
        if let Some(version) = &function.driver_version {
            let module = Path::new("module").join(driver);
            put(&self.sys(module.join("version")), version)?;
            self.link_to(folder.join("module"), &module)?;
        }
        Ok(())
    }

    fn write_node(&self, path: &Path, mode: u32) -> io::Result<()> {
        let path = self.folder.join(path);
        if !path.exists() {
            put(&path, "")?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    /// A function's configuration space, with a bridge's bus numbers from what is below it.
    fn config_of(&self, function: &FakeFunction) -> Vec<u8> {
        let mut config = function.config.clone();
        // Only a bridge has buses below it; to look for them takes long on a host with thousands of functions.
        if !config.is_bridge() {
            return config.bytes().to_vec();
        }
        let below = self.functions.iter().filter(|below| {
            self.path_above(below)
                .is_ok_and(|path| path.iter().any(|above| above.bdf == function.bdf))
        });
        let buses: Vec<u8> = below.map(|below| bus(&below.bdf)).collect();
        if let (Some(first), Some(last)) = (buses.iter().min(), buses.iter().max()) {
            config.buses(bus(&function.bdf), *first, *last);
        }
        config.bytes().to_vec()
    }

    /// Where a function is in the tree of devices, below `/sys`.
    pub(super) fn place(&self, function: &FakeFunction) -> io::Result<PathBuf> {
        let mut path = self.path_above(function)?;
        path.reverse();
        path.push(function);
        // A root bus is named for its domain and number.
        let top = path.first().map_or("", |top| top.bdf.as_str());
        let root_bus = format!("devices/pci{}", top.get(..7).unwrap_or(top));
        Ok(path
            .iter()
            .fold(PathBuf::from(root_bus), |place, step| place.join(&step.bdf)))
    }

    /// The bridges above a function, the nearest first.
    fn path_above(&self, function: &FakeFunction) -> io::Result<Vec<&FakeFunction>> {
        let mut path: Vec<&FakeFunction> = Vec::new();
        let mut next = self.bridge_of(function)?;
        while let Some(bridge) = next {
            if path.iter().any(|above| above.bdf == bridge) {
                return Err(io::Error::other(format!("{bridge} is below itself")));
            }
            let above = self.find(bridge)?;
            path.push(above);
            next = self.bridge_of(above)?;
        }
        Ok(path)
    }

    fn bridge_of<'a>(&'a self, function: &'a FakeFunction) -> io::Result<Option<&'a str>> {
        let pf = match &function.physfn {
            Some(pf) if function.under.is_none() => self.find(pf)?,
            _ => function,
        };
        Ok(pf.under.as_deref())
    }

    /// Functions are written below others, so a forgotten one would appear as an empty function.
    fn find(&self, bdf: &str) -> io::Result<&FakeFunction> {
        let forgotten = || {
            let text = format!("the function {bdf} has not been added");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        self.functions
            .iter()
            .find(|function| function.bdf == bdf)
            .ok_or_else(forgotten)
    }

    pub(super) fn vfs(&self, pf: &str) -> impl Iterator<Item = &FakeFunction> {
        self.functions
            .iter()
            .filter(move |function| function.physfn.as_deref() == Some(pf))
    }

    /// Makes a symbolic link between two places below `/sys`, by the shortest way as the kernel does, in place of an
    /// earlier one.
    pub(super) fn link_to(&self, from: PathBuf, to: &Path) -> io::Result<()> {
        let common = from
            .iter()
            .zip(to)
            .take_while(|(from, to)| from == to)
            .count();
        let ups = from.iter().count().saturating_sub(common + 1);
        let target: PathBuf = std::iter::repeat_n("..".as_ref(), ups)
            .chain(to.iter().skip(common))
            .collect();
        let path = self.sys(from);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(target, path),
        }
    }
}

fn bus(bdf: &str) -> u8 {
    let digits = bdf.get(5..7).unwrap_or_default();
    u8::from_str_radix(digits, 16).unwrap_or(0)
}

pub(super) fn put(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, format!("{text}\n"))
}
