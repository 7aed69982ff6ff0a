//! A small ELF file, built by hand, and files that lie.
use proptest::prelude::*;

use super::{Elf, ElfError, parse};

/// One section: name's place in the names, kind, content, link.
type Part = (u32, u32, Vec<u8>, u32);

fn elf(parts: &[Part]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    let mut table = Vec::new();
    for (name, kind, content, link) in parts {
        let mut header = vec![0_u8; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&u64::try_from(file.len()).unwrap().to_le_bytes());
        header[32..40].copy_from_slice(&u64::try_from(content.len()).unwrap().to_le_bytes());
        header[40..44].copy_from_slice(&link.to_le_bytes());
        file.extend(content);
        table.extend(header);
    }
    let at = u64::try_from(file.len()).unwrap();
    file[40..48].copy_from_slice(&at.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&u16::try_from(parts.len()).unwrap().to_le_bytes());
    file.extend(table);
    file
}

fn dynamic(entries: &[(u64, u64)]) -> Vec<u8> {
    let words = entries.iter().flat_map(|(tag, value)| [*tag, *value]);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Section 0 holds the names.
fn sample() -> Vec<u8> {
    elf(&[
        (0, 3, b"\0.symtab\0.debug_info\0".to_vec(), 0),
        (0, 3, b"\0libc.so.6\0libm.so.6\0".to_vec(), 0),
        (0, 6, dynamic(&[(1, 1), (5, 7), (1, 11), (0, 0)]), 1),
        (1, 2, vec![0; 48], 0),
        (9, 1, vec![0; 100], 0),
    ])
}

#[test]
fn libraries_and_size_without_symbols_are_found() {
    let file = sample();
    assert_eq!(
        parse(&file).unwrap(),
        Elf {
            stripped_bytes: u64::try_from(file.len()).unwrap() - 148,
            needed: vec!["libc.so.6".to_owned(), "libm.so.6".to_owned()],
        }
    );
}

#[test]
fn a_script_is_no_elf_file() {
    assert_eq!(parse(b"#!/bin/sh\n"), Err(ElfError::Magic));
}

proptest! {
    #[test]
    fn no_damage_makes_the_parser_panic(at in 0_usize..600, byte: u8, cut in 0_usize..600) {
        let mut file = sample();
        let len = file.len();
        file[at % len] = byte;
        let _either = parse(&file);
        let _either = parse(&file[..cut.min(len)]);
    }
}
