use proptest::prelude::*;

use super::{exchange::*, link::*, *};

/// A message of the kernel's.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + body.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn ours(kind: u16, body: &[u8]) -> Vec<u8> {
    message(kind, 0, SEQUENCE, body)
}

fn error(number: i32) -> Vec<u8> {
    // The header of what it is about follows.
    let mut body = number.to_ne_bytes().to_vec();
    body.extend([0; HEADER_LEN]);
    ours(NLMSG_ERROR, &body)
}

fn all(bytes: &[u8], until: Until) -> Result<(Vec<Reply>, bool), Errno> {
    let mut replies = Vec::new();
    read(bytes, until, &mut replies).map(|is_end| (replies, is_end))
}

fn bodies(bytes: &[u8], until: Until) -> Result<(Vec<Vec<u8>>, bool), Errno> {
    let (replies, is_end) = all(bytes, until)?;
    Ok((
        replies.into_iter().map(|reply| reply.body).collect(),
        is_end,
    ))
}

#[test]
fn one_question_has_one_answer() {
    let (replies, is_end) = all(&ours(RTM_NEWLINK, &[1, 2, 3, 4]), Until::One).unwrap();
    let wanted = Reply {
        kind: RTM_NEWLINK,
        body: vec![1, 2, 3, 4],
    };
    assert_eq!((replies, is_end), (vec![wanted], true));
    let two = [ours(RTM_NEWLINK, &[]), ours(RTM_NEWLINK, &[])].concat();
    assert_eq!(all(&two, Until::One), Err(MALFORMED));
}

#[test]
fn an_error_of_the_kernel_is_its_errno() {
    for until in [Until::One, Until::Acknowledged, Until::Done] {
        let refused = all(&error(-libc::EOPNOTSUPP), until);
        assert_eq!(refused, Err(Errno::new(libc::EOPNOTSUPP)));
        assert_eq!(all(&error(i32::MIN), until), Err(Errno::new(i32::MAX)));
        assert_eq!(all(&error(1), until), Err(MALFORMED), "no errno");
        assert_eq!(all(&ours(NLMSG_ERROR, &[0, 0]), until), Err(MALFORMED));
    }
}

#[test]
fn success_is_told_by_an_acknowledgement_and_by_nothing_else() {
    assert_eq!(all(&error(0), Until::Acknowledged), Ok((vec![], true)));
    let answered = [ours(RTM_NEWLINK, &[7; 4]), error(0)].concat();
    let wanted = (vec![vec![7; 4]], true);
    assert_eq!(bodies(&answered, Until::Acknowledged), Ok(wanted));
    let unfinished = bodies(&ours(RTM_NEWLINK, &[7; 4]), Until::Acknowledged);
    assert_eq!(unfinished, Ok((vec![vec![7; 4]], false)));
    let done = ours(NLMSG_DONE, &[0; 4]);
    assert_eq!(all(&done, Until::Acknowledged), Err(MALFORMED));
    assert_eq!(all(&error(0), Until::One), Err(MALFORMED));
}

#[test]
fn a_list_ends_with_the_kernels_word() {
    let part = [ours(RTM_NEWLINK, &[1; 4]), ours(RTM_NEWLINK, &[2; 4])].concat();
    let wanted = vec![vec![1; 4], vec![2; 4]];
    assert_eq!(bodies(&part, Until::Done), Ok((wanted.clone(), false)));
    let whole = [part, ours(NLMSG_DONE, &[0; 4])].concat();
    assert_eq!(bodies(&whole, Until::Done), Ok((wanted, true)));
    let failed = ours(NLMSG_DONE, &(-libc::ENOMEM).to_ne_bytes());
    assert_eq!(all(&failed, Until::Done), Err(Errno::new(libc::ENOMEM)));
    let after = [ours(NLMSG_DONE, &[0; 4]), ours(RTM_NEWLINK, &[])].concat();
    assert_eq!(all(&after, Until::Done), Err(MALFORMED));
}

#[test]
fn what_was_lost_changed_or_asked_by_another_is_no_answer() {
    let lost = ours(NLMSG_OVERRUN, &[]);
    assert_eq!(all(&lost, Until::Done), Err(Errno::new(libc::ENOBUFS)));
    let changed = message(RTM_NEWLINK, NLM_F_DUMP_INTR, SEQUENCE, &[]);
    assert_eq!(all(&changed, Until::Done), Err(Errno::new(libc::EINTR)));
    let other = message(RTM_NEWLINK, 0, SEQUENCE + 1, &[]);
    assert_eq!(all(&other, Until::One), Err(MALFORMED));
    let whole = ours(RTM_NEWLINK, &[1; 8]);
    for len in 1..whole.len() {
        assert_eq!(all(&whole[..len], Until::One), Err(MALFORMED), "{len}");
    }
    let mut short = whole;
    short[0] = 15;
    assert_eq!(all(&short, Until::One), Err(MALFORMED), "no header");
    assert_eq!(all(&[], Until::One), Ok((vec![], false)));
    let noop = ours(NLMSG_NOOP, &[]);
    assert_eq!(all(&noop, Until::One), Ok((vec![], false)));
}

#[test]
fn an_attribute_that_is_too_long_is_not_sent() {
    let longest = vec![0; usize::from(u16::MAX) - 4];
    let question = Question::new(RTM_GETLINK, 0, &[]);
    let bytes = question.clone().put(IFLA_IFNAME, &longest).bytes().unwrap();
    // Padded to four.
    assert_eq!(bytes.len(), HEADER_LEN + 65536);
    let too_long = Err(Errno::new(libc::EMSGSIZE));
    let longer = [longest, vec![0]].concat();
    assert_eq!(question.clone().put(IFLA_IFNAME, &longer).bytes(), too_long);
    let half = vec![0; 40_000];
    let nested = question.nest(1, |nest| nest.put(2, &half).put(3, &half));
    assert_eq!(nested.bytes(), too_long);
    assert_eq!(exchange(&nested), Err(Errno::new(libc::EMSGSIZE)));
}

#[test]
fn what_is_written_reads_back() {
    let question = Question::new(RTM_GETLINK, NLM_F_ACK, &[9; 4])
        .put(1, b"abcde")
        .nest(2, |nest| nest.put(3, &[]).put(4, &[1, 2, 3, 4]))
        .put(1, b"f");
    let bytes = question.bytes().unwrap();
    assert_eq!(u32_at(&bytes, 0).unwrap() as usize, bytes.len());
    assert_eq!(u16_at(&bytes, 6), Ok(NLM_F_REQUEST | NLM_F_ACK));
    let attributes = Attributes::parse(&bytes[HEADER_LEN + 4..]).unwrap();
    let ones: Vec<&[u8]> = attributes.all(1).collect();
    assert_eq!(ones, [b"abcde".as_slice(), b"f"]);
    assert_eq!(attributes.only(1), Err(MALFORMED));
    assert_eq!(attributes.only(5), Ok(None));
    let nest = Attributes::parse(attributes.only(2).unwrap().unwrap()).unwrap();
    assert_eq!(nest.only(3), Ok(Some([].as_slice())));
    assert_eq!(nest.only(4), Ok(Some([1, 2, 3, 4].as_slice())));
    for malformed in [[3, 0, 1, 0], [8, 0, 1, 0]] {
        assert_eq!(Attributes::parse(&malformed), Err(MALFORMED));
    }
    assert_eq!(Attributes::parse(&[4, 0]), Err(MALFORMED));
}

/// The kernel of whoever runs the tests answers without privilege: it has a loopback interface, in a list and by name.
#[test]
fn the_kernel_answers_a_question_and_lists() {
    let by_name = question(RTM_GETLINK, 0, 0, 0, 0).put(IFLA_IFNAME, b"lo\0");
    let [reply] = exchange(&by_name).unwrap().try_into().unwrap();
    assert_eq!(reply.kind, RTM_NEWLINK);
    let dump = question(RTM_GETLINK, NLM_F_DUMP, 0, 0, 0);
    let listed = exchange(&dump).unwrap();
    let is_loopback = |reply: &Reply| {
        let link = Attributes::parse(&reply.body[LINK_LEN..]).unwrap();
        link.only(IFLA_IFNAME).unwrap() == Some(b"lo\0")
    };
    assert_eq!(listed.iter().filter(|reply| is_loopback(reply)).count(), 1);
    assert!(listed.iter().all(|reply| reply.kind == RTM_NEWLINK));
}

#[test]
fn the_numbers_are_those_of_the_kernels_headers() {
    let number = |n: i32| u16::try_from(n).unwrap();
    assert_eq!(RTM_GETLINK, libc::RTM_GETLINK);
    assert_eq!(RTM_NEWLINK, libc::RTM_NEWLINK);
    assert_eq!(RTM_SETLINK, libc::RTM_SETLINK);
    assert_eq!(NLMSG_NOOP, number(libc::NLMSG_NOOP));
    assert_eq!(NLMSG_ERROR, number(libc::NLMSG_ERROR));
    assert_eq!(NLMSG_DONE, number(libc::NLMSG_DONE));
    assert_eq!(NLMSG_OVERRUN, number(libc::NLMSG_OVERRUN));
    assert_eq!(NLM_F_REQUEST, number(libc::NLM_F_REQUEST));
    assert_eq!(NLM_F_ACK, number(libc::NLM_F_ACK));
    assert_eq!(NLM_F_DUMP, number(libc::NLM_F_DUMP));
    assert_eq!(NLM_F_DUMP_INTR, number(libc::NLM_F_DUMP_INTR));
    assert_eq!(IFLA_IFNAME, libc::IFLA_IFNAME);
    assert_eq!(IFLA_VFINFO_LIST, libc::IFLA_VFINFO_LIST);
    assert_eq!(IFLA_EXT_MASK, libc::IFLA_EXT_MASK);
    assert_eq!(IFLA_PARENT_DEV_NAME, libc::IFLA_PARENT_DEV_NAME);
    assert_eq!(IFF_UP, libc::IFF_UP.cast_unsigned());
    assert_eq!(HEADER_LEN, size_of::<libc::nlmsghdr>());
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400) {
        for until in [Until::One, Until::Acknowledged, Until::Done] {
            drop(all(&bytes, until));
            let whole = [ours(RTM_NEWLINK, &bytes), bytes.clone()].concat();
            drop(all(&whole[..cut.min(whole.len())], until));
        }
        drop(Attributes::parse(&bytes));
    }
}
