//! What has to be known of a family of package managers.

use matrix::Arch;

/// A family. Its scripts are for any POSIX shell, and say everything on standard output, in order.
pub(super) struct Adapter {
    /// What it takes, for people.
    pub(super) takes: &'static str,
    /// The name of a package's file without its ending; `None`: it is no such file.
    pub(super) stem: fn(&str) -> Option<&str>,
    /// CPUs besides its own whose packages such a system may have been told to take: its package manager knows.
    pub(super) also: fn(Arch) -> &'static [&'static str],
    /// Installs everything in the folder `$root/artifacts`, offline; exits with [`super::install::NOTHING`] if there is nothing.
    pub(super) install: &'static str,
    /// Installs the packages named by its arguments from wherever the guest's package manager gets them.
    pub(super) by_name: &'static str,
    /// Removes the packages named by its arguments, offline.
    pub(super) remove: &'static str,
    /// Says of the packages named by its arguments which are installed, one line each for `installed`.
    pub(super) query: &'static str,
    /// Name and version of the package that a line of its output says is installed.
    pub(super) installed: fn(&str) -> Option<(&str, &str)>,
    /// Does what a payload does, without doing anything.
    pub(super) rehearsal: &'static str,
    /// The lines of its output that say why it failed.
    pub(super) words: fn(&[u8]) -> Vec<String>,
    /// Whether a line of its output says that a package's own script failed, where it exits with 0 all the same.
    pub(super) unsaid: fn(&str) -> bool,
}
