use proptest::prelude::*;

use super::*;

/// What `put` writes behind a message's header.
fn written(put: impl FnOnce(Question) -> Question) -> Vec<u8> {
    let bytes = put(Question::new(0, 0, &[])).bytes().unwrap();
    bytes[16..].to_vec()
}

fn vf(index: u32, attributes: &[(u16, &[u32])], mac: [u8; 6]) -> Vec<u8> {
    let mut first = index.to_ne_bytes().to_vec();
    first.extend(mac);
    first.resize(36, 0);
    written(|question| {
        let question = question.put(IFLA_VF_MAC, &first);
        attributes
            .iter()
            .fold(question, |question, (kind, numbers)| {
                let mut value = index.to_ne_bytes().to_vec();
                value.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
                question.put(*kind, &value)
            })
    })
}

/// The list with the VLAN and its protocol, as a VF's attribute.
fn tag(vlan: u32, qos: u32, proto: u16) -> Vec<u8> {
    let mut value = [0_u32, vlan, qos].map(u32::to_ne_bytes).concat();
    value.extend(proto.to_be_bytes());
    value.extend([0; 2]);
    written(|question| {
        question.nest(IFLA_VF_VLAN_LIST, |list| {
            list.put(IFLA_VF_VLAN_INFO, &value)
        })
    })
}

/// A reply with these attributes of the link.
fn reply(link: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let attributes = written(|question| {
        link.iter().fold(question, |question, (kind, value)| {
            question.put(*kind, value)
        })
    });
    [vec![0; LINK_LEN], attributes].concat()
}

fn list(vfs: &[Vec<u8>]) -> Vec<u8> {
    written(|question| {
        vfs.iter().fold(question, |question, vf| {
            question.put(IFLA_VF_INFO | 0x8000, vf)
        })
    })
}

#[test]
fn each_vf_is_a_line_and_what_the_driver_does_not_tell_is_left_out() {
    let told_all = [
        (IFLA_VF_VLAN, &[100, 3][..]),
        (3, &[0]),
        (IFLA_VF_SPOOFCHK, &[1]),
        (IFLA_VF_LINK_STATE, &[2]),
        (IFLA_VF_RATE, &[10, 1000]),
        (IFLA_VF_RSS_QUERY_EN, &[0]),
        (IFLA_VF_TRUST, &[1]),
    ];
    let told_little = [
        (IFLA_VF_VLAN, &[0, 0][..]),
        (IFLA_VF_SPOOFCHK, &[u32::MAX]),
        (IFLA_VF_TRUST, &[u32::MAX]),
        (IFLA_VF_RSS_QUERY_EN, &[u32::MAX]),
        (IFLA_VF_LINK_STATE, &[0]),
    ];
    let vfs = [
        vf(0, &told_all, [0x52, 0x54, 0, 0, 1, 0xa]),
        vf(300, &told_little, [0; 6]),
    ];
    let message = reply(&[
        (IFLA_IFNAME, b"eth0\0".to_vec()),
        (IFLA_VFINFO_LIST | 0x8000, list(&vfs)),
        (IFLA_PARENT_DEV_NAME, b"0000:01:00.0\0".to_vec()),
    ]);
    assert_eq!(
        told(&message).unwrap().unwrap(),
        "parent 0000:01:00.0\n\
         vf 0 mac 52:54:00:00:01:0a vlan 100 qos 3 spoofchk on trust on query_rss off link down min_tx 10 max_tx 1000\n\
         vf 300 mac none vlan 0 qos 0 link auto\n"
    );
}

#[test]
fn only_a_tag_that_is_not_the_usual_one_has_a_word() {
    let line = |vlan: u32, qos: u32, proto: u16| {
        let vf = [
            vf(0, &[(IFLA_VF_VLAN, &[vlan, qos])], [0; 6]),
            tag(vlan, qos, proto),
        ];
        told(&reply(&[(IFLA_VFINFO_LIST, list(&[vf.concat()]))]))
    };
    let said = |text: &str| Ok(Some(format!("vf 0 mac none {text}\n")));
    assert_eq!(line(100, 3, 0x8100), said("vlan 100 qos 3"));
    assert_eq!(line(100, 3, 0x88a8), said("vlan 100 qos 3 proto 802.1ad"));
    assert_eq!(line(0, 0, 0x88a8), said("vlan 0 qos 0"), "no tag");
    assert_eq!(line(0, 0, 0), said("vlan 0 qos 0"), "no tag");
    assert_eq!(line(0, 3, 0x88a8), said("vlan 0 qos 3 proto 802.1ad"));
    assert_eq!(line(100, 3, 0), Err(MALFORMED));
}

#[test]
fn an_interface_without_a_list_tells_nothing() {
    let message = reply(&[(IFLA_IFNAME, b"lo\0".to_vec())]);
    assert_eq!(told(&message), Ok(None));
}

#[test]
fn a_list_that_is_cut_off_or_there_twice_is_no_answer() {
    let vfs = list(&[vf(0, &[], [1; 6])]);
    let twice = [
        (IFLA_VFINFO_LIST, vfs.clone()),
        (IFLA_VFINFO_LIST, vfs.clone()),
    ];
    assert_eq!(told(&reply(&twice)), Err(MALFORMED));
    let cut = [(IFLA_VFINFO_LIST, vfs[..20].to_vec())];
    assert_eq!(told(&reply(&cut)), Err(MALFORMED));
    assert_eq!(told(&[0; LINK_LEN - 1]), Err(MALFORMED));
}

/// The kernel of whoever runs the tests answers too: of the loopback interface, and of one that is not there.
#[test]
fn the_kernel_answers_without_privilege() {
    assert_eq!(ask("lo"), Ok(None));
    let long = "x".repeat(70_000);
    for interface in ["", "no-such-one-00", &long] {
        assert!(ask(interface).is_err(), "{interface}");
    }
}

proptest! {
    #[test]
    fn no_reply_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400) {
        drop(told(&bytes));
        let mut message = reply(&[(IFLA_VFINFO_LIST, bytes.clone())]);
        drop(told(&message));
        message.extend(&bytes);
        drop(told(&message[..cut.min(message.len())]));
    }
}
