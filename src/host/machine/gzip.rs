//! Compressed files, of which the kernel's configuration is one: written as their text.

use std::io::{self, Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// The longest text that is unpacked; a kernel's configuration has less than a tenth.
const LIMIT: u64 = 4 << 20;

/// The text of a compressed file; `None` where it is none, or longer than the limit.
pub(super) fn unpack(bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    let unpacked = GzDecoder::new(bytes).take(LIMIT).read_to_string(&mut text);
    (unpacked.is_ok() && text.len() as u64 != LIMIT).then_some(text)
}

/// Packs a text: the same bytes for the same text.
pub(super) fn pack(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
