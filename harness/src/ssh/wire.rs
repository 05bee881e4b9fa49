//! A connection: libssh2 in its non-blocking mode, and poll(2) whenever it has nothing to do.
//!
//! One rule of libssh2 shapes this file: when a packet went out only in part, the very same call must be repeated until it is
//! through; any other call that sends fails with "bad use". So a call that is stuck in sending is remembered and is repeated first.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, ErrorCode, MethodType};

use super::{SshError, channel, keys::Pinned, offer, wake::Wake};

/// libssh2 wants at least two seconds between two requests for a sign of life.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(2);
/// A guest that says nothing is asked for a sign of life at least so often.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(5);
/// This thread listens again so soon after the time at which it should, or else nestmatrix itself stood still: it was stopped, or this
/// machine was. That is not the guest's silence.
const PUNCTUAL: Duration = Duration::from_secs(2);

/// When the guest last gave a sign of life, for those who do not drive the connection.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Nobody listened for so long.
    fn forgive(&self, absence: Duration) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *at = (*at + absence).min(Instant::now());
    }
}

/// Our key, and the host keys we expect.
pub(super) struct Credentials {
    pub(super) user: String,
    /// The login keys, of the same kinds in the same order as the host keys.
    pub(super) private: [String; 2],
    pub(super) host_keys: Pinned,
    pub(super) deadline: Instant,
}

/// A connection and everything needed to wait on it.
pub(super) struct Line {
    pub(super) ssh: ssh2::Session,
    socket: OwnedFd,
    pub(super) wake: Wake,
    pub(super) ended: Arc<AtomicBool>,
    /// Set when the connection ended while nobody was to be told of it.
    pub(super) cut: Arc<AtomicBool>,
    /// Set when nobody waits for the command that runs any more.
    pub(super) given_up: Option<Arc<AtomicBool>>,
    pub(super) silence: Duration,
    /// When the guest last gave a sign of life while we listened.
    pub(super) heard: Heard,
    /// When it was last asked for one.
    asked: Instant,
    /// By when we were to listen again.
    listening_by: Instant,
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
        heard: Heard,
    ) -> Result<Self, SshError> {
        let local = |source| SshError::Local { what: "the socket cannot be used".to_owned(), source };
        rustix::io::ioctl_fionbio(&stream, true).map_err(|error| local(error.into()))?;
        let socket = stream.try_clone().map_err(local)?;
        let mut ssh = ssh2::Session::new().map_err(|error| SshError::Handshake { reason: error.to_string() })?;
        ssh.set_tcp_stream(stream);
        ssh.set_blocking(false);
        // Who is silent for too long is for us to say, and time limits are scaled.
        channel::wait_for_answers(&ssh, 2 * silence);
        Ok(Self {
            ssh,
            socket,
            wake,
            ended,
            cut: Arc::default(),
            given_up: None,
            silence,
            heard,
            asked: Instant::now(),
            listening_by: Instant::now(),
            watching: false,
            given_up_on: false,
        })
    }

    pub(super) fn open(&mut self, credentials: &Credentials) -> Result<(), SshError> {
        let deadline = credentials.deadline;
        let failed = |error: ssh2::Error| SshError::Handshake { reason: error.to_string() };
        // The keys we gave the guest are of these kinds; with another one it would not be our guest.
        let algorithms = credentials.host_keys.algorithms();
        self.ssh.method_pref(MethodType::HostKey, &algorithms.join(",")).map_err(failed)?;
        self.drive("shaking hands", deadline, |line| line.ssh.handshake())?.map_err(|error| {
            let disagreement = offer::disagreement(&self.ssh, &self.socket, &algorithms);
            disagreement.filter(|_| is_of_key_exchange(&error)).unwrap_or_else(|| failed(error))
        })?;

        let offered = self.ssh.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
        let shown = credentials.host_keys.find(&offered);
        let shown = shown.map_err(|(expected, offered)| SshError::HostKey { expected, offered })?;
        self.log_in(credentials, &algorithms, shown)?;

        self.ssh.set_keepalive(true, SHORTEST_KEEPALIVE.as_secs() as u32);
        self.watching = true;
        self.heard.note();
        Ok(())
    }

    /// With the key of the kind that the server has just shown, which it takes for logins too as a rule, or else with the other.
    fn log_in(&mut self, credentials: &Credentials, algorithms: &[String], first: usize) -> Result<(), SshError> {
        let mut refusals = Vec::new();
        for at in [first, 1 - first] {
            let tried = self.drive("logging in", credentials.deadline, |line| {
                line.ssh.userauth_pubkey_memory(&credentials.user, None, &credentials.private[at], None)
            })?;
            match tried {
                Ok(()) => return Ok(()),
                Err(error) => refusals.push(format!("{} key: {error}", algorithms[at])),
            }
        }
        Err(SshError::Auth { user: credentials.user.clone(), reason: refusals.join("; ") })
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
                Err(error) => match lost(doing, &error) {
                    Some(lost) => return Err(lost),
                    None => return Ok(Err(error)),
                },
                done => return Ok(done),
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
        self.notice_absence();
        let interest = match self.ssh.block_directions() {
            BlockDirections::Outbound => PollFlags::OUT,
            BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::IN,
        };
        self.ask_for_life(interest);

        let mut until = deadline.min(pause.unwrap_or(deadline));
        if self.watching {
            until = until.min(self.heard.at() + self.silence);
            // While something of ours waits to go out nothing is asked, so there is nothing to wake up for.
            if !interest.contains(PollFlags::OUT) {
                until = until.min(self.asked.max(self.heard.at()) + self.patience());
            }
        }
        let timeout = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.socket, interest), PollFd::new(self.wake.fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SshError::Broken { doing, reason: format!("poll: {error}") }),
        }
        let [socket, alarm] = fds.map(|fd| fd.revents());
        self.listening_by = until;
        self.notice_absence();
        if alarm.contains(PollFlags::IN) {
            self.wake.clear();
        }
        // Room to send is no sign of life: QEMU takes what the guest never will.
        if socket.contains(PollFlags::IN) {
            self.heard.note();
        } else if self.watching && self.heard.at().elapsed() >= self.silence {
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

    /// No further command is run here; `why`, if the connection has ended.
    pub(super) fn give_up(&mut self, why: Option<&SshError>) {
        self.given_up_on = true;
        if matches!(why, Some(SshError::Lost { .. })) {
            self.cut.store(true, Ordering::Release);
        }
    }

    /// Something of ours is on its way out only in part.
    pub(super) fn is_stuck_sending(&self) -> bool {
        matches!(self.ssh.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
    }

    /// Takes the time in which we stood still for no silence of the guest.
    fn notice_absence(&mut self) {
        let now = Instant::now();
        let absence = now.saturating_duration_since(self.listening_by);
        if absence > PUNCTUAL {
            self.heard.forgive(absence);
        }
        self.listening_by = now;
    }

    fn patience(&self) -> Duration {
        (self.silence / 4).clamp(SHORTEST_KEEPALIVE, LONGEST_KEEPALIVE)
    }

    fn ask_for_life(&mut self, interest: PollFlags) {
        let due = self.asked.max(self.heard.at()) + self.patience();
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

/// The two sides could not agree on algorithms.
fn is_of_key_exchange(error: &ssh2::Error) -> bool {
    use libssh2_sys::{LIBSSH2_ERROR_KEX_FAILURE, LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE, LIBSSH2_ERROR_METHOD_NONE};
    matches!(
        error.code(),
        ErrorCode::Session(LIBSSH2_ERROR_KEX_FAILURE | LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE | LIBSSH2_ERROR_METHOD_NONE)
    )
}

/// What an error means after which no call on this session can succeed.
pub(super) fn lost(doing: &'static str, error: &ssh2::Error) -> Option<SshError> {
    use libssh2_sys::{
        LIBSSH2_ERROR_BAD_SOCKET, LIBSSH2_ERROR_BAD_USE, LIBSSH2_ERROR_DECRYPT, LIBSSH2_ERROR_INVALID_MAC,
        LIBSSH2_ERROR_OUT_OF_BOUNDARY, LIBSSH2_ERROR_PROTO, LIBSSH2_ERROR_SOCKET_DISCONNECT, LIBSSH2_ERROR_SOCKET_RECV,
        LIBSSH2_ERROR_SOCKET_SEND, LIBSSH2_ERROR_SOCKET_TIMEOUT,
    };
    let reason = error.to_string();
    match error.code() {
        ErrorCode::Session(
            LIBSSH2_ERROR_SOCKET_DISCONNECT
            | LIBSSH2_ERROR_SOCKET_RECV
            | LIBSSH2_ERROR_SOCKET_SEND
            | LIBSSH2_ERROR_SOCKET_TIMEOUT,
        ) => Some(SshError::Lost { doing, reason }),
        ErrorCode::Session(
            LIBSSH2_ERROR_BAD_SOCKET
            | LIBSSH2_ERROR_BAD_USE
            | LIBSSH2_ERROR_DECRYPT
            | LIBSSH2_ERROR_INVALID_MAC
            | LIBSSH2_ERROR_OUT_OF_BOUNDARY
            | LIBSSH2_ERROR_PROTO,
        ) => Some(SshError::Broken { doing, reason }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_which_nestmatrix_itself_stood_still_is_no_silence_of_the_guest() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let silence = Duration::from_secs(60);
        let mut line = Line::new(ours.into(), Wake::new().unwrap(), Arc::default(), silence, Heard::now()).unwrap();
        let long_ago = Instant::now().checked_sub(2 * silence).unwrap();
        *line.heard.0.lock().unwrap() = long_ago - Duration::from_secs(10);
        (line.listening_by, line.watching) = (long_ago, true);
        let soon = Some(Instant::now());
        line.wait("it is tried", Instant::now() + silence, soon).unwrap();
        let silent = line.heard.at().elapsed();
        assert!((10..15).contains(&silent.as_secs()), "what it was silent before that counts: {silent:?}");

        *line.heard.0.lock().unwrap() = long_ago;
        let error = line.wait("it is tried", Instant::now() + silence, soon).unwrap_err();
        assert!(matches!(error, SshError::Frozen { .. }), "nobody was away: {error}");
    }

    #[test]
    fn an_end_of_the_connection_is_told_from_what_may_be_a_fault_of_ours_and_from_an_answer() {
        use libssh2_sys::{LIBSSH2_ERROR_CHANNEL_FAILURE, LIBSSH2_ERROR_PROTO, LIBSSH2_ERROR_SOCKET_RECV};
        let of = |code| lost("it is tried", &ssh2::Error::new(ErrorCode::Session(code), "why"));
        assert!(matches!(of(LIBSSH2_ERROR_SOCKET_RECV), Some(SshError::Lost { .. })));
        assert!(matches!(of(LIBSSH2_ERROR_PROTO), Some(SshError::Broken { .. })));
        assert!(of(LIBSSH2_ERROR_CHANNEL_FAILURE).is_none());
    }
}
