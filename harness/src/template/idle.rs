//! When a guest is at rest: when its QEMU is.

use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;

/// How long each look lasts ...
const LOOK: Duration = Duration::from_millis(300);
/// ... and how many of them in a row must find it at rest: what comes every second or two is not missed.
const LOOKS: u32 = 4;
/// The part of one CPU that a guest at rest may take: an emulated one with nothing to do takes up to 5 % for its timers.
const AT_REST: f64 = 0.12;

/// Waits until the process is at rest; the error is what it takes of a CPU after `limit`.
pub(super) async fn until_idle(pid: u32, limit: Duration) -> Result<(), f64> {
    let started = Instant::now();
    let mut calm = 0;
    loop {
        let (before, began) = (cpu_time(pid).unwrap_or_default(), Instant::now());
        tokio::time::sleep(LOOK).await;
        let used = cpu_time(pid).unwrap_or_default().saturating_sub(before);
        let part = used.as_secs_f64() / began.elapsed().as_secs_f64();
        calm = if part <= AT_REST { calm + 1 } else { 0 };
        if calm == LOOKS {
            return Ok(());
        }
        if started.elapsed() > limit {
            return Err(part);
        }
    }
}

/// CPU time a process has had (`/proc/PID/stat`, fields 14 and 15).
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
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
        let mut counting = start("while :; do :; done");
        let part = until_idle(counting.id(), Duration::from_secs(1)).await;
        counting.kill().unwrap();
        counting.wait().unwrap();
        assert!(part.is_err_and(|part| part > AT_REST), "{part:?}");
    }
}
