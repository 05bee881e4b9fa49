//! The network card that smoltcp sees.

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::frames::{FrameWriter, MTU};

/// Ethernet, IPv4 and TCP headers without options: a frame that carries no byte of a connection.
const BARE: usize = 14 + 20 + 20;

/// One received frame, at most, and the frames to send.
pub(super) struct Phy<'a> {
    frame: Option<&'a [u8]>,
    output: &'a mut FrameWriter,
    sent_data: bool,
}

impl<'a> Phy<'a> {
    pub(super) fn new(frame: Option<&'a [u8]>, output: &'a mut FrameWriter) -> Self {
        Self { frame, output, sent_data: false }
    }

    /// Whether a frame with more than headers was sent.
    pub(super) fn sent_data(&self) -> bool {
        self.sent_data
    }
}

pub(super) struct Received<'a>(&'a [u8]);

pub(super) struct Sending<'a> {
    output: &'a mut FrameWriter,
    sent_data: &'a mut bool,
}

impl Device for Phy<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let frame = self.frame.take()?;
        Some((Received(frame), Sending { output: self.output, sent_data: &mut self.sent_data }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        (!self.output.is_full()).then_some(Sending { output: self.output, sent_data: &mut self.sent_data })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        // A socket does not flip bits, and a hostile guest can compute a checksum. The guest verifies what it gets.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        *self.sent_data |= len > BARE;
        self.output.push(len, f)
    }
}
