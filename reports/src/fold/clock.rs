//! The time of a run, which is monotonic.
//!
//! Wall clocks jump: people set them, machines wake up. So durations are differences of the process's own clock
//! ([`Event::clock_ms`]), and the wall clock only bridges gaps: the pause before a run is resumed, and older journals without
//! that clock.

use jiff::Timestamp;

use super::MAX_ELAPSED_MS;
use crate::{Event, EventKind};

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTime {
    /// By the wall clock, for people.
    pub(crate) at: Timestamp,
    /// In milliseconds since the first event of the run.
    pub(crate) ms: u64,
}

/// Reads the time from the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Clock {
    /// The last event.
    last: Option<EventTime>,
    /// The zero of the current process's clock, in milliseconds since the first event; negative if it is earlier.
    base: i64,
}

impl Clock {
    /// The time of the next event.
    pub(super) fn read(&mut self, event: &Event) -> EventTime {
        let before = self.last.map_or(0, |last| last.ms);
        let wall = self.last.map_or(0, |last| millis(last.at, event.at));
        let process = event.clock_ms.map(|ms| ms.min(MAX_ELAPSED_MS) as i64);
        let another =
            self.last.is_none() || matches!(event.kind, EventKind::RunStarted { .. } | EventKind::RunResumed { .. });
        let ms = match process {
            Some(process) if another => {
                let now = before.saturating_add(wall);
                self.base = (now as i64).saturating_sub(process);
                now
            }
            // Two threads may have measured in one order and sent in the other.
            Some(process) => before.max(u64::try_from(self.base.saturating_add(process)).unwrap_or(0)),
            None => before.saturating_add(wall),
        };
        let moment = EventTime { at: event.at, ms: ms.min(i64::MAX as u64) };
        self.last = Some(moment);
        moment
    }

    /// From the first event to the last, in milliseconds.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.last.map_or(0, |last| last.ms)
    }
}

/// Milliseconds between two times; 0 if the wall clock went backwards.
fn millis(start: Timestamp, end: Timestamp) -> u64 {
    u64::try_from(end.duration_since(start).as_millis()).unwrap_or(0).min(MAX_ELAPSED_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of events with these clocks: seconds of the wall clock, milliseconds of the process.
    fn shown(events: &[(i64, Option<u64>, bool)]) -> Vec<u64> {
        let mut clock = Clock::default();
        let events = events.iter().map(|(second, clock_ms, resumed)| {
            let version = "1".to_owned();
            let kind = if *resumed {
                EventKind::RunResumed { version }
            } else {
                EventKind::Warning { cell: None, message: version }
            };
            clock.read(&Event { at: Timestamp::from_second(*second).expect("a time"), clock_ms: *clock_ms, kind }).ms
        });
        events.collect()
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_nothing() {
        let hour = 3_600;
        let events = [(100, Some(40), false), (100 - hour, Some(1_040), false), (100 + hour, Some(1_540), false)];
        assert_eq!(shown(&events), [0, 1_000, 1_500]);
    }

    #[test]
    fn the_pause_before_a_run_is_resumed_is_read_off_the_wall_clock() {
        let events =
            [(100, Some(40), false), (101, Some(1_040), false), (161, Some(7), true), (162, Some(1_007), false)];
        assert_eq!(shown(&events), [0, 1_000, 61_000, 62_000]);
        let backwards = [(100, Some(40), false), (50, Some(7), true), (51, Some(1_007), false)];
        assert_eq!(shown(&backwards), [0, 0, 1_000]);
    }

    #[test]
    fn a_journal_without_measurements_has_the_wall_clock_which_never_goes_back() {
        assert_eq!(
            shown(&[(100, None, false), (103, None, false), (90, None, false), (91, None, false)]),
            [0, 3_000, 3_000, 4_000]
        );
    }

    #[test]
    fn absurd_numbers_are_survived() {
        shown(&[(100, Some(u64::MAX), false), (i64::from(u32::MAX), Some(0), true), (-9_999, Some(u64::MAX), false)]);
    }
}
