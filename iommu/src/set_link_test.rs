use super::*;

/// Interface 7, VF 5. As a C program prints the structures of `<linux/if_link.h>` on x86-64.
const GOLDEN: &[(VfAttribute, &str)] = &[
    (
        VfAttribute::Mac(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56])),
        "50000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         30001680 2c000180 28000100 05000000 52540012 34560000 00000000 00000000
         00000000 00000000 00000000 00000000",
    ),
    (
        VfAttribute::Vlan {
            id: 100,
            qos: 3,
            proto: VlanProto::Dot1Ad,
        },
        "40000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         20001680 1c000180 18000c80 14000100 05000000 64000000 03000000 88a80000",
    ),
    (
        VfAttribute::SpoofCheck(true),
        "34000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         14001680 10000180 0c000400 05000000 01000000",
    ),
    (
        VfAttribute::Trust(false),
        "34000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         14001680 10000180 0c000900 05000000 00000000",
    ),
    (
        VfAttribute::RssQuery(true),
        "34000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         14001680 10000180 0c000700 05000000 01000000",
    ),
    (
        VfAttribute::Link(LinkPolicy::Down),
        "34000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         14001680 10000180 0c000500 05000000 02000000",
    ),
    (
        VfAttribute::Rate {
            min_mbps: 100,
            max_mbps: 1000,
        },
        "38000000 13000500 01000000 00000000 00000000 07000000 00000000 00000000
         18001680 14000180 10000600 05000000 64000000 e8030000",
    ),
];

const UP: &str = "20000000 13000500 01000000 00000000 00000000 07000000 01000000 01000000";
const DOWN: &str = "20000000 13000500 01000000 00000000 00000000 07000000 00000000 01000000";

fn seven() -> NonZeroU32 {
    NonZeroU32::new(7).unwrap()
}

fn hex(question: &Question) -> String {
    let bytes = question.bytes().unwrap();
    let words = bytes.chunks(4).map(|word| {
        let digits = word.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_order_has_the_bytes_of_the_kernels_structures() {
    for (attribute, golden) in GOLDEN {
        let golden: Vec<&str> = golden.split_whitespace().collect();
        let made = hex(&set_vf(seven(), 5, *attribute));
        assert_eq!(made, golden.join(" "), "{attribute:?}");
    }
    assert_eq!(hex(&set_up(seven(), true)), UP);
    assert_eq!(hex(&set_up(seven(), false)), DOWN);
}

#[test]
fn the_words_of_the_link_have_the_kernels_numbers() {
    let last = |link| {
        let bytes = set_vf(seven(), 0, VfAttribute::Link(link)).bytes().unwrap();
        bytes[bytes.len() - 4]
    };
    // IFLA_VF_LINK_STATE_AUTO, _ENABLE, _DISABLE.
    let all = [LinkPolicy::Auto, LinkPolicy::Up, LinkPolicy::Down];
    assert_eq!(all.map(last), [0, 1, 2]);
}

/// The kernel of whoever runs the tests answers an order too. No interface has the index.
#[test]
fn an_order_that_the_kernel_refuses_is_its_errno() {
    let none = NonZeroU32::new(0x7fff_fff0).unwrap();
    let refused = crate::netlink::exchange(&set_up(none, true)).unwrap_err();
    let is_known = [libc::EPERM, libc::ENODEV].contains(&refused.raw());
    assert!(is_known, "{refused}");
}
