//! Reboots that a guest does by itself: in its first boots (to relabel its files, to switch kernels), in what prepares it, and in a suite that
//! may. It is booted again until there are too many.

use super::ended::Ended;

/// Counts them.
#[derive(Clone, Copy, Debug)]
pub struct Reboots {
    count: u32,
    most: u32,
}

/// What follows from a guest's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It was a reboot, and may boot again.
    Boots,
    /// It was one more reboot than is allowed.
    TooMany,
    /// It was no reboot.
    Ended,
}

impl Reboots {
    /// None yet, and at most so many.
    pub const fn at_most(most: u32) -> Self {
        Self { count: 0, most }
    }

    /// The guest has ended like this.
    pub fn next(&mut self, ended: &Ended) -> Next {
        if *ended != Ended::Reset {
            return Next::Ended;
        }
        self.count += 1;
        if self.count <= self.most { Next::Boots } else { Next::TooMany }
    }

    /// How many there were.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many are allowed.
    pub const fn most(&self) -> u32 {
        self.most
    }

    /// Why it is not booted again, for `who` rebooted it.
    pub fn too_many(&self, who: &str) -> String {
        format!("{who} {} times, at most {} are allowed", self.count, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_reboots_are_survived_and_a_loop_of_them_is_not() {
        let mut reboots = Reboots::at_most(2);
        assert_eq!([(); 3].map(|()| reboots.next(&Ended::Reset)), [Next::Boots, Next::Boots, Next::TooMany]);
        assert_eq!(
            reboots.too_many("the suite rebooted its guest"),
            "the suite rebooted its guest 3 times, at most 2 are allowed"
        );
    }

    #[test]
    fn no_other_end_of_a_guest_is_survived() {
        for ended in [Ended::PoweredOff, Ended::Halted, Ended::Panicked { words: None }] {
            let mut reboots = Reboots::at_most(1);
            assert_eq!((reboots.next(&ended), reboots.count()), (Next::Ended, 0), "{ended:?}");
        }
    }
}
