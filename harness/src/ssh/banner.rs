//! The wait for an SSH server's first words.
//!
//! QEMU's user network accepts a connection before the guest has a server, or even a network, and a connection that was
//! asked for too early is only tried again by it after seconds. So several probes wait side by side: a new one starts every
//! half second, the first that brings a banner wins, and that very connection is used. Probes are few and live briefly,
//! because each costs the guest a process; but they live the longer the longer it takes, so that a guest that is merely slow
//! to answer is answered to in the end.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// A connection whose server has said `SSH-`; nothing of it has been read yet.
#[derive(Debug)]
pub struct BannerStream {
    pub(super) socket: OwnedFd,
}

impl BannerStream {
    /// A connected stream socket whose server is about to say `SSH-`.
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

/// No SSH server answered.
#[derive(Debug, thiserror::Error)]
pub enum BannerError {
    /// The deadline came first.
    #[error("no SSH server answered on {addr} in time: {last}")]
    Timeout {
        /// Where we asked.
        addr: SocketAddr,
        /// What came of the attempts.
        last: String,
    },
    /// Something else answers on that port.
    #[error("what answers on {addr} is not an SSH server: it said {said:?}")]
    NotSsh {
        /// Where we asked.
        addr: SocketAddr,
        /// Its first bytes.
        said: String,
    },
    /// We were told to stop.
    #[error("cancelled")]
    Cancelled,
    /// This machine could not even try.
    #[error("no connection to {addr} can be tried: {source}")]
    Local {
        /// Where we asked.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Most probes open at once.
const PROBES: usize = 6;
/// Time between the starts of two probes.
const INTERVAL: Duration = Duration::from_millis(500);
/// The shortest life of a probe.
const SHORT_LIFE: Duration = Duration::from_secs(3);
/// The longest life of a probe.
const LONG_LIFE: Duration = Duration::from_secs(30);
/// A server may say a few lines before its banner (RFC 4253, 4.2), but not a novel.
const PREAMBLE: usize = 8 * 1024;

/// Waits until an SSH server speaks on `addr` and returns that connection; what it said is still to be read.
pub async fn banner(
    addr: SocketAddr,
    deadline: Instant,
    cancel: &CancellationToken,
) -> Result<BannerStream, BannerError> {
    let started = Instant::now();
    let mut probes: JoinSet<Result<TcpStream, Silence>> = JoinSet::new();
    let mut last = "no connection was made".to_owned();
    let mut tick = time::interval(INTERVAL);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(BannerError::Cancelled),
            Some(probe) = probes.join_next() => match probe {
                Ok(Ok(stream)) => {
                    let socket = stream.set_nodelay(true).and_then(|()| stream.into_std()).map(OwnedFd::from);
                    let socket = socket.map_err(|source| BannerError::Local { addr, source })?;
                    return Ok(BannerStream { socket });
                }
                Ok(Err(Silence::Other(said))) => return Err(BannerError::NotSsh { addr, said }),
                Ok(Err(Silence::Local(source))) => return Err(BannerError::Local { addr, source }),
                Ok(Err(Silence::NotYet(what))) => last = what,
                Err(_) => {}
            },
            () = time::sleep_until(deadline.into()) => return Err(BannerError::Timeout { addr, last }),
            _ = tick.tick(), if probes.len() < PROBES => {
                let life = life(started.elapsed());
                probes.spawn(async move {
                    time::timeout(life, probe(addr)).await.unwrap_or_else(|_| {
                        Err(Silence::NotYet("the connection was accepted, but nobody spoke".to_owned()))
                    })
                });
            }
        }
    }
}

/// How long a probe may live that starts so long after the first: a guest so busy that its server needs longer than
/// [`SHORT_LIFE`] to speak must not be kept busy by probes that never wait long enough.
fn life(waited: Duration) -> Duration {
    (waited / 5).clamp(SHORT_LIFE, LONG_LIFE)
}

/// Why a probe brought no banner.
enum Silence {
    /// Worth another try.
    NotYet(String),
    /// Something else lives there.
    Other(String),
    /// This machine is out of sockets or the like.
    Local(io::Error),
}

async fn probe(addr: SocketAddr) -> Result<TcpStream, Silence> {
    let not_yet = |error: io::Error| Silence::NotYet(error.to_string());
    let stream = TcpStream::connect(addr).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::TimedOut
        | io::ErrorKind::Interrupted => not_yet(error),
        _ => Silence::Local(error),
    })?;
    let mut said = vec![0; PREAMBLE];
    let mut before = 0;
    loop {
        let n = stream.peek(&mut said).await.map_err(not_yet)?;
        if n == 0 {
            return Err(Silence::NotYet("the connection was accepted and closed again".to_owned()));
        }
        if has_banner(&said[..n]) {
            return Ok(stream);
        }
        if n == said.len() {
            return Err(Silence::Other(clean(&said[..80])));
        }
        // What was peeked at stays readable, so readiness says nothing new; and bytes do not dribble in often.
        if n == before {
            time::sleep(Duration::from_millis(20)).await;
        }
        before = n;
    }
}

/// The banner line has begun: it may stand after other lines.
fn has_banner(said: &[u8]) -> bool {
    said.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"SSH-"))
}

/// A guest's words, fit for one line of ours.
fn clean(words: &[u8]) -> String {
    String::from_utf8_lossy(words).trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    /// The next bytes of the connection.
    fn unread(found: BannerStream, bytes: usize) -> String {
        let mut first = vec![0; bytes];
        let mut found = std::net::TcpStream::from(found.socket);
        found.set_nonblocking(false).unwrap();
        io::Read::read_exact(&mut found, &mut first).unwrap();
        String::from_utf8(first).unwrap()
    }

    #[tokio::test]
    async fn the_first_probe_that_is_spoken_to_wins_and_its_banner_is_still_to_be_read() {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            // Like slirp: the first connections are accepted and left alone.
            let _first = listener.accept().await.unwrap();
            let _second = listener.accept().await.unwrap();
            let (mut third, _) = listener.accept().await.unwrap();
            third.write_all(b"SS").await.unwrap();
            time::sleep(Duration::from_millis(100)).await;
            third.write_all(b"H-2.0-Test_1\r\n").await.unwrap();
            time::sleep(Duration::from_secs(20)).await;
        });
        let found = banner(addr, soon(), &CancellationToken::new()).await.unwrap();
        assert_eq!(unread(found, 4), "SSH-");
        server.abort();
    }

    #[tokio::test]
    async fn lines_before_the_banner_are_allowed_and_a_server_that_hangs_up_is_asked_again() {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            first.write_all(b"Exceeded MaxStartups\r\n").await.unwrap();
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            second.write_all(b"Welcome\r\nSSH-2.0-Late\r\n").await.unwrap();
            time::sleep(Duration::from_secs(20)).await;
        });
        let found = banner(addr, soon(), &CancellationToken::new()).await.unwrap();
        assert_eq!(unread(found, 21), "Welcome\r\nSSH-2.0-Late");
        server.abort();
    }

    #[tokio::test]
    async fn at_most_six_probes_are_open_while_nobody_speaks_and_the_deadline_ends_the_wait() {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let Ok(next) = time::timeout(Duration::from_millis(1500), listener.accept()).await else {
                    return open.len();
                };
                open.push(next.unwrap());
            }
        });
        let started = Instant::now();
        let error = banner(addr, started + Duration::from_millis(2900), &CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, BannerError::Timeout { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(4));
        assert_eq!(server.await.unwrap(), PROBES);
    }

    #[tokio::test]
    async fn a_server_of_another_kind_is_named() {
        let (listener, addr) = listen().await;
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            first.write_all(&b"HTTP/1.1 400 Bad Request\x1b[2J\n".repeat(PREAMBLE / 20)).await.unwrap();
            time::sleep(Duration::from_secs(20)).await;
        });
        let error = banner(addr, soon(), &CancellationToken::new()).await.unwrap_err();
        let BannerError::NotSsh { said, .. } = error else { panic!("{error}") };
        assert!(said.starts_with("HTTP/1.1 400 Bad Request [2J"), "{said}");
        server.abort();
    }

    #[tokio::test]
    async fn a_cancelled_wait_ends_at_once() {
        let (_listener, addr) = listen().await;
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert!(matches!(banner(addr, soon(), &cancel).await, Err(BannerError::Cancelled)));
    }

    #[test]
    fn probes_of_a_slow_guest_wait_longer() {
        assert_eq!(life(Duration::ZERO), SHORT_LIFE);
        assert_eq!(life(Duration::from_secs(60)), Duration::from_secs(12));
        assert_eq!(life(Duration::from_secs(3600)), LONG_LIFE);
    }
}
