//! `--message-format json`: the event stream for programs.

use std::io::{self, Write};

use crate::Event;

/// Writes every event as one line of JSON, immediately.
#[derive(Debug)]
pub struct JsonLines<W> {
    sink: W,
}

impl<W: Write> JsonLines<W> {
    /// A writer to this sink, usually standard output.
    pub const fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Writes one event and flushes it. Returns the sink's error: nobody reads any more.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.sink.write_all(&line)?;
        self.sink.flush()
    }
}
