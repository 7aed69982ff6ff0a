use super::*;

#[test]
fn numbers_are_those_of_the_header() {
    assert_eq!(
        [IOAS_ALLOC, IOAS_IOVA_RANGES, IOAS_MAP, IOAS_MAP_FILE],
        [0x3b81, 0x3b84, 0x3b85, 0x3b8f]
    );
}

#[test]
fn only_a_writable_mapping_is_writable() {
    assert_eq!((flags(true), flags(false)), (7, 5));
}
