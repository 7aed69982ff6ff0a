use proptest::prelude::*;

use super::*;

const LINES: &str = "\
cntlid 0
serial lab-sriov
model QEMU NVMe Ctrl
subnqn nqn.2019-08.org.qemu:lab
capacity 0
unallocated 0
can attach virt format
flexible vq total 28 assigned 0 to-primary 0 private 3 most 4 granularity 1
flexible vi total 14 assigned 0 to-primary 0 private 17 most 2 granularity 1
secondary 1 vf 1 online vq 3 vi 2
secondary 2 vf 2 offline vq 0 vi 0
namespace 1 size 16777216 block 512 private attached 0
namespace 2 size 67108864 block 4096 shared nguid 000000000000000000000000000000ab attached 0,3
namespace 3 size 67108864 block 512 shared eui64 00000000000000ab
unread CNS 12h of namespace 4: status 0/06 (internal error)
";

#[test]
fn lines_say_the_same_after_reading() {
    let (facts, unread) = parse("nvme0", LINES).unwrap();
    assert_eq!(text(&facts, &unread), LINES);
    assert!(facts.can.attach && !facts.can.manage);
    assert_eq!(facts.namespaces[&2].attached, [0, 3].into());
    assert_eq!(facts.secondaries[0].queues, 3);
    assert_eq!(unread.len(), 1);
}

#[test]
fn line_that_is_not_understood_is_refused() {
    for bad in [
        "",
        "cntlid 0\n",
        "serial x\nspeed 3\n",
        "serial x\ncan fly\n",
        "serial x\nsecondary 1 vf 1 maybe vq 0 vi 0\n",
        "serial x\nsecondary 70000 vf 1 online vq 0 vi 0\n",
        "serial x\nnamespace 1 size 5 block 512 private attached 0,\n",
        "serial x\nnamespace 1 size 5 block 512 private\nnamespace 1 size 5 block 512 private\n",
    ] {
        assert!(parse("nvme0", bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn reader_takes_any_text(text in ".{0,200}") {
        drop(parse("nvme0", &text));
    }

    #[test]
    fn reader_takes_any_words(words in proptest::collection::vec("(serial|namespace|secondary|flexible|vq|size|block|shared|attached|[0-9,]{1,6}|\n| )", 0..40)) {
        drop(parse("nvme0", &words.join(" ")));
    }
}
