//! Waking a thread that waits in poll(2).

use std::{io, os::fd::OwnedFd, sync::Arc};

/// A clonable alarm: a clone of it ends the poll of the thread that watches it.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<OwnedFd>);

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the current or the next poll.
    pub(super) fn wake(&self) {
        // Fails only if the counter is at its end, and then the alarm rings already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Takes note of the alarm: the next poll waits again.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}
