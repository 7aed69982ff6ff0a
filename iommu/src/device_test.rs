use proptest::prelude::*;

use super::*;

/// What the kernel writes for a region, with its capabilities from byte 32.
fn region(flags: u32, size: u64, offset: u64, capabilities: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let chain = if capabilities.is_empty() { 0_u32 } else { 32 };
    for number in [
        32 + u32::try_from(capabilities.len()).unwrap(),
        flags,
        0,
        chain,
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(size.to_ne_bytes());
    bytes.extend(offset.to_ne_bytes());
    bytes.extend(capabilities);
    bytes
}

fn sparse(next: u32, areas: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 1, 0];
    bytes.extend(next.to_ne_bytes());
    bytes.extend(u32::try_from(areas.len()).unwrap().to_ne_bytes());
    bytes.extend([0; 4]);
    for (offset, size) in areas {
        bytes.extend(offset.to_ne_bytes());
        bytes.extend(size.to_ne_bytes());
    }
    bytes
}

#[test]
fn a_bar_with_both_capabilities_is_read_whole() {
    let mut capabilities = sparse(64, &[(0x2000, 0x2000)]);
    capabilities.extend([3, 0, 1, 0, 0, 0, 0, 0]);
    let found = Region::parse(3, &region(0xf, 0x4000, 3 << 40, &capabilities)).unwrap();
    let wanted = Region {
        index: 3,
        len: ByteLen::new(0x4000),
        offset: 3 << 40,
        can_read: true,
        can_write: true,
        can_mmap: true,
        sparse: Some(vec![MmapArea {
            offset: 0x2000,
            len: ByteLen::new(0x2000),
        }]),
        is_msix_mappable: true,
    };
    assert_eq!(found, wanted);
}

#[test]
fn capabilities_count_only_when_flagged() {
    let capabilities = sparse(0, &[(0, 0x1000)]);
    let found = Region::parse(0, &region(0x7, 0x4000, 0, &capabilities)).unwrap();
    assert_eq!(found.sparse, None);
}

#[test]
fn an_area_outside_its_region_is_malformed() {
    for area in [(0x4000, 1), (0, 0x4001), (u64::MAX, 2)] {
        let capabilities = sparse(0, &[area]);
        Region::parse(0, &region(0xf, 0x4000, 0, &capabilities)).unwrap_err();
    }
    Region::parse(0, &region(0xf, 2, u64::MAX, &[])).unwrap_err();
}

#[test]
fn areas_that_overlap_or_are_empty_are_malformed() {
    for areas in [
        &[(0, 0x2000), (0x1000, 0x1000)][..],
        &[(0x1000, 0x1000), (0, 0x1001)],
        &[(0, 0x1000), (0, 0x1000)],
        &[(0x1000, 0)],
    ] {
        Region::parse(0, &region(0xf, 0x4000, 0, &sparse(0, areas))).unwrap_err();
    }
    let apart = sparse(0, &[(0x2000, 0x1000), (0, 0x2000)]);
    Region::parse(0, &region(0xf, 0x4000, 0, &apart)).unwrap();
}

#[test]
fn a_list_of_capabilities_that_leads_back_ends() {
    for next in [32, 16, 1] {
        let capabilities = sparse(next, &[]);
        let mut other = capabilities.clone();
        other[0] = 2;
        Region::parse(0, &region(0xf, 0x4000, 0, &other)).unwrap();
    }
    // More areas than there are bytes.
    let mut many = sparse(0, &[(0, 0x1000)]);
    many[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    Region::parse(0, &region(0xf, 0x4000, 0, &many)).unwrap_err();
}

#[test]
fn the_config_indices_are_those_of_the_header() {
    assert_eq!((CONFIG_REGION, MSI_IRQ, MSIX_IRQ), (7, 1, 2));
}

/// A file that is no VFIO device: every call keeps its name and errno.
#[test]
fn an_fd_that_is_no_device_is_refused_with_call_and_errno() {
    let file = tempfile::tempfile().unwrap();
    let bdf = "0000:01:10.0".parse().unwrap();
    let error = Device::from_fd(bdf, file.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0000:01:10.0: VFIO_DEVICE_GET_REGION_INFO failed: ENOTTY"
    );
    assert_eq!(error.id(), "device-call");
}

/// A device whose configuration space is a file.
fn on_file(bytes: &[u8]) -> Device {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0x1000).unwrap();
    Device {
        bdf: "0000:01:10.0".parse().unwrap(),
        file,
        config: Region::parse(7, &region(3, 256, 0x1000, &[])).unwrap(),
    }
}

#[test]
fn configuration_space_is_read_and_written_at_its_region() {
    let device = on_file(&[7; 256]);
    let mut bytes = [0; 4];
    device.read_config(252, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 4]);
    device.write_config(0, &[1, 2]).unwrap();
    device.read_config(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 7, 7]);
}

#[test]
fn an_access_beyond_configuration_space_never_reaches_the_next_region() {
    let device = on_file(&[7; 300]);
    for offset in [253, 256, u64::MAX, u64::MAX - 0x1000] {
        let error = device.read_config(offset, &mut [0; 4]).unwrap_err();
        assert_eq!(error.id(), "config-short", "{offset:#x}");
        let error = device.write_config(offset, &[0; 4]).unwrap_err();
        assert_eq!(error.id(), "config-short", "{offset:#x}");
    }
}

#[test]
fn a_short_read_is_an_error() {
    let device = on_file(&[7; 100]);
    let error = device.read_config(98, &mut [0; 4]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0000:01:10.0: pread of 4 bytes at 0x62 moved 2"
    );
}

#[test]
fn the_bus_master_bit_is_cleared_and_nothing_else() {
    let device = on_file(&[0xff; 256]);
    assert!(device.is_bus_master().unwrap());
    device.clear_bus_master().unwrap();
    assert!(!device.is_bus_master().unwrap());
    let mut bytes = [0; 2];
    device.read_config(4, &mut bytes).unwrap();
    assert_eq!(bytes, [0xfb, 0xff]);
}

proptest! {
    #[test]
    fn any_answer_is_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), chain in 0_u8..64) {
        let mut bytes = bytes;
        if bytes.len() > 16 {
            bytes[12..16].copy_from_slice(&[chain, 0, 0, 0]);
        }
        if let Ok(region) = Region::parse(0, &bytes) {
            for area in region.sparse.iter().flatten() {
                prop_assert!(area.offset + area.len.raw() <= region.len.raw());
            }
        }
    }
}
