//! Frames in a byte stream: each has its length before it, four bytes, the most significant first (QEMU: net/stream.c).

use std::io;
use std::ops::Range;

use super::LinkError;

/// The longest frame QEMU sends, in bytes (QEMU: include/net/net.h, NET_BUFSIZE).
pub(super) const MAX_FRAME: usize = 4096 + 65536;

/// The longest frame that is sent to the guest, in bytes, without its length.
pub(super) const MTU: usize = 14 + 1500;

const LENGTH: usize = 4;

/// Some reads' worth of frames: fewer system calls, and always more than one frame.
const READ_BUFFER: usize = 256 * 1024;

/// Frames from the guest.
pub(super) struct FrameReader {
    buffer: Box<[u8]>,
    /// What was read and not taken.
    pending: Range<usize>,
}

impl FrameReader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; READ_BUFFER].into_boxed_slice(), pending: 0..0 }
    }

    /// Takes the next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, LinkError> {
        let Some((length, rest)) = self.buffer[self.pending.clone()].split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size == 0 || size > MAX_FRAME {
            return Err(LinkError::FrameLength(length));
        }
        if rest.len() < size {
            return Ok(None);
        }
        let start = self.pending.start + LENGTH;
        self.pending.start = start + size;
        Ok(Some(&self.buffer[start..start + size]))
    }

    /// Reads once, with `read`, what there is. False at the end of the stream. To be called when [`Self::next`] has no more.
    pub(super) fn read(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        self.buffer.copy_within(self.pending.clone(), 0);
        self.pending = 0..self.pending.len();
        match read(&mut self.buffer[self.pending.end..]) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.pending.end += n;
                Ok(true)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(e) => Err(e),
        }
    }
}

/// Frames for the guest, as one batch.
pub(super) struct FrameWriter {
    buffer: Vec<u8>,
    written: usize,
    /// Bytes from which on the batch is full. It is then not filled again before all of it is written, so that each connection has its
    /// turn and not only the first one.
    limit: usize,
}

impl FrameWriter {
    /// A batch with room for some frames of each connection.
    pub(super) fn new(connections: usize) -> Self {
        let limit = connections.saturating_mul(2 * (LENGTH + MTU)).max(128 * 1024);
        Self { buffer: Vec::new(), written: 0, limit }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= self.limit
    }

    /// Adds a frame of `size` bytes that `fill` writes. It is lost when there is no room even for answers.
    pub(super) fn push<R>(&mut self, size: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        // Answers to what the guest sends come on top of what the connections have to send, which stops when the batch is full.
        if self.buffer.len() >= 2 * self.limit {
            return fill(&mut vec![0; size]);
        }
        let length = u32::try_from(size).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        let start = self.buffer.len();
        self.buffer.resize(start + size, 0);
        fill(&mut self.buffer[start..])
    }

    /// Writes, with `write`, as much as it takes.
    pub(super) fn write(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while self.written < self.buffer.len() {
            match write(&self.buffer[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.buffer.clear();
        self.written = 0;
        Ok(())
    }
}
