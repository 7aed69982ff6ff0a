//! Calls on one folder of the cgroup file system; what fails says where and what was being done.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// How long the kernel may take to empty a cgroup whose processes were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A call on the cgroup file system that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) path: PathBuf,
    pub(super) doing: String,
    pub(super) error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path.display(), self.doing, self.error)
    }
}

/// Makes the guest's folder, and takes it for this run.
pub(super) fn lock(folder: &Path) -> Result<File, Failed> {
    let failed = |doing: &str, error: io::Error| Failed {
        path: folder.to_owned(),
        doing: doing.to_owned(),
        error,
    };
    loop {
        fs::create_dir_all(folder).map_err(|error| failed("making it", error))?;
        let file = open_folder(folder).map_err(|error| failed("opening it", error))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            failed(
                "locking it: a guest of this name runs already",
                errno.into(),
            )
        })?;
        // The run that had it may have removed it in between.
        let ours = file
            .metadata()
            .map_err(|error| failed("reading it", error))?;
        match fs::metadata(folder) {
            Ok(now) if now.ino() == ours.ino() => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("reading it", error)),
        }
    }
}

/// Removes an empty cgroup, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), Failed> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failed {
            path: folder.to_owned(),
            doing: "removing it".to_owned(),
            error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn open_folder(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)
}

/// Whether the cgroup or one below it has processes. A folder that is not there has none.
pub(super) fn is_populated(folder: &Path) -> Result<bool, Failed> {
    let path = folder.join("cgroup.events");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failed {
            path,
            doing: "reading".to_owned(),
            error,
        }),
    }
}

pub(super) fn until_empty(folder: &Path) -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    while is_populated(folder)? {
        if Instant::now() > deadline {
            return Err(Failed {
                path: folder.to_owned(),
                doing: "waiting until its processes are gone".to_owned(),
                error: io::Error::from(io::ErrorKind::TimedOut),
            });
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failed> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failed {
            path: path.to_owned(),
            doing: format!("writing {text:?}"),
            error,
        })
}

pub(super) fn errno(failed: &Failed) -> Option<Errno> {
    Errno::from_io_error(&failed.error)
}
