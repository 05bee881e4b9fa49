//! One TCP connection of a guest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;

/// A TCP connection that the guest opened.
///
/// Reads end at the guest's FIN, and fail when it resets the connection, when the connection was idle for too long and when the link ends.
/// Who does not read closes the connection's window, and only that. A shutdown is complete when the guest acknowledged all of it; dropped
/// before, the connection is reset.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    slot: usize,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, slot: usize) -> Self {
        Self { shared, slot }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.shared.stack().read(self.slot, buffer, cx);
        if polled.is_ready() {
            self.shared.work.notify_one();
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.shared.stack().write(self.slot, bytes, cx);
        if polled.is_ready() {
            self.shared.work.notify_one();
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.shared.stack().shutdown(self.slot, cx);
        self.shared.work.notify_one();
        polled
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.stack().release(self.slot);
        self.shared.work.notify_one();
    }
}
