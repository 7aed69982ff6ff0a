//! Shows what the host's PCI topology is, and takes functions through a whole life: bind, attach, map, seal, restore.
//!
//! ```text
//! probe                                       the topology
//! probe BDF... [type1|iommufd] [MIB]          the life of these functions in one context, by that interface
//! ```
//! Needs root for the second. The functions must not be in use; they are bound to vfio-pci and put back afterwards.

#![expect(clippy::print_stdout, reason = "an example shows what it finds")]

use std::{
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    os::fd::AsFd,
    process::{self, ExitCode},
    time::Instant,
};

use iommu::{
    addr::{ByteLen, Iova, IovaRange},
    bdf::Bdf,
    bind::{Binding, VFIO_PCI},
    device::{CONFIG_REGION, Device, MSI_IRQ, MSIX_IRQ},
    ledger::{Bars, Kind, Permission},
    space::{AddressSpace, DeviceNode, Interface, Mapping},
    sysfs::SysRoot,
    topology::{HostState, Topology},
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let root = SysRoot::default();
    let mut functions: Vec<Bdf> = Vec::new();
    let mut interface = None;
    let mut mib = 4;
    for word in env::args().skip(1) {
        match word.as_str() {
            "type1" => interface = Some(Interface::Type1),
            "iommufd" => interface = Some(Interface::Iommufd),
            _ if word.contains(':') => functions.push(word.parse()?),
            _ => mib = word.parse()?,
        }
    }
    if functions.is_empty() {
        show_topology(&Topology::read(&root)?);
        return Ok(());
    }
    let mut bindings = Vec::new();
    let result = bind_all(&root, &functions, &mut bindings)
        .and_then(|()| live(&root, &functions, interface, mib));
    for binding in bindings.iter().rev() {
        binding.restore(&root)?;
        println!("restored {}", binding.bdf());
    }
    result
}

fn bind_all(
    root: &SysRoot,
    functions: &[Bdf],
    bindings: &mut Vec<Binding>,
) -> Result<(), Box<dyn Error>> {
    for bdf in functions {
        let binding = Binding::bind(root, *bdf, VFIO_PCI)?;
        println!(
            "bound {bdf} to {VFIO_PCI}, before: {}",
            binding.driver_before().unwrap_or("no driver")
        );
        bindings.push(binding);
    }
    Ok(())
}

fn show_topology(topology: &Topology) {
    println!(
        "iommus {:x?}, /dev/iommu {}",
        topology.iommus, topology.has_iommufd
    );
    show_host(&topology.host);
    for (bdf, function) in &topology.functions {
        println!(
            "{bdf} {:04x}:{:04x} class {:06x} group {:?} driver {:?} {:?} override {:?} physfn {:?} reset {:?} cdev {:?} {:?}",
            function.vendor,
            function.device,
            function.class,
            function.group.map(|group| group.0),
            function.driver,
            function.driver_version,
            function.driver_override,
            function.physfn,
            function.reset_methods,
            function.vfio_cdev,
            function.interrupts,
        );
        let path: Vec<String> = topology
            .path_above(*bdf)
            .map(|above| above.bdf.to_string())
            .collect();
        println!("  below {path:?}");
        println!("  {:x?}", function.config);
        println!(
            "  {:?} rom {:x?} {:?} {:?}",
            function.sriov, function.rom, function.errors, function.link
        );
        if !(function.interfaces.is_empty() && function.controllers.is_empty()) {
            println!("  {:?} {:?}", function.interfaces, function.controllers);
        }
    }
    for (id, group) in &topology.groups {
        println!(
            "group {} {} {:?} {:?}",
            id.0, group.domain_type, group.members, group.other_members
        );
        for region in &group.reserved {
            println!("  reserved {} {}", region.range, region.kind);
        }
    }
}

fn show_host(host: &HostState) {
    println!("kernel {:?} {:?}", host.kernel, host.cmdline);
    println!("interrupt remapping {:?}", host.remapping);
    println!("unsafe interrupts {:?}", host.unsafe_interrupts);
    println!("unsafe no-IOMMU mode {:?}", host.unsafe_noiommu);
    for (name, setting) in &host.settings {
        println!("setting {name} {:?}", setting.text);
    }
    println!("vulnerabilities {:?}", host.vulnerabilities);
    println!("kernel configuration {:?}", host.kernel_config);
    println!("pre-boot protection {:?}", host.preboot_protection);
    for node in &host.vfio_nodes {
        let path = node.path.display();
        println!("node {path} {:o} {} {}", node.mode, node.uid, node.gid);
    }
    println!("locked memory {:?}", host.locked_memory_limit);
}

fn live(
    root: &SysRoot,
    functions: &[Bdf],
    interface: Option<Interface>,
    mib: u64,
) -> Result<(), Box<dyn Error>> {
    let topology = Topology::read(root)?;
    let detected = Interface::detect(&topology, functions);
    let interface = interface.unwrap_or(detected);
    println!("interface {interface} (the host offers {detected})");

    let mut space = AddressSpace::open(interface, root)?;
    let mut nodes = Vec::new();
    let mut devices = Vec::new();
    let mut reserved = Vec::new();
    for bdf in functions {
        let node = DeviceNode::of(&topology, *bdf)?;
        let device = space.attach(&node)?;
        show_device(&device)?;
        devices.push(device);
        nodes.push(node);
        if let Some((_, group)) = topology.group_of(*bdf) {
            reserved.extend(group.reserved.clone());
        }
    }
    let mut space = space.attached(reserved, Bars::default())?;
    for range in space.usable_ranges() {
        println!("usable {range}");
    }
    println!("page sizes {:x?}", space.page_sizes());

    let len = ByteLen::new(mib << 20);
    let ram = memory_file(len)?;
    let start = Instant::now();
    space.map(&Mapping {
        range: IovaRange::new(Iova::new(0x10_0000), len).ok_or("no such range")?,
        file: ram.as_fd(),
        offset: 0,
        permission: Permission::ReadWrite,
        kind: Kind::Ram,
    })?;
    println!("mapped {len} in {} ms", start.elapsed().as_millis());
    let image = memory_file(ByteLen::new(1 << 20))?;
    let beyond = Iova::new(0x10_0000)
        .checked_add(len)
        .ok_or("no such address")?;
    space.map(&Mapping {
        range: IovaRange::new(beyond, ByteLen::new(1 << 20)).ok_or("no such range")?,
        file: image.as_fd(),
        offset: 0,
        permission: Permission::ReadOnly,
        kind: Kind::Image,
    })?;
    let msi = Mapping {
        range: IovaRange::new(Iova::new(0xfee0_0000), ByteLen::new(4096)).ok_or("no such range")?,
        file: ram.as_fd(),
        offset: 0,
        permission: Permission::ReadWrite,
        kind: Kind::Ram,
    };
    match space.map(&msi) {
        Ok(()) => return Err("the interrupt window was mapped".into()),
        Err(error) => println!("refused as it should be: {error}"),
    }

    for device in &devices {
        println!(
            "{} bus master {} before the seal",
            device.bdf(),
            device.is_bus_master()?
        );
    }
    let sealed = space.seal();
    println!(
        "sealed: {} entries, {} in all",
        sealed.ledger().entries().len(),
        sealed.ledger().total()
    );
    println!("calls {:?}", sealed.calls());
    show_open_files()?;
    for node in &nodes {
        match AddressSpace::open(interface, root).and_then(|mut other| other.attach(node)) {
            Ok(_) => return Err("a device could be attached a second time".into()),
            Err(error) => println!("sealed off: {} ({error})", error.id()),
        }
    }
    for device in &devices {
        let bdf = device.bdf();
        device.set_bus_master(&sealed)?;
        println!(
            "{bdf} bus master {} after the seal",
            device.is_bus_master()?
        );
        device.clear_bus_master()?;
        println!(
            "{bdf} interrupts were on: {}",
            device.disable_irqs(MSIX_IRQ)?
        );
        device.reset()?;
        println!("{bdf} reset; bus master {}", device.is_bus_master()?);
    }
    Ok(())
}

fn show_device(device: &Device) -> Result<(), Box<dyn Error>> {
    let info = device.info()?;
    println!("{info:?}");
    for index in 0..=CONFIG_REGION {
        let region = device.region(index)?;
        if region.len.raw() != 0 {
            println!(
                "region {index} {} at {:#x}, mmap {}, sparse {:?}, msix mappable {}",
                region.len, region.offset, region.can_mmap, region.sparse, region.is_msix_mappable
            );
        }
    }
    for index in [MSI_IRQ, MSIX_IRQ] {
        println!("{:?}", device.irq(index)?);
    }
    let mut head = [0; 16];
    device.read_config(0, &mut head)?;
    println!("config {head:02x?}");
    match device.region(99) {
        Ok(region) => println!("region 99: {region:?}"),
        Err(error) => println!("region 99: {error}"),
    }
    Ok(())
}

/// A file without a name, in memory.
fn memory_file(len: ByteLen) -> Result<File, Box<dyn Error>> {
    let path = format!("/tmp/probe-{}", process::id());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    file.set_len(len.raw())?;
    Ok(file)
}

/// What this process still holds of VFIO and iommufd: the device alone, after a seal.
fn show_open_files() -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir("/proc/self/fd")? {
        // The folder's own fd is gone again.
        if let Ok(target) = fs::read_link(entry?.path()) {
            let target = target.to_string_lossy().into_owned();
            if ["vfio", "iommu"].iter().any(|word| target.contains(word)) {
                println!("still open: {target}");
            }
        }
    }
    Ok(())
}
