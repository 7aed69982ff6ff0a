use proptest::prelude::*;

use super::*;

fn vf(index: u32, attributes: &[(u16, &[u32])], mac: [u8; 6]) -> Vec<u8> {
    let mut first = index.to_ne_bytes().to_vec();
    first.extend(mac);
    first.resize(36, 0);
    let mut bytes = Vec::new();
    put(&mut bytes, IFLA_VF_MAC, &first);
    for (kind, numbers) in attributes {
        let mut value = index.to_ne_bytes().to_vec();
        value.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        put(&mut bytes, *kind, &value);
    }
    bytes
}

/// A reply with these attributes of the link.
fn reply(kind: u16, link: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut message = vec![0; HEADER_LEN + LINK_LEN];
    for (kind, value) in link {
        put(&mut message, *kind, value);
    }
    let len = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[8..12].copy_from_slice(&SEQUENCE.to_ne_bytes());
    message
}

fn list(vfs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for vf in vfs {
        put(&mut bytes, IFLA_VF_INFO | 0x8000, vf);
    }
    bytes
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
    let message = reply(
        RTM_NEWLINK,
        &[
            (IFLA_IFNAME, b"eth0\0".to_vec()),
            (IFLA_VFINFO_LIST | 0x8000, list(&vfs)),
            (IFLA_PARENT_DEV_NAME, b"0000:01:00.0\0".to_vec()),
        ],
    );
    assert_eq!(
        told(&message).unwrap().unwrap(),
        "parent 0000:01:00.0\n\
         vf 0 mac 52:54:00:00:01:0a vlan 100 qos 3 spoofchk on trust on query_rss off link down min_tx 10 max_tx 1000\n\
         vf 300 mac none vlan 0 qos 0 link auto\n"
    );
}

#[test]
fn an_interface_without_a_list_tells_nothing() {
    let message = reply(RTM_NEWLINK, &[(IFLA_IFNAME, b"lo\0".to_vec())]);
    assert_eq!(told(&message), Ok(None));
}

#[test]
fn an_error_of_the_kernel_is_its_errno() {
    let mut message = reply(NLMSG_ERROR, &[]);
    message[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
    assert_eq!(told(&message), Err(Errno::new(libc::ENODEV)));
}

#[test]
fn a_list_that_is_cut_off_or_there_twice_is_no_answer() {
    let vfs = list(&[vf(0, &[], [1; 6])]);
    let twice = [
        (IFLA_VFINFO_LIST, vfs.clone()),
        (IFLA_VFINFO_LIST, vfs.clone()),
    ];
    assert_eq!(told(&reply(RTM_NEWLINK, &twice)), Err(MALFORMED));
    let cut = [(IFLA_VFINFO_LIST, vfs[..20].to_vec())];
    assert_eq!(told(&reply(RTM_NEWLINK, &cut)), Err(MALFORMED));
    let strange = reply(RTM_GETLINK, &[(IFLA_VFINFO_LIST, vfs)]);
    assert_eq!(told(&strange), Err(MALFORMED));
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

#[test]
fn the_numbers_are_those_of_the_kernels_headers() {
    assert_eq!(RTM_GETLINK, libc::RTM_GETLINK);
    assert_eq!(RTM_NEWLINK, libc::RTM_NEWLINK);
    assert_eq!(NLMSG_ERROR, u16::try_from(libc::NLMSG_ERROR).unwrap());
    assert_eq!(NLM_F_REQUEST, u16::try_from(libc::NLM_F_REQUEST).unwrap());
    assert_eq!(IFLA_IFNAME, libc::IFLA_IFNAME);
    assert_eq!(IFLA_VFINFO_LIST, libc::IFLA_VFINFO_LIST);
    assert_eq!(IFLA_EXT_MASK, libc::IFLA_EXT_MASK);
    assert_eq!(IFLA_PARENT_DEV_NAME, libc::IFLA_PARENT_DEV_NAME);
    assert_eq!(HEADER_LEN, size_of::<libc::nlmsghdr>());
}

proptest! {
    #[test]
    fn no_reply_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400) {
        drop(told(&bytes));
        let mut message = reply(RTM_NEWLINK, &[(IFLA_VFINFO_LIST, bytes.clone())]);
        drop(told(&message));
        message.extend(&bytes);
        drop(told(&message[..cut.min(message.len())]));
    }
}
