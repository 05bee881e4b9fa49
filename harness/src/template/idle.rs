//! When a guest is at rest: when its QEMU is.

use std::time::{Duration, Instant};

use crate::guest::process_cpu_time;

/// How long each look lasts ...
const SAMPLE_INTERVAL: Duration = Duration::from_millis(300);
/// ... and how many of them in a row must find it at rest: what comes every second or two is not missed.
const LOOKS: u32 = 4;
/// The part of one CPU that a guest at rest may take: an emulated one with nothing to do takes up to 5 % for its timers.
const AT_REST: f64 = 0.12;

/// It did not come to rest.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(super) enum Restless {
    /// It is gone.
    #[error("its QEMU is gone")]
    Gone,
    /// It still takes so much of a CPU when the time is up.
    #[error("after {:.0} s it still takes {:.0} % of a CPU", limit.as_secs_f64(), part * 100.0)]
    Busy { limit: Duration, part: f64 },
}

/// Waits until the process is at rest.
pub(super) async fn until_idle(pid: u32, limit: Duration) -> Result<(), Restless> {
    let started = Instant::now();
    let mut calm = 0;
    loop {
        let (before, began) = (process_cpu_time(pid).ok_or(Restless::Gone)?, Instant::now());
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        let used = process_cpu_time(pid).ok_or(Restless::Gone)?.saturating_sub(before);
        let part = used.as_secs_f64() / began.elapsed().as_secs_f64();
        calm = if part <= AT_REST { calm + 1 } else { 0 };
        if calm == LOOKS {
            return Ok(());
        }
        if started.elapsed() > limit {
            return Err(Restless::Busy { limit, part });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_sleeps_is_at_rest_and_who_counts_is_not() {
        let start = |script: &str| std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let mut asleep = start("sleep 60");
        assert_eq!(until_idle(asleep.id(), Duration::from_secs(20)).await, Ok(()));
        asleep.kill().unwrap();
        asleep.wait().unwrap();
        let gone = until_idle(asleep.id(), Duration::from_secs(20)).await;
        assert_eq!(gone, Err(Restless::Gone), "who is gone is not at rest");
        let mut counting = start("while :; do :; done");
        let part = until_idle(counting.id(), Duration::from_secs(1)).await;
        counting.kill().unwrap();
        counting.wait().unwrap();
        assert!(matches!(part, Err(Restless::Busy { part, .. }) if part > AT_REST), "{part:?}");
    }
}
