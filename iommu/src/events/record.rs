//! Records of `/dev/kmsg`.

/// One record: its head and the first line of its text.
///
/// *Source:* `Documentation/ABI/testing/dev-kmsg` (v6.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Number of the record; each is one more than that before it.
    pub sequence: u64,
    /// Who logged it; see [`Record::is_of_the_kernel`].
    pub facility: u32,
    /// The text, without its line break.
    pub text: &'a str,
}

impl<'a> Record<'a> {
    /// The most bytes that one read of `/dev/kmsg` gives: `PRINTK_MESSAGE_MAX`.
    pub const MAX_BYTES: usize = 8192;

    /// Reads `PRIORITY,SEQUENCE,TIME,FLAGS[,…];TEXT`; `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(..Self::MAX_BYTES).unwrap_or(bytes)).ok()?;
        let (head, rest) = text.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u32 = number(fields.next()?)?;
        let sequence = number(fields.next()?)?;
        // Time and flags; what later kernels add is not of interest.
        fields.next()?;
        fields.next()?;
        Some(Self {
            sequence,
            facility: priority >> 3,
            text: rest.lines().next().unwrap_or_default(),
        })
    }

    /// Whether the kernel wrote it. What a process writes to `/dev/kmsg` has another facility, whatever it asks for.
    #[must_use]
    pub const fn is_of_the_kernel(&self) -> bool {
        self.facility == 0
    }
}

/// A decimal number without a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}
