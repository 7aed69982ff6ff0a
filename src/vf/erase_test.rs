use std::{fs, path::PathBuf, process};

use super::*;

/// A file in place of a device, removed at the end.
struct Disk(PathBuf);

impl Disk {
    fn new(name: &str, len: usize) -> (Self, File) {
        let path = std::env::temp_dir().join(format!("narrows-erase-{name}-{}", process::id()));
        fs::write(&path, vec![0xa5; len]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        (Self(path), file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

#[test]
fn every_byte_is_written_over_also_behind_the_last_whole_piece() {
    for len in [512, CHUNK_LEN, 3 * CHUNK_LEN + 512] {
        let (disk, file) = Disk::new(&format!("over-{len}"), len);
        let mut told = Vec::new();
        overwrite(&file, len as u64, &mut |percent| told.push(percent)).unwrap();
        let bytes = fs::read(&disk.0).unwrap();
        assert_eq!(bytes.len(), len);
        assert!(is_even(&bytes, 0), "{len}");
        assert_eq!(told.last(), Some(&Percent(100)));
    }
}

#[test]
fn a_device_that_ends_too_early_is_no_success() {
    let (_disk, file) = Disk::new("read-only", 4096);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let read_only = File::open(path).unwrap();
    assert!(overwrite(&read_only, 4096, &mut drop).is_err());
}

#[test]
fn first_and_last_block_are_always_looked_at() {
    let root = SysRoot::default();
    let places = places(&root, "x", 1 << 30).unwrap();
    assert_eq!(places.first(), Some(&0));
    assert_eq!(places.last(), Some(&((1 << 30) - 4096)));
    assert!(places.len() > SAMPLES / 2);
    assert!(places.iter().all(|at| at.is_multiple_of(4096)));
    // Shorter than a sample.
    assert_eq!(super::places(&root, "x", 512).unwrap(), [0]);
}

#[test]
fn what_is_still_there_is_found_and_what_was_empty_is_not() {
    let data: Vec<u8> = (0..=255).collect();
    let before = vec![(0, vec![0; 8]), (8, data.clone()), (16, vec![0xff; 8])];
    let erased = vec![(0, vec![0; 8]), (8, vec![0; 256]), (16, vec![0xff; 8])];
    assert_eq!(kept(&before, &erased), None);
    assert_eq!(kept(&before, &before), Some(8));
}

#[test]
fn a_large_disk_has_longer_for_its_format() {
    assert_eq!(format_timeout_ms(1 << 30), 600_000);
    assert_eq!(format_timeout_ms(8 << 40), 167_772_000);
}

#[test]
fn only_the_wanted_blocks_without_metadata_are_left_as_they_are() {
    let layout = |block, metadata| Layout {
        blocks: 8,
        block,
        metadata,
        flbas: 0,
        dps: 0,
        is_shared: false,
        id: crate::sriov::NamespaceId::None,
    };
    assert!(is_as_wanted(&layout(512, 0), 512));
    assert!(!is_as_wanted(&layout(4096, 0), 512));
    assert!(!is_as_wanted(&layout(512, 8), 512));
    assert_eq!((flbas_of(7), flbas_of(0x12)), (7, 0x22));
}
