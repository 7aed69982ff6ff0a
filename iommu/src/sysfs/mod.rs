//! Where sysfs, procfs and the device nodes are, and how their files are read: every failure keeps path and errno.
//!
//! Three kinds of root: a real folder; a [`Tree`] in memory, which is a captured machine; and a real folder whose
//! reading is recorded, to make such a tree. Only the first can be written.

mod record;
mod tree;
mod vf_info;

use std::{
    ffi::OsStr,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use self::record::Recorder;
pub use self::tree::{Entry, Kind, Tree, TreeError};
use crate::error::{Errno, IommuError, Result};

/// The folder that `/sys`, `/proc` and `/dev` are looked up in: `/`, or a captured or made-up machine.
#[derive(Clone, Debug)]
pub struct SysRoot {
    place: PathBuf,
    source: Source,
}

/// Where the answers come from.
#[derive(Clone, Debug)]
enum Source {
    Folder,
    Tree(Arc<Captured>),
    Recorder(Recorder),
}

/// A tree, and how much may still be read of it. Links make a short text hold much: a thousand functions may be one
/// folder.
#[derive(Debug)]
struct Captured {
    tree: Tree,
    left_bytes: AtomicUsize,
}

/// What may be read of a captured machine, in bytes: a host with a thousand functions needs a tenth of it.
const CAPTURED_LIMIT: usize = 128 << 20;
/// What a name costs besides its characters.
const NAME_BYTES: usize = 64;

/// What a question to the kernel is about, for the message when it fails.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The call: `RTM_GETLINK`.
    pub call: &'static str,
    /// What it is asked of, as a file: `sys/class/net/eth0`.
    pub of: &'a Path,
}

/// Who may open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for SysRoot {
    fn default() -> Self {
        Self::new("/")
    }
}

impl SysRoot {
    /// The host as `root` has it.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            place: root.into(),
            source: Source::Folder,
        }
    }

    /// The machine that `tree` describes; `place` is where the description is, for messages.
    ///
    /// It is read-only. Paths below `place` name nothing on this host, so that whoever opens one by mistake fails.
    #[must_use]
    pub fn captured(place: impl Into<PathBuf>, tree: Tree) -> Self {
        Self {
            place: place.into(),
            source: Source::Tree(Arc::new(Captured {
                tree,
                left_bytes: AtomicUsize::new(CAPTURED_LIMIT),
            })),
        }
    }

    /// The host as `root` has it; all that is read is kept, see [`Self::recorded`]. It is read-only.
    #[must_use]
    pub fn recording(root: impl Into<PathBuf>) -> Self {
        let place = root.into();
        Self {
            source: Source::Recorder(Recorder::new(place.clone())),
            place,
        }
    }

    /// What has been read so far from a root made by [`Self::recording`]; `None` for the others.
    #[must_use]
    pub fn recorded(&self) -> Option<Tree> {
        match &self.source {
            Source::Recorder(recorder) => Some(recorder.tree()),
            Source::Folder | Source::Tree(_) => None,
        }
    }

    /// How often a root made by [`Self::recording`] has been asked for something, repetitions included; `None` for the
    /// others. What a reader costs on a host with thousands of functions is told by it, not by a clock.
    #[must_use]
    pub fn questions(&self) -> Option<usize> {
        match &self.source {
            Source::Recorder(recorder) => Some(recorder.questions()),
            Source::Folder | Source::Tree(_) => None,
        }
    }

    /// Whether nothing can be written or opened here: a captured machine, or one that is being captured.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        !matches!(self.source, Source::Folder)
    }

    /// The folder itself.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.place
    }

    /// Where `path` is under this root; `/sys/x` and `sys/x` are the same.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.place.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something is there.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        match &self.source {
            Source::Folder => self.path(path).exists(),
            Source::Tree(captured) => captured.tree.at(path.as_ref()).is_ok(),
            Source::Recorder(recorder) => recorder.exists(path.as_ref()),
        }
    }

    /// Reads a small text file, without the white space around it.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn read_text(&self, path: impl AsRef<Path>) -> Result<String> {
        let bytes = self.read_bytes(path, TEXT_LIMIT)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// As [`Self::read_text`]; `None` where there is no such file.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn read_text_if_any(&self, path: impl AsRef<Path>) -> Result<Option<String>> {
        if_any(self.read_text(path))
    }

    /// Reads at most `limit` bytes.
    ///
    /// # Errors
    /// `sysfs-io`; `machine-malformed` for a captured machine of which too much was read.
    pub fn read_bytes(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let read = match &self.source {
            Source::Folder => {
                // With room for most files: without, each is read in many small pieces.
                let room = limit.min(ROOM_BYTES);
                let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
                fs::File::open(self.path(path))
                    .and_then(|file| file.take(limit).read_to_end(&mut bytes))
                    .map_err(|error| Errno::of(&error))
                    .map(|_| bytes)
            }
            Source::Tree(captured) => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let read = captured.tree.read(path, limit);
                self.spend(captured, read.as_ref().map_or(0, Vec::len))?;
                read
            }
            Source::Recorder(recorder) => recorder.read(path, limit),
        };
        read.map_err(|errno| self.failed("read", path, errno))
    }

    /// Reads a link's target as it stands; `None` where there is nothing of that name.
    ///
    /// # Errors
    /// `sysfs-io`; EINVAL where it is no link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = path.as_ref();
        let read = match &self.source {
            Source::Folder => fs::read_link(self.path(path)).map_err(|error| Errno::of(&error)),
            Source::Tree(captured) => captured.tree.read_link(path),
            Source::Recorder(recorder) => recorder.read_link(path),
        };
        if_any(read.map_err(|errno| self.failed("readlink", path, errno)))
    }

    /// Asks who may open a file: permission bits, owner and group; `None` where it does not exist.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn owner(&self, path: impl AsRef<Path>) -> Result<Option<Owner>> {
        let path = path.as_ref();
        let found = match &self.source {
            Source::Folder => fs::metadata(self.path(path))
                .map(|found| Owner::of(&found))
                .map_err(|error| Errno::of(&error)),
            Source::Tree(captured) => captured.tree.owner(path),
            Source::Recorder(recorder) => recorder.owner(path),
        };
        if_any(found.map_err(|errno| self.failed("stat", path, errno)))
    }

    /// Reads the last component of a link's target, e.g. the driver of `…/driver`; `None` where there is no link.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn read_link_name(&self, path: impl AsRef<Path>) -> Result<Option<String>> {
        Ok(self
            .read_link(path)?
            .as_deref()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned()))
    }

    /// The names in a folder, sorted; none where there is no such folder.
    ///
    /// # Errors
    /// `sysfs-io`; `machine-malformed` for a captured machine of which too much was read.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<String>> {
        let path = path.as_ref();
        let names = match &self.source {
            Source::Folder => fs::read_dir(self.path(path))
                .and_then(|entries| {
                    entries
                        .map(|entry| entry.map(|entry| lossy(&entry.file_name())))
                        .collect::<io::Result<Vec<_>>>()
                })
                .map_err(|error| Errno::of(&error)),
            Source::Tree(captured) => {
                let names = captured.tree.list(path);
                let len =
                    |names: &Vec<String>| names.iter().map(|name| name.len() + NAME_BYTES).sum();
                self.spend(captured, names.as_ref().map_or(0, len))?;
                names
            }
            Source::Recorder(recorder) => recorder.list(path),
        };
        let names = if_any(names.map_err(|errno| self.failed("list", path, errno)))?;
        let mut names = names.unwrap_or_default();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads what the kernel says of the VFs behind a network interface; `None` where its driver tells of none.
    ///
    /// A line `parent BDF` where that is known, then a line for each VF: `vf 0 mac 52:54:00:00:01:00 vlan 0 qos 0
    /// spoofchk on trust off query_rss off link auto min_tx 0 max_tx 0`, without what the driver does not tell, and with
    /// `mac none` for an address of zeros, and `proto 802.1ad` behind `qos` for a VLAN of that kind. No file holds this: the running host's kernel is asked, by netlink; in any
    /// other folder, and in a captured machine, it is the file `narrows/vf-info/INTERFACE`.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn vf_info(&self, interface: &str) -> Result<Option<String>> {
        let asked = Asked {
            call: "RTM_GETLINK",
            of: &Path::new("sys/class/net").join(interface),
        };
        let place = Path::new(VF_INFO).join(interface);
        self.ask(place, asked, || vf_info::ask(interface))
    }

    /// Asks the kernel what no file holds: `question` is put to the kernel of the running host. In any other folder, and
    /// in a captured machine, its answer is the file `place`, below `narrows`, where no kernel has one; a machine that is
    /// being captured keeps it there. `None`, and no file, where there is nothing to tell.
    ///
    /// # Errors
    /// `sysfs-io`, with what `asked` names where the kernel refused; `machine-malformed` as for [`Self::read_bytes`].
    pub fn ask(
        &self,
        place: impl AsRef<Path>,
        asked: Asked<'_>,
        question: impl FnOnce() -> std::result::Result<Option<String>, Errno>,
    ) -> Result<Option<String>> {
        let place = place.as_ref();
        let is_this_host = !matches!(self.source, Source::Tree(_)) && self.place == Path::new("/");
        if !is_this_host {
            let bytes = if_any(self.read_bytes(place, ANSWER_LIMIT))?;
            return Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        }
        let answer = question();
        if let Source::Recorder(recorder) = &self.source {
            recorder.keep(place, &answer);
        }
        answer.map_err(|errno| self.failed(asked.call, asked.of, errno))
    }

    /// Writes `text` to an attribute in one `write`; the file must exist.
    ///
    /// # Errors
    /// `sysfs-io`; `machine-read-only` for a captured machine.
    pub fn write_text(&self, path: impl AsRef<Path>, text: &str) -> Result<()> {
        let path = path.as_ref();
        if self.is_read_only() {
            return Err(IommuError::ReadOnlyMachine {
                path: self.path(path),
                errno: Errno::new(libc::EROFS),
            });
        }
        // Truncation means nothing in sysfs; it makes a made-up tree behave alike.
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path(path))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| self.failed("write", path, Errno::of(&error)))
    }

    /// Takes `bytes` off what may be read of a captured machine; once that is used up, nothing more can be read.
    fn spend(&self, captured: &Captured, bytes: usize) -> Result<()> {
        let take = |left: usize| Some(left.saturating_sub(bytes));
        let left = captured
            .left_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        match left {
            Ok(left) if left > bytes => Ok(()),
            Ok(_) | Err(_) => Err(IommuError::LargeMachine {
                place: self.place.clone(),
                limit: CAPTURED_LIMIT,
            }),
        }
    }

    fn failed(&self, call: &'static str, path: &Path, errno: Errno) -> IommuError {
        IommuError::Sysfs {
            path: self.path(path),
            call,
            errno,
        }
    }
}

/// What the kernel gives of an attribute at a time, and the size of a whole configuration space.
const ROOM_BYTES: u64 = 4096;

/// More than any attribute of sysfs that is text.
const TEXT_LIMIT: u64 = 64 << 10;

/// Where a machine that is not running holds what its kernel said of VFs: a made-up place, which no kernel has.
const VF_INFO: &str = "narrows/vf-info";

/// Far more than the lines of all VFs that one function can have.
const ANSWER_LIMIT: u64 = 8 << 20;

/// Turns "there is no such file" into `None`.
fn if_any<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(IommuError::Sysfs { errno, .. }) if errno.raw() == libc::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

fn lossy(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
