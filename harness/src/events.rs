//! The event stream: every part of a run sends its events here, and the readers of the stream receive them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use reports::{Event, EventKind};
use tokio::sync::mpsc;

/// A clonable sender of events; the time is stamped here.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::UnboundedSender<Event>,
    /// What was said of the run as a whole, by [`Events::warn_once`].
    said: Arc<Mutex<HashSet<String>>>,
    /// What [`Event::clock_ms`] counts from.
    began: Instant,
}

impl Events {
    /// The sender and the one receiver.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, said: Arc::default(), began: Instant::now() }, receiver)
    }

    /// Sends one event. Never blocks; after the receiver is gone nobody is left to be told.
    pub fn send(&self, kind: EventKind) {
        let clock_ms = Some(self.began.elapsed().as_millis() as u64);
        let _ = self.sender.send(Event { at: jiff::Timestamp::now(), clock_ms, kind });
    }

    /// Sends a warning that is about the run and not about one cell, unless it has been sent: many cells may find the same.
    pub fn warn_once(&self, message: String) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(message.clone()) {
            self.send(EventKind::Warning { cell: None, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_cells_find_is_said_once() {
        let (events, mut received) = Events::channel();
        let other = events.clone();
        for events in [&events, &other, &events] {
            events.warn_once("the disk is small".to_owned());
        }
        other.warn_once("another".to_owned());
        drop((events, other));
        let mut said = Vec::new();
        while let Some(event) = received.blocking_recv() {
            if let EventKind::Warning { cell: None, message } = event.kind {
                said.push(message);
            }
        }
        assert_eq!(said, ["the disk is small", "another"]);
    }
}
