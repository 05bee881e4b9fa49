//! What is known of the cells' guests, one column for each fact.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use indexmap::{IndexMap, IndexSet};

use super::version::{self, Version};
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
    /// The versions that were seen, ascending, each once, as they are shown.
    pub(super) versions: Vec<String>,
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

/// In which cells something is there, and in which version.
#[derive(Default)]
struct There<'a> {
    versions: IndexSet<&'a str>,
    /// The cell, and the place of its version among those.
    cells: Vec<(usize, Option<usize>)>,
}

/// What is known of one group.
#[derive(Default)]
struct Facts<'a> {
    /// The cells of which something is known, ascending.
    known: Vec<usize>,
    names: IndexMap<Cow<'a, str>, There<'a>>,
}

#[derive(Default)]
struct Table<'a>(BTreeMap<Group, Facts<'a>>);

impl<'a> Table<'a> {
    /// Something is there in a cell. Cells come one after the other.
    fn add(&mut self, cell: usize, group: Group, name: Cow<'a, str>, version: Option<&'a str>) {
        let Facts { known, names } = self.0.entry(group).or_default();
        if known.last() != Some(&cell) {
            known.push(cell);
        }
        // A package that a guest does not name was there before, or is not there at all. So only those that the first guest names can be
        // known in all.
        let is_full = names.len() >= MOST || group == Group::Package && known.len() > 1;
        let there = match names.get_mut(name.as_ref()) {
            Some(there) => there,
            None if is_full => return,
            None => names.entry(name).or_default(),
        };
        there.cells.push((cell, version.map(|version| there.versions.insert_full(version).0)));
    }
}

/// The facts of all cells, the most telling first.
pub(super) fn columns(run: &Run) -> Vec<Column> {
    let mut table = Table::default();
    for (index, cell) in run.cells.iter().enumerate() {
        add_facts(&mut table, index, cell);
    }
    let mut columns = Vec::new();
    for (group, Facts { known, names }) in table.0 {
        let mut cells = vec![Seen::Unknown; run.cells.len()];
        for known in known {
            if let Some(cell) = cells.get_mut(known).filter(|_| group != Group::Package) {
                *cell = Seen::Absent;
            }
        }
        columns.extend(names.into_iter().map(|(name, there)| there.column(group, &name, cells.clone())));
    }
    columns
}

impl There<'_> {
    fn column(self, group: Group, name: &str, mut cells: Vec<Seen>) -> Column {
        let read = if group == Group::Axis { version::read_only } else { version::read };
        let read: Vec<_> = self.versions.iter().map(|text| read(text)).collect();
        // Equal ones may be written differently: one of the texts stands for all, the same in each report.
        let mut versions = BTreeMap::<&Version, &str>::new();
        for (version, said) in read.iter().flatten() {
            versions.entry(version).and_modify(|text| *text = said.min(text)).or_insert(said);
        }
        // Epochs are counted by each distribution for itself: which version is the higher one is not known.
        let epochs = versions.keys().next().zip(versions.keys().next_back());
        if epochs.is_some_and(|(first, last)| first.epoch != last.epoch) {
            versions.clear();
        }
        let order: HashMap<_, _> = versions.keys().enumerate().map(|(place, version)| (*version, place)).collect();
        let place = |read: &Option<(Version, &str)>| order.get(&read.as_ref()?.0).copied();
        let places: Vec<_> = read.iter().map(|read| place(read).map_or(Seen::Present, Seen::Version)).collect();
        for (index, version) in self.cells {
            let Some(cell) = cells.get_mut(index) else { continue };
            let version = version.and_then(|version| places.get(version)).copied().unwrap_or(Seen::Present);
            // Several at once are no version.
            *cell = if cell.is_there() && *cell != version { Seen::Present } else { version };
        }
        let name = match group {
            Group::Package => format!("package {}", quoted(name)),
            Group::Axis | Group::Libc | Group::Init | Group::Arch | Group::Os | Group::Manager => quoted(name),
            // Names of ours.
            Group::Boot | Group::Cgroups | Group::Selinux | Group::Apparmor | Group::Kernel | Group::Runner => {
                name.to_owned()
            }
        };
        let versions = versions.into_values().map(str::to_owned).collect();
        Column { name, negated: group.negated(), versions, cells }
    }
}

/// In backticks, which it has none of itself: guests choose such names.
pub(super) fn quoted(name: &str) -> String {
    let name = name.replace('`', "'");
    match clean::prefix(&name, LONGEST) {
        whole if whole.len() == name.len() => format!("`{name}`"),
        cut => format!("`{cut}...`"),
    }
}

/// Name and version of what is written as `glibc 2.36`.
fn named(fact: &str) -> (&str, Option<&str>) {
    match fact.rsplit_once(' ') {
        Some((name, version)) if version::read(version).is_some() => (name, Some(version)),
        _ => (fact, None),
    }
}

fn add_facts<'a>(table: &mut Table<'a>, index: usize, cell: &'a CellRun) {
    let mut add = |group, name, version| table.add(index, group, name, version);
    for (axis, value) in &cell.axes {
        add(Group::Axis, format!("{axis}={value}").into(), None);
        add(Group::Axis, axis.into(), Some(value.as_str()));
    }
    let Some(attempt) = cell.last_attempt() else { return };
    if let Some(guest) = &attempt.guest {
        let boot = match guest.boot {
            Boot::Forked { .. } => "forked start",
            Boot::Cold { .. } => "cold start",
        };
        add(Group::Boot, boot.into(), None);
        add(Group::Runner, format!("runner {}", guest.runner).into(), None);
    }
    of_system(attempt, &mut add);
    for package in &attempt.installed {
        add(Group::Package, package.name.as_str().into(), Some(package.version.as_str()));
    }
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
