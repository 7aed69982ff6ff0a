use proptest::prelude::*;

use super::*;

/// A page that the lab's controller gave: lines of an offset and the bytes from there on.
pub(super) fn recorded(text: &str) -> Box<Page> {
    let mut page = Page::zeroed();
    for line in text.lines().skip(2) {
        let (at, digits) = line.split_once(' ').unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (number, pair) in digits.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).unwrap();
            page.0[at + number] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    page
}

macro_rules! page {
    ($name:literal) => {
        recorded(include_str!(concat!(
            "../../../tests/recorded/nvme/",
            $name,
            ".hex"
        )))
    };
}

#[test]
fn identity_of_the_labs_controller_is_what_nvme_cli_says() {
    let identity = Identity::parse(&page!("id-ctrl"));
    assert_eq!(identity.cntlid, 0);
    assert_eq!(identity.serial, "lab-sriov");
    assert_eq!(identity.model, "QEMU NVMe Ctrl");
    assert_eq!(identity.subnqn, "nqn.2019-08.org.qemu:lab");
    assert_eq!(identity.oacs, 0x01ab);
    assert!(identity.has_effects);
    assert_eq!(
        (identity.capacity, identity.unallocated, identity.fna),
        (0, 0, 0)
    );
}

#[test]
fn log_of_commands_knows_that_the_lab_creates_no_namespaces() {
    let supported = supported(&page!("effects"));
    let has = |opcode| supported.contains(&opcode);
    assert!(has(0x15) && has(0x1c) && has(0x80) && has(0x06));
    assert!(!has(0x0d) && !has(0x84) && !has(0x24));
}

#[test]
fn resources_and_secondary_controllers_are_what_nvme_cli_says() {
    let flexible = flexible(&page!("primary-capabilities"));
    let vq = Resource {
        total: 28,
        assigned: 0,
        to_primary: 0,
        private: 3,
        most: 4,
        granularity: 1,
    };
    assert_eq!(flexible.vq, vq);
    assert_eq!((flexible.vi.total, flexible.vi.private), (14, 17));
    let list = secondaries(&page!("secondary-list-1-online"));
    assert_eq!(list.len(), 7);
    let online = Secondary {
        cntlid: 1,
        vf: 1,
        is_online: true,
        queues: 3,
        vectors: 2,
    };
    assert_eq!(list[0], online);
    assert!(
        list[1..]
            .iter()
            .all(|one| !one.is_online && one.queues == 0)
    );
    let list = secondaries(&page!("secondary-list-no-vfs"));
    assert!(list.len() == 7 && list.iter().all(|one| !one.is_online));
}

#[test]
fn namespaces_and_who_has_them_are_what_nvme_cli_says() {
    assert_eq!(namespaces(&page!("active-list")), [1]);
    assert_eq!(
        namespaces(&page!("allocated-list")),
        (1..=8).collect::<Vec<_>>()
    );
    assert!(controllers(&page!("attached-none")).is_empty());
    assert_eq!(controllers(&page!("attached-primary")), [0].into());
    assert_eq!(controllers(&page!("attached-primary-and-1")), [0, 1].into());
    let layout = Layout::parse(&page!("allocated-ns-shared")).unwrap();
    assert_eq!((layout.len_bytes(), layout.block), (16 << 20, 512));
    assert!(layout.is_shared && layout.id == NamespaceId::None);
    let layout = Layout::parse(&page!("allocated-ns-private")).unwrap();
    assert!(!layout.is_shared);
    // What is not this controller's is a page of zeros.
    assert_eq!(Layout::parse(&page!("id-ns-unattached")), None);
}

#[test]
fn identity_of_a_namespace_is_its_longer_one() {
    let mut page = page!("allocated-ns-shared");
    page.0[127] = 9;
    let layout = Layout::parse(&page).unwrap();
    assert_eq!(layout.id, NamespaceId::Eui64("0000000000000009".to_owned()));
    page.0[104] = 0xab;
    let layout = Layout::parse(&page).unwrap();
    assert_eq!(
        layout.id,
        NamespaceId::Nguid(format!("ab{}", "0".repeat(30)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// A controller may answer anything.
    #[test]
    fn no_page_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), PAGE_LEN)) {
        let mut page = Page::zeroed();
        page.0.copy_from_slice(&bytes);
        prop_assert!(secondaries(&page).len() <= 127);
        prop_assert!(controllers(&page).len() <= 2047);
        prop_assert!(namespaces(&page).len() <= 1024);
        prop_assert!(supported(&page).len() <= 256);
        prop_assert!(Identity::parse(&page).serial.len() <= 20);
        prop_assert!(Layout::parse(&page).is_none_or(|layout| layout.block >= 512));
        prop_assert_eq!(flexible(&page).vq.granularity, u16::from_le_bytes([bytes[46], bytes[47]]));
    }
}
