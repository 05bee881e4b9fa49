//! What is known of the cells' guests, one column for each fact.

use std::{borrow::Cow, collections::HashMap};

use indexmap::IndexMap;

use super::version::Version;
use crate::{Attempt, Boot, CellRun, Run};

/// Most columns. Packages, of which there may be many, come last.
const MOST: usize = 400;

/// What is known of something in the guest of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Unknown,
    /// It is not there.
    Absent,
    /// It is there, and has no version.
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
    /// Its name, such as `glibc`.
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
    let facts: Vec<_> = run.cells.iter().map(facts).collect();
    let mut known = IndexMap::<Group, Vec<Seen>>::new();
    let mut seen = IndexMap::<(Group, &str), Vec<(usize, Option<&str>)>>::new();
    for (index, fact) in facts.iter().enumerate().flat_map(|(index, of)| of.iter().map(move |fact| (index, fact))) {
        seen.entry((fact.group, &fact.name)).or_default().push((index, fact.version));
        let known = known.entry(fact.group).or_insert_with(|| vec![Seen::Unknown; facts.len()]);
        // A package that is not named was there before, or is not there at all.
        if let Some(cell) = known.get_mut(index).filter(|_| fact.group != Group::Package) {
            *cell = Seen::Absent;
        }
    }
    seen.sort_by(|(left, _), _, (right, _), _| left.cmp(right));
    let column = |(group, name): (Group, &str), seen: Vec<(usize, Option<&str>)>| {
        let mut by_text = HashMap::<&str, Option<Version>>::new();
        for text in seen.iter().filter_map(|(_, version)| *version) {
            by_text.entry(text).or_insert_with(|| Version::new(text));
        }
        let mut versions: Vec<_> = by_text.values().flatten().cloned().collect();
        versions.sort();
        versions.dedup();
        let place = |version: &Option<Version>| versions.binary_search(version.as_ref()?).ok();
        let places: HashMap<_, _> = by_text.iter().map(|(text, version)| (*text, place(version))).collect();
        let mut cells = known.get(&group).cloned().unwrap_or_default();
        for (index, version) in seen {
            if let Some(cell) = cells.get_mut(index) {
                *cell = version.and_then(|text| *places.get(text)?).map_or(Seen::Present, Seen::Version);
            }
        }
        let name = if group == Group::Package { format!("package {name}") } else { name.to_owned() };
        Column { name, negated: group.negated(), versions, cells }
    };
    seen.into_iter().take(MOST).map(|(of, seen)| column(of, seen)).collect()
}

/// Name and version of what is written as `glibc 2.36`.
fn named(fact: &str) -> (&str, Option<&str>) {
    match fact.rsplit_once(' ') {
        Some((name, version)) if Version::new(version).is_some() => (name, Some(version)),
        _ => (fact, None),
    }
}

fn facts(cell: &CellRun) -> Vec<Fact<'_>> {
    let mut facts = Vec::new();
    let mut add =
        |group, name: Cow<'_, str>, version| facts.push(Fact { group, name: Cow::Owned(name.into_owned()), version });
    for (axis, value) in &cell.axes {
        add(Group::Axis, format!("{axis}={value}").into(), None);
        add(Group::Axis, axis.into(), Some(value.as_str()));
    }
    let Some(attempt) = cell.last_attempt() else { return facts };
    if let Some(guest) = &attempt.guest {
        let boot = match guest.boot {
            Boot::Forked { .. } => "boot = warm",
            Boot::Cold { .. } => "boot = cold",
        };
        add(Group::Boot, boot.into(), None);
        add(Group::Runner, format!("runner {}", guest.runner).into(), None);
    }
    of_system(attempt, &mut add);
    for package in &attempt.installed {
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
        add(Group::Arch, arch.into(), None);
    }
    if let Some(id) = &system.id {
        add(Group::Os, id.into(), system.version.as_deref());
    }
    if let Some(kernel) = &system.kernel {
        add(Group::Kernel, "kernel".into(), Some(kernel));
    }
    for manager in &system.package_managers {
        let (name, version) = named(manager);
        add(Group::Manager, name.into(), version);
    }
}
