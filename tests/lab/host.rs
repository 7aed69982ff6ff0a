//! The lab host: its devices, its side of the network, and what must be true of a VF that no guest has.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The programs of a run.
pub(crate) const PROGRAMS: [&str; 3] = ["narrows", "narrows-device", "narrows-vcpu"];

/// A fact from /run/lab.env: `NIC_VF0`, `NVME_NS1`, `EDU`, …
pub(crate) fn fact(key: &str) -> String {
    static FACTS: OnceLock<HashMap<String, String>> = OnceLock::new();
    let facts = FACTS.get_or_init(|| {
        let text = fs::read_to_string("/run/lab.env")
            .expect("this test needs a lab host: run scripts/test, or scripts/lab by hand");
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    });
    facts
        .get(key)
        .unwrap_or_else(|| panic!("/run/lab.env has no {key}"))
        .clone()
}

/// The address of the NIC's VF `index`.
pub(crate) fn nic(index: usize) -> String {
    fact(&format!("NIC_VF{index}"))
}

/// The address of the NVMe VF `index`.
pub(crate) fn nvme(index: usize) -> String {
    fact(&format!("NVME_VF{index}"))
}

/// The block device through which the host sees the namespace of NVMe VF `index`.
pub(crate) fn namespace(index: usize) -> PathBuf {
    fact(&format!("NVME_NS{index}")).into()
}

/// Whether this host's kernel has iommufd and device cdevs.
pub(crate) fn has_iommufd() -> bool {
    Path::new("/dev/iommu").exists()
}

/// The folder of a function in sysfs.
fn folder(bdf: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(bdf)
}

/// The driver a function is bound to.
pub(crate) fn driver(bdf: &str) -> Option<String> {
    let link = fs::read_link(folder(bdf).join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// `driver_override` of a function; empty where there is none.
pub(crate) fn driver_override(bdf: &str) -> String {
    let text = fs::read_to_string(folder(bdf).join("driver_override")).unwrap();
    let text = text.trim();
    if text == "(null)" {
        String::new()
    } else {
        text.to_owned()
    }
}

/// The bus master bit of a function, read from its configuration space.
pub(crate) fn is_bus_master(bdf: &str) -> bool {
    let config = fs::read(folder(bdf).join("config")).unwrap();
    config[4] & 4 != 0
}

/// The ids of the processes with this program's name.
pub(crate) fn processes(program: &str) -> Vec<u32> {
    let named = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program))
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(named)
        .collect()
}

/// Pages that the kernel holds pinned for VFIO and iommufd, all processes together: acquired minus released.
pub(crate) fn pinned_pages() -> i64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    let value = |key: &str| -> i64 {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
            .unwrap_or(0)
    };
    value("nr_foll_pin_acquired") - value("nr_foll_pin_released")
}

/// How often the vectors of a function have fired, as the host's kernel counts.
pub(crate) fn interrupts(bdf: &str) -> u64 {
    let text = fs::read_to_string("/proc/interrupts").unwrap();
    text.lines()
        .filter(|line| line.contains("vfio-msi") && line.contains(bdf))
        .flat_map(|line| {
            line.split_whitespace()
                .skip(1)
                .map_while(|word| word.parse::<u64>().ok())
        })
        .sum()
}

/// Runs a shell command that must succeed, and gives its output.
pub(crate) fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Fails unless the function is as it was before any guest had it: no driver, no override, no bus master.
pub(crate) fn assert_vf_returned(bdf: &str) {
    assert_eq!(driver(bdf), None, "{bdf} is still bound");
    assert_eq!(
        driver_override(bdf),
        "",
        "{bdf} still has a driver_override"
    );
    assert!(!is_bus_master(bdf), "{bdf} is still bus master");
}

/// Fails unless the function is as it was before any guest had it, and no process of ours is left.
pub(crate) fn assert_returned(bdf: &str) {
    assert_vf_returned(bdf);
    for program in PROGRAMS {
        assert_eq!(
            processes(program),
            Vec::<u32>::new(),
            "{program} is still there"
        );
    }
}
