//! Facts about the system in a guest, in the words of every output.

use serde::{Deserialize, Serialize};

use crate::{Run, clean};

/// Maximum length of a fact, in characters.
const LONGEST: usize = 120;
/// Maximum number of package managers of one guest.
const MAX_MANAGERS: usize = 8;
/// Maximum number of distinct systems of one image.
const MAX_SEEN: usize = 20;

/// Facts about the system in a guest, as it states them. Unknown facts are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemFacts {
    /// `ID` of its os-release, for example `debian`.
    pub id: Option<String>,
    /// `VERSION_ID` of its os-release, for example `12`. Rolling releases have none.
    pub version: Option<String>,
    /// `PRETTY_NAME` of its os-release, for example `Debian GNU/Linux 12 (bookworm)`.
    pub name: Option<String>,
    /// Release of its kernel (`uname -r`).
    pub kernel: Option<String>,
    /// Its kernel is nestmatrix's: the system came as a root file system without one, so control groups, SELinux and AppArmor are
    /// that kernel's, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kernel_lent: bool,
    /// Its CPU (`uname -m`), for example `x86_64`.
    pub arch: Option<String>,
    /// Its C library with its version, for example `glibc 2.36`.
    pub libc: Option<String>,
    /// Its init, with its version if it has one: `systemd 252`, `OpenRC 0.52.1`, `FreeBSD rc`.
    pub init: Option<String>,
    /// Its package managers and their versions, for example `apt 2.6.1`.
    pub package_managers: Vec<String>,
    /// Its control groups.
    pub cgroups: Option<Cgroups>,
    /// Its SELinux.
    pub selinux: Option<Selinux>,
    /// Whether AppArmor is enabled in it.
    pub apparmor: Option<bool>,
    /// Size of its root file system, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_bytes: Option<u64>,
}

/// The control groups of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cgroups {
    /// Version 1.
    V1,
    /// Version 1, with the hierarchy of version 2 beside it.
    Hybrid,
    /// Version 2.
    V2,
    /// None are mounted.
    None,
}

/// The state of SELinux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selinux {
    /// Enforcing.
    Enforcing,
    /// Permissive: it only logs.
    Permissive,
    /// Installed but disabled.
    Disabled,
    /// Absent.
    Absent,
}

impl Cgroups {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
            Self::None => "none",
        }
    }
}

impl Selinux {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Permissive => "permissive",
            Self::Disabled => "disabled",
            Self::Absent => "absent",
        }
    }
}

impl SystemFacts {
    /// The same, cleaned and bounded; empty facts become `None`.
    #[must_use]
    pub fn cleaned(&self) -> Self {
        let short = |text: &String| {
            let line = clean::line(text);
            let line = line.char_indices().nth(LONGEST).map_or(line.as_str(), |(end, _)| &line[..end]).to_owned();
            (!line.is_empty()).then_some(line)
        };
        let fact = |fact: &Option<String>| fact.as_ref().and_then(short);
        Self {
            id: fact(&self.id),
            version: fact(&self.version),
            name: fact(&self.name),
            kernel: fact(&self.kernel),
            kernel_lent: self.kernel_lent,
            arch: fact(&self.arch),
            libc: fact(&self.libc),
            init: fact(&self.init),
            package_managers: self.package_managers.iter().filter_map(short).take(MAX_MANAGERS).collect(),
            cgroups: self.cgroups,
            selinux: self.selinux,
            apparmor: self.apparmor,
            root_bytes: self.root_bytes,
        }
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Its name: its own, or id and version.
    pub(crate) fn title(&self) -> Option<String> {
        let named = || Some(format!("{} {}", self.id.as_ref()?, self.version.as_deref().unwrap_or_default()));
        self.name.clone().or_else(|| named().map(|name| name.trim_end().to_owned()))
    }

    /// Release of its kernel, with a note if it is nestmatrix's.
    fn kernel_shown(&self) -> Option<String> {
        let lent = if self.kernel_lent { " (lent by nestmatrix)" } else { "" };
        self.kernel.as_ref().map(|kernel| format!("{kernel}{lent}"))
    }

    /// All known facts with their names, in display order.
    pub(crate) fn all(&self) -> Vec<(&'static str, String)> {
        let managers = (!self.package_managers.is_empty()).then(|| self.package_managers.join(", "));
        let apparmor = self.apparmor.map(|enabled| if enabled { "enabled" } else { "not enabled" }.to_owned());
        let facts = [
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("version", self.version.clone()),
            ("kernel", self.kernel_shown()),
            ("arch", self.arch.clone()),
            ("libc", self.libc.clone()),
            ("init", self.init.clone()),
            ("package-managers", managers),
            ("cgroups", self.cgroups.map(|cgroups| cgroups.name().to_owned())),
            ("selinux", self.selinux.map(|selinux| selinux.name().to_owned())),
            ("apparmor", apparmor),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect()
    }
}

/// The summary of an image's system: name, kernel, C library and init. `None`: unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Seen {
    pub(crate) name: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) libc: Option<String>,
    pub(crate) init: Option<String>,
}

/// The systems of an image's guests: one, unless the summaries differ.
pub(crate) fn of_image(run: &Run, image: &str) -> Vec<Seen> {
    let mut all = Vec::new();
    let attempts = run.cells.iter().filter(|cell| cell.image == image).flat_map(|cell| &cell.attempts);
    for facts in attempts.filter_map(|attempt| attempt.system.as_ref()) {
        let (kernel, libc, init) = (facts.kernel_shown(), facts.libc.clone(), facts.init.clone());
        let seen = Seen { name: facts.title(), kernel, libc, init };
        if all.len() < MAX_SEEN && !all.contains(&seen) {
            all.push(seen);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_kernel_it_is_is_said_where_it_is_not_the_systems_own() {
        let mut facts = SystemFacts { kernel: Some("6.1.0".into()), ..SystemFacts::default() };
        assert_eq!(facts.all(), [("kernel", "6.1.0".to_owned())]);
        facts.kernel_lent = true;
        assert_eq!(facts.cleaned().all(), [("kernel", "6.1.0 (lent by nestmatrix)".to_owned())]);
    }

    #[test]
    fn facts_are_cleaned_and_cut_and_what_says_nothing_is_none() {
        let hostile = SystemFacts {
            name: Some("\u{1b}[2JDebian\u{202e} 12".into()),
            kernel: Some("6".repeat(10_000)),
            libc: Some("\0 \n".into()),
            package_managers: vec!["apt 2\n".into(); 1_000],
            ..SystemFacts::default()
        };
        let clean = hostile.cleaned();
        assert_eq!(clean.name.as_deref(), Some("Debian 12"));
        assert_eq!(clean.kernel.map(|kernel| kernel.len()), Some(LONGEST));
        assert_eq!(clean.libc, None);
        assert_eq!(clean.package_managers, ["apt 2"; MAX_MANAGERS]);
        assert!(SystemFacts { id: Some("\u{1b}".into()), ..SystemFacts::default() }.cleaned().is_empty());
    }

    #[test]
    fn a_system_without_a_name_is_called_by_its_id() {
        let facts = |id: &str, version: Option<&str>| SystemFacts {
            id: Some(id.into()),
            version: version.map(Into::into),
            ..SystemFacts::default()
        };
        assert_eq!(facts("alpine", Some("3.20")).title().as_deref(), Some("alpine 3.20"));
        assert_eq!(facts("arch", None).title().as_deref(), Some("arch"));
        assert_eq!(SystemFacts::default().title(), None);
    }

    #[test]
    fn unknown_facts_of_later_versions_and_missing_ones_are_no_error() {
        let facts: SystemFacts = serde_json::from_str(r#"{"id":"debian","hypervisor":"kvm","cgroups":"v2"}"#).unwrap();
        assert_eq!((facts.id.as_deref(), facts.cgroups), (Some("debian"), Some(Cgroups::V2)));
    }
}
