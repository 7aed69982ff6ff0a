use iommu::addr::ByteLen;
use jailed::{
    addr::{Gpa, GpaRange},
    handoff::{MAX_RAM_RANGES, MAX_SPANS},
    machine::{HIGH_RAM_START, LOW_RAM_END, MMIO32_END, MMIO32_START, PAGE_BYTES},
};
use proptest::prelude::*;

use super::layout::{BarRequest, Fault, Layout, Request, iova_of, lay_out, spans};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn range(start: u64, len: u64) -> GpaRange {
    GpaRange::new(Gpa::new(start), len).unwrap()
}

fn request(ram: u64) -> Request {
    Request {
        ram: ByteLen::new(ram),
        hugepage: None,
        images: Vec::new(),
        bars: Vec::new(),
        reserved: vec![range(0xFEE0_0000, MIB)],
        phys_bits: 39,
    }
}

fn bar(len: u64, is_64bit: bool) -> BarRequest {
    BarRequest {
        len: ByteLen::new(len),
        is_64bit,
    }
}

fn ram_of(layout: &Layout) -> Vec<(u64, u64, u64)> {
    layout
        .ram
        .iter()
        .map(|r| (r.at.start().raw(), r.at.len_bytes(), r.file_offset))
        .collect()
}

#[test]
fn ram_goes_on_above_the_hole() {
    assert_eq!(
        ram_of(&lay_out(&request(512 * MIB)).unwrap()),
        [(0, 512 * MIB, 0)]
    );
    assert_eq!(
        ram_of(&lay_out(&request(4 * GIB)).unwrap()),
        [(0, 3 * GIB, 0), (4 * GIB, GIB, 3 * GIB)]
    );
}

#[test]
fn ram_is_split_around_a_reserved_window() {
    let mut request = request(GIB);
    request.reserved.push(range(300 * MIB + 0x1000, 0x3000));
    assert_eq!(
        ram_of(&lay_out(&request).unwrap()),
        [(0, 300 * MIB, 0), (302 * MIB, GIB - 300 * MIB, 300 * MIB)]
    );
    request.hugepage = Some(ByteLen::new(GIB));
    let reserved = range(300 * MIB + 0x1000, 0x3000);
    assert_eq!(lay_out(&request), Err(Fault::StartReserved(reserved)));
}

#[test]
fn what_does_not_fit_is_named() {
    let mut low = request(GIB);
    low.reserved.push(range(0x1000, 0x1000));
    assert_eq!(
        lay_out(&low),
        Err(Fault::StartReserved(range(0x1000, 0x1000)))
    );

    let mut split = request(GIB);
    split
        .reserved
        .extend((1..20).map(|i| range(i * 16 * MIB, 0x1000)));
    assert_eq!(lay_out(&split), Err(Fault::TooManyRanges));

    let mut small = request(64 * GIB);
    small.phys_bits = 36;
    let fault = lay_out(&small).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "1 GiB of RAM find no place below 0x1000000000"
    );

    let mut bars = request(GIB);
    bars.bars = vec![bar(GIB, false)];
    let fault = lay_out(&bars).unwrap_err().to_string();
    assert_eq!(
        fault,
        "a BAR of 1 GiB finds no place in [0xc0000000, 0xe0000000)"
    );
}

#[test]
fn images_and_bars_lie_above_ram() {
    let mut request = request(5 * GIB);
    request.images = vec![ByteLen::new(2 * MIB)];
    request.bars = vec![bar(0x4000, true), bar(GIB, true), bar(0x1000, false)];
    let layout = lay_out(&request).unwrap();
    assert_eq!(layout.images, [range(6 * GIB, 2 * MIB)]);
    assert_eq!(
        layout.bars,
        [
            range(8 * GIB, 0x4000),
            range(7 * GIB, GIB),
            range(0xC000_0000, 0x1000)
        ]
    );
    assert_eq!(layout.window64, Some(range(7 * GIB, 2 * GIB)));
}

#[test]
fn the_pages_of_the_msix_table_are_not_mapped() {
    let of = |len, trapped: &[(u64, u64)]| -> Vec<(u64, u64)> {
        let spans = spans(ByteLen::new(len), trapped);
        spans.iter().map(|s| (s.offset, s.len_bytes)).collect()
    };
    assert_eq!(of(0x4000, &[]), [(0, 0x4000)]);
    assert_eq!(of(0x1000, &[(0, 16)]), []);
    assert_eq!(
        of(0x4000, &[(0x1FF0, 0x20)]),
        [(0, 0x1000), (0x3000, 0x1000)]
    );
    assert_eq!(
        of(0x8000, &[(0x6000, 8), (0x2000, 0x100)]),
        [(0, 0x2000), (0x3000, 0x3000), (0x7000, 0x1000)]
    );
    assert_eq!(
        of(0x4000, &[(0x2000, 0x800), (0x2800, 8)]),
        [(0, 0x2000), (0x3000, 0x1000)]
    );
}

#[test]
fn a_device_s_address_is_the_guest_s() {
    assert_eq!(iova_of(Gpa::new(0x1234_5000)).raw(), 0x1234_5000);
}

prop_compose! {
    fn any_request()(
        hugepage in prop_oneof![Just(None), Just(Some(2 * MIB)), Just(Some(GIB))],
        ram_units in 16_u64..5000,
        images in prop::collection::vec((1_u64..200).prop_map(|n| ByteLen::new(n * 2 * MIB)), 0..4),
        bars in prop::collection::vec(
            (12_u32..33, any::<bool>()).prop_map(|(bits, is_64bit)| {
                bar(1 << if is_64bit { bits } else { bits.min(26) }, is_64bit)
            }), 0..12),
        reserved in prop::collection::vec(
            (8_u64..0x40_0000, 1_u64..0x2000).prop_map(|(page, len)| range(page * 0x1000 + 0x400, len * 0x400)), 0..7),
        phys_bits in 36_u32..53,
    ) -> Request {
        let ram = match hugepage {
            Some(page) if page == GIB => (ram_units % 12 + 1) * GIB,
            Some(page) => ram_units * page,
            None => ram_units * 1003 * PAGE_BYTES,
        };
        Request {
            ram: ByteLen::new(ram),
            hugepage: hugepage.map(ByteLen::new),
            images,
            bars,
            reserved,
            phys_bits,
        }
    }
}

proptest! {
    #[test]
    fn a_layout_keeps_every_promise(request in any_request()) {
        let Ok(layout) = lay_out(&request) else { return Ok(()) };
        let limit = 1_u64 << request.phys_bits.min(48);
        let granule = request.hugepage.map_or(2 * MIB, ByteLen::raw);

        // RAM: from 0, ascending, whole, in the file without gaps, outside of the hole.
        prop_assert!(layout.ram.len() <= MAX_RAM_RANGES);
        prop_assert_eq!(layout.ram[0].at.start(), Gpa::new(0));
        let mut offset = 0;
        for ram in &layout.ram {
            prop_assert_eq!(ram.file_offset, offset);
            offset += ram.at.len_bytes();
            prop_assert!(ram.at.start().raw() % granule == 0);
            prop_assert!(ram.at.len_bytes() % PAGE_BYTES == 0);
            prop_assert!(ram.at.end() <= LOW_RAM_END || ram.at.start() >= HIGH_RAM_START);
        }
        prop_assert_eq!(offset, request.ram.raw());
        for ram in layout.ram.iter().rev().skip(1) {
            prop_assert!(ram.at.len_bytes() % granule == 0);
        }

        // Images and 64-bit BARs above RAM, 32-bit BARs in their window, all aligned.
        let ram_end = layout.ram.last().unwrap().at.end().max(HIGH_RAM_START);
        for (image, len) in layout.images.iter().zip(&request.images) {
            prop_assert!(image.start() >= ram_end && image.len_bytes() == len.raw());
            prop_assert!(image.start().raw() % (2 * MIB) == 0);
        }
        prop_assert_eq!(layout.bars.len(), request.bars.len());
        for (at, bar) in layout.bars.iter().zip(&request.bars) {
            prop_assert_eq!(at.len_bytes(), bar.len.raw());
            prop_assert!(at.start().raw() % bar.len.raw() == 0);
            if bar.is_64bit {
                let window = layout.window64.unwrap();
                prop_assert!(window.contains(at.start(), at.len_bytes()));
                prop_assert!(window.start() >= ram_end);
                prop_assert!(layout.images.iter().all(|i| !i.overlaps(&window)));
            } else {
                prop_assert!(at.start() >= MMIO32_START && at.end() <= MMIO32_END);
            }
        }

        // Everything below the limit, disjoint, and outside of the reserved windows.
        let mut all: Vec<GpaRange> = layout.ram.iter().map(|r| r.at).collect();
        all.extend(layout.images.iter().chain(&layout.bars));
        for (i, one) in all.iter().enumerate() {
            prop_assert!(one.end().raw() <= limit);
            prop_assert!(request.reserved.iter().all(|window| !window.overlaps(one)));
            prop_assert!(all.iter().skip(i + 1).all(|other| !other.overlaps(one)));
        }
    }

    #[test]
    fn a_modest_guest_always_finds_room(
        ram in 16_u64..512,
        bars in prop::collection::vec((12_u32..28).prop_map(|bits| bar(1 << bits, true)), 0..16),
    ) {
        let mut request = request(ram * 16 * MIB);
        request.bars = bars;
        prop_assert!(lay_out(&request).is_ok());
    }

    #[test]
    fn spans_are_the_bar_without_the_trapped_pages(
        pages in 1_u64..64,
        table in (0_u64..0x40000, 1_u64..0x1000),
        pba in (0_u64..0x40000, 1_u64..0x100),
    ) {
        let found = spans(ByteLen::new(pages * PAGE_BYTES), &[table, pba]);
        prop_assert!(found.len() <= MAX_SPANS);
        for page in 0..pages {
            let at = range(page * PAGE_BYTES, PAGE_BYTES);
            let is_trapped = [table, pba].iter().any(|(o, l)| range(*o, *l).overlaps(&at));
            let is_mapped = found.iter().any(|s| range(s.offset, s.len_bytes).overlaps(&at));
            prop_assert!(is_trapped != is_mapped);
        }
    }
}
