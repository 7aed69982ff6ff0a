use std::fs;

use super::*;
use crate::jail::folder::until_empty;

/// A folder with the files that the kernel would make.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("narrows-cgroup-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    for (file, text) in files {
        fs::write(folder.join(file), text).unwrap();
    }
    folder
}

#[test]
fn controllers_are_switched_on_from_the_base_down_to_the_guest_and_no_further() {
    let above = folder("enable", &[("cgroup.subtree_control", "")]);
    let base = above.join("unit");
    let guest = base.join("narrows/web");
    fs::create_dir_all(guest.join("vcpu")).unwrap();
    for path in [&base, &base.join("narrows"), &guest, &guest.join("vcpu")] {
        fs::write(path.join("cgroup.subtree_control"), "").unwrap();
    }
    enable(&base, &guest).unwrap();
    let read = |path: &Path| fs::read_to_string(path.join("cgroup.subtree_control")).unwrap();
    assert_eq!(read(&above), "");
    for path in [&base, &base.join("narrows"), &guest] {
        assert_eq!(read(path), "+cpu +memory +pids");
    }
    assert_eq!(read(&guest.join("vcpu")), "");
}

#[test]
fn only_one_run_has_a_guests_folder() {
    let guest = folder("lock", &[]).join("web");
    let held = lock(&guest).unwrap();
    let failed = lock(&guest).unwrap_err();
    assert_eq!(errno(&failed), Some(Errno::AGAIN));
    let report = unusable(&guest, &failed);
    assert!(report.fix.contains("another name"), "{report}");
    drop(held);
    assert!(lock(&guest).is_ok());
}

#[test]
fn a_cgroup_is_empty_when_the_kernel_says_so() {
    let full = folder("full", &[("cgroup.events", "populated 1\nfrozen 0\n")]);
    assert!(is_populated(&full).unwrap());
    let empty = folder("empty", &[("cgroup.events", "populated 0\nfrozen 0\n")]);
    assert!(!is_populated(&empty).unwrap());
    assert!(until_empty(&empty).is_ok());
    assert!(!is_populated(Path::new("/nowhere")).unwrap());
}

#[test]
fn a_file_that_cannot_be_written_is_named_with_what_was_written() {
    let folder = folder("file", &[]);
    let failed = write(&folder.join("pids.max"), "2").unwrap_err();
    let report = unusable(&folder, &failed);
    assert_eq!(report.id, ErrorId::CgroupUnusable);
    assert!(
        report.why[0].contains("pids.max: writing \"2\": "),
        "{report}"
    );
    assert!(
        !folder.join("pids.max").exists(),
        "a file was made that the kernel lacks"
    );
}

#[test]
fn what_is_not_there_needs_no_removal() {
    let folder = folder("gone", &[]);
    assert!(remove_members(&folder).is_ok());
    fs::create_dir(folder.join("vcpu")).unwrap();
    assert!(remove_members(&folder).is_ok());
    assert!(!folder.join("vcpu").exists());
}
