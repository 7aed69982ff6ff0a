//! Configuration space, written by hand: a header, and capabilities at the places where real devices have them.

/// A function's configuration space in the making.
#[derive(Clone)]
pub(crate) struct Config {
    bytes: Vec<u8>,
    last: usize,
    last_extended: usize,
}

impl Config {
    /// An endpoint; `class` is class, subclass and interface.
    pub(crate) fn endpoint(vendor: u16, device: u16, class: u32, revision: u8) -> Self {
        let mut config = Self {
            bytes: vec![0; 4096],
            last: 0x33,
            last_extended: 0,
        };
        config.put(0x00, &vendor.to_le_bytes());
        config.put(0x02, &device.to_le_bytes());
        // Memory space and bus master on; a list of capabilities.
        config.put(0x04, &[0x06, 0x04, 0x10, 0x00, revision]);
        config.put(0x09, &class.to_le_bytes()[..3]);
        config
    }

    /// A bridge between these buses.
    pub(crate) fn bridge(vendor: u16, device: u16, buses: [u8; 3]) -> Self {
        let mut config = Self::endpoint(vendor, device, 0x06_0400, 1);
        config.put(0x04, &[0x07]);
        config.put(0x0e, &[0x01]);
        config.put(0x18, &buses);
        config
    }

    /// A VF: ids read all ones, memory space is not switched by its own command register.
    pub(crate) fn vf(class: u32, revision: u8) -> Self {
        let mut config = Self::endpoint(0xffff, 0xffff, class, revision);
        config.put(0x04, &[0x00, 0x00]);
        config
    }

    /// One function of several in its slot.
    pub(crate) fn multi_function(mut self) -> Self {
        self.bytes[0x0e] |= 0x80;
        self
    }

    /// Subsystem vendor and device.
    pub(crate) fn subsystem(mut self, vendor: u16, device: u16) -> Self {
        self.put(0x2c, &vendor.to_le_bytes());
        self.put(0x2e, &device.to_le_bytes());
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Adds a capability at an offset above the earlier ones.
    pub(crate) fn cap(mut self, at: u8, id: u8, body: &[u8]) -> Self {
        let next = self.last + 1;
        self.bytes[next] = at;
        self.last = usize::from(at);
        self.put(self.last, &[id, 0]);
        self.put(self.last + 2, body);
        self
    }

    /// Power management, in D0.
    pub(crate) fn power(self, at: u8) -> Self {
        self.cap(at, 0x01, &[0x23, 0x00, 0x08, 0x00])
    }

    /// MSI, 64-bit, with `2^log` vectors, off.
    pub(crate) fn msi(self, at: u8, log: u8) -> Self {
        self.cap(at, 0x05, &[0x80 | log << 1, 0x01])
    }

    /// MSI-X: vectors, and BAR and offset of the table and of the pending bits.
    pub(crate) fn msix(self, at: u8, vectors: u16, table: (u32, u32), pending: (u32, u32)) -> Self {
        let mut body = Vec::from((vectors - 1).to_le_bytes());
        body.extend((table.0 | table.1).to_le_bytes());
        body.extend((pending.0 | pending.1).to_le_bytes());
        self.cap(at, 0x11, &body)
    }

    /// PCI Express of a port type; endpoints can be reset alone.
    pub(crate) fn express(self, at: u8, port: u8, speed: u8, width: u8) -> Self {
        let is_endpoint = port == 0;
        let mut body = vec![0x02 | port << 4, 0x00];
        let capabilities: u32 = if is_endpoint {
            0x1000_8fe2
        } else {
            0x0000_8022
        };
        body.extend(capabilities.to_le_bytes());
        // Device control: 256 bytes of payload; device status: nothing.
        body.extend([0x30, 0x29, 0x00, 0x00]);
        let link = u32::from(speed) | u32::from(width) << 4;
        body.extend((link | 0x0045_0c00).to_le_bytes());
        body.extend([0x40, 0x00, speed | width << 4, (width >> 4) | 0x10]);
        self.cap(at, 0x10, &body)
    }

    /// Adds an extended capability at an offset above the earlier ones; `body` follows its header.
    pub(crate) fn extended(mut self, at: u16, id: u16, version: u8, body: &[u8]) -> Self {
        let header = u32::from(id) | u32::from(version) << 16;
        self.put(usize::from(at), &header.to_le_bytes());
        self.put(usize::from(at) + 4, body);
        if self.last_extended != 0 {
            let place = self.last_extended + 2;
            let next = at << 4 | u16::from(self.bytes[place] & 0x0f);
            self.put(place, &next.to_le_bytes());
        }
        self.last_extended = usize::from(at);
        self
    }

    /// Advanced Error Reporting with the usual masks and severities.
    pub(crate) fn aer(self, at: u16) -> Self {
        let mut body = vec![0; 24];
        body[8..12].copy_from_slice(&0x0006_2030_u32.to_le_bytes());
        body[16..20].copy_from_slice(&0x0000_2000_u32.to_le_bytes());
        self.extended(at, 0x0001, 2, &body)
    }

    /// Access Control Services.
    pub(crate) fn acs(self, at: u16, capability: u16, control: u16) -> Self {
        let [a, b] = capability.to_le_bytes();
        let [c, d] = control.to_le_bytes();
        self.extended(at, 0x000d, 1, &[a, b, c, d])
    }

    /// Alternative Routing-ID Interpretation.
    pub(crate) fn ari(self, at: u16) -> Self {
        self.extended(at, 0x000e, 1, &[0, 0, 0, 0])
    }

    /// Address Translation Services, off.
    pub(crate) fn ats(self, at: u16) -> Self {
        self.extended(at, 0x000f, 1, &[0x60, 0, 0, 0])
    }

    /// SR-IOV, switched on if there are VFs.
    pub(crate) fn sriov(self, at: u16, total: u16, enabled: u16, vfs: &VfPlace) -> Self {
        let mut body = vec![0; 0x3c];
        body[0] = 2;
        // Enable, memory space enable, ARI.
        body[4] = if enabled > 0 { 0x19 } else { 0x10 };
        for (at, number) in [
            (8, total),
            (10, total),
            (12, enabled),
            (16, vfs.first),
            (18, vfs.stride),
            (22, vfs.device),
        ] {
            body[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        // Page sizes: 4 KiB to 4 MiB are offered, 4 KiB is used.
        body[24..28].copy_from_slice(&0x0553_u32.to_le_bytes());
        body[28..32].copy_from_slice(&1_u32.to_le_bytes());
        for (index, start) in &vfs.bars {
            let low = u32::try_from(start & 0xffff_ffff).unwrap() | 0xc;
            let high = u32::try_from(start >> 32).unwrap();
            let at = 32 + 4 * index;
            body[at..at + 4].copy_from_slice(&low.to_le_bytes());
            body[at + 4..at + 8].copy_from_slice(&high.to_le_bytes());
        }
        self.extended(at, 0x0010, 1, &body)
    }

    /// Places the 64-bit prefetchable memory BAR `index`.
    pub(crate) fn bar(&mut self, index: usize, start: u64) {
        let [low, high] = [start & 0xffff_ffff | 0xc, start >> 32];
        self.put(0x10 + 4 * index, &u32::try_from(low).unwrap().to_le_bytes());
        self.put(
            0x14 + 4 * index,
            &u32::try_from(high).unwrap().to_le_bytes(),
        );
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where an SR-IOV capability says that VFs are.
pub(crate) struct VfPlace {
    /// The first VF's offset, and the distance between two.
    pub(crate) first: u16,
    pub(crate) stride: u16,
    /// Device id of the VFs.
    pub(crate) device: u16,
    /// BAR and where the first VF's is.
    pub(crate) bars: Vec<(usize, u64)>,
}
