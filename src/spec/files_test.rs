use std::{fs, path::PathBuf, process};

use super::{
    files::{KernelFormat, kernel_format},
    types::GuestSpec,
};

fn bzimage(version: u16, xloadflags: u16) -> Vec<u8> {
    let mut head = vec![0; 0x400];
    head[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    head[0x202..0x206].copy_from_slice(b"HdrS");
    head[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    head[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
    head
}

fn elf(class: u8, machine: u8) -> Vec<u8> {
    let mut head = b"\x7fELF".to_vec();
    head.extend([class, 1]);
    head.resize(64, 0);
    head[18] = machine;
    head
}

#[test]
fn only_kernels_that_can_be_started_are_taken() {
    assert_eq!(kernel_format(&bzimage(0x20F, 3)), Ok(KernelFormat::BzImage));
    assert_eq!(kernel_format(&elf(2, 62)), Ok(KernelFormat::Elf));
    for bad in [
        bzimage(0x20B, 3),
        bzimage(0x20F, 2),
        elf(1, 62),
        elf(2, 183),
        b"\x7fELF".to_vec(),
        Vec::new(),
        bzimage(0x20F, 3)[..0x206].to_vec(),
        vec![0x1F, 0x8B, 8],
    ] {
        assert!(kernel_format(&bad).is_err());
    }
}

/// A folder of files for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("narrows-spec-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    fn spec(&self, more: &str) -> GuestSpec {
        let text = format!("name = \"a\"\nmemory = \"64M\"\nkernel = \"k\"\n{more}");
        GuestSpec::parse(&self.0.join("guest.toml"), &text).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn every_file_is_looked_at() {
    let folder = Folder::new("every");
    let spec = folder.spec(
        "initramfs = \"i\"\n[root]\nimage = \"r\"\n[console]\nmode = \"file\"\npath = \"no/c\"\n",
    );
    let ids = |spec: &GuestSpec| -> Vec<_> {
        let problems = spec.check_files().unwrap_err();
        problems.iter().map(|p| p.id.name()).collect()
    };
    assert_eq!(
        ids(&spec),
        [
            "file-unreadable",
            "file-unreadable",
            "file-unreadable",
            "bad-console"
        ]
    );
    folder.write("k", b"not a kernel");
    folder.write("i", b"");
    folder.write("r", &[0; 4096]);
    assert_eq!(ids(&spec), ["kernel-format", "image-size", "bad-console"]);
    let lines: Vec<_> = spec
        .check_files()
        .unwrap_err()
        .iter()
        .map(|p| p.location.as_ref().map(|l| l.line))
        .collect();
    assert_eq!(lines, [Some(3), Some(6), None]);
}

#[test]
fn good_files_are_measured() {
    let folder = Folder::new("good");
    folder.write("k", &bzimage(0x20F, 3));
    folder.write("r", &vec![0; 2 << 20]);
    let files = folder
        .spec("[root]\nimage = \"r\"\n")
        .check_files()
        .unwrap();
    assert_eq!(files.kernel, KernelFormat::BzImage);
    assert_eq!(files.root.map(|len| len.raw()), Some(2 << 20));
}

#[test]
fn a_folder_is_not_a_kernel() {
    let folder = Folder::new("folder");
    fs::create_dir(folder.0.join("k")).unwrap();
    let problems = folder.spec("").check_files().unwrap_err();
    assert_eq!(problems[0].why, ["it is not a regular file"]);
}
