//! Binary files as text: `size N`, then rows of 16 bytes behind their offset; rows of zeros are left out.

/// The longest binary file; no attribute of sysfs that is read is longer.
pub(super) const LIMIT: usize = 64 << 10;

const ROW: usize = 16;

pub(super) fn to_text(bytes: &[u8]) -> String {
    let mut text = format!("size {}\n", bytes.len());
    for (index, row) in bytes.chunks(ROW).enumerate() {
        if row.iter().all(|byte| *byte == 0) {
            continue;
        }
        let digits: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{:03x}: {}\n", index * ROW, digits.join(" ")));
    }
    text
}

pub(super) fn from_text(text: &str) -> Result<Vec<u8>, String> {
    let mut lines = text.lines();
    let size = lines
        .next()
        .and_then(|line| line.strip_prefix("size "))
        .and_then(|size| size.trim().parse::<usize>().ok())
        .ok_or("does not begin with `size` and a number")?;
    if size > LIMIT {
        return Err(format!("is longer than {LIMIT} bytes"));
    }
    let mut bytes = vec![0; size];
    for line in lines {
        let row = parse_row(line).ok_or_else(|| format!("{line:?} is no row of bytes"))?;
        let (at, values) = row;
        let place = bytes
            .get_mut(at..)
            .and_then(|rest| rest.get_mut(..values.len()))
            .ok_or_else(|| format!("row {at:x} ends behind the size"))?;
        place.copy_from_slice(&values);
    }
    Ok(bytes)
}

fn parse_row(line: &str) -> Option<(usize, Vec<u8>)> {
    let (at, rest) = line.split_once(": ")?;
    let at = number(at).and_then(|at| usize::try_from(at).ok())?;
    let bytes: Option<Vec<u8>> = rest
        .split_whitespace()
        .map(|pair| match pair.len() {
            2 => number(pair).and_then(|byte| u8::try_from(byte).ok()),
            _ => None,
        })
        .collect();
    Some((at, bytes?))
}

/// A hexadecimal number without a sign, which `from_str_radix` would take.
fn number(digits: &str) -> Option<u64> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u64::from_str_radix(digits, 16).ok())?
}
