//! From a machine's facts to the steps of setup: a plain function.

use std::fmt;

use super::{
    facts::{DEBIAN_KEYRING, Facts, Version},
    item::{Installer, Item, Purpose},
    step::{As, Step},
};

/// The oldest supported QEMU (migration to `file:`, VM templating as documented).
const OLDEST_QEMU: Version = (8, 2);

/// The one Debian release whose own QEMU is too old and whose backports suite has a newer one.
const BACKPORTED: &str = "bookworm";

/// Where the backports suite is added, if it is not in apt's sources.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/nestmatrix-backports.sources";

/// What is missing and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Missing items, in a fixed order.
    pub(super) missing: Vec<Item>,
    /// The steps to install them, in order.
    pub(super) steps: Vec<Step>,
    /// A note to read before agreeing.
    pub(super) note: Option<String>,
    /// Why setup cannot run these steps itself.
    pub(super) by_hand: Option<String>,
}

/// Decides how to make the machine fit for the purpose.
pub(super) fn plan(facts: &Facts, purpose: Purpose) -> Plan {
    let old = |version: Option<Version>| version.is_none_or(|version| version < OLDEST_QEMU);
    let too_old =
        |item| (item == Item::Qemu && old(facts.qemu)) || (item == Item::ForeignQemu && old(facts.foreign_qemu));
    // If no package has archives of OpenSSL it is built, unless some are installed already.
    let vendored =
        !facts.present.contains(&Item::OpenSsl) && !facts.installer.is_some_and(Installer::has_static_openssl);
    let missing = Item::ALL
        .into_iter()
        .filter(|item| item.needed(purpose, facts.root, vendored))
        .filter(|item| !facts.present.contains(item) || too_old(*item));
    let mut plan = Plan { missing: missing.collect(), ..Plan::default() };
    if plan.missing.is_empty() {
        return plan;
    }
    let who = if facts.root || !facts.sudo { As::Root } else { As::Sudo };
    match facts.installer {
        Some(Installer::Apt) => with_apt(facts, who, &mut plan),
        Some(other) => {
            plan.steps = with_another(other, who, &plan.missing);
            plan.by_hand = Some(format!(
                "setup runs apt only; for {} use this command, after checking the package names",
                other.program()
            ));
        }
        None => plan.by_hand = Some("no known package manager found: install the above yourself".into()),
    }
    if plan.missing.contains(&Item::SubordinateIds) {
        let first = facts.free_subordinate_id;
        let range = format!("{first}-{}", first.saturating_add(65_535));
        let add = ["usermod", "--add-subuids", &range, "--add-subgids", &range, &facts.user];
        plan.steps.push(Step::run(who, add));
    }
    if plan.by_hand.is_none() && !facts.root && !facts.sudo {
        plan.by_hand = Some("this is not root and there is no sudo: run the commands as root".into());
    }
    plan
}

fn with_apt(facts: &Facts, who: As, plan: &mut Plan) {
    const QEMU: [Item; 2] = [Item::Qemu, Item::QemuImg];
    let is_qemu = |item: &&Item| QEMU.contains(item) || **item == Item::ForeignQemu;
    let (missing, mut rest): (Vec<Item>, Vec<Item>) = plan.missing.iter().partition(is_qemu);
    let foreign = missing.contains(&Item::ForeignQemu);
    let mut from_backports = false;
    if !missing.is_empty() {
        let apt_has = |item: &Item| if *item == Item::ForeignQemu { facts.apt_foreign_qemu } else { facts.apt_qemu };
        // Before the first `apt-get update` apt knows nothing; bookworm's version is known anyway.
        let too_old = missing
            .iter()
            .any(|item| apt_has(item).map_or(facts.codename == BACKPORTED, |version| version < OLDEST_QEMU));
        match (too_old, facts.codename == BACKPORTED) {
            (false, _) => {
                if missing.iter().any(|item| QEMU.contains(item)) {
                    rest.extend(QEMU);
                }
                rest.extend(foreign.then_some(Item::ForeignQemu));
            }
            (true, true) => from_backports = true,
            (true, false) => return plan.by_hand = Some(no_new_qemu(facts)),
        }
    }
    if from_backports {
        let backports = format!("{BACKPORTED}-backports");
        if !facts.apt_sources.iter().any(|source| source.release == backports && source.component == "main") {
            let Some(mirror) = debian_mirror(facts) else { return plan.by_hand = Some(no_mirror(&backports)) };
            plan.note = Some(format!(
                "the QEMU of {} is too old; {backports} has a newer one, so that suite is added to apt's sources, from \
                 the mirror this machine already uses; only QEMU and what it needs is taken from it",
                facts.system
            ));
            let text = format!(
                "Types: deb\nURIs: {mirror}\nSuites: {backports}\nComponents: main\nSigned-By: {DEBIAN_KEYRING}\n"
            );
            plan.steps.push(Step::Write(who, BACKPORTS_FILE.into(), text));
        }
    }
    let rest = packages(Installer::Apt, &rest);
    if from_backports || !rest.is_empty() {
        plan.steps.push(Step::run(who, ["apt-get", "update"]));
    }
    if !rest.is_empty() {
        plan.steps.push(install(who, None, &rest));
    }
    if from_backports {
        // All, even if some are installed: the tools of one release and the emulators of another conflict.
        let also = (foreign || facts.present.contains(&Item::ForeignQemu)).then_some(Item::ForeignQemu);
        let all: Vec<Item> = QEMU.into_iter().chain(also).collect();
        plan.steps.push(install(who, Some("bookworm-backports"), &packages(Installer::Apt, &all)));
    }
}

/// Without recommended packages (graphical displays and sound, which guests do not have) and without questions. The time limit is
/// for a machine that is just updating itself.
fn install(who: As, suite: Option<&str>, packages: &[&str]) -> Step {
    let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"];
    words.extend(["install", "--yes", "--no-install-recommends"]);
    words.extend(suite.iter().flat_map(|suite| ["-t", suite]));
    words.extend(packages);
    Step::run(who, words)
}

fn with_another(installer: Installer, who: As, missing: &[Item]) -> Vec<Step> {
    let packages = packages(installer, missing);
    if packages.is_empty() {
        return Vec::new();
    }
    let (who, words): (As, &[&str]) = match installer {
        Installer::Apt | Installer::Dnf => (who, &["dnf", "install"]),
        Installer::Pacman => (who, &["pacman", "-S", "--needed"]),
        Installer::Zypper => (who, &["zypper", "install"]),
        // It refuses to run as root.
        Installer::Brew => (As::Root, &["brew", "install"]),
    };
    vec![Step::run(who, words.iter().chain(&packages).copied())]
}

/// The packages of these items, each once.
fn packages(installer: Installer, items: &[Item]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for package in items.iter().flat_map(|item| item.packages(installer)) {
        if !packages.contains(package) {
            packages.push(*package);
        }
    }
    packages
}

/// The mirror that this machine uses for Debian itself: it has the release *and* its updates, which archives of third parties do
/// not.
fn debian_mirror(facts: &Facts) -> Option<&str> {
    let serving = |release: &str| {
        let main = facts.apt_sources.iter().filter(|source| source.component == "main");
        main.filter(|source| source.release == release).map(|source| source.uri.as_str()).collect::<Vec<_>>()
    };
    let (release, updates) = (serving(&facts.codename), serving(&format!("{}-updates", facts.codename)));
    let both = release.iter().copied().find(|uri| updates.contains(uri));
    both.or_else(|| release.into_iter().find(|uri| uri.trim_end_matches('/').ends_with("/debian")))
}

fn no_mirror(suite: &str) -> String {
    format!("no mirror of Debian is among apt's sources: add the suite {suite} there, then run the same command again")
}

fn no_new_qemu(facts: &Facts) -> String {
    let (major, minor) = OLDEST_QEMU;
    format!(
        "the newest QEMU that apt has on {} is older than {major}.{minor}: use a newer release of the system (Debian 12 or \
         newer, Ubuntu 24.04 or newer), or build QEMU {major}.{minor} or newer and put it first on the PATH",
        facts.system
    )
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            return writeln!(f, "setup: nothing is missing");
        }
        writeln!(f, "setup: this machine lacks")?;
        for item in &self.missing {
            let (name, purpose) = item.about();
            writeln!(f, "  {name:<18}  {purpose}")?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "note: {note}")?;
        }
        if !self.steps.is_empty() {
            writeln!(f, "these commands install it:")?;
            for step in &self.steps {
                writeln!(f, "{step}")?;
            }
        }
        self.by_hand.iter().try_for_each(|reason| writeln!(f, "setup does not run them itself: {reason}"))
    }
}

#[cfg(test)]
mod tests;
