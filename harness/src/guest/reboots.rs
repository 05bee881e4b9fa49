//! Images that reboot once at their first boot (to relabel their files, to switch kernels): survived until the boot is over. Pure.

use super::ended::Ended;

/// Counts them.
#[derive(Clone, Copy, Debug)]
pub struct Reboots {
    count: u32,
    most: u32,
}

impl Reboots {
    /// At most so many are survived.
    pub fn at_most(most: u32) -> Self {
        Self { count: 0, most }
    }

    /// The guest ended like this before its boot was over; whether it may boot again.
    pub fn another(&mut self, ended: &Ended) -> bool {
        if *ended != Ended::Reset {
            return false;
        }
        self.count += 1;
        self.count <= self.most
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many are survived.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// It rebooted more often than is survived.
    pub fn are_too_many(&self) -> bool {
        self.count > self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_reboots_are_survived_and_a_loop_of_them_is_not() {
        let mut reboots = Reboots::at_most(3);
        assert_eq!([(); 4].map(|()| reboots.another(&Ended::Reset)), [true, true, true, false]);
        assert!(reboots.are_too_many());
        assert_eq!(reboots.count(), 4);
    }

    #[test]
    fn no_other_end_of_a_guest_is_survived() {
        for ended in [Ended::PoweredOff, Ended::Halted, Ended::Panicked { words: None }] {
            let mut reboots = Reboots::at_most(3);
            assert!(!reboots.another(&ended), "{ended:?}");
            assert!(!reboots.are_too_many());
        }
    }
}
