//! Where things are in the lab host.

use std::{fs, io, path::PathBuf};

/// The lab host as it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// An ELF kernel with a PVH entry.
    pub kernel: PathBuf,
    /// The initramfs whose process 1 marks.
    pub initramfs: PathBuf,
    /// The guest that only marks.
    pub tiny: PathBuf,
    /// VFs of the NIC.
    pub nics: Vec<String>,
    /// VFs of the NVMe controller.
    pub nvmes: Vec<String>,
    /// A folder for runs.
    pub scratch: PathBuf,
}

impl Place {
    /// Reads `/run/lab.env`, which `lab-vfs` wrote.
    pub(super) fn find() -> io::Result<Self> {
        const ENV: &str = "/run/lab.env";
        let text = fs::read_to_string(ENV).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{ENV}: {error}; run this in a lab host"),
            )
        })?;
        let scratch = PathBuf::from("/tmp/scoreboard");
        fs::create_dir_all(&scratch)?;
        Ok(Self {
            kernel: "/lab/guest/vmlinux-lab".into(),
            initramfs: "/lab/guest/scoreboard".into(),
            tiny: "/lab/guest/tiny".into(),
            nics: functions(&text, "NIC_VF"),
            nvmes: functions(&text, "NVME_VF"),
            scratch,
        })
    }
}

/// The addresses behind `KEY0=`, `KEY1=` and so on.
fn functions(text: &str, key: &str) -> Vec<String> {
    let of = |index: usize| {
        let key = format!("{key}{index}=");
        text.lines()
            .find_map(|line| line.strip_prefix(&key))
            .map(str::to_owned)
    };
    (0..).map_while(of).collect()
}

#[cfg(test)]
mod tests {
    use super::functions;

    #[test]
    fn functions_are_found_in_their_order() {
        let text = "NIC_PF=0000:01:00.0\nNIC_VF1=0000:01:10.2\nNIC_VF0=0000:01:10.0\nNIC_VFS=2\nNVME_VF0=0000:02:00.1\n";
        assert_eq!(functions(text, "NIC_VF"), ["0000:01:10.0", "0000:01:10.2"]);
        assert_eq!(functions(text, "NVME_VF"), ["0000:02:00.1"]);
    }
}
