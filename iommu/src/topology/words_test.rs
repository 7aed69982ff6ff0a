use proptest::prelude::*;

use super::*;

#[test]
fn an_address_is_six_pairs_of_digits_and_prints_in_lower_case() {
    let mac: Mac = "52:54:00:AB:cd:0e".parse().unwrap();
    assert_eq!(mac, Mac([0x52, 0x54, 0, 0xab, 0xcd, 0x0e]));
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:0e");
    for text in [
        "",
        "52:54:00:ab:cd",
        "52:54:00:ab:cd:0e:01",
        "52:54:00:ab:cd:e",
        "52:54:00:ab:cd:+e",
        "52-54-00-ab-cd-0e",
        "525400abcd0e",
        " 52:54:00:ab:cd:0e",
        "52:54:00:ab:cd:0g",
    ] {
        let error = text.parse::<Mac>().unwrap_err().to_string();
        let wanted = format!("{text:?} is not a MAC address of the form 52:54:00:12:34:56");
        assert_eq!(error, wanted);
    }
}

#[test]
fn an_address_of_many_or_of_none_is_told() {
    let is = |text: &str| {
        let mac: Mac = text.parse().unwrap();
        (mac.is_multicast(), mac.is_zero())
    };
    assert_eq!(is("00:00:00:00:00:00"), (false, true));
    assert_eq!(is("00:00:00:00:00:01"), (false, false));
    assert_eq!(is("01:00:5e:00:00:01"), (true, false));
    assert_eq!(is("ff:ff:ff:ff:ff:ff"), (true, false));
    assert_eq!(is("02:00:00:00:00:00"), (false, false));
}

#[test]
fn words_read_back_as_what_they_were() {
    for (link, word) in [
        (LinkPolicy::Auto, "auto"),
        (LinkPolicy::Up, "up"),
        (LinkPolicy::Down, "down"),
    ] {
        assert_eq!(link.to_string(), word);
        assert_eq!(word.parse(), Ok(link));
        assert_eq!(serde_json::to_value(link).unwrap(), word);
        assert_eq!(
            serde_json::from_value::<LinkPolicy>(word.into()).unwrap(),
            link
        );
    }
    for (proto, word, number) in [
        (VlanProto::Dot1Q, "802.1Q", libc::ETH_P_8021Q),
        (VlanProto::Dot1Ad, "802.1ad", libc::ETH_P_8021AD),
    ] {
        assert_eq!(proto.to_string(), word);
        assert_eq!(word.parse(), Ok(proto));
        assert_eq!(i32::from(proto.ethertype()), number);
        assert_eq!(serde_json::to_value(proto).unwrap(), word);
        assert_eq!(
            serde_json::from_value::<VlanProto>(word.into()).unwrap(),
            proto
        );
    }
    let link = "sideways".parse::<LinkPolicy>().unwrap_err();
    assert_eq!(link.to_string(), "\"sideways\" is not auto, up or down");
    let proto = "802.1q".parse::<VlanProto>().unwrap_err();
    assert_eq!(proto.to_string(), "\"802.1q\" is not 802.1Q or 802.1ad");
}

proptest! {
    #[test]
    fn every_address_reads_back_as_what_it_was(bytes: [u8; 6]) {
        let mac = Mac(bytes);
        prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        let json = serde_json::to_string(&mac).unwrap();
        prop_assert_eq!(&json, &format!("\"{mac}\""));
        prop_assert_eq!(serde_json::from_str::<Mac>(&json).unwrap(), mac);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}") {
        drop(text.parse::<Mac>());
    }
}
