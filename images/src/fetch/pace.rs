//! Measures the speed of a download.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Interval of progress messages.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Number of measurements in the window of the speed limit.
const MEASUREMENTS: u32 = 20;

/// Measures one download; gets the time and the bytes so far, repeatedly.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    least: u64,
    told: (Instant, u64),
    measured: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Begins now; fewer than `least` bytes per second over all of `window` are too few.
    pub(super) fn start(now: Instant, window: Duration, least: u64) -> Self {
        Self { window, least, told: (now, 0), measured: VecDeque::from([(now, 0)]) }
    }

    /// Bytes per second, if they are too few.
    pub(super) fn too_slow(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        let since = |&(then, _): &(Instant, u64)| now.saturating_duration_since(then);
        if self.measured.back().is_none_or(|last| since(last) >= self.window / MEASUREMENTS) {
            self.measured.push_back((now, bytes));
        }
        while self.measured.get(1).is_some_and(|second| since(second) >= self.window) {
            self.measured.pop_front();
        }
        let first = self.measured.front().filter(|first| since(first) >= self.window)?;
        let speed = speed(since(first), bytes - first.1);
        (speed < self.least).then_some(speed)
    }

    /// Bytes per second since the last message, if a message is due.
    pub(super) fn progress_due(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        let (then, before) = self.told;
        let since = now.saturating_duration_since(then);
        if since < PROGRESS_INTERVAL {
            return None;
        }
        self.told = (now, bytes);
        Some(speed(since, bytes - before))
    }
}

fn speed(time: Duration, bytes: u64) -> u64 {
    // Precise enough: no download has 2^53 bytes.
    (bytes as f64 / time.as_secs_f64().max(0.001)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn a_server_is_too_slow_only_after_all_of_the_window() {
        let start = Instant::now();
        let mut pace = Pace::start(start, WINDOW, 1000);
        let after = |seconds| start + Duration::from_secs(seconds);
        for second in 0..60 {
            assert_eq!(pace.too_slow(after(second), second * 10), None, "second {second}");
        }
        assert_eq!(pace.too_slow(after(60), 600), Some(10));
    }

    #[test]
    fn a_fast_beginning_does_not_excuse_what_follows() {
        let start = Instant::now();
        let mut pace = Pace::start(start, WINDOW, 1000);
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut noticed = None;
        for second in 1..300 {
            let bytes = if second <= 100 { second * 1_000_000 } else { 100_000_000 };
            noticed = noticed.or(pace.too_slow(after(second), bytes).map(|_| second));
        }
        assert!(noticed.is_some_and(|second| (160..=164).contains(&second)), "{noticed:?}");
        assert!(pace.measured.len() <= 22, "{}", pace.measured.len());
    }

    #[test]
    fn people_are_told_every_two_seconds() {
        let start = Instant::now();
        let mut pace = Pace::start(start, WINDOW, 0);
        let told: Vec<u64> = (0..=50)
            .filter_map(|tenth| pace.progress_due(start + Duration::from_millis(tenth * 100), tenth * 50))
            .collect();
        assert_eq!(told, [500, 500]);
    }
}
