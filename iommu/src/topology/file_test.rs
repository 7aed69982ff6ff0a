use super::*;
use crate::error::Errno;

fn failed<T>(raw: i32) -> Result<T> {
    Err(IommuError::Sysfs {
        path: "x".into(),
        call: "read",
        errno: Errno::new(raw),
    })
}

#[test]
fn only_a_lack_of_privilege_leaves_a_fact_out() {
    for raw in [libc::EACCES, libc::EPERM] {
        assert_eq!(permitted(failed::<u8>(raw)), Ok(None));
    }
    for raw in [libc::EIO, libc::EINVAL, libc::ENODEV, libc::EISDIR] {
        assert_eq!(permitted(failed::<u8>(raw)), failed(raw));
    }
    assert_eq!(permitted(Ok(1)), Ok(Some(1)));
}

#[test]
fn what_is_not_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let root = SysRoot::new(folder.path());
    assert_eq!(text(&root, "a"), Ok(None));
    assert_eq!(bytes(&root, "a", 1), Ok(None));
    assert_eq!(list(&root, "a"), Ok(Vec::new()));
}
