//! What orchestrator and agent say to each other: JSON, one message a line, over the standard input and output of one SSH
//! command. Both are the same file, but nobody may believe that: the first message of each side says which protocol it speaks.

use matrix::{ByteSize, CellId};
use reports::{EventKind, StepTime, Trouble};
use serde::{Deserialize, Serialize};

use super::job_bundle::StoredImage;
use crate::{guest::Accelerator, package_lock::Locking};

/// Raised whenever a message changes.
pub const PROTOCOL: u32 = 7;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the speaker.
    pub protocol: u32,
    /// Its version, for people.
    pub version: String,
}

impl Hello {
    /// Ours.
    pub fn ours() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Whether we understand each other; else why not.
    pub fn check(&self) -> Result<(), String> {
        if self.protocol == PROTOCOL {
            return Ok(());
        }
        let (ours, theirs) = (Self::ours(), self);
        Err(format!(
            "the agent speaks protocol {} (version {}), we speak {} (version {}): send the agent of this version",
            theirs.protocol, theirs.version, ours.protocol, ours.version
        ))
    }
}

/// From the orchestrator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToAgent {
    /// First message.
    Hello(Hello),
    /// Make the machine ready. Once, after hello.
    Work(Work),
    /// Guests can be made of this image.
    Image {
        /// Its catalog name.
        name: String,
        /// What it is, and where it lies on the agent's machine.
        image: StoredImage,
    },
    /// Run these cells, whose images are there.
    Cells {
        /// Which.
        cells: Vec<CellWork>,
    },
    /// There will be no more cells.
    Complete,
    /// Stop: start nothing new; `kill`: end everything at once.
    Stop {
        /// Everything at once.
        kill: bool,
    },
    /// We are still here.
    Heartbeat,
}

/// How an agent is to work; plan and images are in its bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Number of the runner the agent is on.
    pub runner: u32,
    /// The CPU of the machine it is on is emulated.
    pub emulated: bool,
    /// Virtual CPUs its guests may take together.
    pub cpus: u32,
    /// At most so many guests at once.
    pub jobs: Option<usize>,
    /// Every guest is booted, none forked.
    pub cold: bool,
    /// Only make the templates that the cells want: the machine is to be frozen afterwards.
    pub freeze: bool,
    /// Every byte of the machine's disks was checked before it was started.
    pub checked: bool,
    /// Guests run under KVM there, or not at all.
    pub kvm: bool,
    /// What templates may take there together.
    pub templates: ByteSize,
    /// The proxy that the agent's own goes through, as `http://host:port`; `None`: what its environment says.
    pub proxy: Option<String>,
    /// Guests' repositories are answered for from the cache alone.
    pub offline: bool,
    /// Which packages guests may get there.
    pub locking: Locking,
    /// What was proved in an earlier L1 of the same kind.
    pub known: Option<GuestProof>,
}

/// That guests run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestProof {
    /// What was seen.
    pub reason: String,
    /// What time limits are multiplied by.
    pub speed: f64,
}

/// A cell and the attempts it may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellWork {
    /// Which.
    pub id: CellId,
    /// Number of the next attempt.
    pub next: u32,
    /// Number of the last attempt there may be.
    pub last: u32,
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "nearly all messages are events, and they are seen one by one")]
pub enum FromAgent {
    /// First message.
    Hello(Hello),
    /// What is going on, for people.
    Progress {
        /// One line.
        message: String,
    },
    /// Guests can run here, and how.
    Ready(Ready),
    /// Something happened.
    Event {
        /// What.
        event: EventKind,
    },
    /// A piece of a file of an attempt: pieces come in order, and before the event that the attempt has finished.
    File {
        /// Which cell.
        cell: CellId,
        /// Which attempt.
        attempt: u32,
        /// Relative to the attempt's folder.
        path: String,
        /// The next bytes of it, in base64; empty for an empty file.
        piece: String,
    },
    /// This runner is of no use, or of no more. The last message.
    Failed {
        /// Why.
        trouble: Trouble,
    },
    /// Every cell has been reported. The last message.
    Done,
    /// The agent is still there.
    Heartbeat,
}

/// What an agent found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// What its guests are run with: `kvm` or `tcg`.
    pub accelerator: Accelerator,
    /// That they run with it.
    pub proof: GuestProof,
    /// Version of QEMU.
    pub qemu: String,
    /// Kernel.
    pub kernel: String,
    /// Memory guests may take together, in bytes.
    pub memory: u64,
    /// Virtual CPUs guests may take together.
    pub cpus: u32,
    /// What making ready took.
    pub steps: Vec<StepTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_another_protocol_is_refused_with_both_versions() {
        assert_eq!(Hello::ours().check(), Ok(()));
        let old = Hello { protocol: PROTOCOL + 1, version: "9.9".into() };
        let words = old.check().unwrap_err();
        assert!(words.contains("9.9") && words.contains(env!("CARGO_PKG_VERSION")), "{words}");
    }

    #[test]
    fn every_message_is_one_line_and_is_read_back_as_it_was() {
        let event = EventKind::Warning { cell: None, message: "two\nlines".into() };
        for message in [FromAgent::Event { event }, FromAgent::Done, FromAgent::Hello(Hello::ours())] {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<FromAgent>(&line).unwrap(), message);
        }
    }
}
