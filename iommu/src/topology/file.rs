//! Reading what only some may read: a file that this process is not allowed to read leaves its fact out.

use std::path::Path;

use crate::{
    error::{IommuError, Result},
    sysfs::SysRoot,
};

/// Reads a small text file; `None` where there is none, or where this process may not read it.
pub(super) fn text(root: &SysRoot, path: impl AsRef<Path>) -> Result<Option<String>> {
    Ok(permitted(root.read_text_if_any(path))?.flatten())
}

/// Reads at most `limit` bytes; `None` as for [`text`].
pub(super) fn bytes(root: &SysRoot, path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>> {
    match permitted(root.read_bytes(path, limit)) {
        Err(IommuError::Sysfs { errno, .. }) if errno.raw() == libc::ENOENT => Ok(None),
        other => other,
    }
}

/// The names in a folder; none where there is none, or where this process may not list it.
pub(super) fn list(root: &SysRoot, path: impl AsRef<Path>) -> Result<Vec<String>> {
    Ok(permitted(root.list(path))?.unwrap_or_default())
}

/// Turns "may not" into `None`.
fn permitted<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(IommuError::Sysfs { errno, .. }) if is_denied(errno.raw()) => Ok(None),
        Err(error) => Err(error),
    }
}

const fn is_denied(errno: i32) -> bool {
    errno == libc::EACCES || errno == libc::EPERM
}

/// A file that says something else than it should.
pub(super) fn malformed(
    root: &SysRoot,
    path: impl AsRef<Path>,
    text: &str,
    wanted: &'static str,
) -> IommuError {
    IommuError::Malformed {
        path: root.path(path),
        text: text.to_owned(),
        wanted,
    }
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
