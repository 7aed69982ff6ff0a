use super::*;

/// Against the words that nvme-cli sends for the same orders.
#[test]
fn commands_have_the_words_of_the_specification() {
    let word = |command: Command| (command.opcode, command.nsid, command.cdw10, command.cdw11);
    for (command, words) in [
        (Command::identify(0x15, 0, 4), (0x06, 0, 0x0004_0015, 0)),
        (Command::identify(0x12, 3, 0), (0x06, 3, 0x12, 0)),
        (Command::effects_log(), (0x02, u32::MAX, 0x03ff_0005, 0)),
        (
            Command::secondary_online(5, false),
            (0x1c, 0, 0x0005_0007, 0),
        ),
        (
            Command::secondary_online(5, true),
            (0x1c, 0, 0x0005_0009, 0),
        ),
        (
            Command::secondary_assign(5, false, 3),
            (0x1c, 0, 0x0005_0008, 3),
        ),
        (
            Command::secondary_assign(5, true, 2),
            (0x1c, 0, 0x0005_0108, 2),
        ),
        (Command::attachment(2, true), (0x15, 2, 0, 0)),
        (Command::attachment(2, false), (0x15, 2, 1, 0)),
        (Command::delete_namespace(7), (0x0d, 7, 1, 0)),
        (Command::format(2, 0, 0, false, 1), (0x80, 2, 0x200, 0)),
        (Command::format(2, 0x01, 0, true, 1), (0x80, 2, 0x401, 0)),
        // Format 17 with metadata behind the data and protection of type 1 in its first bytes.
        (
            Command::format(2, 0x31, 0x09, false, 1),
            (0x80, 2, 0x1000 | 0x200 | 0x100 | 0x20 | 0x10 | 1, 0),
        ),
    ] {
        assert_eq!(word(command), words, "{command:?}");
    }
}

#[test]
fn status_is_told_without_the_bits_about_retrying() {
    let status = Status::from_kernel(0x4118);
    assert_eq!(status, ALREADY_ATTACHED);
    assert_eq!(
        status.to_string(),
        "status 1/18 (namespace already attached)"
    );
    let unknown = Status::from_kernel(0x6733);
    assert_eq!(unknown.to_string(), "status 7/33 (no name is known for it)");
}

#[test]
fn page_lies_where_a_page_begins() {
    let page = Page::zeroed();
    assert_eq!(page.0.as_ptr().addr() % PAGE_LEN, 0);
}

#[test]
fn what_is_no_controller_answers_with_an_errno() {
    use std::os::fd::AsFd;
    let file = std::fs::File::open("/dev/null").unwrap();
    let mut page = Page::zeroed();
    let answer = admin(file.as_fd(), &Command::identify(1, 0, 0), Some(&mut page));
    assert!(matches!(answer, Err(CommandFault::Kernel(_))), "{answer:?}");
}
