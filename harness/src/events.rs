//! The way out: everything that happens is sent here, and from here goes to whoever reads the stream.

use reports::{Event, EventKind};
use tokio::sync::mpsc;

/// A clonable sender of events; the time is stamped here.
#[derive(Clone, Debug)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// The sender and the one receiver.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends one event. Never blocks; after the receiver is gone nobody is left to be told.
    pub fn send(&self, kind: EventKind) {
        let _ = self.0.send(Event { at: jiff::Timestamp::now(), kind });
    }
}
