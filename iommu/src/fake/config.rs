//! Configuration space in the making: headers, and capabilities linked into their two lists.

/// What [`super::FakeHost`] builds of a function's configuration space; as long as it is, or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeConfig(Vec<u8>);

/// Device and port types that carry a header of type 1.
const BRIDGES: std::ops::RangeInclusive<u8> = 4..=8;
const ROOT_PORT: u8 = 4;

impl FakeConfig {
    /// A whole space with an empty header and no capability.
    pub(super) fn whole() -> Self {
        Self(vec![0; 0x1000])
    }

    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn ids(&mut self, vendor: u16, device: u16, class: u32) {
        self.set(0x00, &vendor.to_le_bytes());
        self.set(0x02, &device.to_le_bytes());
        let [programming, sub, base, _] = class.to_le_bytes();
        self.set(0x09, &[programming, sub, base]);
    }

    pub(super) fn command(&mut self, command: u16) {
        self.set(0x04, &command.to_le_bytes());
    }

    /// Whether it has a bridge's header.
    pub(super) fn is_bridge(&self) -> bool {
        self.get(0x0e) & 0x7f == 1
    }

    /// The numbers of the buses on both sides, of a bridge.
    pub(super) fn buses(&mut self, primary: u8, secondary: u8, subordinate: u8) {
        if self.is_bridge() {
            self.set(0x18, &[primary, secondary, subordinate]);
        }
    }

    pub(super) fn msix(&mut self, vectors: u16) {
        let [low, high] = vectors.saturating_sub(1).to_le_bytes();
        self.unlink(MSI_AT);
        self.link(MSIX_AT, 0x11);
        self.set(MSIX + 2, &[low, high, 3, 0, 0, 0, 3, 0x20, 0, 0]);
    }

    pub(super) fn msi(&mut self, log: u8) {
        self.unlink(MSIX_AT);
        self.link(MSI_AT, 0x05);
        self.set(MSI + 2, &[log << 1, 0]);
    }

    /// The `PCIe` capability; endpoints can be reset alone.
    pub(super) fn express(&mut self, port: u8) {
        self.link(EXPRESS_AT, 0x10);
        // Version 2; a root port has a slot behind it.
        let slot = u8::from(port == ROOT_PORT);
        self.set(EXPRESS + 2, &[2 | port << 4, slot]);
        self.set(EXPRESS + 4, &[0; 8]);
        let is_bridge = BRIDGES.contains(&port);
        self.flr(!is_bridge);
        let many = self.get(0x0e) & 0x80;
        self.set(0x0e, &[many | u8::from(is_bridge)]);
    }

    /// Device Capabilities bit 28.
    pub(super) fn flr(&mut self, has: bool) {
        let byte = self.get(EXPRESS + 7) & !0x10;
        self.set(EXPRESS + 7, &[byte | u8::from(has) << 4]);
    }

    /// Device Control bit 9.
    pub(super) fn phantom_functions_on(&mut self) {
        let byte = self.get(EXPRESS + 9);
        self.set(EXPRESS + 9, &[byte | 2]);
    }

    /// Puts an extended capability at the end of the list, or in place of one of the same identifier.
    pub(super) fn extended(&mut self, id: u16, body: &[u8]) {
        let at = self.find_extended(id).unwrap_or_else(|last| {
            let at = if last == 0 { 0x100 } else { last + 0x40 };
            if let (Ok(next), true) = (u16::try_from(at), last != 0) {
                let version = self.get(last + 2) & 0xf;
                let [low, high] = (next << 4 | u16::from(version)).to_le_bytes();
                self.set(last + 2, &[low, high]);
            }
            self.set(at, &id.to_le_bytes());
            self.set(at + 2, &[1, 0]);
            at
        });
        self.set(at + 4, body);
    }

    /// Turns an extended capability into the null capability, which keeps its place in the list.
    pub(super) fn no_extended(&mut self, id: u16) {
        if let Ok(at) = self.find_extended(id) {
            self.set(at, &[0, 0]);
        }
    }

    /// Where an extended capability is; else where the last one is, 0 for none.
    fn find_extended(&self, id: u16) -> Result<usize, usize> {
        let mut last = 0;
        let mut at = 0x100;
        while at != 0 && (self.word(at) | self.word(at + 2)) != 0 {
            if self.word(at) == id {
                return Ok(at);
            }
            last = at;
            // A list that goes back is a test's own; nothing is added to it.
            let next = usize::from(self.word(at + 2) >> 4);
            at = if next > at { next } else { 0 };
        }
        Err(last)
    }

    /// Puts a capability at the head of the conventional list, unless it is in it.
    fn link(&mut self, place: u8, id: u8) {
        if self.find(place).is_none() {
            let first = self.get(0x34);
            self.set(place.into(), &[id, first]);
            self.set(0x34, &[place]);
            self.set(0x06, &[0x10]);
        }
    }

    fn unlink(&mut self, place: u8) {
        if let Some(before) = self.find(place) {
            let next = self.get(usize::from(place) + 1);
            self.set(before, &[next]);
        }
    }

    /// The place of the pointer to a capability of the conventional list.
    fn find(&self, wanted: u8) -> Option<usize> {
        let mut pointer = 0x34;
        for _ in 0..48 {
            match self.get(pointer) {
                0 => return None,
                at if at == wanted => return Some(pointer),
                at => pointer = usize::from(at) + 1,
            }
        }
        None
    }

    fn get(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.get(at), self.get(at + 1)])
    }

    /// Sets what lies within the space.
    fn set(&mut self, at: usize, bytes: &[u8]) {
        for (place, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    }
}

// Where the capabilities of the conventional list are: as a pointer in it, and as an offset.
const MSI_AT: u8 = 0x50;
const MSIX_AT: u8 = 0x70;
const EXPRESS_AT: u8 = 0xa0;
const MSI: usize = MSI_AT as usize;
const MSIX: usize = MSIX_AT as usize;
const EXPRESS: usize = EXPRESS_AT as usize;
