//! What a made-up function says in its configuration space.

use super::{FakeHost, config::FakeConfig};

impl FakeHost {
    /// Gives it MSI-X with `vectors` entries: the table in BAR 3 at 0, the pending bits in BAR 3 at 0x2000.
    #[must_use]
    pub fn msix(self, vectors: u16) -> Self {
        self.last(|function| function.config.msix(vectors))
    }

    /// Gives it MSI with `2^log` vectors, and takes MSI-X away.
    #[must_use]
    pub fn msi(self, log: u8) -> Self {
        self.last(|function| function.config.msi(log))
    }

    /// Replaces configuration space, e.g. by 64 bytes, as without privilege, or by 256, as of a conventional device.
    #[must_use]
    pub fn config(self, bytes: &[u8]) -> Self {
        self.last(|function| function.config = FakeConfig::raw(bytes))
    }

    /// Sets the command register.
    #[must_use]
    pub fn command(self, command: u16) -> Self {
        self.last(|function| function.config.command(command))
    }

    /// Makes it a `PCIe` function of this device or port type: 0 an endpoint, 4 a root port, 5 and 6 a switch's ports.
    /// Endpoints can be reset alone; ports get a bridge's header.
    #[must_use]
    pub fn express(self, port: u8) -> Self {
        self.last(|function| function.config.express(port))
    }

    /// Takes the bit away that says it can be reset alone.
    #[must_use]
    pub fn no_flr_bit(self) -> Self {
        self.last(|function| function.config.flr(false))
    }

    /// Switches phantom functions on.
    #[must_use]
    pub fn phantom_functions_on(self) -> Self {
        self.last(|function| function.config.phantom_functions_on())
    }

    /// Gives it Access Control Services with these registers.
    #[must_use]
    pub fn acs(self, capability: u16, control: u16) -> Self {
        let [a, b] = capability.to_le_bytes();
        let [c, d] = control.to_le_bytes();
        self.last(|function| function.config.extended(0x000d, &[a, b, c, d]))
    }

    /// Takes Access Control Services away.
    #[must_use]
    pub fn no_acs(self) -> Self {
        self.last(|function| function.config.no_extended(0x000d))
    }

    /// Gives it Address Translation Services, switched on or off.
    #[must_use]
    pub fn ats(self, on: bool) -> Self {
        let enable = u8::from(on) << 7;
        self.last(|function| function.config.extended(0x000f, &[0, 0, 0, enable]))
    }

    /// Gives it the Page Request Interface, switched on or off.
    #[must_use]
    pub fn pri(self, on: bool) -> Self {
        self.last(|function| {
            function
                .config
                .extended(0x0013, &[u8::from(on), 0, 0, 1, 32, 0, 0, 0]);
        })
    }

    /// Gives it process address spaces, switched on or off.
    #[must_use]
    pub fn pasid(self, on: bool) -> Self {
        self.last(|function| {
            function
                .config
                .extended(0x001b, &[0, 0x14, u8::from(on), 0]);
        })
    }

    /// Gives it Advanced Error Reporting.
    #[must_use]
    pub fn aer_capability(self) -> Self {
        self.last(|function| function.config.extended(0x0001, &[0; 16]))
    }
}
