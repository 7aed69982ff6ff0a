//! Where guests' cgroups go: below the cgroup that a service manager gave to this process, or else below the root.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{fs::getxattr, io::Errno};

/// Where cgroup version 2 is mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The attributes by which systemd says that a unit's cgroup is the unit's own (`Delegate=yes`).
///
/// *Source:* `docs/CGROUP_DELEGATION.md` (systemd 257).
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The folder below which guests' cgroups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    mount: PathBuf,
    base: PathBuf,
    is_delegated: bool,
}

impl Place {
    /// Looks where this process is.
    ///
    /// # Errors
    /// The errno of reading `/proc/self/cgroup` or the attributes; `NotFound` where it is in no cgroup of version 2.
    pub fn find() -> io::Result<Self> {
        Self::find_for("self", Path::new(MOUNT), is_delegated)
    }

    /// The folder below which the folder `narrows` is.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Whether the base is a service manager's gift, and not the root.
    #[must_use]
    pub const fn is_delegated(&self) -> bool {
        self.is_delegated
    }

    /// The folder of the cgroup that a process is in.
    ///
    /// # Errors
    /// The errno of reading `/proc/PID/cgroup`; `NotFound` where it is in no cgroup of version 2.
    pub fn of_process(&self, process: u32) -> io::Result<PathBuf> {
        cgroup_of(&process.to_string()).map(|own| below(&self.mount, &own))
    }

    fn find_for(
        process: &str,
        mount: &Path,
        is_delegated: fn(&Path) -> io::Result<bool>,
    ) -> io::Result<Self> {
        let own = below(mount, &cgroup_of(process)?);
        let is_delegated = is_delegated(&own)?;
        Ok(Self {
            base: if is_delegated { own } else { mount.to_owned() },
            mount: mount.to_owned(),
            is_delegated,
        })
    }
}

fn below(mount: &Path, cgroup: &str) -> PathBuf {
    mount.join(cgroup.trim_start_matches('/'))
}

fn cgroup_of(process: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    version2(&text).map(str::to_owned).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no line of cgroup version 2 (\"0::/\")",
        )
    })
}

/// The path in the line of hierarchy 0, which is version 2's. A name that leaves the mounted part is none.
fn version2(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (path.starts_with('/') && !path.split('/').any(|part| part == "..")).then_some(path)
}

fn is_delegated(folder: &Path) -> io::Result<bool> {
    for name in DELEGATED {
        let mut value = [0_u8; 8];
        match getxattr(folder, name, &mut value) {
            Ok(1) if value.first() == Some(&b'1') => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_of_version_2_counts() {
        for (text, path) in [
            ("0::/\n", Some("/")),
            (
                "0::/system.slice/web.service\n",
                Some("/system.slice/web.service"),
            ),
            ("12:cpu:/a\n0::/b\n", Some("/b")),
            ("12:cpu:/a\n1:name=systemd:/b\n", None),
            ("0::/../outside\n", None),
            ("", None),
        ] {
            assert_eq!(version2(text), path, "{text:?}");
        }
    }

    #[test]
    fn a_gift_is_used_and_nothing_else() {
        let Ok(own) = cgroup_of("self") else {
            // Without version 2 there is no place at all, which is told.
            let error = Place::find_for("self", Path::new("/mnt"), |_| Ok(true)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            return;
        };
        let find = |is_delegated| Place::find_for("self", Path::new("/mnt"), is_delegated).unwrap();
        assert_eq!(find(|_| Ok(false)).base(), Path::new("/mnt"));
        assert!(!find(|_| Ok(false)).is_delegated());
        assert_eq!(find(|_| Ok(true)).base(), below(Path::new("/mnt"), &own));
    }

    #[test]
    fn a_folder_without_the_mark_is_not_ours() {
        let folder = std::env::temp_dir();
        assert!(!is_delegated(&folder).unwrap());
        assert!(is_delegated(Path::new("/nowhere")).is_err());
    }
}
