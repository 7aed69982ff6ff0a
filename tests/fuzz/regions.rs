//! `VFIO_DEVICE_GET_REGION_INFO`: what the kernel would write of a region, its list of capabilities included.

use iommu::device::Region;

use crate::input::{Executions, Input, any_bytes};

#[test]
fn areas_lie_in_their_region_and_apart() {
    let executions = Executions::of("regions");
    bolero::check!()
        .with_generator(any_bytes())
        .with_iterations(usize::MAX)
        .with_test_time(executions.time())
        .for_each(|bytes| {
            executions.one();
            one(&mut Input::new(bytes));
        });
    executions.say();
}

fn one(input: &mut Input<'_>) {
    let bytes = answer(input);
    let Ok(region) = Region::parse(3, &bytes) else {
        return;
    };
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(
        (region.index, region.len.raw(), region.offset),
        (3, long(16), long(24))
    );
    region.offset.checked_add(region.len.raw()).unwrap();
    let areas = region.sparse.unwrap_or_default();
    for (n, area) in areas.iter().enumerate() {
        let end = area.offset.checked_add(area.len.raw()).unwrap();
        assert!(area.len.raw() > 0 && end <= region.len.raw(), "{area:x?}");
        let is_apart = |other: &iommu::device::MmapArea| {
            other.offset + other.len.raw() <= area.offset || end <= other.offset
        };
        assert!(areas[..n].iter().all(is_apart), "two areas overlap");
    }
}

/// Near-sense: a head, then a few capabilities whose links lead somewhere.
fn answer(input: &mut Input<'_>) -> Vec<u8> {
    if input.below(8) == 0 {
        return input.rest().to_vec();
    }
    let mut bytes = Vec::new();
    for word in [
        32,
        u32::from(input.byte()),
        3,
        input.pick(&[32, 32, 32, 0, 8, 33]),
    ] {
        bytes.extend(word.to_ne_bytes());
    }
    let len = if input.below(2) == 0 {
        0x1_0000
    } else {
        input.number()
    };
    bytes.extend(len.to_ne_bytes());
    let offset = if input.below(2) == 0 {
        3 << 40
    } else {
        input.number()
    };
    bytes.extend(offset.to_ne_bytes());
    for _ in 0..input.below(4) {
        let start = u32::try_from(bytes.len()).unwrap();
        let areas = input.below(4);
        let id = input.pick(&[1_u16, 1, 3, 2]);
        let next = start + 16 + 16 * areas;
        let next = input.pick(&[next, next, 0, start, 32, u32::MAX]);
        bytes.extend(id.to_ne_bytes());
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        let count = if input.once_in(6) {
            input.word()
        } else {
            areas
        };
        bytes.extend(count.to_ne_bytes());
        bytes.extend([0; 4]);
        for _ in 0..areas {
            let is_page = input.below(4) > 0;
            for _ in 0..2 {
                let number = if is_page {
                    u64::from(input.below(16)) << 12
                } else {
                    input.number()
                };
                bytes.extend(number.to_ne_bytes());
            }
        }
    }
    bytes
}
