//! Which layers of the jail this host has: read from files, and on the running kernel asked by calls that change nothing.

use std::path::Path;

use iommu::sysfs::SysRoot;
use rustix::io::Errno;
use serde::Serialize;

use crate::{
    layers::{CONTROLLERS, Layer, LayerSet, Presence},
    sys::{landlock, offers},
};

/// Every layer, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layers(Vec<Known>);

/// A layer and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Which.
    pub layer: Layer,
    /// Whether it is there.
    #[serde(flatten)]
    pub presence: Presence,
}

impl Layers {
    /// Reads the host under `root`. What a root that is not the running host's has no file for is unknown.
    #[must_use]
    pub fn read(root: &SysRoot) -> Self {
        let reader = Reader {
            root,
            is_live: root.as_path() == Path::new("/") && !root.is_read_only(),
        };
        let known = Layer::all().map(|layer| Known {
            layer,
            presence: reader.presence(layer),
        });
        Self(known.collect())
    }

    /// All of them, in the order of their table.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.iter()
    }

    /// The layers that are known to be absent.
    pub fn absent(&self) -> impl Iterator<Item = &Known> {
        let is_absent = |known: &&Known| matches!(known.presence, Presence::Absent { .. });
        self.iter().filter(is_absent)
    }

    /// The same as a set.
    #[must_use]
    pub fn absent_set(&self) -> LayerSet {
        self.absent().map(|known| known.layer).collect()
    }
}

struct Reader<'a> {
    root: &'a SysRoot,
    /// It is the kernel that would run the guest: what has no file there is absent.
    is_live: bool,
}

impl Reader<'_> {
    fn presence(&self, layer: Layer) -> Presence {
        match layer {
            Layer::Seccomp => self.word("proc/sys/kernel/seccomp/actions_avail", "kill_process"),
            Layer::NoNewPrivs => self.line("proc/self/status", "NoNewPrivs:"),
            Layer::Capabilities => self.line("proc/self/status", "CapAmb:"),
            Layer::Uid => self.line("proc/self/status", "Uid:"),
            Layer::UserNamespace => self.namespace("user", "user"),
            Layer::MountNamespace => self.mount_namespace(),
            Layer::PidNamespace => self.namespace("pid", "pid"),
            Layer::NetNamespace => self.namespace("net", "net"),
            Layer::IpcNamespace => self.namespace("ipc", "ipc"),
            Layer::UtsNamespace => self.namespace("uts", "uts"),
            Layer::CgroupNamespace => self.namespace("cgroup", "cgroup"),
            Layer::TimeNamespace => self.namespace("time", "time"),
            Layer::Cgroup => self.cgroup(),
            Layer::Rlimits => self.file("proc/self/limits"),
            Layer::NotDumpable => self.file("proc/sys/fs/suid_dumpable"),
            Layer::Mdwe => self.call("prctl(PR_GET_MDWE)", offers::mdwe),
            Layer::Mseal => self.call("mseal", offers::mseal),
            Layer::Landlock => self.landlock(),
            Layer::CoreScheduling => self.core_scheduling(),
            Layer::FilterReadable => self.file("proc/sys/kernel/ns_last_pid"),
        }
    }

    /// What a file that is not there means.
    fn no_file(&self, path: &str) -> Presence {
        let evidence = format!("/{path} does not exist");
        match self.is_live {
            true => Presence::Absent { evidence },
            false => Presence::Unknown { evidence },
        }
    }

    fn file(&self, path: &str) -> Presence {
        match self.root.exists(path) {
            true => Presence::Available {
                evidence: format!("/{path}"),
            },
            false => self.no_file(path),
        }
    }

    fn text(&self, path: &str) -> Result<String, Presence> {
        match self.root.read_text_if_any(path) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(self.no_file(path)),
            Err(error) => Err(Presence::Unknown {
                evidence: error.to_string(),
            }),
        }
    }

    /// A file with a line that begins with `key`.
    fn line(&self, path: &str, key: &str) -> Presence {
        let text = match self.text(path) {
            Ok(text) => text,
            Err(presence) => return presence,
        };
        let found = text.lines().any(|line| line.starts_with(key));
        match (found, self.is_live) {
            (true, _) => Presence::Available {
                evidence: format!("/{path} has a line {key}"),
            },
            (false, true) => Presence::Absent {
                evidence: format!("/{path} has no line {key}"),
            },
            // A captured machine keeps some lines only.
            (false, false) => Presence::Unknown {
                evidence: format!("/{path} has no line {key}"),
            },
        }
    }

    /// A file with a word.
    fn word(&self, path: &str, word: &str) -> Presence {
        match self.text(path) {
            Ok(text) if text.split_whitespace().any(|found| found == word) => Presence::Available {
                evidence: format!("/{path}: {word}"),
            },
            Ok(_) => Presence::Absent {
                evidence: format!("/{path} lacks {word}"),
            },
            Err(presence) => presence,
        }
    }

    fn namespace(&self, link: &str, limit: &str) -> Presence {
        let limit = format!("proc/sys/user/max_{limit}_namespaces");
        match self.text(&limit) {
            Ok(text) if text == "0" => {
                return Presence::Absent {
                    evidence: format!("/{limit}: 0"),
                };
            }
            Ok(_) => {}
            Err(presence) => return presence,
        }
        let link = format!("proc/self/ns/{link}");
        if !self.is_live {
            return Presence::Unknown {
                evidence: format!("only the running kernel shows /{link}"),
            };
        }
        match self.root.read_link(&link) {
            Ok(Some(_)) => Presence::Available {
                evidence: format!("/{link}"),
            },
            Ok(None) => self.no_file(&link),
            Err(error) => Presence::Unknown {
                evidence: error.to_string(),
            },
        }
    }

    /// A namespace is of no use where the host's root cannot be taken off in it.
    fn mount_namespace(&self) -> Presence {
        const FILE: &str = "proc/self/mountinfo";
        match self.text(FILE) {
            Ok(text) if has_bare_root(&text) => Presence::Absent {
                evidence: format!(
                    "/{FILE}: nothing is below the root, which therefore cannot be exchanged"
                ),
            },
            Ok(_) | Err(_) => self.namespace("mnt", "mnt"),
        }
    }

    fn cgroup(&self) -> Presence {
        const FILE: &str = "sys/fs/cgroup/cgroup.controllers";
        let text = match self.text(FILE) {
            Ok(text) => text,
            Err(presence) => return presence,
        };
        let missing: Vec<&str> = CONTROLLERS
            .into_iter()
            .filter(|name| !text.split_whitespace().any(|word| word == *name))
            .collect();
        match missing.is_empty() {
            true => Presence::Available {
                evidence: format!("/{FILE}: {}", CONTROLLERS.join(", ")),
            },
            false => Presence::Absent {
                evidence: format!("/{FILE} lacks {}", missing.join(", ")),
            },
        }
    }

    /// A call of the running kernel.
    fn call(&self, name: &str, ask: fn() -> rustix::io::Result<()>) -> Presence {
        if !self.is_live {
            return Presence::Unknown {
                evidence: format!("only the running kernel can be asked ({name})"),
            };
        }
        match ask() {
            Ok(()) => Presence::Available {
                evidence: format!("{name} is answered"),
            },
            Err(errno) => Presence::Absent {
                evidence: said(name, errno),
            },
        }
    }

    fn landlock(&self) -> Presence {
        const LIST: &str = "sys/kernel/security/lsm";
        if !self.is_live {
            return self.text(LIST).map_or_else(
                |presence| presence,
                |text| match text.split(',').any(|name| name == "landlock") {
                    true => Presence::Available {
                        evidence: format!("/{LIST}: landlock"),
                    },
                    false => Presence::Absent {
                        evidence: format!("/{LIST} lacks landlock"),
                    },
                },
            );
        }
        match landlock::version() {
            Ok(version) => Presence::Available {
                evidence: format!("landlock_create_ruleset: version {version}"),
            },
            Err(errno) => Presence::Absent {
                evidence: said("landlock_create_ruleset", errno),
            },
        }
    }

    fn core_scheduling(&self) -> Presence {
        const FILE: &str = "sys/devices/system/cpu/smt/active";
        let not_needed = |evidence: String| Presence::NotNeeded {
            evidence: format!("{evidence}: no core runs two threads"),
        };
        match self.text(FILE) {
            Ok(text) if text == "0" => return not_needed(format!("/{FILE}: 0")),
            Ok(_) | Err(_) => {}
        }
        let name = "prctl(PR_SCHED_CORE_GET)";
        match (self.is_live, self.is_live.then(offers::core_scheduling)) {
            (_, Some(Err(Errno::NODEV))) => not_needed(said(name, Errno::NODEV)),
            _ => self.call(name, offers::core_scheduling),
        }
    }
}

/// Whether the root is what the kernel mounted first, which has no parent but itself: `pivot_root` answers `EINVAL` there.
/// From Linux 7.0 on something is below the first RAM file system, so that no process has such a root.
///
/// *Source:* `proc_pid_mountinfo(5)`, `pivot_root(2)`; `fs/namespace.c, path_pivot_root (v6.12)`: `mnt_has_parent`.
fn has_bare_root(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(words[..], [own, parent, _, _, "/", ..] if own == parent)
    })
}

fn said(name: &str, errno: Errno) -> String {
    format!("{name}: {}", std::io::Error::from(errno))
}

#[cfg(test)]
mod tests {
    use iommu::fake::FakeHost;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Layers {
        let name = format!("narrows-layers-{}-{}", std::process::id(), files.len());
        let host = FakeHost::new(std::env::temp_dir().join(name));
        let host = files
            .iter()
            .fold(host, |host, (path, text)| host.file(path, text));
        let root = host.write().unwrap();
        let layers = Layers::read(&root);
        std::fs::remove_dir_all(root.as_path()).unwrap();
        layers
    }

    fn of(layers: &Layers, layer: Layer) -> &Presence {
        &layers
            .iter()
            .find(|known| known.layer == layer)
            .unwrap()
            .presence
    }

    #[test]
    fn what_a_machine_file_does_not_tell_is_unknown_and_not_absent() {
        let layers = read(&[]);
        assert!(layers.absent_set().is_empty(), "{layers:?}");
        for layer in [
            Layer::Mseal,
            Layer::TimeNamespace,
            Layer::Cgroup,
            Layer::Landlock,
        ] {
            assert_eq!(of(&layers, layer).word(), "unknown", "{layer}");
        }
    }

    #[test]
    fn a_limit_of_zero_namespaces_is_none() {
        let layers = read(&[("proc/sys/user/max_time_namespaces", "0\n")]);
        let absent: Vec<Layer> = layers.absent_set().iter().collect();
        assert_eq!(absent, [Layer::TimeNamespace]);
        let presence = of(&layers, Layer::TimeNamespace);
        assert_eq!(presence.evidence(), "/proc/sys/user/max_time_namespaces: 0");
    }

    #[test]
    fn a_root_with_nothing_below_it_is_no_mount_namespace() {
        let path = "proc/self/mountinfo";
        let bare =
            "1 1 0:2 / / rw shared:1 - rootfs rootfs rw\n22 1 0:20 / /proc rw - proc proc rw\n";
        let layers = read(&[
            (path, bare),
            ("r", ""),
            ("s", ""),
            ("t", ""),
            ("u", ""),
            ("v", ""),
        ]);
        let absent: Vec<Layer> = layers.absent_set().iter().collect();
        assert_eq!(absent, [Layer::MountNamespace]);
        // A root that was moved over it, one above the kernel's empty one, and a mount elsewhere with odd numbers.
        for fine in [
            "21 1 0:2 / / rw shared:1 - rootfs rootfs rw\n",
            "2 1 0:2 / / rw shared:1 - tmpfs tmpfs rw\n",
            "29 1 254:0 / / rw - ext4 /dev/vda rw\n7 7 0:9 / /x rw - tmpfs tmpfs rw\n",
        ] {
            let files = [
                (path, fine),
                ("r", ""),
                ("s", ""),
                ("t", ""),
                ("u", ""),
                ("v", ""),
            ];
            let layers = read(&files);
            assert_eq!(of(&layers, Layer::MountNamespace).word(), "unknown");
        }
    }

    #[test]
    fn a_cgroup_without_its_controllers_is_none() {
        let path = "sys/fs/cgroup/cgroup.controllers";
        let layers = read(&[(path, "cpuset cpu io memory pids"), ("x", "")]);
        assert_eq!(of(&layers, Layer::Cgroup).word(), "available");
        let layers = read(&[(path, "cpuset io"), ("x", ""), ("y", "")]);
        assert_eq!(
            of(&layers, Layer::Cgroup).evidence(),
            "/sys/fs/cgroup/cgroup.controllers lacks cpu, memory, pids"
        );
    }

    #[test]
    fn without_second_threads_cores_need_no_scheduling() {
        let path = "sys/devices/system/cpu/smt/active";
        let layers = read(&[(path, "0"), ("a", ""), ("b", ""), ("c", "")]);
        assert_eq!(of(&layers, Layer::CoreScheduling).word(), "not needed");
        let layers = read(&[(path, "1"), ("a", ""), ("b", ""), ("c", ""), ("d", "")]);
        assert_eq!(of(&layers, Layer::CoreScheduling).word(), "unknown");
    }

    #[test]
    fn the_running_kernel_has_what_every_kernel_has() {
        let layers = Layers::read(&SysRoot::default());
        for layer in [
            Layer::NoNewPrivs,
            Layer::Capabilities,
            Layer::Uid,
            Layer::Rlimits,
        ] {
            assert_eq!(of(&layers, layer).word(), "available", "{layer}");
        }
        assert!(
            layers
                .iter()
                .all(|known| !known.presence.evidence().is_empty())
        );
    }
}
