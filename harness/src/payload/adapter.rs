//! What has to be known of a family of package managers.

use matrix::Arch;

/// A family. Its scripts are for any POSIX shell, and say everything on standard output, in order.
pub(super) struct Adapter {
    /// What it takes, for people.
    pub(super) takes: &'static str,
    /// CPUs besides its own whose packages such a system may have been told to take: its package manager knows.
    pub(super) also: fn(Arch) -> &'static [&'static str],
    /// Installs everything in the folder `$root/artifacts`, offline.
    pub(super) install: &'static str,
    /// Answers what the files in that folder are; see `inventory` for answers. Those that are for other systems it renames.
    pub(super) artifacts: &'static str,
    /// Answers what is installed; and of the packages that its input names, a line for each with name, version and CPU, what is known of
    /// their content.
    pub(super) packages: &'static str,
    /// Installs the packages named by its arguments from wherever the guest's package manager gets them.
    pub(super) by_name: &'static str,
    /// Does what a payload does, without doing anything.
    pub(super) rehearsal: &'static str,
    /// The lines of its output that say why it failed.
    pub(super) words: fn(&[u8]) -> Vec<String>,
    /// Whether a line of its output says that a package's own script failed, where it exits with 0 all the same; `None`: it does not.
    pub(super) unsaid: Option<fn(&str) -> bool>,
}
