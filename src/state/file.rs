//! Files that are there whole or not at all, whenever the power goes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// Writes `bytes` to `path`: to a file beside it, synced, renamed, and the folder synced.
///
/// # Errors
/// The errno of the step that failed; `path` is then as it was before.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, 0o644, false)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The same for a file that only its owner reads, and that is locked from the first moment at which it has its name: as
/// long as the file that is given back. The folder is left to be synced by the caller, for whom the file is there.
///
/// # Errors
/// As [`write_whole`].
pub(super) fn put_locked(path: &Path, bytes: &[u8]) -> io::Result<File> {
    put(path, bytes, 0o600, true)
}

fn put(path: &Path, bytes: &[u8], mode: u32, is_locked: bool) -> io::Result<File> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    // A leading dot: whoever reads the folder leaves it alone.
    let new = folder.join(format!(
        ".{}.{}.new",
        name.to_string_lossy(),
        std::process::id()
    ));
    match fs::remove_file(&new) {
        // Left by a run of this process id that was killed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            if is_locked {
                flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            }
            fs::rename(&new, path)?;
            Ok(file)
        });
    if written.is_err() {
        fs::remove_file(&new).ok();
    }
    written
}

/// Makes what was renamed or removed in `folder` last.
///
/// # Errors
/// The errno of `open` or `fsync`.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
