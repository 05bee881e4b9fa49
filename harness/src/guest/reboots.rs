//! Images that reboot once at their first boot (to relabel their files, to switch kernels): survived until the boot is over. Pure.

use super::ended::Ended;

/// Most reboots of its own that a guest may do before its boot is over.
pub const MOST_REBOOTS: u32 = 3;

/// Counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reboots(u32);

impl Reboots {
    /// The guest ended like this before its boot was over; whether it may boot again.
    pub fn another(&mut self, ended: &Ended) -> bool {
        if *ended != Ended::Reset {
            return false;
        }
        self.0 += 1;
        self.0 <= MOST_REBOOTS
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.0
    }

    /// It rebooted more often than is survived.
    pub fn are_too_many(&self) -> bool {
        self.0 > MOST_REBOOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_reboots_are_survived_and_a_loop_of_them_is_not() {
        let mut reboots = Reboots::default();
        assert_eq!([(); 4].map(|()| reboots.another(&Ended::Reset)), [true, true, true, false]);
        assert!(reboots.are_too_many());
        assert_eq!(reboots.count(), 4);
    }

    #[test]
    fn no_other_end_of_a_guest_is_survived() {
        for ended in [Ended::PoweredOff, Ended::Halted, Ended::Panicked { words: None }] {
            let mut reboots = Reboots::default();
            assert!(!reboots.another(&ended), "{ended:?}");
            assert!(!reboots.are_too_many());
        }
    }
}
