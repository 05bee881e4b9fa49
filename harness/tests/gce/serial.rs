//! What a machine prints on its serial port.

/// The last MiB of it (Compute Engine's documentation of `getSerialPortOutput`).
#[derive(Debug, Default)]
pub(super) struct Serial {
    /// The position of its first byte.
    start: u64,
    bytes: Vec<u8>,
}

impl Serial {
    const MOST: usize = 1 << 20;

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(Self::MOST);
        self.bytes.drain(..surplus);
        self.start += surplus as u64;
    }

    /// What there is from a position on: where it starts, the text, and where the next one starts.
    pub(super) fn from(&self, position: u64) -> (u64, String, u64) {
        let next = self.start + self.bytes.len() as u64;
        let start = position.clamp(self.start, next);
        let text = String::from_utf8_lossy(&self.bytes[(start - self.start) as usize..]).into_owned();
        (start, text, next)
    }

    pub(super) fn text(&self) -> String {
        self.from(0).1
    }
}
