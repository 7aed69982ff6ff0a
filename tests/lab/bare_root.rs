//! A lab host whose root is left as the kernel made it (`lab.root=bare`), on a kernel before Linux 7.0: nothing is below the
//! first RAM file system, no process can exchange it for an empty root, and the host is refused. `bare_root_new` is the same
//! on a kernel that has something below it.

use std::{fs, process::Command};

use crate::{guest::GuestFile, host};

/// The ids of the root's mount and of the one below it. Fails where this is not the lab that it is meant to be.
pub(crate) fn root_ids() -> (String, String) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let root = lines.find(|words| words[4] == "/").unwrap();
    assert!(
        root.contains(&"rootfs"),
        "the root was moved, or is another: {text}"
    );
    (root[0].to_owned(), root[1].to_owned())
}

#[test]
#[ignore = "needs a lab host"]
fn host_whose_root_cannot_be_left_is_refused_and_told_why() {
    let (own, below) = root_ids();
    assert_eq!(own, below, "this kernel has something below its root");
    let text = GuestFile::small("bare", "sleep:60")
        .device(&host::nic(0))
        .refused(3);
    for told in [
        "error[layer-absent]: this kernel lacks the layer mount-namespace",
        "/proc/self/mountinfo",
        "mount --move . /",
    ] {
        // The words are wrapped.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(told), "{told}:\n{text}");
    }
    // Nothing was touched.
    host::assert_returned(&host::nic(0));
    let doctor = Command::new("narrows").arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("mount-namespace"));
    assert!(
        line.is_some_and(|line| line.ends_with("mount-namespace: absent")),
        "{text}"
    );
}
