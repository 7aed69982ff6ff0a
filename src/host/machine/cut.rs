//! What is kept of files that hold more than any check reads: one row a file, with what is said about it.

use std::path::Path;

use super::gzip;

/// How one file is shortened.
pub(super) struct Cut {
    applies: fn(&Path) -> bool,
    cut: fn(&str) -> String,
    /// What is gone, for who reads the machine file.
    pub(super) says: &'static str,
}

const CUTS: &[Cut] = &[
    Cut {
        applies: |path| path == Path::new("proc/cmdline"),
        cut: cmdline,
        says: "kernel command line: words that no check needs",
    },
    Cut {
        applies: |path| path == Path::new("proc/cpuinfo"),
        cut: first_processor,
        says: "processors: all but the first, and of that all but its model, flags and address sizes",
    },
    Cut {
        applies: |path| path.file_name().is_some_and(|name| name == "meminfo"),
        cut: meminfo,
        says: EMPTY_LINES,
    },
    Cut {
        applies: |path| path.starts_with("proc") && path.ends_with("limits"),
        cut: limits,
        says: EMPTY_LINES,
    },
    Cut {
        applies: |path| path.starts_with("proc") && path.ends_with("status"),
        cut: capabilities,
        says: EMPTY_LINES,
    },
    Cut {
        applies: |path| in_function(path, "aer_dev_"),
        cut: error_counts,
        says: EMPTY_LINES,
    },
    Cut {
        applies: |path| in_function(path, "resource"),
        cut: resource,
        says: EMPTY_LINES,
    },
    Cut {
        applies: |path| path == Path::new("proc/interrupts"),
        cut: interrupts,
        says: "interrupts: counts, and those without a number",
    },
    Cut {
        applies: |path| path == Path::new("proc/swaps"),
        cut: swaps,
        says: "swap: names of partitions and files",
    },
    Cut {
        applies: |path| path == Path::new("proc/sys/kernel/core_pattern"),
        cut: core_pattern,
        says: "core dumps: the folder they go to",
    },
    Cut {
        applies: |path| path.parent() == Some(Path::new("narrows/nvme")),
        cut: subsystem,
        says: "NVMe subsystems: serial numbers, names and identifiers of namespaces",
    },
    Cut {
        applies: |path| path == Path::new("narrows/addresses"),
        cut: addresses,
        says: "addresses of the host",
    },
    Cut {
        applies: |path| {
            path.parent() == Some(Path::new("boot"))
                && path
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("config-"))
        },
        cut: kernel_config,
        says: KERNEL_CONFIG,
    },
];

const EMPTY_LINES: &str = "memory, limits, error counts, resources: lines that no check reads";
const KERNEL_CONFIG: &str = "kernel configuration: options that no check needs";

/// The file's new contents, and what to say of them where they are not the old ones.
pub(super) fn cut(path: &Path, bytes: &[u8]) -> (Vec<u8>, Option<&'static str>) {
    if path == Path::new("proc/config.gz") {
        // What cannot be unpacked is kept: the reader has to fail on it as it did.
        let packed = gzip::unpack(bytes).and_then(|text| gzip::pack(&kernel_config(&text)).ok());
        let new = packed.unwrap_or_else(|| bytes.to_vec());
        let says = (new != bytes).then_some(KERNEL_CONFIG);
        return (new, says);
    }
    let row = CUTS.iter().find(|row| (row.applies)(path));
    let Some((row, text)) = row.zip(std::str::from_utf8(bytes).ok()) else {
        return (bytes.to_vec(), None);
    };
    let new = (row.cut)(text);
    let says = (new != text).then_some(row.says);
    (new.into_bytes(), says)
}

/// Words of the kernel's command line that bear on isolation or on the processor, by what they begin with; the rest
/// may hold disks, addresses and host names.
const WORDS: &[&str] = &[
    "acpi=",
    "amd_iommu",
    "apic=",
    "clearcpuid=",
    "console=",
    "debug",
    "default_hugepagesz=",
    "efi=",
    "highres=",
    "hugepages",
    "init_on_",
    "intel_iommu",
    "intremap=",
    "iommu",
    "irqaffinity=",
    "isolcpus=",
    "ivrs_",
    "kvm",
    "lockdown=",
    "lsm=",
    "mce=",
    "mem=",
    "mitigations=",
    "module.",
    "no_timer_check",
    "nohz",
    "nointremap",
    "nopti",
    "nosmt",
    "nox2apic",
    "panic=",
    "pci",
    "pti=",
    "quiet",
    "rcu_nocbs=",
    "ro",
    "rw",
    "spec",
    "swiotlb=",
    "tsc",
    "vfio",
    "x2apic",
];

fn cmdline(text: &str) -> String {
    let is_kept = |word: &str| {
        // The kernel reads `-` in the name of a parameter as `_`.
        let word = match word.split_once('=') {
            Some((key, value)) => format!("{}={value}", key.replace('-', "_")),
            None => word.replace('-', "_"),
        };
        WORDS.iter().any(|row| match *row {
            // Too short to begin anything by chance.
            "ro" | "rw" | "debug" | "quiet" => word == *row,
            row => word.starts_with(row),
        })
    };
    let mut kept: Vec<&str> = text
        .split_whitespace()
        .map(|word| if is_kept(word) { word } else { "scrubbed" })
        .collect();
    kept.dedup();
    format!("{}\n", kept.join(" "))
}

/// Whether the file belongs to a device and its name begins so.
fn in_function(path: &Path, name: &str) -> bool {
    path.starts_with("sys/devices")
        && path
            .file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(name))
}

/// The lines of the text that `is_kept` keeps, each with its end.
fn lines(text: &str, is_kept: impl Fn(&str) -> bool) -> String {
    text.lines()
        .filter(|line| is_kept(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What tells the processor's model, and what it can do, in `/proc/cpuinfo`.
const PROCESSOR: &[&str] = &[
    "processor",
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "microcode",
    "flags",
    "address sizes",
];

/// The first block of `/proc/cpuinfo`: the others say the same, and a large host has hundreds.
fn first_processor(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    lines(first, |line| {
        let key = line.split(':').next().unwrap_or_default();
        PROCESSOR.contains(&key.trim())
    })
}

/// Totals of `/proc/meminfo` and of a node's.
fn meminfo(text: &str) -> String {
    let keys = ["MemTotal:", "MemAvailable:", "HugePages_", "Hugepagesize:"];
    lines(text, |line| keys.iter().any(|key| line.contains(key)))
}

/// The capabilities that the process has.
fn capabilities(text: &str) -> String {
    lines(text, |line| line.starts_with("CapEff:"))
}

fn limits(text: &str) -> String {
    lines(text, |line| {
        line.starts_with("Limit") || line.starts_with("Max locked memory")
    })
}

/// Errors that occurred, and totals.
fn error_counts(text: &str) -> String {
    lines(text, |line| {
        line.starts_with("TOTAL_") || !line.ends_with(" 0")
    })
}

/// All lines up to the last that is not of zeros; the first stays.
fn resource(text: &str) -> String {
    let is_zero = |line: &&str| line.chars().all(|c| matches!(c, '0' | 'x' | ' '));
    let kept = text.lines().count() - text.lines().rev().take_while(is_zero).count();
    let lines: Vec<&str> = text.lines().take(kept.max(1)).collect();
    format!("{}\n", lines.join("\n"))
}

/// Chips and what the interrupts are for.
fn interrupts(text: &str) -> String {
    let keep = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number: u32 = number.trim().parse().ok()?;
        let words: Vec<&str> = rest
            .split_whitespace()
            .skip_while(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        Some(format!("{number:4}: {}\n", words.join(" ")))
    };
    text.lines().filter_map(keep).collect()
}

/// The head, and a line for each swap without its name.
fn swaps(text: &str) -> String {
    let mut lines = text.lines();
    let mut kept = lines
        .next()
        .map_or(String::new(), |head| format!("{head}\n"));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        kept.push_str(&format!("scrubbed {}\n", words.join(" ")));
    }
    kept
}

/// Each identifier of a namespace becomes a number of its own, in the same number of digits.
fn subsystem(text: &str) -> String {
    let mut ids: Vec<String> = Vec::new();
    let mut stand_in = |id: &str| {
        let known = ids.iter().position(|other| other == id);
        let number = known.unwrap_or_else(|| {
            ids.push(id.to_owned());
            ids.len() - 1
        });
        format!("{:0width$x}", number + 1, width = id.len())
    };
    let mut kept = String::new();
    for line in text.lines() {
        match line.split_once(' ') {
            Some((key @ ("serial" | "subnqn"), _)) => kept.push_str(&format!("{key} scrubbed")),
            Some(("namespace", _)) => {
                let mut is_id = false;
                for (at, word) in line.split(' ').enumerate() {
                    let before = if at == 0 { "" } else { " " };
                    kept.push_str(before);
                    match is_id {
                        true => kept.push_str(&stand_in(word)),
                        false => kept.push_str(word),
                    }
                    is_id = matches!(word, "nguid" | "eui64");
                }
            }
            _ => kept.push_str(line),
        }
        kept.push('\n');
    }
    kept
}

/// Each address becomes one that documents use; prefixes and scopes stay.
fn addresses(text: &str) -> String {
    let mut kept = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [index, address, scope] = words.as_slice() else {
            continue;
        };
        let Some((_, prefix)) = address.split_once('/') else {
            continue;
        };
        let number: u16 = number;
        let [high, low] = number.to_be_bytes();
        let stand_in = match address.contains(':') {
            true => format!("2001:db8::{number:x}"),
            // RFC 2544: two times 65,536 addresses.
            false => format!("198.18.{high}.{low}"),
        };
        kept.push_str(&format!("{index} {stand_in}/{prefix} {scope}\n"));
    }
    kept
}

/// A program is kept; of a path only the last part.
fn core_pattern(text: &str) -> String {
    match text.rsplit_once('/') {
        Some((folder, name)) if !text.starts_with('|') && !folder.is_empty() => {
            format!("/scrubbed/{name}")
        }
        _ => text.to_owned(),
    }
}

/// Options that bear on isolation, by what they begin with.
const OPTIONS: &[&str] = &[
    "AMD_IOMMU",
    "DMAR_",
    "HARDENED_USERCOPY",
    "INIT_ON_",
    "INTEL_IOMMU",
    "IOMMU",
    "IRQ_REMAP",
    "KVM",
    "PCI",
    "STRICT_DEVMEM",
    "VFIO",
];

/// The lines `CONFIG_X=y` and `# CONFIG_X is not set` of the table's options.
fn kernel_config(text: &str) -> String {
    let is_kept = |line: &&str| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        line.strip_prefix("CONFIG_")
            .is_some_and(|option| OPTIONS.iter().any(|known| option.starts_with(known)))
    };
    let kept: Vec<&str> = text.lines().filter(is_kept).collect();
    format!("{}\n", kept.join("\n"))
}
