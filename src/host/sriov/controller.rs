//! An `NVMe` controller that is asked and ordered by admin commands, and what its pages say.
//!
//! What a controller answers is hostile: every number is read at a fixed place of a page of fixed length, every list is
//! bounded.
//!
//! *Source:* NVM Express Base Specification 2.0, sections 5.17.2 (identify structures) and 5.16.1.6 (effects); NVM
//! Command Set Specification 1.0, section 4.1.5.1 (namespace); `linux/include/linux/nvme.h` (v6.12).

use std::{collections::BTreeSet, fs::File, io, os::fd::AsFd};

use iommu::sysfs::SysRoot;

use crate::{
    sriov::{Flexible, NamespaceId, Resource, Secondary},
    sys::nvme::{self, Command, CommandFault, PAGE_LEN, Page},
};

/// A list of namespaces or secondary controllers goes on over at most so many pages: more than any controller has.
const PAGES: usize = 1024;

/// An open controller.
#[derive(Debug)]
pub struct Controller {
    node: File,
}

/// How a namespace lies on the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// NSZE: blocks.
    pub blocks: u64,
    /// The present format's size of a block, in bytes.
    pub block: u32,
    /// The present format's bytes of metadata for each block.
    pub metadata: u16,
    /// FLBAS: which format.
    pub flbas: u8,
    /// DPS: how it is protected.
    pub dps: u8,
    /// NMIC bit 0.
    pub is_shared: bool,
    /// NGUID or EUI64.
    pub id: NamespaceId,
}

impl Layout {
    /// The size in bytes; the largest number where that is beyond all numbers.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block as u64)
    }

    /// From Identify Namespace; `None` for a page of zeros: there is no such namespace, or not for this controller.
    #[must_use]
    pub fn parse(page: &Page) -> Option<Self> {
        let at = Reader(page);
        let flbas = at.byte(26);
        // NLBAF counts from zero; only with more than 16 do the upper bits of the index count.
        let high = if at.byte(25) > 15 { flbas >> 5 & 3 } else { 0 };
        let format = 128 + 4 * (usize::from(high) << 4 | usize::from(flbas & 0xf));
        let exponent = u32::from(at.byte(format + 2));
        let blocks = at.u64(0);
        let block = 1_u32.checked_shl(exponent).filter(|block| *block >= 512)?;
        (blocks > 0).then(|| Self {
            blocks,
            block,
            metadata: at.u16(format),
            flbas,
            dps: at.byte(29),
            is_shared: at.byte(30) & 1 != 0,
            id: match (at.hex(104, 16), at.hex(120, 8)) {
                (Some(nguid), _) => NamespaceId::Nguid(nguid),
                (None, Some(eui64)) => NamespaceId::Eui64(eui64),
                (None, None) => NamespaceId::None,
            },
        })
    }
}

/// What Identify Controller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// CNTLID.
    pub cntlid: u16,
    /// SN.
    pub serial: String,
    /// MN.
    pub model: String,
    /// SUBNQN.
    pub subnqn: String,
    /// TNVMCAP.
    pub capacity: u128,
    /// UNVMCAP.
    pub unallocated: u128,
    /// OACS.
    pub oacs: u16,
    /// LPA bit 1: it keeps the log of supported commands.
    pub has_effects: bool,
    /// FNA.
    pub fna: u8,
}

impl Identity {
    /// From the page.
    #[must_use]
    pub fn parse(page: &Page) -> Self {
        let at = Reader(page);
        Self {
            cntlid: at.u16(78),
            serial: at.text(4, 20),
            model: at.text(24, 40),
            subnqn: at.text(768, 256),
            capacity: at.u128(280),
            unallocated: at.u128(296),
            oacs: at.u16(256),
            has_effects: at.byte(261) & 2 != 0,
            fna: at.byte(524),
        }
    }
}

/// The opcodes whose row of the log says that the command is supported.
#[must_use]
pub fn supported(effects: &Page) -> BTreeSet<u8> {
    (0..=u8::MAX)
        .filter(|opcode| Reader(effects).u32(4 * usize::from(*opcode)) & 1 != 0)
        .collect()
}

/// Primary Controller Capabilities (CNS 14h).
#[must_use]
pub fn flexible(page: &Page) -> Flexible {
    let at = Reader(page);
    let resource = |base: usize| Resource {
        total: at.u32(base),
        assigned: at.u32(base + 4),
        to_primary: at.u16(base + 8),
        private: at.u16(base + 10),
        most: at.u16(base + 12),
        granularity: at.u16(base + 14),
    };
    Flexible {
        vq: resource(32),
        vi: resource(64),
    }
}

/// One page of the Secondary Controller List (CNS 15h).
#[must_use]
pub fn secondaries(page: &Page) -> Vec<Secondary> {
    let at = Reader(page);
    let count = usize::from(at.byte(0)).min(127);
    (0..count)
        .map(|number| {
            let entry = 32 + 32 * number;
            Secondary {
                cntlid: at.u16(entry),
                vf: at.u16(entry + 8),
                is_online: at.byte(entry + 4) & 1 != 0,
                queues: at.u16(entry + 10),
                vectors: at.u16(entry + 12),
            }
        })
        .collect()
}

/// A Controller List (CNS 12h, 13h).
#[must_use]
pub fn controllers(page: &Page) -> BTreeSet<u16> {
    let at = Reader(page);
    let count = usize::from(at.u16(0)).min(2047);
    (1..=count).map(|number| at.u16(2 * number)).collect()
}

/// A list of namespaces (CNS 02h, 10h): ascending, up to the first zero.
#[must_use]
pub fn namespaces(page: &Page) -> Vec<u32> {
    let at = Reader(page);
    (0..PAGE_LEN / 4)
        .map(|number| at.u32(4 * number))
        .take_while(|nsid| *nsid != 0)
        .collect()
}

impl Controller {
    /// Opens `controller`, such as `nvme0`.
    ///
    /// # Errors
    /// The errno of `open`: EACCES without privilege.
    pub fn open(root: &SysRoot, controller: &str) -> io::Result<Self> {
        let node = File::open(root.path(format!("dev/{controller}")))?;
        Ok(Self { node })
    }

    /// Gives an order: its result.
    ///
    /// # Errors
    /// The kernel's errno, or the controller's status.
    pub fn order(&self, command: &Command, data: Option<&mut Page>) -> Result<u32, CommandFault> {
        nvme::admin(self.node.as_fd(), command, data)
    }

    /// Asks for a structure.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn identify(&self, cns: u8, nsid: u32, cntid: u16) -> Result<Box<Page>, CommandFault> {
        let mut page = Page::zeroed();
        self.order(&Command::identify(cns, nsid, cntid), Some(&mut page))?;
        Ok(page)
    }

    /// Who it is.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn identity(&self) -> Result<Identity, CommandFault> {
        Ok(Identity::parse(&*self.identify(0x01, 0, 0)?))
    }

    /// Which admin commands it knows.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn supported(&self) -> Result<BTreeSet<u8>, CommandFault> {
        let mut page = Page::zeroed();
        self.order(&Command::effects_log(), Some(&mut page))?;
        Ok(supported(&page))
    }

    /// What it can give to its secondary controllers.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn flexible(&self) -> Result<Flexible, CommandFault> {
        Ok(flexible(&*self.identify(0x14, 0, 0)?))
    }

    /// Its secondary controllers.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn secondaries(&self) -> Result<Vec<Secondary>, CommandFault> {
        let mut all: Vec<Secondary> = Vec::new();
        for _ in 0..PAGES {
            let next = match all.last() {
                None => 0,
                Some(last) => match last.cntlid.checked_add(1) {
                    Some(next) => next,
                    None => break,
                },
            };
            let page = secondaries(&*self.identify(0x15, 0, next)?);
            let is_last = page.len() < 127;
            all.extend(page.into_iter().filter(|one| one.cntlid >= next));
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    /// The namespaces of a list: `0x02` those attached to it, `0x10` all of the subsystem.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn namespaces(&self, cns: u8) -> Result<Vec<u32>, CommandFault> {
        let mut all: Vec<u32> = Vec::new();
        for _ in 0..PAGES {
            let after = all.last().copied().unwrap_or(0);
            // Greater ones follow; these two have none.
            if after >= 0xffff_fffe {
                break;
            }
            let page = namespaces(&*self.identify(cns, after, 0)?);
            let is_last = page.len() < PAGE_LEN / 4;
            all.extend(page.into_iter().filter(|nsid| *nsid > after));
            if is_last || all.last().copied().unwrap_or(0) == after {
                break;
            }
        }
        Ok(all)
    }

    /// How a namespace of the subsystem lies, attached or not; `None` where there is none.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn layout(&self, nsid: u32) -> Result<Option<Layout>, CommandFault> {
        Ok(Layout::parse(&*self.identify(0x11, nsid, 0)?))
    }

    /// The controllers that a namespace is attached to.
    ///
    /// # Errors
    /// As of [`Self::order`].
    pub fn attached(&self, nsid: u32) -> Result<BTreeSet<u16>, CommandFault> {
        Ok(controllers(&*self.identify(0x12, nsid, 0)?))
    }
}

/// Numbers and texts of a page; zero behind its end.
struct Reader<'a>(&'a Page);

impl Reader<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().unwrap_or([0; N])
    }

    fn byte(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.bytes(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn u128(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.bytes(at))
    }

    /// Printable characters, without the spaces and zeros around them; others become `?`.
    fn text(&self, at: usize, len: usize) -> String {
        let bytes = self.0.0.get(at..at + len).unwrap_or_default();
        let text: String = bytes
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| match byte {
                b' '..=b'~' => char::from(*byte),
                _ => '?',
            })
            .collect();
        text.trim().to_owned()
    }

    /// The digits; `None` for zeros.
    fn hex(&self, at: usize, len: usize) -> Option<String> {
        let bytes = self.0.0.get(at..at + len)?;
        let is_set = bytes.iter().any(|byte| *byte != 0);
        is_set.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
#[path = "controller_test.rs"]
mod tests;
