//! A second opinion on the kernel log: records byte by byte, lines field by field, against patterns of the drivers' formats.

use iommu::events::Access;

/// Number, facility and text of a record.
pub(crate) fn head_of(bytes: &[u8]) -> Option<(u64, u32, &str)> {
    let text = std::str::from_utf8(&bytes[..bytes.len().min(8192)]).ok()?;
    let end = text.find(';')?;
    let head: Vec<&str> = text[..end].split(',').collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if head.len() < 4 || !head[..2].iter().all(|field| is_number(field)) {
        return None;
    }
    let (priority, sequence): (u32, u64) = (head[0].parse().ok()?, head[1].parse().ok()?);
    let rest = &text[end + 1..];
    let line = match rest.find('\n') {
        Some(end) => rest[..end].strip_suffix('\r').unwrap_or(&rest[..end]),
        None => rest,
    };
    Some((sequence, priority / 8, line))
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Source {
    /// Where the line tells it.
    pub(crate) domain: Option<u16>,
    pub(crate) bus: u8,
    /// Device and function.
    pub(crate) function: u8,
}

impl Source {
    /// As [`iommu::bdf::Bdf::packed`].
    pub(crate) fn packed(self) -> u32 {
        u32::from(self.domain.unwrap_or_default()) << 16
            | u32::from(self.bus) << 8
            | u32::from(self.function)
    }

    /// `[dddd:]bb:dd.f`; `0x` counts for nothing.
    fn read(text: &str) -> Option<Self> {
        let text = text.split("0x").collect::<String>();
        let (front, short) = match text.len() {
            7 => (None, &*text),
            12 => (Some(text.get(..5)?.strip_suffix(':')?), text.get(5..)?),
            _ => return None,
        };
        let bytes = short.as_bytes();
        if (bytes[2], bytes[5]) != (b':', b'.') {
            return None;
        }
        let digits = |from: usize, to: usize| number(16, short.get(from..to)?);
        let (bus, device, function) = (digits(0, 2)?, digits(3, 5)?, digits(6, 7)?);
        let domain = match front {
            Some(front) => Some(u16::try_from(number(16, front)?).ok()?),
            None => None,
        };
        (device < 32 && function < 8).then_some(Self {
            domain,
            bus: u8::try_from(bus).ok()?,
            function: u8::try_from(device << 3 | function).ok()?,
        })
    }
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) source: Source,
    pub(crate) access: Access,
    pub(crate) address: u64,
    pub(crate) reason: String,
}

impl Line {
    pub(crate) fn read(line: &str) -> Option<Self> {
        Self::intel(line).or_else(|| Self::amd(line))
    }

    fn intel(line: &str) -> Option<Self> {
        let parts = [
            "DMAR: [",
            "] Request device [",
            "] ",
            " [fault reason ",
            "]",
        ];
        let [before, kind, device, place, code, words] = cut(line, parts)?;
        if !before.is_empty() {
            return None;
        }
        let mut kinds = kind.splitn(3, ' ');
        let access = match (kinds.next()?, kinds.next(), kinds.next()) {
            ("INTR-REMAP", None, None) => Access::Interrupt,
            ("DMA", Some("Read"), pasid) if is_pasid(pasid) => Access::Read,
            ("DMA", Some("Write"), pasid) if is_pasid(pasid) => Access::Write,
            _ => return None,
        };
        let words_of_place: Vec<&str> = place.split(' ').collect();
        let address = match (&access, &*words_of_place) {
            (Access::Interrupt, ["fault", "index", address]) => address,
            (Access::Read | Access::Write, ["fault", "addr", address]) => address,
            (Access::Read | Access::Write, ["PASID", _, "fault", "addr", address]) => address,
            _ => return None,
        };
        Some(Self {
            source: Source::read(device)?,
            access,
            address: hex(address)?,
            reason: printable(&format!("reason {:#04x},{words}", hex(code)?)),
        })
    }

    fn amd(line: &str) -> Option<Self> {
        const MESSAGE: &str = "AMD-Vi: Event logged [";
        let at = match line.starts_with(MESSAGE) {
            true => 0,
            // What stands before the first `: ` is a driver and a function.
            false => line.find(": ")? + 2,
        };
        let front = line[..at].strip_suffix(": ");
        let front = match front {
            Some(front) => {
                let (driver, function) = front.split_at(front.find(' ')?);
                let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                if driver.is_empty() || !driver.bytes().all(is_name) {
                    return None;
                }
                Some(Source::read(&function[1..])?)
            }
            None => None,
        };
        let event = line[at..].strip_prefix(MESSAGE)?;
        let mut words = event[..event.find(']')?].split(' ');
        let name = words.next()?;
        let fields: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        // The first of a name counts.
        let field = |name: &str| {
            let found = fields.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.trim_end_matches(','))
        };
        let flags = hex(field("flags")?)?;
        let source = match field("device") {
            Some(device) => Source::read(device)?,
            None => front?,
        };
        let is_page_fault = matches!(name, "IO_PAGE_FAULT" | "RMP_PAGE_FAULT");
        if !is_page_fault && !matches!(name, "ILLEGAL_DEV_TABLE_ENTRY" | "INVALID_DEVICE_REQUEST") {
            return None;
        }
        Some(Self {
            source,
            access: match (flags >> 3 & 1, is_page_fault, flags >> 5 & 1) {
                (1, ..) => Access::Interrupt,
                (_, false, _) => Access::Request,
                (_, true, 1) => Access::Write,
                (_, true, _) => Access::Read,
            },
            address: hex(field("address").or(field("gpa"))?)?,
            reason: printable(&format!("{name}, flags {flags:#06x}")),
        })
    }
}

/// The pieces of `line` around `parts`, each of which is looked for behind the one before.
fn cut<'a, const N: usize, const M: usize>(
    line: &'a str,
    parts: [&str; N],
) -> Option<[&'a str; M]> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for part in parts {
        let at = from + line[from..].find(part)?;
        pieces.push(&line[from..at]);
        from = at + part.len();
    }
    pieces.push(&line[from..]);
    pieces.try_into().ok()
}

fn is_pasid(word: Option<&str>) -> bool {
    match word {
        None | Some("NO_PASID") => true,
        Some(words) => words.strip_prefix("PASID ").and_then(hex).is_some(),
    }
}

fn hex(text: &str) -> Option<u64> {
    number(16, text.strip_prefix("0x").unwrap_or(text))
}

fn number(base: u32, digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.chars().try_fold(0_u64, |n, c| {
        n.checked_mul(base.into())?
            .checked_add(c.to_digit(base)?.into())
    })
}

fn printable(text: &str) -> String {
    let kept: String = text
        .trim()
        .chars()
        .filter(|c| (' '..='~').contains(c))
        .collect();
    kept[..kept.len().min(80)].to_owned()
}
