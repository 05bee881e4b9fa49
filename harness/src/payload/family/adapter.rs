//! What has to be known of a family of package managers.

use matrix::Arch;

use super::reasons::{self, Grammar};

/// A family. Its scripts are for any POSIX shell, and say everything on standard output, in order.
pub(crate) struct Adapter {
    /// What it takes, for people.
    pub(crate) takes: &'static str,
    /// CPUs besides its own whose packages such a system may have been told to take: its package manager knows.
    pub(super) also: fn(Arch) -> &'static [&'static str],
    /// Functions of a shell whose `root` is the payload's folder; none has arguments:
    ///
    /// - `install_artifacts` installs everything in the folder `$root/artifacts`, offline.
    /// - `list_artifacts` answers what the files in that folder are; see `inventory` for answers. Those for other systems it renames.
    /// - `list_packages` answers what is installed; and of the packages that its input names, a line for each with name, version and
    ///   CPU, what is known of their content.
    pub(crate) functions: &'static str,
    /// Installs the packages named by its arguments from wherever the guest's package manager gets them.
    pub(super) by_name: &'static str,
    /// Does what a payload does, without doing anything.
    pub(super) rehearsal: &'static str,
    /// How its output reads.
    pub(super) grammar: Grammar,
    /// Whether a line of its output says that a package's own script failed, where it exits with 0 all the same; `None`: it does not.
    pub(crate) unsaid: Option<fn(&str) -> bool>,
}

impl Adapter {
    /// A script that installs the artifacts.
    pub(crate) fn install(&self) -> String {
        format!("{}install_artifacts\n", self.functions)
    }

    /// The lines of its output that say why it failed.
    pub(crate) fn words(&self, output: &[u8]) -> Vec<String> {
        reasons::of(output, &self.grammar)
    }
}
