//! The steps of a cell: what can be done with its guest, and in which order. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum number of steps `reboot` of one suite.
const MAX_REBOOTS: usize = 10;
const ORDER: &str =
    "the order is prepare, install, run, collect; `reboot` may stand anywhere between `prepare` and `collect`";

/// One step of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Sends the payload into the guest.
    Prepare,
    /// Installs the package.
    Install,
    /// Runs the suite.
    Run,
    /// Fetches what the suite left.
    Collect,
    /// Reboots the guest.
    Reboot,
}

impl Step {
    /// The word in the matrix file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Install => "install",
            Self::Run => "run",
            Self::Collect => "collect",
            Self::Reboot => "reboot",
        }
    }

    /// The default steps.
    pub(crate) fn usual(installs: bool, collects: bool) -> Vec<Self> {
        let install = installs.then_some(Self::Install);
        let collect = collects.then_some(Self::Collect);
        [Some(Self::Prepare), install, Some(Self::Run), collect].into_iter().flatten().collect()
    }
}

/// A mistake in a list of steps.
pub(crate) struct Fault {
    /// The step to blame; `None`: the whole list.
    pub(crate) at: Option<usize>,
    pub(crate) message: String,
    pub(crate) label: &'static str,
    pub(crate) help: &'static str,
}

/// The first mistake in a list of steps by itself, if any.
pub(crate) fn fault(steps: &[Step]) -> Option<Fault> {
    let at = |index: usize, message: String, label, help| Some(Fault { at: Some(index), message, label, help });
    let mut last = None;
    for (index, step) in steps.iter().enumerate() {
        let name = step.name();
        match last {
            None if *step != Step::Prepare => {
                let help = "put `prepare` in front: it sends the package and the suite into the guest";
                return at(index, "`steps` must begin with `prepare`".to_owned(), "not `prepare`", help);
            }
            Some(Step::Collect) => {
                return at(index, format!("the step `{name}` comes after `collect`"), "too late", ORDER);
            }
            _ if *step == Step::Reboot => continue,
            Some(before) if before == *step => {
                let help = "only `reboot` may appear more than once";
                return at(index, format!("the step `{name}` appears twice"), "the second", help);
            }
            Some(before) if before > *step => {
                return at(index, format!("the step `{name}` comes after `{}`", before.name()), "too late", ORDER);
            }
            _ => last = Some(*step),
        }
    }
    let whole = |message: String, label, help| Some(Fault { at: None, message, label, help });
    if !steps.contains(&Step::Run) {
        let help = "add `run` after `prepare` (and `install`)";
        return whole("the step `run` is missing: nothing would be tested".to_owned(), "without `run`", help);
    }
    let reboots = steps.iter().filter(|step| **step == Step::Reboot).count();
    (reboots > MAX_REBOOTS).then(|| Fault {
        at: None,
        message: format!("{reboots} steps `reboot`, the limit is {MAX_REBOOTS}"),
        label: "too many",
        help: "remove some",
    })
}
