//! One command on a channel: feed its input, drain both its outputs together, learn how it ended.

use std::{
    io,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use super::{
    End, Exec, Exit, SshError, Stdin, Until,
    channel::{Channel, Output},
    sink::Drain,
    wire::{Line, would_block},
};

/// How long both streams must be quiet, once the main process is over, before whoever still holds them is ignored.
const QUIET: Duration = Duration::from_secs(1);
/// The longest such a wait takes even if they are never quiet.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the server has to acknowledge that a channel is closed.
const FAREWELL: Duration = Duration::from_secs(3);
/// What is read and written at once: one packet of SSH.
const PIECE: usize = 32 * 1024;
/// What is going on, in words for an error.
const RUNNING: &str = "a command runs";
const LINGERING: &str = "a command has ended, but something that it started holds its output open";

/// Runs one command to its end.
pub(super) fn run(line: &mut Line, exec: Exec) -> Result<Exit, SshError> {
    let refused = |what| move |error: ssh2::Error| SshError::Refused { what, reason: error.to_string() };
    let deadline = exec.deadline;
    let mut channel = line
        .drive("opening a channel", deadline, |line| Channel::open(&line.ssh))?
        .map_err(refused("open a channel"))?;
    line.drive("starting a command", deadline, |_| channel.exec(&exec.command))?.map_err(refused("run a command"))?;

    let mut pump = Pump {
        channel,
        feed: Feed::new(exec.stdin),
        stdout: Drain::open(exec.stdout),
        stderr: Drain::open(exec.stderr),
        until: exec.until,
        end: None,
        full: false,
        heard: Instant::now(),
        stuck: None,
    };
    let ended = pump.until_over(line, deadline);
    if !matches!(&ended, Ok(Over::Closed)) && !matches!(&ended, Err(error) if error.is_connection_lost()) {
        pump.close(line);
    }
    // Also after a failure: what came so far is on disk, complete with its end.
    pump.finish(ended)
}

/// Why a command is no longer listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The server closed the channel: everything has been said.
    Closed,
    /// Its process has ended; somebody else holds the streams open.
    Ended,
    /// A sink is full.
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Feed,
    Stdout,
    Stderr,
}

struct Pump {
    channel: Channel,
    feed: Feed,
    stdout: Drain,
    stderr: Drain,
    until: Until,
    /// How it ended, and when that was heard. Servers say it as soon as the process has ended, whoever still holds its streams.
    end: Option<(End, Instant)>,
    full: bool,
    /// When the last byte of the command came.
    heard: Instant,
    /// The call that has to be repeated before any other.
    stuck: Option<Step>,
}

impl Pump {
    fn until_over(&mut self, line: &mut Line, deadline: Instant) -> Result<Over, SshError> {
        let lost = |error: ssh2::Error| SshError::Lost { doing: RUNNING, reason: error.to_string() };
        let mut buffer = vec![0; PIECE];
        loop {
            let mut busy = false;
            for step in [Step::Feed, Step::Stdout, Step::Stderr] {
                busy |= self.step(step, line, &mut buffer).map_err(lost)?;
            }
            if self.full {
                return Ok(Over::Full);
            }
            self.note_end().map_err(lost)?;
            let patience = match &self.end {
                Some((_, at)) if self.until == Until::Ended => {
                    Some((*at + LAST_WORDS).min(self.heard.max(*at) + QUIET).min(deadline))
                }
                _ => None,
            };
            if patience.is_some_and(|until| Instant::now() >= until) {
                return Ok(Over::Ended);
            }
            let doing = if self.end.is_some() { LINGERING } else { RUNNING };
            if busy {
                line.go_on(doing, deadline)?;
                continue;
            }
            // The end of both streams is not the end of the command: its exit code may come after it, and it may still read.
            if self.stuck.is_none() && self.channel.is_at_eof() {
                match self.channel.wait_closed() {
                    Ok(()) => return Ok(Over::Closed),
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(lost(error)),
                }
            }
            line.wait(doing, deadline, patience)?;
        }
    }

    /// Remembers the first thing the server says of the end.
    fn note_end(&mut self) -> Result<(), ssh2::Error> {
        if self.end.is_none() {
            self.end = self.channel.end()?.map(|end| (end, Instant::now()));
        }
        Ok(())
    }

    /// One call of libssh2; whether it moved anything.
    fn step(&mut self, step: Step, line: &Line, buffer: &mut [u8]) -> Result<bool, ssh2::Error> {
        if self.stuck.is_some_and(|stuck| stuck != step) {
            return Ok(false);
        }
        let moved = match step {
            Step::Feed => self.feed.step(&mut self.channel),
            Step::Stdout => self.channel.read(Output::Stdout, buffer).map(|n| {
                self.full |= !self.stdout.take(&buffer[..n]);
                n > 0
            }),
            Step::Stderr => self.channel.read(Output::Stderr, buffer).map(|n| {
                self.full |= !self.stderr.take(&buffer[..n]);
                n > 0
            }),
        };
        match moved {
            Ok(moved) => {
                self.stuck = None;
                if moved && step != Step::Feed {
                    self.heard = Instant::now();
                }
                Ok(moved)
            }
            Err(error) if would_block(&error) => {
                self.stuck = line.is_stuck_sending().then_some(step);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Closes the channel so that the session can be used again; if that cannot be had soon, the session is given up.
    fn close(&mut self, line: &mut Line) {
        line.forget_caller();
        let deadline = Instant::now() + FAREWELL;
        let mut buffer = vec![0; PIECE];
        while let Some(step) = self.stuck {
            match self.step(step, line, &mut buffer) {
                Ok(_) if self.stuck.is_none() => {}
                Ok(_) if line.wait("closing a channel", deadline, None).is_ok() => {}
                _ => return line.give_up(),
            }
        }
        let channel = &mut self.channel;
        match line.drive("closing a channel", deadline, |_| channel.close()) {
            // A server that is slow to acknowledge does not hinder the next command.
            Ok(_) | Err(SshError::Timeout { .. }) if !line.is_stuck_sending() => {}
            _ => line.give_up(),
        }
    }

    fn finish(mut self, ended: Result<Over, SshError>) -> Result<Exit, SshError> {
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        let (end, at) = match ended? {
            Over::Full => (End::Cut, Instant::now()),
            Over::Closed | Over::Ended => self.end.take().ok_or(SshError::NoStatus)?,
        };
        let warning =
            |name: &str, failure: Option<io::Error>| failure.map(|error| format!("{name} could not be kept: {error}"));
        Ok(Exit {
            end,
            at,
            stdout_tail: stdout.tail,
            stderr_tail: stderr.tail,
            stdout_bytes: stdout.bytes,
            stderr_bytes: stderr.bytes,
            warnings: [warning("standard output", stdout.failure), warning("standard error", stderr.failure)]
                .into_iter()
                .flatten()
                .collect(),
        })
    }
}

/// What is still to be sent to a command.
struct Feed {
    piece: Vec<u8>,
    sent: usize,
    more: Option<Receiver<Vec<u8>>>,
    eof_sent: bool,
}

impl Feed {
    fn new(stdin: Stdin) -> Self {
        let (piece, more) = match stdin {
            Stdin::None => (Vec::new(), None),
            Stdin::Bytes(bytes) => (bytes, None),
            Stdin::Stream(more) => (Vec::new(), Some(more)),
        };
        Self { piece, sent: 0, more, eof_sent: false }
    }

    fn step(&mut self, channel: &mut Channel) -> Result<bool, ssh2::Error> {
        if self.sent == self.piece.len() {
            match self.more.as_ref().map(Receiver::try_recv) {
                Some(Ok(piece)) => (self.piece, self.sent) = (piece, 0),
                Some(Err(TryRecvError::Empty)) => return Ok(false),
                Some(Err(TryRecvError::Disconnected)) | None => self.more = None,
            }
        }
        if self.sent < self.piece.len() {
            let end = self.piece.len().min(self.sent + PIECE);
            let sent = channel.write(&self.piece[self.sent..end])?;
            self.sent += sent;
            return Ok(sent > 0);
        }
        if self.more.is_none() && !self.eof_sent {
            channel.send_eof()?;
            self.eof_sent = true;
        }
        Ok(false)
    }
}
