//! A connection: libssh2 in its non-blocking mode, and poll(2) whenever it has nothing to do.
//!
//! One rule of libssh2 shapes this file: when a packet went out only in part, the very same call must be repeated until it is
//! through; any other call that sends fails with "bad use". So whoever is stuck in sending is remembered and goes first.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, ErrorCode, MethodType};

use super::{SshError, keys, wake::Wake};

/// libssh2 wants at least two seconds between two requests for a sign of life.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(2);

/// Who we are and whom we expect.
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) private: String,
    /// The guest's host key in wire format.
    pub(super) host_key: Vec<u8>,
    pub(super) deadline: Instant,
}

/// A connection and everything needed to wait on it.
pub(super) struct Line {
    pub(super) ssh: ssh2::Session,
    socket: OwnedFd,
    pub(super) wake: Wake,
    pub(super) ended: Arc<AtomicBool>,
    /// Set when nobody waits for the command that runs any more.
    pub(super) given_up: Option<Arc<AtomicBool>>,
    pub(super) silence: Duration,
    /// When the guest last gave a sign of life while we listened.
    pub(super) heard: Instant,
    /// When it was last asked for one.
    asked: Instant,
    /// Signs of life are asked for: only once logged in.
    watching: bool,
    /// The connection is of no more use.
    pub(super) given_up_on: bool,
}

impl Line {
    pub(super) fn new(
        stream: OwnedFd,
        wake: Wake,
        ended: Arc<AtomicBool>,
        silence: Duration,
    ) -> Result<Self, SshError> {
        let local = |source| SshError::Local { what: "the socket cannot be used".to_owned(), source };
        rustix::io::ioctl_fionbio(&stream, true).map_err(|error| local(error.into()))?;
        let socket = stream.try_clone().map_err(local)?;
        let mut ssh = ssh2::Session::new().map_err(|error| SshError::Handshake { reason: error.to_string() })?;
        ssh.set_tcp_stream(stream);
        ssh.set_blocking(false);
        let now = Instant::now();
        Ok(Self {
            ssh,
            socket,
            wake,
            ended,
            given_up: None,
            silence,
            heard: now,
            asked: now,
            watching: false,
            given_up_on: false,
        })
    }

    pub(super) fn open(&mut self, credentials: &Credentials) -> Result<(), SshError> {
        let deadline = credentials.deadline;
        let handshake_failed = |error: ssh2::Error| SshError::Handshake { reason: error.to_string() };
        // The guest has one host key, and it is of this kind.
        self.ssh.method_pref(MethodType::HostKey, "ssh-ed25519").map_err(handshake_failed)?;
        self.drive("shaking hands", deadline, |line| line.ssh.handshake())?.map_err(handshake_failed)?;

        let offered = self.ssh.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
        if offered != credentials.host_key {
            return Err(SshError::HostKey {
                expected: keys::fingerprint(&credentials.host_key),
                offered: keys::fingerprint(&offered),
            });
        }
        self.drive("logging in", deadline, |line| {
            line.ssh.userauth_pubkey_memory(&credentials.user, None, &credentials.private, None)
        })?
        .map_err(|error| SshError::Auth { user: credentials.user.clone(), reason: error.to_string() })?;

        self.ssh.set_keepalive(true, SHORTEST_KEEPALIVE.as_secs() as u32);
        self.watching = true;
        self.heard = Instant::now();
        Ok(())
    }

    /// Repeats a call until it is through. The outer error is the connection's, the inner one the server's.
    pub(super) fn drive<T>(
        &mut self,
        doing: &'static str,
        deadline: Instant,
        mut call: impl FnMut(&mut Self) -> Result<T, ssh2::Error>,
    ) -> Result<Result<T, ssh2::Error>, SshError> {
        loop {
            match call(self) {
                Err(error) if would_block(&error) => self.wait(doing, deadline, None)?,
                Err(error) if is_lost(&error) => return Err(SshError::Lost { doing, reason: error.to_string() }),
                other => return Ok(other),
            }
        }
    }

    /// Waits until libssh2 can go on, the alarm rings, or it is `pause`. Errors: told to stop, deadline, silence.
    pub(super) fn wait(
        &mut self,
        doing: &'static str,
        deadline: Instant,
        pause: Option<Instant>,
    ) -> Result<(), SshError> {
        self.go_on(doing, deadline)?;
        let interest = match self.ssh.block_directions() {
            BlockDirections::Outbound => PollFlags::OUT,
            BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::IN,
        };
        self.ask_for_life(interest);

        let mut until = deadline.min(pause.unwrap_or(deadline));
        if self.watching {
            until = until.min(self.heard + self.silence);
            // While something of ours waits to go out nothing is asked, so there is nothing to wake up for.
            if !interest.contains(PollFlags::OUT) {
                until = until.min(self.asked.max(self.heard) + self.patience());
            }
        }
        let timeout = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.socket, interest), PollFd::new(self.wake.fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SshError::Lost { doing, reason: format!("poll: {error}") }),
        }
        let [socket, alarm] = fds.map(|fd| fd.revents());
        if alarm.contains(PollFlags::IN) {
            self.wake.clear();
        }
        if socket.intersects(PollFlags::IN | PollFlags::OUT) {
            self.heard = Instant::now();
        } else if self.watching && self.heard.elapsed() >= self.silence {
            return Err(SshError::Frozen { doing, silence: self.silence });
        }
        Ok(())
    }

    /// Whether there is reason to stop; to be asked also while there is always something to do.
    pub(super) fn go_on(&self, doing: &'static str, deadline: Instant) -> Result<(), SshError> {
        let given_up = self.given_up.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire));
        if self.ended.load(Ordering::Acquire) || given_up {
            return Err(SshError::Cancelled);
        }
        if Instant::now() >= deadline {
            return Err(SshError::Timeout { doing });
        }
        Ok(())
    }

    /// The command in hand is being ended: that its caller has gone away is no more news.
    pub(super) fn forget_caller(&mut self) {
        self.given_up = None;
    }

    /// No further command is run here.
    pub(super) fn give_up(&mut self) {
        self.given_up_on = true;
    }

    /// Something of ours is on its way out only in part.
    pub(super) fn is_stuck_sending(&self) -> bool {
        matches!(self.ssh.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
    }

    fn patience(&self) -> Duration {
        (self.silence / 4).max(SHORTEST_KEEPALIVE)
    }

    fn ask_for_life(&mut self, interest: PollFlags) {
        let due = self.asked.max(self.heard) + self.patience();
        // A request that went out only in part could never be completed (libssh2 keeps no copy), so there must be room for it.
        if !self.watching || interest.contains(PollFlags::OUT) || Instant::now() < due {
            return;
        }
        self.asked = Instant::now();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        if poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::OUT) {
            // A failure shows in the call that is being waited for.
            let _ = self.ssh.keepalive_send();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Before libssh2 says goodbye: on a closed socket it frees its memory at once instead of asking to be called again.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

pub(super) fn would_block(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_EAGAIN)
}

/// Errors after which no call on this session can succeed.
fn is_lost(error: &ssh2::Error) -> bool {
    use libssh2_sys::{
        LIBSSH2_ERROR_BAD_SOCKET, LIBSSH2_ERROR_BAD_USE, LIBSSH2_ERROR_DECRYPT, LIBSSH2_ERROR_INVALID_MAC,
        LIBSSH2_ERROR_PROTO, LIBSSH2_ERROR_SOCKET_DISCONNECT, LIBSSH2_ERROR_SOCKET_RECV, LIBSSH2_ERROR_SOCKET_SEND,
        LIBSSH2_ERROR_SOCKET_TIMEOUT,
    };
    matches!(
        error.code(),
        ErrorCode::Session(
            LIBSSH2_ERROR_BAD_SOCKET
                | LIBSSH2_ERROR_BAD_USE
                | LIBSSH2_ERROR_DECRYPT
                | LIBSSH2_ERROR_INVALID_MAC
                | LIBSSH2_ERROR_PROTO
                | LIBSSH2_ERROR_SOCKET_DISCONNECT
                | LIBSSH2_ERROR_SOCKET_RECV
                | LIBSSH2_ERROR_SOCKET_SEND
                | LIBSSH2_ERROR_SOCKET_TIMEOUT
        )
    )
}
