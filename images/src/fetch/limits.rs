//! All limits of a download.

use std::time::Duration;

/// The bounds of a download.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The network is disabled.
    pub offline: bool,
    /// Connection timeout, including name look-up and TLS.
    pub connect: Duration,
    /// Maximum silence of a server.
    pub idle: Duration,
    /// Minimum speed in bytes per second over all of [`Limits::slow_window`]; slower servers are left for the next.
    pub slow_bytes: u64,
    /// Period over which a server's speed is measured.
    pub slow_window: Duration,
    /// Total time limit.
    pub overall: Duration,
    /// Maximum number of tries in a row without new bytes, per server.
    pub tries: u32,
    /// Maximum number of requests in total.
    pub requests: u32,
    /// The first pause between two tries; each further one is twice as long, and all vary by a quarter.
    pub pause: Duration,
    /// The longest pause, including those that a server requests.
    pub longest_pause: Duration,
    /// Maximum number of redirects.
    pub redirects: usize,
    /// Maximum size of a published file, in bytes.
    pub published_bytes: u64,
    /// Maximum size after unpacking, in bytes.
    pub unpacked_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            offline: false,
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(30),
            slow_bytes: 16 << 10,
            slow_window: Duration::from_secs(60),
            overall: Duration::from_secs(2 * 60 * 60),
            tries: 4,
            requests: 100,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            redirects: 10,
            published_bytes: 64 << 30,
            unpacked_bytes: 256 << 30,
        }
    }
}

impl Limits {
    /// How long to wait before a server is tried again that sent nothing new `failures` times in a row.
    ///
    /// `chance` is between 0 and 1: it spreads clients that were disconnected at the same time.
    pub(super) fn pause_after(&self, failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
        let doubled = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let varied = doubled.min(self.longest_pause).mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0);
        varied.max(asked.unwrap_or_default()).min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_vary_and_end_somewhere() {
        let limits = Limits::default();
        let seconds = |failures, asked, chance| limits.pause_after(failures, asked, chance).as_secs_f64();
        assert_eq!([1, 2, 3, 4].map(|failures| seconds(failures, None, 0.5)), [1.0, 2.0, 4.0, 8.0]);
        assert_eq!([0.0, 1.0].map(|chance| seconds(2, None, chance)), [1.5, 2.5]);
        assert_eq!(seconds(u32::MAX, None, 1.0), 60.0);
        assert_eq!(seconds(0, None, 0.5), 1.0, "a server that did send is asked again soon");
    }

    #[test]
    fn a_server_may_ask_for_a_longer_pause_but_not_for_any() {
        let limits = Limits::default();
        let seconds = |asked| limits.pause_after(1, Some(Duration::from_secs(asked)), 0.5).as_secs();
        assert_eq!([0, 30, 86_400].map(seconds), [1, 30, 60]);
    }
}
