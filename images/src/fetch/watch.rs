//! Every wait of a download checks the cancel flag and the clock here.

use std::{
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    FetchError, Limits,
    client::{Head, Message, Network, Request},
    page,
    trouble::Trouble,
};
use crate::Control;

/// Interval of these checks.
const TICK: Duration = Duration::from_millis(100);

/// The limits of one download, and its cancel flag.
pub(super) struct Watch<'a> {
    pub(super) limits: &'a Limits,
    pub(super) control: &'a Control<'a>,
    deadline: Instant,
    network: Network,
}

/// Why something was not finished.
#[derive(Debug)]
pub(super) enum Stop {
    /// No other server can help.
    Fatal(FetchError),
    /// The total time limit is reached.
    Overdue,
    /// Another server can help, or the same one later.
    Miss(Miss),
}

/// The failure of one request.
#[derive(Debug)]
pub(super) struct Miss {
    pub(super) trouble: Trouble,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// It did send bytes that are kept.
    pub(super) made_progress: bool,
    /// The kept bytes may be the cause: they were discarded, so the same server may succeed now.
    pub(super) discarded: bool,
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Miss(Miss { trouble, retry_after: None, made_progress: false, discarded: false })
    }
}

impl From<FetchError> for Stop {
    fn from(error: FetchError) -> Self {
        Self::Fatal(error)
    }
}

impl<'a> Watch<'a> {
    /// Starts now.
    pub(super) fn start(limits: &'a Limits, control: &'a Control<'a>) -> Self {
        let now = Instant::now();
        // A limit beyond the range of the clock is no limit.
        let deadline = now.checked_add(limits.overall).unwrap_or(now + Duration::from_secs(365 * 24 * 60 * 60));
        Self { limits, control, deadline, network: Network::new(limits) }
    }

    /// Reports progress.
    pub(super) fn report(&self, line: &str) {
        (self.control.progress)(line);
    }

    /// Fails if it is cancelled or overdue.
    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.control.cancel.load(Ordering::Relaxed) {
            return Err(FetchError::Cancelled.into());
        }
        if Instant::now() >= self.deadline { Err(Stop::Overdue) } else { Ok(()) }
    }

    /// Waits.
    pub(super) fn pause(&self, length: Duration) -> Result<(), Stop> {
        let end = Instant::now() + length;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }
}

/// The answer to one request, as it arrives.
pub(super) struct Answering<'a> {
    heard: Receiver<Message>,
    watch: &'a Watch<'a>,
    last: Instant,
}

/// What comes after the head.
#[derive(Debug)]
pub(super) enum Body {
    Chunk(Vec<u8>),
    End,
    Broken(String),
    /// Nothing yet.
    Nothing,
}

impl<'a> Answering<'a> {
    /// Makes a request and waits for the head of the answer.
    pub(super) fn to(request: Request, watch: &'a Watch<'a>) -> Result<(Head, Self), Stop> {
        let heard = watch.network.ask(request);
        let answering = Self { heard, watch, last: Instant::now() };
        let limit = watch.limits.connect + watch.limits.idle;
        loop {
            watch.check()?;
            match answering.heard.recv_timeout(TICK) {
                Ok(Message::Head(head)) => return Ok((*head, Self { last: Instant::now(), ..answering })),
                Ok(Message::Failed(trouble)) => return Err(trouble.into()),
                Ok(Message::Chunk(_) | Message::End | Message::Broken(_)) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Trouble::Unreachable { reason: "the request failed".to_owned() }.into());
                }
                Err(RecvTimeoutError::Timeout) if answering.last.elapsed() >= limit => {
                    let reason = format!("no answer: timeout after {} s", limit.as_secs_f64());
                    return Err(Trouble::Unreachable { reason }.into());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What comes next, within a tick; `received` bytes of the file are there so far.
    pub(super) fn next(&mut self, received: u64) -> Result<Body, Stop> {
        self.watch.check()?;
        let body = match self.heard.recv_timeout(TICK) {
            Ok(Message::Chunk(chunk)) => Body::Chunk(chunk),
            Ok(Message::End) => Body::End,
            Ok(Message::Broken(reason)) => Body::Broken(reason),
            Ok(Message::Failed(trouble)) => return Err(trouble.into()),
            Ok(Message::Head(_)) | Err(RecvTimeoutError::Disconnected) => {
                Body::Broken("the connection was closed".to_owned())
            }
            Err(RecvTimeoutError::Timeout) => {
                let limit = self.watch.limits.idle;
                if self.last.elapsed() >= limit {
                    return Err(Trouble::Silent { limit, received }.into());
                }
                return Ok(Body::Nothing);
            }
        };
        self.last = Instant::now();
        Ok(body)
    }

    /// The first bytes, enough to identify them, or all that arrive for a while; and how it ended, if it did.
    pub(super) fn beginning(&mut self) -> Result<(Vec<u8>, Option<Body>), Stop> {
        let mut beginning = Vec::new();
        let began = Instant::now();
        while beginning.len() < page::INSPECTED_BYTES && began.elapsed() < self.watch.limits.slow_window {
            match self.next(0)? {
                Body::Chunk(chunk) => beginning.extend(chunk),
                Body::Nothing => {}
                end => return Ok((beginning, Some(end))),
            }
        }
        Ok((beginning, None))
    }

    /// An HTTP error with its body, as far as it arrives.
    pub(super) fn refusal(mut self, head: &Head, trouble: Trouble) -> Stop {
        let trouble = match trouble {
            Trouble::Status { code, name, .. } => match self.beginning() {
                Ok((words, _)) => Trouble::Status { code, name, line: page::words(&words) },
                Err(Stop::Miss(_)) => trouble,
                Err(stop) => return stop,
            },
            other => other,
        };
        Stop::Miss(Miss { trouble, retry_after: head.retry_after, made_progress: false, discarded: false })
    }
}
