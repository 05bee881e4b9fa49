//! One command on a channel: feed its input, drain both its outputs together, learn how it ended.

use std::{
    io,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use super::{
    End, Exec, Exit, Sink, SshError, Stdin, Until,
    channel::{Channel, Output},
    login::{self, Start, TooMuch},
    sink::Drain,
    wire::{self, Line, would_block},
};

/// So many times the quiet that is waited for is the longest wait for it, where the streams are never quiet.
const NEVER_QUIET: u32 = 5;
/// How long the server has to acknowledge that a channel is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// What is read and written at once: one packet of SSH.
const PIECE: usize = 32 * 1024;
/// Most characters that are shown of what a login shell printed.
const SHOWN: usize = 300;
/// What is going on, in words for an error.
const STARTING: &str = "the login shell starts a command";
const RUNNING: &str = "a command runs";
const LINGERING: &str = "a command has ended, but something that it started holds its output open";

/// An error of a command that runs: no other call does better.
fn lost(error: ssh2::Error) -> SshError {
    let none = || SshError::Broken { doing: RUNNING, reason: error.to_string() };
    wire::lost(RUNNING, &error).unwrap_or_else(none)
}

/// Runs one command to its end: the login shell is sent `command`, which says `mark` before all else.
pub(super) fn run(line: &mut Line, exec: Exec, command: &str, mark: &str) -> Result<Exit, SshError> {
    let refused = |what| move |error: ssh2::Error| SshError::Refused { what, reason: error.to_string() };
    let deadline = exec.deadline;
    let mut channel = line
        .drive("opening a channel", deadline, |line| Channel::open(&line.ssh))?
        .map_err(refused("open a channel"))?;
    line.drive("starting a command", deadline, |_| channel.exec(command))?.map_err(refused("run a command"))?;

    let mut pump = Pump {
        channel,
        feed: Feed::new(exec.stdin),
        stdout: Stream::new(mark, exec.stdout),
        stderr: Stream::new(mark, exec.stderr),
        until: exec.until,
        started_by: Instant::now() + line.silence,
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
    stdout: Stream,
    stderr: Stream,
    until: Until,
    /// When the command's own output must have begun.
    started_by: Instant,
    /// How it ended, and when that was heard. Servers say it as soon as the process has ended, even if another process still holds its streams.
    end: Option<(End, Instant)>,
    full: bool,
    /// When the last byte of the command came.
    heard: Instant,
    /// The call that has to be repeated before any other.
    stuck: Option<Step>,
}

impl Pump {
    fn until_over(&mut self, line: &mut Line, deadline: Instant) -> Result<Over, SshError> {
        let mut buffer = vec![0; PIECE];
        loop {
            let mut busy = false;
            for step in [Step::Feed, Step::Stdout, Step::Stderr] {
                busy |= self.step(step, line, &mut buffer)?;
            }
            if self.full {
                return Ok(Over::Full);
            }
            self.note_end().map_err(lost)?;
            let patience = match &self.end {
                Some((_, at)) => match self.until {
                    Until::Ended { quiet } => {
                        Some((*at + quiet * NEVER_QUIET).min(self.heard.max(*at) + quiet).min(deadline))
                    }
                    Until::Silent => None,
                },
                None => (!self.has_started()).then_some(self.started_by),
            };
            if patience.is_some_and(|until| Instant::now() >= until) {
                if self.end.is_some() {
                    return Ok(Over::Ended);
                }
                let how = format!("it has not done so within {} s", line.silence.as_secs());
                return Err(self.not_started(how));
            }
            let doing = match &self.end {
                Some(_) => LINGERING,
                None if self.has_started() => RUNNING,
                None => STARTING,
            };
            if busy {
                line.go_on(doing, deadline)?;
                continue;
            }
            // The end of both streams is not the end of the command: its exit code may come after it, and it may still read.
            if self.stuck.is_none() && self.channel.is_at_eof() {
                match self.channel.wait_closed() {
                    Ok(()) => {
                        // What it read may have been that.
                        self.note_end().map_err(lost)?;
                        return Ok(Over::Closed);
                    }
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(lost(error)),
                }
            }
            line.wait(doing, deadline, patience)?;
        }
    }

    /// The command itself runs, or has run, and both of its streams are ours.
    fn has_started(&self) -> bool {
        self.stdout.start.seen() && self.stderr.start.seen()
    }

    fn not_started(&self, how: String) -> SshError {
        let said =
            [&self.stdout, &self.stderr].map(|stream| String::from_utf8_lossy(stream.start.instead()).into_owned());
        let lines: Vec<String> = said.iter().flat_map(|said| said.lines()).map(reports::clean::line).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        let said = match lines[lines.len().saturating_sub(3)..].join("; ") {
            nothing if nothing.is_empty() => String::new(),
            said => format!("; it said: {}", said.chars().take(SHOWN).collect::<String>()),
        };
        SshError::NotStarted { how, said }
    }

    /// Remembers the first thing the server says of the end.
    fn note_end(&mut self) -> Result<(), ssh2::Error> {
        if self.end.is_none() {
            self.end = self.channel.end()?.map(|end| (end, Instant::now()));
        }
        Ok(())
    }

    /// One call of libssh2; whether it moved anything.
    fn step(&mut self, step: Step, line: &Line, buffer: &mut [u8]) -> Result<bool, SshError> {
        if self.stuck.is_some_and(|stuck| stuck != step) {
            return Ok(false);
        }
        let moved = match step {
            // What a start-up file of the login shell may read is not the command's input.
            Step::Feed if !self.stdout.start.seen() && !self.feed.is_empty() => return Ok(false),
            Step::Feed => self.feed.step(&mut self.channel),
            Step::Stdout => self.channel.read(Output::Stdout, buffer),
            Step::Stderr => self.channel.read(Output::Stderr, buffer),
        };
        match moved {
            Ok(n) => {
                self.stuck = None;
                let stream = match step {
                    Step::Feed => return Ok(n > 0),
                    Step::Stdout => &mut self.stdout,
                    Step::Stderr => &mut self.stderr,
                };
                if n > 0 {
                    self.heard = Instant::now();
                    line.heard.note();
                    match stream.take(&buffer[..n]) {
                        Ok(taken) => self.full |= !taken,
                        Err(TooMuch) => {
                            return Err(
                                self.not_started(format!("it printed more than {} bytes first", login::MOST_BEFORE))
                            );
                        }
                    }
                }
                Ok(n > 0)
            }
            Err(error) if would_block(&error) => {
                self.stuck = line.is_stuck_sending().then_some(step);
                Ok(false)
            }
            Err(error) => Err(lost(error)),
        }
    }

    /// Closes the channel so that the session can be used again; if the server does not acknowledge it in time, the session is given up.
    fn close(&mut self, line: &mut Line) {
        line.forget_caller();
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let mut buffer = vec![0; PIECE];
        while let Some(step) = self.stuck {
            match self.step(step, line, &mut buffer) {
                Ok(_) if self.stuck.is_none() => {}
                Ok(_) => {
                    if let Err(error) = line.wait("closing a channel", deadline, None) {
                        return line.give_up(Some(&error));
                    }
                }
                Err(error) => return line.give_up(Some(&error)),
            }
        }
        let channel = &mut self.channel;
        match line.drive("closing a channel", deadline, |_| channel.close()) {
            // A server that is slow to acknowledge does not hinder the next command.
            Ok(_) | Err(SshError::Timeout { .. }) if !line.is_stuck_sending() => {}
            closed => line.give_up(closed.err().as_ref()),
        }
    }

    fn finish(mut self, ended: Result<Over, SshError>) -> Result<Exit, SshError> {
        let ended = ended.and_then(|over| match (over, self.end.take()) {
            (Over::Full, _) => Ok((End::Cut, Instant::now())),
            (_, None) => Err(SshError::NoStatus),
            // Whatever it ended with is the login shell's own.
            (_, Some((end, _))) if !self.has_started() => Err(self.not_started(format!("it ended first ({end})"))),
            (_, Some(ended)) => Ok(ended),
        });
        let (stdout, stderr) = (self.stdout.drain.finish(), self.stderr.drain.finish());
        let (end, at) = ended?;
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

/// One of a command's outputs.
struct Stream {
    start: Start,
    drain: Drain,
}

impl Stream {
    fn new(mark: &str, sink: Sink) -> Self {
        Self { start: Start::new(mark), drain: Drain::open(sink) }
    }

    /// Takes what came; `false` when the command is to be cut short.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, TooMuch> {
        let own = self.start.pass(bytes)?;
        Ok(own.is_empty() || self.drain.take(own))
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

    /// Nothing will ever be sent but the end.
    fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.more.is_none()
    }

    /// How many bytes went out.
    fn step(&mut self, channel: &mut Channel) -> Result<usize, ssh2::Error> {
        if self.sent == self.piece.len() {
            match self.more.as_ref().map(Receiver::try_recv) {
                Some(Ok(piece)) => (self.piece, self.sent) = (piece, 0),
                Some(Err(TryRecvError::Empty)) => return Ok(0),
                Some(Err(TryRecvError::Disconnected)) | None => self.more = None,
            }
        }
        if self.sent < self.piece.len() {
            let end = self.piece.len().min(self.sent + PIECE);
            let sent = channel.write(&self.piece[self.sent..end])?;
            self.sent += sent;
            return Ok(sent);
        }
        if self.more.is_none() && !self.eof_sent {
            channel.send_eof()?;
            self.eof_sent = true;
        }
        Ok(0)
    }
}
