//! Talking to the program that waits in a frozen guest; it is `resume_agent/resume_agent.rs`, where the exchange is written down.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// The program, as it is put into guests.
pub(super) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/resume_agent"));

const READY: &str = "ready 1";
const AWAKE: &str = "awake 1";
/// Bytes of an order.
const ORDER: usize = 8 + 8 + 4 + 64;
/// How late a guest's clock may be ...
const LATE: Duration = Duration::from_millis(300);
/// ... where the machine has so much to do that it is never told in time: still within the second that is promised.
const LATER: Duration = Duration::from_millis(800);
/// Longest line it says.
const LONGEST: usize = 512;

/// It did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ResumeAgentError {
    /// The connection broke.
    #[error("the port of the guest broke: {0}")]
    Port(#[from] std::io::Error),
    /// It said something else.
    #[error("the program that waits in the guest said {0:?}")]
    Said(String),
    /// It said nothing.
    #[error("the program that waits in the guest said nothing within {0:.1} s")]
    Silent(f64),
    /// It obeyed, but too slowly each time.
    #[error("the guest's clock cannot be set: the guest was late each time, by {0:.1} s in the end")]
    Late(f64),
}

/// Waits until it is there.
pub(super) async fn ready(port: &mut UnixStream, limit: Duration) -> Result<(), ResumeAgentError> {
    hear(port, READY, limit).await
}

/// Wakes it: it sets the guest's clock to ours and gives it randomness. Afterwards an SSH server speaks on the port.
pub(super) async fn wake(port: &mut UnixStream, limit: Duration) -> Result<(), ResumeAgentError> {
    let (half, until) = (Instant::now() + limit / 2, Instant::now() + limit);
    loop {
        let mut seed = [0; 64];
        rand::rng().fill_bytes(&mut seed);
        let said = Instant::now();
        port.write_all(&order(SystemTime::now(), &seed)).await?;
        hear(port, AWAKE, until.saturating_duration_since(said)).await?;
        // A guest that was slow to resume has a clock that is late by as much: the time is sent again.
        let late = said.elapsed();
        if late < if said < half { LATE } else { LATER } {
            break;
        }
        if Instant::now() >= until {
            return Err(ResumeAgentError::Late(late.as_secs_f64()));
        }
    }
    let mut go = b"go 1".to_vec();
    go.resize(ORDER, 0);
    port.write_all(&go).await?;
    Ok(())
}

fn order(now: SystemTime, seed: &[u8; 64]) -> Vec<u8> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut order = b"wake 1\0\0".to_vec();
    order.extend((since.as_secs() as i64).to_le_bytes());
    order.extend(since.subsec_nanos().to_le_bytes());
    order.extend(seed);
    order
}

/// One line, and not a byte more: what follows is not ours to read.
async fn hear(port: &mut UnixStream, expected: &str, limit: Duration) -> Result<(), ResumeAgentError> {
    let mut line = Vec::new();
    let listening = async {
        while line.len() < LONGEST {
            match port.read_u8().await? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::time::timeout(limit, listening).await.map_err(|_| ResumeAgentError::Silent(limit.as_secs_f64()))??;
    if line == expected.as_bytes() {
        return Ok(());
    }
    Err(ResumeAgentError::Said(reports::clean::line(&String::from_utf8_lossy(&line))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_the_time_and_the_seed_where_the_program_looks_for_them() {
        let order = order(UNIX_EPOCH + Duration::new(0x0102_0304, 7), &[9; 64]);
        assert_eq!(&order[..8], b"wake 1\0\0");
        assert_eq!(order[8..20], [4, 3, 2, 1, 0, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(order[20..], [9; 64]);
    }

    #[tokio::test]
    async fn what_follows_its_line_is_left_for_the_next_reader() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"awake 1\nSSH-2.0-x\r\n").await.unwrap();
        hear(&mut ours, AWAKE, Duration::from_secs(5)).await.unwrap();
        let mut rest = [0; 7];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"SSH-2.0");
    }

    #[tokio::test]
    async fn another_word_silence_and_a_flood_are_told_apart() {
        let said = async |words: &[u8]| {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(words).await.unwrap();
            hear(&mut ours, AWAKE, Duration::from_millis(50)).await.unwrap_err()
        };
        assert!(
            matches!(said(b"cannot: set the clock\n").await, ResumeAgentError::Said(words) if words.contains("set the clock"))
        );
        assert!(matches!(said(b"awake").await, ResumeAgentError::Silent(_)));
        assert!(matches!(said(&[b'x'; 2000]).await, ResumeAgentError::Said(_)));
    }

    #[tokio::test]
    async fn a_guest_that_is_slow_to_obey_is_told_the_time_again() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let guest = tokio::spawn(async move {
            let mut orders = Vec::new();
            let mut order = [0; ORDER];
            while theirs.read_exact(&mut order).await.is_ok() {
                orders.push(order);
                if order.starts_with(b"go") {
                    break;
                }
                if orders.len() == 1 {
                    tokio::time::sleep(LATE * 2).await;
                }
                theirs.write_all(b"awake 1\n").await.unwrap();
            }
            orders
        });
        wake(&mut ours, Duration::from_secs(20)).await.unwrap();
        let orders = guest.await.unwrap();
        assert_eq!(orders.len(), 3, "twice the time, and then: go");
        assert_ne!(orders[0][20..], orders[1][20..], "never the same randomness");
        assert!(orders[2].starts_with(b"go 1\0"));
    }

    #[tokio::test]
    async fn a_guest_that_never_obeys_in_time_is_not_let_go() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let guest = tokio::spawn(async move {
            let mut order = [0; ORDER];
            while theirs.read_exact(&mut order).await.is_ok() {
                assert!(order.starts_with(b"wake"), "never: go");
                tokio::time::sleep(LATE * 2).await;
                if theirs.write_all(b"awake 1\n").await.is_err() {
                    break;
                }
            }
        });
        // The order is sent once, and when it is obeyed there is no time left.
        let late = wake(&mut ours, LATE * 2).await.unwrap_err();
        assert!(matches!(late, ResumeAgentError::Late(_) | ResumeAgentError::Silent(_)), "{late}");
        drop(ours);
        guest.await.unwrap();
    }

    #[test]
    fn the_program_is_one_static_file() {
        assert!(PROGRAM.starts_with(b"\x7fELF"));
        assert!(!PROGRAM.windows(11).any(|bytes| bytes == b"/lib64/ld-l"), "it needs no loader");
    }
}
