//! One command: what it is given and what came of it.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, TrySendError},
    time::Instant,
};

use super::{Sink, wake::Wake};

/// A command to run in the guest.
#[derive(Debug)]
pub struct Exec {
    /// A script for `sh`, whatever the login shell is. Quote what is not ours.
    pub command: String,
    /// What it reads.
    pub stdin: Stdin,
    /// Where its standard output goes, without what the login shell prints before it.
    pub stdout: Sink,
    /// Where its standard error goes, likewise.
    pub stderr: Sink,
    /// When it must be over.
    pub deadline: Instant,
    /// What its being over means.
    pub until: Until,
}

/// When a command is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its process has ended, and nobody holds its output open any more: all of the output is there.
    Silent,
    /// Its process has ended. Processes it left behind may hold its output open; what they say is still taken until they are quiet for
    /// so long.
    Ended {
        /// How long both outputs must be quiet.
        quiet: std::time::Duration,
    },
}

impl Exec {
    /// A short command: of its output only the end is kept.
    pub fn new(command: impl Into<String>, stdin: Stdin, deadline: Instant) -> Self {
        Self { command: command.into(), stdin, stdout: Sink::Tail, stderr: Sink::Tail, deadline, until: Until::Silent }
    }
}

/// What a command reads.
#[derive(Debug)]
pub enum Stdin {
    /// Nothing: end of file at once.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// What is written to the [`StdinWriter`] made with it by [`super::Session::stdin_stream`], as it is written.
    Stream(Receiver<Vec<u8>>),
}

/// The writing end of [`Stdin::Stream`]; dropping it is end of file. Writing blocks while the guest does not read, so it is
/// for threads; async tasks use [`StdinWriter::try_send`].
#[derive(Debug)]
pub struct StdinWriter {
    /// `None` only while being dropped.
    chunks: Option<SyncSender<Vec<u8>>>,
    wake: Wake,
}

impl StdinWriter {
    pub(super) fn new(chunks: SyncSender<Vec<u8>>, wake: Wake) -> Self {
        Self { chunks: Some(chunks), wake }
    }

    /// Sends without ever blocking; `false` if the command is over or does not read.
    pub fn try_send(&self, bytes: &[u8]) -> bool {
        let sent = match self.chunks.as_ref().map(|chunks| chunks.try_send(bytes.to_vec())) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        };
        self.wake.wake();
        sent
    }
}

impl io::Write for StdinWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunks = self.chunks.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        chunks.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.wake.wake();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StdinWriter {
    fn drop(&mut self) {
        // In this order: the session's thread must find the channel closed when it wakes.
        self.chunks = None;
        self.wake.wake();
    }
}

/// How a command ended. That the server said nothing of it is no end: see [`super::SshError::NoStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it (a name without `SIG`).
    Killed(String),
    /// A sink that stops the command when full is full: how the command would have ended is unknown.
    Cut,
}

impl End {
    /// It exited with 0.
    pub fn success(&self) -> bool {
        matches!(self, Self::Exited(0))
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "killed by SIG{}", reports::clean::line(signal)),
            Self::Cut => f.write_str("cut short: too much output"),
        }
    }
}

/// How a command ended, and what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub end: End,
    /// When that was heard.
    pub at: Instant,
    /// The last bytes of its standard output, at most [`super::TAIL_BYTES`].
    pub stdout_tail: Vec<u8>,
    /// The last bytes of its standard error, at most [`super::TAIL_BYTES`].
    pub stderr_tail: Vec<u8>,
    /// How many bytes it wrote to standard output.
    pub stdout_bytes: u64,
    /// How many bytes it wrote to standard error.
    pub stderr_bytes: u64,
    /// What went wrong on our side of the streams, for example a full disk. The command was not disturbed by it.
    pub warnings: Vec<String>,
}

impl Exit {
    /// It exited with 0.
    pub fn success(&self) -> bool {
        self.end.success()
    }
}
