//! Files that are there whole or not at all, whenever the power goes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
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

/// The same for a file that only its owner reads.
///
/// # Errors
/// As [`write_whole`].
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, 0o600, false)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// A folder that only its owner enters, made where it is not there.
///
/// # Errors
/// The errno of `mkdir` or `chmod`.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// A file to lock, made where it is not there; it stays for ever: who removed it would leave others with locks of a file
/// that has no name.
///
/// # Errors
/// The errno of `open`.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// What a file holds, up to `limit` bytes; `None` where it is not there.
///
/// # Errors
/// The errno of `open` or `read`; `InvalidData` for one that is longer, or no text.
pub(super) fn read_if_any(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= limit => Ok(Some(text)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {limit} bytes"),
        )),
    }
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
