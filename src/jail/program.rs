//! The programs V and D: opened once, so that a reboot runs the same file, and refused where others could have changed it.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use crate::error::{ErrorId, Report};

/// An open program.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    name: CString,
    file: File,
}

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Permission of others to run it: the user it becomes is nobody's group.
const OTHERS_RUN: u32 = 0o001;

impl Program {
    /// Opens the program at `path`.
    ///
    /// # Errors
    /// `spawn-failed`: it cannot be opened, or belongs to or may be written by somebody who is not root nor the caller.
    pub fn open(path: &Path) -> Result<Self, Report> {
        let refused = |why: String, fix: &str| {
            let what = format!("cannot run {}", path.display());
            Report::new(ErrorId::SpawnFailed, what, why, fix)
        };
        const INSTALL: &str =
            "install narrows, narrows-device and narrows-vcpu of one build into one folder";
        let file = OpenOptions::new()
            .read(true)
            .open(path)
            .map_err(|error| refused(error.to_string(), INSTALL))?;
        let facts = file
            .metadata()
            .map_err(|error| refused(error.to_string(), INSTALL))?;
        if let Err((why, fix)) = check(&facts) {
            return Err(refused(why, fix));
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let name = CString::new(name).map_err(|error| refused(error.to_string(), INSTALL))?;
        Ok(Self {
            path: path.to_owned(),
            name,
            file,
        })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> &std::ffi::CStr {
        &self.name
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What is wrong with it, and what to do.
fn check(facts: &fs::Metadata) -> Result<(), (String, &'static str)> {
    let caller = rustix::process::geteuid().as_raw();
    if !facts.is_file() {
        return Err((
            "it is not a regular file".to_owned(),
            "put the program there",
        ));
    }
    if facts.uid() != 0 && facts.uid() != caller {
        let why = format!("it belongs to user {}, who can change it", facts.uid());
        return Err((why, "make it root's (chown root)"));
    }
    if facts.mode() & OTHERS_WRITE != 0 {
        let why = format!("others may write to it (mode {:o})", facts.mode() & 0o7777);
        return Err((why, "take that away (chmod go-w)"));
    }
    if facts.mode() & OTHERS_RUN == 0 {
        let why = format!(
            "the user that it becomes may not run it (mode {:o})",
            facts.mode() & 0o7777
        );
        return Err((why, "let everybody run it (chmod a+x)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_others_could_have_changed_is_refused() {
        let path = std::env::temp_dir().join(format!("narrows-program-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        for (mode, says) in [
            (0o775, Some("chmod go-w")),
            (0o757, Some("chmod go-w")),
            (0o750, Some("chmod a+x")),
            (0o755, None),
            (0o711, None),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match (Program::open(&path), says) {
                (Ok(program), None) => assert_eq!(program.path(), path),
                (Err(report), Some(says)) => assert!(report.fix.contains(says), "{report}"),
                (other, _) => panic!("{mode:o}: {other:?}"),
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(Program::open(&path).is_err());
        assert!(Program::open(&std::env::temp_dir()).is_err(), "a folder");
    }
}
