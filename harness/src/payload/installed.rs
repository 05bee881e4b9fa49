//! What an installation did, from what the guest's package manager knew before and knows after it. Pure.

use std::collections::BTreeSet;

use matrix::Package as Wanted;
use reports::InstalledPackage;

use super::{
    inventory::{Artifact, Id, Inventory, Package},
    version::is_version,
};

/// Most packages that are told of one guest.
const MOST: usize = 100;
/// Most names in one warning.
const MOST_NAMED: usize = 20;
/// The state of a package that is installed as a whole.
const WHOLE: &str = "installed";

/// Packages of any family without which nestmatrix cannot work in a guest.
const NEEDED: [&str; 15] = [
    "bash",
    "busybox",
    "coreutils",
    "dash",
    "dropbear",
    "grep",
    "openssh",
    "openssh-server",
    "openssh-server-common",
    "openssh-server-pam",
    "sudo",
    "systemd",
    "tar",
    "toybox",
    "util-linux",
];

/// An installation that did what it was to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// What the artifacts are.
    pub packages: Vec<InstalledPackage>,
    /// What was installed or replaced besides.
    pub others: Vec<InstalledPackage>,
    /// What else it did, and which artifacts are not among what is installed.
    pub warnings: Vec<String>,
}

/// An installation that did not do it, although the package manager reports success.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Discrepancy {
    /// Something is not installed, or not as a whole.
    Missing(Vec<String>),
    /// All are installed, but not all with the content of the artifacts.
    OtherContent(Vec<String>),
}

/// Compares what was to be installed with what is.
pub(super) fn compare(artifacts: &[Artifact], before: &[Package], after: &Inventory) -> Result<Installed, Discrepancy> {
    let (whole, not): (Vec<_>, Vec<_>) = artifacts.iter().partition(|artifact| fault(artifact, after).is_none());
    let mut installed = Installed::default();
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    for artifact in not {
        let same = |other: &&&Artifact| other.id.name == artifact.id.name && other.id.arch == artifact.id.arch;
        match (whole.iter().find(same), fault(artifact, after)) {
            // Of several versions of one package, there can be one.
            (Some(whole), _) => installed.warnings.push(format!(
                "{} is not installed: {} {} of {} is",
                artifact.file, whole.id.name, whole.id.version, whole.file
            )),
            (None, Some(Fault::Missing(why))) => missing.push(format!("{} is not installed: {why}", artifact.file)),
            (None, Some(Fault::OtherContent)) => other.push(format!(
                "{} is not installed: {} {} does not have its content",
                artifact.file, artifact.id.name, artifact.id.version
            )),
            (None, None) => {}
        }
    }
    if !missing.is_empty() {
        return Err(Discrepancy::Missing(missing));
    }
    if !other.is_empty() {
        return Err(Discrepancy::OtherContent(other));
    }
    for artifact in &whole {
        let package = told(&artifact.id);
        if !installed.packages.contains(&package) {
            installed.packages.push(package);
        }
    }
    let of_artifacts = |id: &Id| whole.iter().any(|artifact| artifact.id == *id);
    let changed = after.packages.iter().filter(|found| !before.contains(found) && !of_artifacts(&found.id));
    installed.others = changed.filter(|found| found.state == WHOLE).map(|found| told(&found.id)).collect();
    installed.packages.truncate(MOST);
    installed.others.truncate(MOST);
    installed.warnings.extend(removed(before, &after.packages));
    Ok(installed)
}

/// Why an artifact is not what is installed.
enum Fault {
    Missing(String),
    OtherContent,
}

fn fault(artifact: &Artifact, after: &Inventory) -> Option<Fault> {
    let Id { name, version, arch } = &artifact.id;
    let of_name = || after.packages.iter().filter(|found| found.id.name == *name && found.id.arch == *arch);
    let Some(found) = of_name().find(|found| found.id.version == *version) else {
        let others: Vec<_> = of_name().map(|found| &*found.id.version).collect();
        let why = if others.is_empty() {
            format!("{name} {version} is missing, although the package manager reports success")
        } else {
            format!("{name} is {}, not {version}", others.join(" and "))
        };
        return Some(Fault::Missing(why));
    };
    if found.state != WHOLE {
        return Some(Fault::Missing(format!("{name} {version} is {}", found.state)));
    }
    let proved = after.proofs.iter().any(|(id, proof)| *id == artifact.id && *proof == artifact.identity);
    (!proved).then_some(Fault::OtherContent)
}

/// What is gone or broken now, and whether nestmatrix itself needs it.
fn removed(before: &[Package], after: &[Package]) -> Vec<String> {
    let is_whole = |found: &&Package| found.state == WHOLE;
    let whole: BTreeSet<&str> = after.iter().filter(is_whole).map(|found| &*found.id.name).collect();
    let lost: Vec<&Package> = before.iter().filter(is_whole).filter(|found| !whole.contains(&*found.id.name)).collect();
    let state = |lost: &&Package| after.iter().find(|found| found.id.name == lost.id.name).map(|found| &*found.state);
    let mut warnings = Vec::new();
    let gone: Vec<_> = lost.iter().filter(|lost| state(lost).is_none()).map(|lost| told(&lost.id)).collect();
    if !gone.is_empty() {
        warnings.push(format!("the installation removed {}", listed(&gone)));
    }
    for lost in &lost {
        if let Some(state) = state(lost) {
            warnings.push(format!("the installation left {} {state}", lost.id.name));
        }
    }
    warnings.truncate(MOST_NAMED);
    let needed: Vec<&str> = lost.iter().map(|lost| &*lost.id.name).filter(|name| NEEDED.contains(name)).collect();
    if !needed.is_empty() {
        let needed = needed.join(", ");
        warnings.push(format!("nestmatrix itself needs {needed} in the guest: what follows may fail without"));
    }
    warnings
}

fn listed(packages: &[InstalledPackage]) -> String {
    let named = packages.iter().take(MOST_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match packages.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn told(id: &Id) -> InstalledPackage {
    InstalledPackage { name: id.name.clone(), version: id.version.clone() }
}

/// What is installed although the matrix says another version: another release than the one that is meant may have been tested.
pub fn another_version(package: &Wanted, installed: &[InstalledPackage]) -> Option<String> {
    let wanted = package.version.as_deref()?;
    let mut found: Vec<_> = installed.iter().filter(|found| found.name == package.name).collect();
    if found.is_empty() {
        // The name may be that of a whole release: its version is that of something it is made of.
        found = installed.iter().collect();
    }
    if found.is_empty() || found.iter().any(|found| is_version(&found.version, wanted)) {
        return None;
    }
    let found = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Some(format!("{found} is what was installed and tested, and the matrix says {} {wanted}", package.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(package: &str) -> Id {
        let (name, version) = package.split_once(' ').unwrap();
        Id { name: name.into(), version: version.into(), arch: "all".into() }
    }

    fn artifact(package: &str, identity: &str, file: &str) -> Artifact {
        Artifact { id: id(package), identity: identity.into(), file: file.into() }
    }

    /// Packages and their states.
    fn packages(packages: &[(&str, &str)]) -> Vec<Package> {
        packages.iter().map(|&(package, state)| Package { id: id(package), state: state.into() }).collect()
    }

    fn after(found: &[(&str, &str)], proofs: &[(&str, &str)]) -> Inventory {
        let proofs = proofs.iter().map(|&(package, proof)| (id(package), proof.to_owned())).collect();
        Inventory { packages: packages(found), proofs, ..Inventory::default() }
    }

    fn told(packages: &[InstalledPackage]) -> String {
        packages.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_installed_is_the_artifacts_with_their_content() {
        let artifacts = [artifact("hello 1.0", "abc", "hello.deb"), artifact("data 2", "unpacked", "data.deb")];
        let before = packages(&[("base 1", "installed"), ("lib 1", "installed")]);
        let after = after(
            &[("base 1", "installed"), ("lib 2", "installed"), ("hello 1.0", "installed"), ("data 2", "installed")],
            &[("data 2", "unpacked"), ("hello 1.0", "unpacked"), ("hello 1.0", "abc")],
        );
        let installed = compare(&artifacts, &before, &after).unwrap();
        assert_eq!(told(&installed.packages), "hello 1.0, data 2");
        assert_eq!(told(&installed.others), "lib 2");
        assert_eq!(installed.warnings, [""; 0]);
    }

    #[test]
    fn a_success_that_installed_nothing_else_or_half_of_it_is_none() {
        let hello = [artifact("hello 1.0", "abc", "hello.deb")];
        let missing = |found: &[(&str, &str)]| match compare(&hello, &[], &after(found, &[("hello 1.0", "abc")])) {
            Err(Discrepancy::Missing(why)) => why.join("; "),
            other => panic!("{other:?}"),
        };
        insta::assert_snapshot!(missing(&[]), @"hello.deb is not installed: hello 1.0 is missing, although the package manager reports success");
        insta::assert_snapshot!(missing(&[("hello 2.0", "installed")]), @"hello.deb is not installed: hello is 2.0, not 1.0");
        insta::assert_snapshot!(missing(&[("hello 1.0", "half-configured")]), @"hello.deb is not installed: hello 1.0 is half-configured");
    }

    #[test]
    fn the_same_version_with_other_content_is_not_the_artifact() {
        let same = [artifact("same 1.0", "b", "same.deb"), artifact("other 1", "c", "other.deb")];
        let found = [("same 1.0", "installed"), ("other 1", "installed")];
        for proofs in
            [&[("same 1.0", "a"), ("other 1", "c")][..], &[("other 1", "c")], &[("other 1", "b"), ("other 1", "c")]]
        {
            let Err(Discrepancy::OtherContent(why)) = compare(&same, &packages(&found), &after(&found, proofs)) else {
                panic!("{proofs:?} proves nothing");
            };
            assert_eq!(why, ["same.deb is not installed: same 1.0 does not have its content"]);
        }
    }

    #[test]
    fn an_artifact_that_another_version_of_it_replaces_is_named() {
        let two = [artifact("hello 1.0", "a", "old.deb"), artifact("hello 2.0", "b", "new.deb")];
        let installed = compare(&two, &[], &after(&[("hello 2.0", "installed")], &[("hello 2.0", "b")])).unwrap();
        assert_eq!(told(&installed.packages), "hello 2.0");
        assert_eq!(installed.warnings, ["old.deb is not installed: hello 2.0 of new.deb is"]);
    }

    #[test]
    fn what_was_removed_is_named_and_what_nestmatrix_needs_of_it_too() {
        let before = packages(&[
            ("base 1", "installed"),
            ("openssh-server 9.2", "installed"),
            ("procps 4", "installed"),
            ("trouble 1", "half-configured"),
            ("lib 1", "installed"),
        ]);
        let after = packages(&[("base 2", "installed"), ("lib 1", "triggers-pending")]);
        assert_eq!(
            removed(&before, &after),
            [
                "the installation removed openssh-server 9.2, procps 4",
                "the installation left lib triggers-pending",
                "nestmatrix itself needs openssh-server in the guest: what follows may fail without",
            ]
        );
        assert_eq!(removed(&before, &before), [""; 0]);
        let many: Vec<_> = (0..1000).map(|number| format!("p{number} 1")).collect();
        let many: Vec<_> = many.iter().map(|name| (&**name, "installed")).collect();
        let warnings = removed(&packages(&many), &[]);
        assert!(warnings[0].ends_with(" p19 1 and 980 more"), "{warnings:?}");
    }

    #[test]
    fn only_the_package_itself_is_compared_and_only_with_a_version_that_is_stated() {
        let package = |version: Option<&str>| Wanted {
            name: "hello".into(),
            version: version.map(Into::into),
            artifacts: Vec::new(),
        };
        let installed = ["hello 2.11-1", "libhello 2.12-1"].map(|line| super::told(&id(line)));
        assert_eq!(another_version(&package(None), &installed), None);
        assert_eq!(another_version(&package(Some("2.11")), &installed), None);
        assert_eq!(
            another_version(&package(Some("2.12")), &installed[1..]),
            None,
            "the name may be that of a whole release"
        );
        assert!(another_version(&package(Some("2.13")), &installed[1..]).is_some(), "and the version is of none of it");
        insta::assert_snapshot!(
            another_version(&package(Some("2.12")), &installed).unwrap(),
            @"hello 2.11-1 is what was installed and tested, and the matrix says hello 2.12"
        );
    }
}
