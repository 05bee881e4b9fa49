//! What is installed in a guest, in its package manager's words, and whether that is what the matrix says.

use matrix::{Package, PackageFamily};
use reports::InstalledPackage;

use super::{family, words};

/// Most packages that are told of one guest.
const MOST: usize = 100;

/// What the output of an installation, or of [`super::query`], says is installed.
pub fn installed_packages(family: PackageFamily, output: &[u8]) -> Vec<InstalledPackage> {
    let is_installed = family::of(family).installed;
    let mut packages: Vec<InstalledPackage> = Vec::new();
    for line in words::lines(output) {
        let Some((name, version)) = is_installed(&line) else { continue };
        let package = InstalledPackage { name: name.to_owned(), version: version.to_owned() };
        if packages.len() < MOST && !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
}

/// What is installed although the matrix says another version: another release than the one that is meant may have been tested.
pub fn another_version(package: &Package, installed: &[InstalledPackage]) -> Option<String> {
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

/// Whether a package manager may mean this version by what it says: without the epoch before it, and with what packagers append.
fn is_version(found: &str, wanted: &str) -> bool {
    let plain = |version: &str| {
        let epoch = version.split_once(':').filter(|(epoch, _)| epoch.bytes().all(|byte| byte.is_ascii_digit()));
        let version = epoch.map_or(version, |(_, version)| version);
        version
            .strip_prefix('v')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            .unwrap_or(version)
            .to_owned()
    };
    let (found, wanted) = (plain(found), plain(wanted));
    found.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '+', '_', ',']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(family: PackageFamily, output: &str) -> String {
        installed_packages(family, output.as_bytes()).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_installed_is_told_from_what_is_not() {
        let output = "nestmatrix: hello 2.10-3 is installed\nnestmatrix: half 1.0 is half-configured\n\
                      dpkg-query: no packages found matching nothere\nnestmatrix: x 1:2 is installed\nnestmatrix:  is installed\n\
                      nestmatrix: hello 2.10-3 is installed\n";
        assert_eq!(said(PackageFamily::Deb, output), "hello 2.10-3, x 1:2");
        let output = "(1/3) Installing hello (2.12-r0)\n(2/3) Upgrading libhello (2.11-r0 -> 2.12-r0)\n(3/3) Purging old (1-r0)\n\
                      Executing busybox-1.36.1-r29.trigger\nOK: 9 MiB in 26 packages\n";
        assert_eq!(said(PackageFamily::Apk, output), "hello 2.12-r0, libhello 2.12-r0");
    }

    #[test]
    fn a_guest_that_says_too_much_is_cut() {
        let flood: String = (0..1000).map(|number| format!("nestmatrix: p{number} 1 is installed\n")).collect();
        assert_eq!(installed_packages(PackageFamily::Rpm, flood.as_bytes()).len(), MOST);
    }

    #[test]
    fn a_version_is_itself_with_what_packagers_put_around_it() {
        for (found, wanted) in [
            ("2.12", "2.12"),
            ("2.12-1", "2.12"),
            ("1:2.12+dfsg-3", "2.12"),
            ("2.12-r0", "2.12"),
            ("2.12_1,1", "2.12"),
            ("2.12-1", "v2.12"),
            ("1:2.12-1", "1:2.12-1"),
            ("1.0~rc1-1", "1.0~rc1"),
        ] {
            assert!(is_version(found, wanted), "{found} is {wanted}");
        }
        for (found, wanted) in
            [("2.11-1", "2.12"), ("2.12.1-1", "2.12"), ("2.120", "2.12"), ("2.12~rc1-1", "2.12"), ("2.1", "2.12")]
        {
            assert!(!is_version(found, wanted), "{found} is not {wanted}");
        }
    }

    #[test]
    fn only_the_package_itself_is_compared_and_only_with_a_version_that_is_stated() {
        let package = |version: Option<&str>| Package {
            name: "hello".into(),
            version: version.map(Into::into),
            artifacts: Vec::new(),
        };
        let installed = ["hello 2.11-1", "libhello 2.12-1"].map(|line| {
            let (name, version) = line.split_once(' ').unwrap();
            InstalledPackage { name: name.into(), version: version.into() }
        });
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
