//! Why a guest runs no more.

use std::fmt;

use reports::TroubleKind;

/// Why a guest runs no more. The first thing that happened, not what followed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its kernel panicked.
    Panicked {
        /// In the kernel's words, if its console has them.
        words: Option<String>,
    },
    /// It powered itself off.
    PoweredOff,
    /// It rebooted.
    Reset,
    /// None of its CPUs will ever run again: halted, with interrupts off.
    Halted,
    /// Its disk could not be written or read any more on the host.
    HostDisk {
        /// The host's disk is full.
        full: bool,
    },
    /// The program that is its TPM is gone.
    TpmGone {
        /// How.
        how: String,
    },
    /// QEMU is gone.
    QemuGone {
        /// How, and QEMU's last words.
        how: String,
    },
}

impl Ended {
    /// The same as a kind of trouble.
    pub const fn kind(&self) -> TroubleKind {
        match self {
            Self::Panicked { .. } => TroubleKind::GuestPanicked,
            Self::PoweredOff => TroubleKind::GuestPoweredOff,
            Self::Reset => TroubleKind::GuestRebooted,
            Self::Halted => TroubleKind::GuestHalted,
            Self::HostDisk { full: true } => TroubleKind::HostDiskFull,
            Self::HostDisk { full: false } => TroubleKind::HostDiskBroken,
            Self::TpmGone { .. } => TroubleKind::Host,
            Self::QemuGone { .. } => TroubleKind::QemuGone,
        }
    }

    /// The same sentence about another machine than a guest: `who` is `the guest`, or `it` after something else was named.
    pub fn of(&self, who: &str) -> String {
        let whose = if who == "it" { "its".to_owned() } else { format!("{who}'s") };
        match self {
            Self::Panicked { words: None } => format!("{whose} kernel panicked"),
            Self::Panicked { words: Some(words) } => format!("{whose} kernel panicked: {words}"),
            Self::PoweredOff => format!("{who} powered itself off"),
            Self::Reset => format!("{who} rebooted itself"),
            Self::Halted => format!("{who} halted itself"),
            Self::HostDisk { full: true } => format!("the host's disk is full: {whose} disk cannot grow"),
            Self::HostDisk { full: false } => format!("{whose} disk cannot be read or written on the host"),
            Self::TpmGone { how } => format!("swtpm, {whose} TPM, ended by itself: {how}"),
            Self::QemuGone { how } => format!("QEMU ended by itself: {how}"),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of("the guest"))
    }
}
