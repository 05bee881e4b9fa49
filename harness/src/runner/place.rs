//! Where guests run, whatever kind of machine that is: opened, it answers with an engine and a line to the agent there.

use std::{collections::HashSet, path::Path};

use reports::{L1Facts, StepTime, Trouble};
use tokio_util::sync::CancellationToken;

use super::proof::Proofs;
use crate::{
    agent::{Broken, Link, protocol::ToAgent},
    fanout::BootImage,
};

/// What a machine is opened with.
pub(crate) struct Opening<'a> {
    /// Counts the run's runners, from 1.
    pub(crate) number: u32,
    /// The one before it was lost.
    pub(crate) after_loss: bool,
    /// A folder for what does not stay. It is removed when the engine is closed.
    pub(crate) scratch: &'a Path,
    /// A folder for its logs.
    pub(crate) logs: &'a Path,
    /// Reports progress to people.
    pub(crate) progress: &'a (dyn Fn(String) + Sync),
    /// Reports a warning to people.
    pub(crate) warn: &'a (dyn Fn(String) + Sync),
    /// Ends it at once.
    pub(crate) cancel: &'a CancellationToken,
}

impl Opening<'_> {
    /// The same for one more try.
    pub(crate) fn again(&self) -> Opening<'_> {
        Opening { ..*self }
    }
}

/// What can be said of a place before it is opened.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    /// `host`, `qemu` ...
    pub(crate) kind: &'static str,
    /// Why guests run there.
    pub(crate) reason: &'a str,
    /// How many virtual machines its guests lie in, themselves included.
    pub(crate) depth: u32,
    /// All images must be there before it is opened.
    pub(crate) needs_all_images: bool,
    /// The next machine is the same one: it may need a while to be back.
    pub(crate) is_one_machine: bool,
    /// What machines of this kind have proved; `None`: nothing of it is remembered.
    pub(crate) proofs: Option<&'a Proofs>,
}

/// A kind of machine that guests run on.
pub(crate) trait Place: Sync {
    /// An opened one.
    type Engine: Engine;

    /// What can be said of it before it is opened.
    fn about(&self) -> About<'_>;

    /// Makes one ready. Its agent has greeted, and knows how it is to work.
    fn open(&self, opening: Opening<'_>) -> impl Future<Output = Result<Opened<Self::Engine>, Trouble>>;
}

/// Tells what a machine was made from that it is of no use, and why.
pub(crate) type GiveUp = Box<dyn FnOnce(&str) + Send + Sync>;

/// A machine whose agent waits for cells.
pub(crate) struct Opened<E> {
    /// The machine.
    pub(crate) engine: E,
    /// The line to its agent.
    pub(crate) link: Link,
    /// The virtual machine that was booted for it, if it is one.
    pub(crate) l1: Option<L1Facts>,
    /// What making it ready took.
    pub(crate) steps: Vec<StepTime>,
    /// Told why, when what it was made from is of no use.
    pub(crate) give_up: Option<GiveUp>,
}

/// An opened machine.
pub(crate) trait Engine: Sync {
    /// Waits until it ends by itself, possibly forever, and says why.
    fn ended(&self) -> impl Future<Output = Trouble>;

    /// Why nothing more comes from its agent.
    fn explained(&self, broken: &Broken) -> impl Future<Output = Trouble>;

    /// A trouble that its agent has reported, with what can be found out about it from outside.
    fn examined(&self, trouble: Trouble) -> impl Future<Output = Trouble> {
        std::future::ready(trouble)
    }

    /// Its last words.
    fn evidence(&self) -> Vec<String>;

    /// Brings this image to the machine. That may take long and reports to `progress`. Returns the message that the agent needs about it, if any.
    fn bring(
        &self,
        name: &str,
        image: &BootImage,
        progress: &(dyn Fn(String) + Sync),
    ) -> impl Future<Output = Result<Option<ToAgent>, Trouble>>;

    /// Ends it and all that runs on it. Returns what it may have left, for people.
    fn close(self) -> impl Future<Output = Option<String>>;
}

/// What cells need before they can be started on a machine: images as they come in.
pub(crate) trait Feed {
    /// Those that are in, by name.
    fn images(&self) -> Vec<(String, BootImage)>;

    /// The cell's image is prepared and `brought` to the machine, or known to be unavailable.
    fn is_in(&self, cell: &matrix::Cell, brought: &HashSet<String>) -> bool;

    /// Reports the cells that no guest can be started for, as far as that is known.
    fn settle(&self, ledger: &mut super::Ledger);

    /// Waits for more; false: all are in. Cancel safe.
    fn next(&mut self) -> impl Future<Output = bool>;
}
