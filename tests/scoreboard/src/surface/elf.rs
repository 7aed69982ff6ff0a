//! What an ELF program's headers say: its size without symbols, and the libraries it loads.

/// A program or a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Its file's size without symbols and debug information.
    pub stripped_bytes: u64,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
}

/// Why a file was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not a 64-bit little-endian ELF file.
    #[error("it is not a 64-bit little-endian ELF file")]
    Magic,
    /// A header or table lies outside of the file.
    #[error("a header at byte {0:#x} lies outside of the file")]
    Outside(u64),
}

const SHT_SYMTAB: u32 = 2;
const SHT_DYNAMIC: u32 = 6;
const SHT_NOBITS: u32 = 8;
const DT_NEEDED: u64 = 1;

#[derive(Clone, Copy, Debug)]
struct Section {
    name: u32,
    kind: u32,
    offset: u64,
    size: u64,
    link: u32,
}

/// Reads the headers.
///
/// *Source:* System V ABI, ELF-64 object file format 1.5.
///
/// # Errors
/// [`ElfError`].
pub fn parse(file: &[u8]) -> Result<Elf, ElfError> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(ElfError::Magic);
    }
    let table = u64_at(file, 40)?;
    let (entry, count) = (u16_at(file, 58)?, u16_at(file, 60)?);
    let sections = (0..u64::from(count))
        .map(|n| section(file, table.wrapping_add(n.wrapping_mul(u64::from(entry)))))
        .collect::<Result<Vec<_>, _>>()?;
    let names = sections.get(usize::from(u16_at(file, 62)?));

    let mut removed = 0;
    let mut needed = Vec::new();
    for section in &sections {
        let name = match names {
            Some(names) => text_at(file, names.offset.wrapping_add(u64::from(section.name)))?,
            None => String::new(),
        };
        let symbols = section.kind == SHT_SYMTAB || name == ".strtab";
        if section.kind != SHT_NOBITS && (symbols || name.starts_with(".debug_")) {
            removed += section.size;
        }
        if section.kind == SHT_DYNAMIC {
            let link = usize::try_from(section.link).unwrap_or(usize::MAX);
            let strings = sections
                .get(link)
                .ok_or(ElfError::Outside(section.offset))?;
            for at in (0..section.size).step_by(16) {
                let at = section.offset.wrapping_add(at);
                if u64_at(file, at)? == DT_NEEDED {
                    let place = u64_at(file, at.wrapping_add(8))?;
                    needed.push(text_at(file, strings.offset.wrapping_add(place))?);
                }
            }
        }
    }
    let size = u64::try_from(file.len()).unwrap_or(u64::MAX);
    Ok(Elf {
        stripped_bytes: size.saturating_sub(removed),
        needed,
    })
}

fn section(file: &[u8], at: u64) -> Result<Section, ElfError> {
    Ok(Section {
        name: u32_at(file, at)?,
        kind: u32_at(file, at.wrapping_add(4))?,
        offset: u64_at(file, at.wrapping_add(24))?,
        size: u64_at(file, at.wrapping_add(32))?,
        link: u32_at(file, at.wrapping_add(40))?,
    })
}

fn bytes_at<const N: usize>(file: &[u8], at: u64) -> Result<[u8; N], ElfError> {
    usize::try_from(at)
        .ok()
        .and_then(|at| file.get(at..)?.first_chunk().copied())
        .ok_or(ElfError::Outside(at))
}

fn u16_at(file: &[u8], at: u64) -> Result<u16, ElfError> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: u64) -> Result<u32, ElfError> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: u64) -> Result<u64, ElfError> {
    bytes_at(file, at).map(u64::from_le_bytes)
}

fn text_at(file: &[u8], at: u64) -> Result<String, ElfError> {
    let rest = usize::try_from(at).ok().and_then(|at| file.get(at..));
    let rest = rest.ok_or(ElfError::Outside(at))?;
    let end = rest.iter().position(|byte| *byte == 0);
    let text = &rest[..end.ok_or(ElfError::Outside(at))?];
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
#[path = "elf_test.rs"]
mod tests;
