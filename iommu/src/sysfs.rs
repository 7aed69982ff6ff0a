//! Where sysfs, procfs and the device nodes are, and how their files are read: every failure keeps path and errno.

use std::{
    ffi::OsStr,
    fs, io,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::error::{Errno, IommuError, Result};

/// The folder that `/sys`, `/proc` and `/dev` are looked up in: `/`, or a captured or made-up machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysRoot(PathBuf);

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
        Self(root.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Where `path` is under this root; `/sys/x` and `sys/x` are the same.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something is there.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
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
    /// `sysfs-io`.
    pub fn read_bytes(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(path);
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| failed("read", &path, &error))?;
        Ok(bytes)
    }

    /// Reads a link's target as it stands; `None` where there is nothing of that name.
    ///
    /// # Errors
    /// `sysfs-io`; EINVAL where it is no link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = self.path(path);
        if_any(fs::read_link(&path).map_err(|error| failed("readlink", &path, &error)))
    }

    /// Asks who may open a file: permission bits, owner and group; `None` where it does not exist.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn owner(&self, path: impl AsRef<Path>) -> Result<Option<Owner>> {
        let path = self.path(path);
        let found = if_any(fs::metadata(&path).map_err(|error| failed("stat", &path, &error)))?;
        Ok(found.map(|found| Owner {
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
        }))
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
    /// `sysfs-io`.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<String>> {
        let path = self.path(path);
        let names = fs::read_dir(&path).and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| lossy(&entry.file_name())))
                .collect::<io::Result<Vec<_>>>()
        });
        let names = if_any(names.map_err(|error| failed("list", &path, &error)))?;
        let mut names = names.unwrap_or_default();
        names.sort_unstable();
        Ok(names)
    }

    /// Writes `text` to an attribute in one `write`; the file must exist.
    ///
    /// # Errors
    /// `sysfs-io`.
    pub fn write_text(&self, path: impl AsRef<Path>, text: &str) -> Result<()> {
        let path = self.path(path);
        // Truncation means nothing in sysfs; it makes a made-up tree behave alike.
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| failed("write", &path, &error))
    }
}

/// More than any attribute of sysfs that is text.
const TEXT_LIMIT: u64 = 64 << 10;

fn failed(call: &'static str, path: &Path, error: &io::Error) -> IommuError {
    IommuError::Sysfs {
        path: path.to_owned(),
        call,
        errno: Errno::of(error),
    }
}

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
