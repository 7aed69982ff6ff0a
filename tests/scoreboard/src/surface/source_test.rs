//! What counts as a line and as an `unsafe` block.

use super::{Counts, count};

fn lines_and_blocks(text: &str) -> (u64, u64) {
    let Counts {
        lines,
        unsafe_blocks,
        ..
    } = count(text);
    (lines, unsafe_blocks)
}

#[test]
fn comments_and_blank_lines_are_no_lines() {
    let text = "//! doc\n\n/* a\n /* nested */ b */\nfn a() {}\n/// doc\nconst B: u8 = 1; // c\n\n";
    assert_eq!(lines_and_blocks(text), (2, 0));
}

#[test]
fn unsafe_in_comments_strings_and_lints_is_no_block() {
    let text = r###"
// unsafe { }
const A: &str = "unsafe { }";
const B: &str = r#"unsafe { " }"#;
const C: char = '"'; const D: u8 = b'\''; const E: &[u8] = b"unsafe {";
#![expect(unsafe_code, reason = "unsafe {")]
unsafe fn f<'a>(x: &'a u8) {}
unsafe impl Send for X {}
fn g() { unsafe { f() } }
"###;
    assert_eq!(lines_and_blocks(text), (7, 1));
}

#[test]
fn what_only_tests_have_is_left_out() {
    let text = "fn a() {}\n#[cfg(test)]\nfn b() { unsafe { c() } }\n#[cfg(test)]\nmod tests {\n fn d() {}\n}\nfn e() {}\n";
    assert_eq!(lines_and_blocks(text), (2, 0));
}

#[test]
fn a_left_out_field_or_arm_ends_where_it_ends() {
    let text = "struct A {\n a: u8,\n #[cfg(feature = \"breakout\")]\n b: u8,\n c: u8,\n #[cfg(test)]\n d: u8\n}\nfn e() {}\n";
    assert_eq!(lines_and_blocks(text), (5, 0));
}

#[test]
fn what_the_shipped_programs_have_in_place_of_a_feature_stays() {
    let text = "#[cfg(not(feature = \"breakout\"))]\nfn a() { unsafe { b() } }\n";
    assert_eq!(lines_and_blocks(text), (2, 1));
}

#[test]
fn files_of_tests_are_named() {
    let text = "mod a;\n#[cfg(test)]\n#[path = \"b_test.rs\"]\nmod tests;\n#[cfg(feature = \"breakout\")]\npub mod c;\n";
    assert_eq!(count(text).left_out, ["b_test.rs", "c"]);
}

#[test]
fn text_over_many_lines_counts_with_all_of_them() {
    assert_eq!(lines_and_blocks("const A: &str = \"a\nb\n\nc\";\n"), (4, 0));
}
