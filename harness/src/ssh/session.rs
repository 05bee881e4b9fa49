//! The handle to a session, for async callers.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    BannerStream, Exec, Exit, Keys, SshError, Stdin, StdinWriter,
    keeper::{self, Request},
    keys, login,
    wake::Wake,
    wire::{self, Credentials},
};

/// How much later than its deadline the session's thread may give up on a command before its socket is shut from outside:
/// it closes the command's channel first. Also ends a libssh2 that a hostile server keeps busy.
const SLACK: Duration = Duration::from_secs(10);

/// How to open a session.
#[derive(Debug)]
pub struct Open<'a> {
    /// The connection: one that [`super::banner`] found, or any other at whose end a server speaks first.
    pub stream: BannerStream,
    /// The account in the guest.
    pub user: &'a str,
    /// Commands are run by root through `sudo`, which must ask for no password.
    pub sudo: bool,
    /// The keys of which its `authorized_keys` holds at least one.
    pub login: &'a Keys,
    /// The guest's host keys as public lines ([`Keys::public`]).
    pub host_keys: [&'a str; 2],
    /// When the session must stand.
    pub deadline: Instant,
    /// How long the guest may be silent, though asked, before the session counts as lost (already scaled; at least some
    /// seconds: a guest under software emulation stalls).
    pub silence: Duration,
    /// Ends the session and everything on it.
    pub cancel: CancellationToken,
}

/// An authenticated session on which commands run one after the other. Dropping it closes the connection and ends its thread.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::Sender<Request>,
    wake: Wake,
    ended: Arc<AtomicBool>,
    /// The connection ended while no command was to be told of it.
    cut: Arc<AtomicBool>,
    socket: OwnedFd,
    heard: wire::Heard,
    cancel: CancellationToken,
    watcher: tokio::task::AbortHandle,
    /// Commands are run through `sudo`: the login user is not root.
    sudo: bool,
}

impl Session {
    /// How long a guest may be silent by default, before scaling.
    pub const SILENCE: Duration = Duration::from_secs(60);

    /// Opens a session: handshake, pinned host key, login, and a first command (`true`) answered.
    pub async fn open(open: Open<'_>) -> Result<Self, SshError> {
        let local = |what: &str| {
            let what = what.to_owned();
            move |source| SshError::Local { what, source }
        };
        let stream = open.stream.socket;
        let socket = stream.try_clone().map_err(local("the socket cannot be shared"))?;
        let wake = Wake::new().map_err(local("no eventfd"))?;
        let bad_key =
            |error: keys::KeyError| SshError::Handshake { reason: format!("the guest's own host keys: {error}") };
        let credentials = Credentials {
            user: open.user.to_owned(),
            private: open.login.private().map(str::to_owned),
            host_keys: keys::Pinned::new(open.host_keys).map_err(bad_key)?,
            deadline: open.deadline,
        };
        let ended = Arc::new(AtomicBool::new(false));
        let (requests, inbox) = mpsc::channel();
        let (ready, opened) = oneshot::channel();
        let heard = wire::Heard::now();
        let line = wire::Line::new(stream, wake.clone(), Arc::clone(&ended), open.silence, heard.clone())?;
        let cut = Arc::clone(&line.cut);
        std::thread::Builder::new()
            .name("ssh".to_owned())
            .spawn(move || keeper::serve(line, &credentials, ready, &inbox))
            .map_err(local("no thread for the session"))?;

        let watcher = {
            let (cancel, ended, wake) = (open.cancel.clone(), Arc::clone(&ended), wake.clone());
            tokio::spawn(async move {
                cancel.cancelled().await;
                ended.store(true, Ordering::Release);
                wake.wake();
            })
            .abort_handle()
        };
        let session = Self { requests, wake, ended, cut, socket, heard, cancel: open.cancel, watcher, sudo: open.sudo };
        session.answer(opened, open.deadline, "connecting").await?;
        let hello = Exec::new("true", Stdin::None, open.deadline);
        let exit = session.exec(hello).await?;
        if !exit.success() {
            let said = String::from_utf8_lossy(&exit.stderr_tail);
            let said = said.lines().next().map(|line| format!(": {}", reports::clean::line(line))).unwrap_or_default();
            let reason = format!("`true` ended with {}{said}", exit.end);
            return Err(SshError::Refused { what: "run a first command", reason });
        }
        Ok(session)
    }

    /// Runs one command to its end; a second one waits for the first. Dropping the future ends the command's channel, not
    /// the process in the guest.
    ///
    /// # Errors
    /// The connection's or the deadline's. How the command itself ended is in [`Exit`].
    pub async fn exec(&self, exec: Exec) -> Result<Exit, SshError> {
        let mark = login::fresh_mark();
        let line = login::line(&exec.command, &mark, self.sudo);
        if line.len() > login::LONGEST {
            let reason =
                format!("it has {} bytes on its way through the login shell, limit {}", line.len(), login::LONGEST);
            return Err(SshError::Refused { what: "run a command", reason });
        }
        let deadline = exec.deadline;
        let (reply, answer) = oneshot::channel();
        let given_up = GiveUp { flag: Arc::new(AtomicBool::new(false)), wake: &self.wake };
        let request = Request { exec, line, mark, given_up: Arc::clone(&given_up.flag), reply };
        if self.requests.send(request).is_err() {
            return Err(self.gone("starting a command"));
        }
        self.wake.wake();
        self.answer(answer, deadline, "running a command").await
    }

    /// For how long the guest has given no sign of life. Counts only while a command runs: it is asked for one every few seconds then.
    pub fn silent_for(&self) -> Duration {
        self.heard.at().elapsed()
    }

    /// A writer and the [`Stdin`] of a command of this session that reads what it writes.
    pub fn stdin_stream(&self) -> (StdinWriter, Stdin) {
        // Eight pieces: enough to keep the guest busy, and memory stays bounded by the writer's own piece size.
        let (chunks, rest) = mpsc::sync_channel(8);
        (StdinWriter::new(chunks, self.wake.clone()), Stdin::Stream(rest))
    }

    async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, SshError>>,
        deadline: Instant,
        doing: &'static str,
    ) -> Result<T, SshError> {
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(self.gone(doing))),
            () = self.cancel.cancelled() => Err(SshError::Cancelled),
            () = tokio::time::sleep_until((deadline + SLACK).into()) => {
                let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
                Err(SshError::Timeout { doing })
            }
        }
    }

    fn gone(&self, doing: &'static str) -> SshError {
        if self.cancel.is_cancelled() {
            SshError::Cancelled
        } else {
            let reason = "the session has ended".to_owned();
            if self.cut.load(Ordering::Acquire) {
                SshError::Lost { doing, reason }
            } else {
                // Whatever ended it was said to another, or to nobody.
                SshError::Broken { doing, reason }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.watcher.abort();
        self.ended.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.wake.wake();
    }
}

/// Tells the thread that nobody waits for this command any more.
struct GiveUp<'a> {
    flag: Arc<AtomicBool>,
    wake: &'a Wake,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Release);
        self.wake.wake();
    }
}
