//! What is known of the cells' guests, one column for each fact.

use std::{borrow::Cow, collections::HashMap};

use indexmap::{IndexMap, IndexSet};

use super::version::Version;
use crate::{Attempt, Boot, CellRun, Run, clean};

/// Most columns of a group.
const MOST: usize = 64;
/// Most bytes of a name that a guest may have chosen.
const LONGEST: usize = 100;

/// What is known of something in the guest of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Unknown,
    /// It is not there.
    Absent,
    /// It is there, and has no version, or several.
    Present,
    /// It is there in this version: its place among [`Column::versions`].
    Version(usize),
}

impl Seen {
    pub(super) const fn is_there(self) -> bool {
        matches!(self, Self::Present | Self::Version(_))
    }

    pub(super) const fn version(self) -> Option<usize> {
        match self {
            Self::Version(place) => Some(place),
            _ => None,
        }
    }
}

/// What a fact is about.
pub(super) struct Column {
    /// Its name, such as `glibc`, as it is shown.
    pub(super) name: String,
    /// The word that says that it is not there; `None`: then something else is, which is said instead.
    pub(super) negated: Option<&'static str>,
    /// The versions that were seen, ascending, each once.
    pub(super) versions: Vec<Version>,
    /// What is seen in each cell of the run.
    pub(super) cells: Vec<Seen>,
}

/// What facts are about, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Group {
    Axis,
    Boot,
    Libc,
    Init,
    Cgroups,
    Selinux,
    Apparmor,
    Arch,
    Os,
    Kernel,
    Manager,
    Runner,
    Package,
}

impl Group {
    /// The word for one that is not there.
    const fn negated(self) -> Option<&'static str> {
        match self {
            Self::Libc | Self::Init | Self::Manager => Some("no"),
            Self::Os => Some("not"),
            _ => None,
        }
    }
}

/// A fact of one cell. Where something of its group is known, all of the group that it does not have are absent.
struct Fact<'a> {
    group: Group,
    name: Cow<'a, str>,
    version: Option<&'a str>,
}

/// The facts of all cells, the most telling first.
pub(super) fn columns(run: &Run) -> Vec<Column> {
    let shared = packages(run);
    let facts: Vec<_> = run.cells.iter().map(|cell| facts(cell, &shared)).collect();
    let mut known = IndexMap::<Group, Vec<Seen>>::new();
    let mut seen = IndexMap::<Group, IndexMap<&str, Vec<(usize, Option<&str>)>>>::new();
    for (index, fact) in facts.iter().enumerate().flat_map(|(index, of)| of.iter().map(move |fact| (index, fact))) {
        let known = known.entry(fact.group).or_insert_with(|| vec![Seen::Unknown; facts.len()]);
        // A package that is not named was there before, or is not there at all.
        if let Some(cell) = known.get_mut(index).filter(|_| fact.group != Group::Package) {
            *cell = Seen::Absent;
        }
        let names = seen.entry(fact.group).or_default();
        if names.len() < MOST || names.contains_key(fact.name.as_ref()) {
            names.entry(&fact.name).or_default().push((index, fact.version));
        }
    }
    seen.sort_keys();
    let columns =
        seen.into_iter().flat_map(|(group, names)| names.into_iter().map(move |(name, seen)| (group, name, seen)));
    columns
        .map(|(group, name, seen)| {
            let (versions, cells) = placed(group, seen, known.get(&group).cloned().unwrap_or_default());
            let name = match group {
                Group::Package => format!("package {}", quoted(name)),
                Group::Boot | Group::Cgroups | Group::Selinux | Group::Apparmor | Group::Kernel | Group::Runner => {
                    name.to_owned()
                }
                Group::Axis | Group::Libc | Group::Init | Group::Arch | Group::Os | Group::Manager => quoted(name),
            };
            Column { name, negated: group.negated(), versions, cells }
        })
        .collect()
}

/// The versions of something, and which of them each cell has.
fn placed(group: Group, seen: Vec<(usize, Option<&str>)>, mut cells: Vec<Seen>) -> (Vec<Version>, Vec<Seen>) {
    let read = if group == Group::Axis { Version::only } else { Version::new };
    let mut by_text = HashMap::<&str, Option<Version>>::new();
    for text in seen.iter().filter_map(|(_, version)| *version) {
        by_text.entry(text).or_insert_with(|| read(text));
    }
    let mut versions: Vec<_> = by_text.values().flatten().cloned().collect();
    versions.sort_by(Version::in_order);
    versions.dedup();
    // Those of different systems, and nobody knows which is the higher one.
    if versions.windows(2).any(|pair| matches!(pair, [left, right] if left.epoch() != right.epoch())) {
        versions.clear();
    }
    let place = |version: &Option<Version>| versions.binary_search(version.as_ref()?).ok();
    let places: HashMap<_, _> = by_text.iter().map(|(text, version)| (*text, place(version))).collect();
    for (index, version) in seen {
        let Some(cell) = cells.get_mut(index) else { continue };
        let version = version.and_then(|text| *places.get(text)?).map_or(Seen::Present, Seen::Version);
        // Several at once are no version.
        *cell = if cell.is_there() && *cell != version { Seen::Present } else { version };
    }
    (versions, cells)
}

/// In backticks, which it has none of itself: guests choose such names.
pub(super) fn quoted(name: &str) -> String {
    let name = name.replace('`', "'");
    match clean::prefix(&name, LONGEST) {
        whole if whole.len() == name.len() => format!("`{name}`"),
        cut => format!("`{cut}...`"),
    }
}

/// The names of packages that every guest has installed that names any: of others it is not known where they are.
fn packages(run: &Run) -> IndexSet<&str> {
    let installed = run.cells.iter().filter_map(CellRun::last_attempt).map(|attempt| &attempt.installed);
    let mut installed = installed.filter(|installed| !installed.is_empty());
    let mut shared: IndexSet<&str> = installed.next().into_iter().flatten().map(|package| &*package.name).collect();
    for installed in installed {
        let names: std::collections::HashSet<&str> = installed.iter().map(|package| &*package.name).collect();
        shared.retain(|name| names.contains(name));
    }
    shared
}

/// Name and version of what is written as `glibc 2.36`.
fn named(fact: &str) -> (&str, Option<&str>) {
    match fact.rsplit_once(' ') {
        Some((name, version)) if Version::new(version).is_some() => (name, Some(version)),
        _ => (fact, None),
    }
}

fn facts<'a>(cell: &'a CellRun, packages: &IndexSet<&str>) -> Vec<Fact<'a>> {
    let mut facts = Vec::new();
    let mut add = |group, name, version| facts.push(Fact { group, name, version });
    for (axis, value) in &cell.axes {
        add(Group::Axis, format!("{axis}={value}").into(), None);
        add(Group::Axis, axis.into(), Some(value.as_str()));
    }
    let Some(attempt) = cell.last_attempt() else { return facts };
    if let Some(guest) = &attempt.guest {
        let boot = match guest.boot {
            Boot::Forked { .. } => "forked start",
            Boot::Cold { .. } => "cold start",
        };
        add(Group::Boot, boot.into(), None);
        add(Group::Runner, format!("runner {}", guest.runner).into(), None);
    }
    of_system(attempt, &mut add);
    for package in attempt.installed.iter().filter(|package| packages.contains(&*package.name)) {
        add(Group::Package, package.name.as_str().into(), Some(package.version.as_str()));
    }
    facts
}

fn of_system<'a>(attempt: &'a Attempt, add: &mut impl FnMut(Group, Cow<'a, str>, Option<&'a str>)) {
    let Some(system) = &attempt.system else { return };
    for (group, fact) in [(Group::Libc, &system.libc), (Group::Init, &system.init)] {
        if let Some((name, version)) = fact.as_deref().map(named) {
            add(group, name.into(), version);
        }
    }
    if let Some(cgroups) = system.cgroups {
        add(Group::Cgroups, format!("cgroups {}", cgroups.name()).into(), None);
    }
    if let Some(selinux) = system.selinux {
        add(Group::Selinux, format!("SELinux {}", selinux.name()).into(), None);
    }
    if let Some(apparmor) = system.apparmor {
        add(Group::Apparmor, if apparmor { "AppArmor" } else { "AppArmor not enabled" }.into(), None);
    }
    if let Some(arch) = &system.arch {
        // As Linux calls what others call otherwise.
        let arch = match arch.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            arch => arch,
        };
        add(Group::Arch, arch.into(), None);
    }
    if let Some(id) = &system.id {
        add(Group::Os, id.into(), system.version.as_deref());
    }
    if let Some(kernel) = &system.kernel {
        let name = if system.id.as_deref() == Some("freebsd") { "FreeBSD kernel" } else { "Linux" };
        add(Group::Kernel, name.into(), Some(kernel));
    }
    for manager in &system.package_managers {
        let (name, version) = named(manager);
        add(Group::Manager, name.into(), version);
    }
}
