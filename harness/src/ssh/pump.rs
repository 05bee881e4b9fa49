//! One command on a channel: feed its input, drain both its outputs together, learn how it ended.

use std::{
    io::{self, Read as _, Write as _},
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use ssh2::Channel;

use super::{
    Exec, Exit, SshError, Stdin,
    over::OverMark,
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

/// Runs one command to its end.
pub(super) fn run(line: &mut Line, exec: Exec) -> Result<Exit, SshError> {
    let refused = |what| move |error: ssh2::Error| SshError::Refused { what, reason: error.to_string() };
    let deadline = exec.deadline;
    let mut channel = line
        .drive("opening a channel", deadline, |line| line.ssh.channel_session())?
        .map_err(refused("open a channel"))?;
    line.drive("starting a command", deadline, |_| channel.exec(&exec.command))?.map_err(refused("run a command"))?;

    let mut pump = Pump {
        channel,
        feed: Feed::new(exec.stdin),
        stdout: Drain::open(exec.stdout),
        stderr: Drain::open(exec.stderr),
        over: exec.over.map(OverMark::new),
        full: false,
        heard: Instant::now(),
        stuck: None,
    };
    let ended = pump.until_over(line, deadline);
    if !matches!(&ended, Ok(End::Closed)) && !matches!(&ended, Err(error) if error.is_connection_lost()) {
        pump.close(line);
    }
    // Also after a failure: what came so far is on disk, complete with its end.
    pump.finish(ended)
}

/// Why a command is no longer listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server closed the channel: everything has been said.
    Closed,
    /// The main process is over; somebody else holds the streams open.
    Over,
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
    over: Option<OverMark>,
    full: bool,
    /// When the last byte of the command came.
    heard: Instant,
    /// The call that has to be repeated before any other.
    stuck: Option<Step>,
}

impl Pump {
    fn until_over(&mut self, line: &mut Line, deadline: Instant) -> Result<End, SshError> {
        let doing = "a command runs";
        let mut buffer = vec![0; PIECE];
        let mut over_since = None;
        loop {
            line.go_on(doing, deadline)?;
            let mut busy = false;
            for step in [Step::Feed, Step::Stdout, Step::Stderr] {
                busy |= self
                    .step(step, line, &mut buffer)
                    .map_err(|error| SshError::Lost { doing, reason: error.to_string() })?;
            }
            if self.full {
                return Ok(End::Full);
            }
            if over_since.is_none() && self.over.as_ref().is_some_and(|mark| mark.seen) {
                over_since = Some(Instant::now());
            }
            let patience = over_since.map(|since: Instant| (since + LAST_WORDS).min(self.heard.max(since) + QUIET));
            if patience.is_some_and(|until| Instant::now() >= until) {
                return Ok(End::Over);
            }
            if busy {
                continue;
            }
            // The end of both streams is not the end of the command: its exit code may come after it, and it may still read.
            if self.stuck.is_none() && self.channel.eof() {
                match self.channel.wait_close() {
                    Ok(()) => return Ok(End::Closed),
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(SshError::Lost { doing, reason: error.to_string() }),
                }
            }
            line.wait(doing, deadline, patience)?;
        }
    }

    /// One call of libssh2; whether it moved anything.
    fn step(&mut self, step: Step, line: &Line, buffer: &mut [u8]) -> io::Result<bool> {
        if self.stuck.is_some_and(|stuck| stuck != step) {
            return Ok(false);
        }
        let moved = match step {
            Step::Feed => self.feed.step(&mut self.channel),
            Step::Stdout => self.channel.read(buffer).map(|n| {
                self.full |= !self.stdout.take(&buffer[..n]);
                n > 0
            }),
            Step::Stderr => self.channel.stderr().read(buffer).map(|n| {
                let taken = match &mut self.over {
                    Some(mark) => self.stderr.take(&mark.pass(&buffer[..n])),
                    None => self.stderr.take(&buffer[..n]),
                };
                self.full |= !taken;
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
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
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

    fn finish(mut self, ended: Result<End, SshError>) -> Result<Exit, SshError> {
        if let Some(mark) = &mut self.over {
            self.stderr.take(&mark.rest());
        }
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        let ended = ended?;
        let warning =
            |name: &str, failure: Option<io::Error>| failure.map(|error| format!("{name} could not be kept: {error}"));
        let (mut code, mut signal) = (None, None);
        if ended != End::Full {
            signal = self.channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
            if signal.is_none() {
                code = self.channel.exit_status().ok();
            }
        }
        Ok(Exit {
            code,
            signal,
            stdout_tail: stdout.tail,
            stderr_tail: stderr.tail,
            stdout_bytes: stdout.bytes,
            stderr_bytes: stderr.bytes,
            cut: ended == End::Full,
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

    fn step(&mut self, channel: &mut Channel) -> io::Result<bool> {
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
