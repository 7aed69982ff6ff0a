use proptest::prelude::*;

use super::*;

/// Against `strace -X raw` names of the real header: `_IO(';', 100 + n)`.
#[test]
fn numbers_are_those_of_the_header() {
    assert_eq!(
        [
            GET_API_VERSION,
            CHECK_EXTENSION,
            SET_IOMMU,
            GROUP_GET_STATUS,
            GROUP_SET_CONTAINER,
            GROUP_GET_DEVICE_FD,
            DEVICE_GET_INFO,
            DEVICE_GET_REGION_INFO,
            DEVICE_GET_IRQ_INFO,
            DEVICE_SET_IRQS,
            DEVICE_RESET,
            IOMMU_GET_INFO,
            IOMMU_MAP_DMA,
            DEVICE_BIND_IOMMUFD,
            DEVICE_ATTACH_IOMMUFD_PT,
        ],
        [
            0x3b64, 0x3b65, 0x3b66, 0x3b67, 0x3b68, 0x3b6a, 0x3b6b, 0x3b6c, 0x3b6d, 0x3b6e, 0x3b6f,
            0x3b70, 0x3b71, 0x3b76, 0x3b77,
        ]
    );
    assert_eq!(abi::VFIO_TYPE1v2_IOMMU, 3);
}

#[test]
fn a_capability_is_found_behind_others() {
    let mut bytes = vec![0; 64];
    bytes[24..32].copy_from_slice(&[3, 0, 1, 0, 40, 0, 0, 0]);
    bytes[40..48].copy_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(find_capability(&bytes, 24, 1), Some(40));
    assert_eq!(find_capability(&bytes, 24, 3), Some(24));
    assert_eq!(find_capability(&bytes, 24, 2), None);
    assert_eq!(find_capability(&bytes, 0, 1), None);
}

#[test]
fn a_chain_that_turns_back_ends() {
    let mut bytes = vec![0; 64];
    bytes[24..32].copy_from_slice(&[3, 0, 1, 0, 24, 0, 0, 0]);
    assert_eq!(find_capability(&bytes, 24, 1), None);
}

#[test]
fn windows_are_read_as_the_kernel_writes_them() {
    // Fixed part of 24 bytes, then: header (8), count (4), reserved (4), two pairs.
    let mut bytes = vec![0; 24];
    bytes.extend([1, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    for number in [0_u64, 0xfedf_ffff, 0xfef0_0000, u64::MAX] {
        bytes.extend(number.to_ne_bytes());
    }
    let wanted = vec![(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX)];
    assert_eq!(iova_windows(&bytes, 24), Some(wanted));
    bytes.truncate(bytes.len() - 1);
    assert_eq!(iova_windows(&bytes, 24), None);
}

proptest! {
    #[test]
    fn any_chain_ends_within_the_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        first in any::<u32>(),
        small in 0_u32..64,
        id in 0_u32..4,
    ) {
        for first in [first, small] {
            if let Some(at) = find_capability(&bytes, first, id) {
                prop_assert!(at + 4 <= bytes.len());
            }
            if let Some(windows) = iova_windows(&bytes, first) {
                prop_assert!(windows.len() * 16 <= bytes.len());
            }
        }
    }
}
