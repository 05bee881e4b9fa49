//! Which files of repositories are packages, and what their names say of them. Pure.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::immutable::lists_packages;

/// Most characters of a name or a version that are taken from a file's name.
const LONGEST: usize = 200;

/// What makes a package out of an older one.
const DELTA: &str = ".drpm";

/// Whether the file of this URL is such a difference of two packages.
pub(crate) fn is_delta(url: &str) -> bool {
    url.split(['?', '#']).next().is_some_and(|path| path.to_ascii_lowercase().ends_with(DELTA))
}

/// What a package's file is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageName {
    /// Name of the package; the file's, where that cannot be told.
    pub name: String,
    /// Its version as the package manager writes it, without the epoch if the file's name lacks that; empty: the file's name has none.
    pub version: String,
}

impl PackageName {
    /// That of the file with this URL or path, percent-encoded as it is there; `None`: it is no package of `.deb`, `.rpm`, `.apk`,
    /// `.pkg.tar*` or `.pkg`, in capitals or not.
    pub fn of(path: &str) -> Option<Self> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let file = percent_decode_str(path.rsplit('/').next().unwrap_or_default()).decode_utf8_lossy();
        if lists_packages(&file) {
            return None;
        }
        let without = |end: &str| {
            let (stem, rest) = file.split_at_checked(file.len().checked_sub(end.len())?)?;
            rest.eq_ignore_ascii_case(end).then_some(stem)
        };
        let (stem, known) = if let Some(stem) = [".deb", ".udeb", ".ddeb"].into_iter().find_map(without) {
            (stem, deb(stem))
        } else if let Some(stem) = [DELTA, ".rpm"].into_iter().find_map(without) {
            (stem, rpm(stem))
        } else if let Some(stem) = without(".apk") {
            (stem, apk(stem))
        } else if let Some(stem) = pacman_stem(&file) {
            (stem, pacman(stem))
        } else {
            let stem = without(".pkg")?;
            (stem, pkg(stem))
        };
        if stem.is_empty() {
            return None;
        }
        let (name, version) = known.unwrap_or_else(|| (stem, String::new()));
        let short = |text: &str| reports::clean::line(text).chars().take(LONGEST).collect();
        Some(Self { name: short(name), version: short(&version) })
    }
}

/// `name version`.
impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.version {
            "" => f.write_str(&self.name),
            version => write!(f, "{} {version}", self.name),
        }
    }
}

/// `name_version_architecture`.
fn deb(stem: &str) -> Option<(&str, String)> {
    let (name, rest) = stem.split_once('_')?;
    let version = rest.rsplit_once('_').map_or(rest, |(version, _)| version);
    (!name.is_empty()).then(|| (name, version.to_owned()))
}

/// `name-version-release.architecture`.
fn rpm(stem: &str) -> Option<(&str, String)> {
    two_words(stem.rsplit_once('.')?.0)
}

/// `name-version-rN`.
fn apk(stem: &str) -> Option<(&str, String)> {
    two_words(stem)
}

/// `name-[epoch:]version-release-architecture`.
fn pacman(stem: &str) -> Option<(&str, String)> {
    two_words(stem.rsplit_once('-')?.0)
}

/// `name-version`, and `~` with a digest after it in some repositories.
fn pkg(stem: &str) -> Option<(&str, String)> {
    let stem = stem.split_once('~').map_or(stem, |(stem, _)| stem);
    let (name, version) = stem.rsplit_once('-')?;
    (!name.is_empty()).then(|| (name, version.to_owned()))
}

/// The last two words are the version.
fn two_words(stem: &str) -> Option<(&str, String)> {
    let (rest, release) = stem.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    (!name.is_empty()).then(|| (name, format!("{version}-{release}")))
}

/// A package of pacman, however it is compressed; not its signature.
fn pacman_stem(file: &str) -> Option<&str> {
    let (stem, compressed) = file.rsplit_once(".pkg.tar")?;
    let is_whole = matches!(compressed, "" | ".zst" | ".xz" | ".gz" | ".bz2" | ".lz4" | ".lzo" | ".lrz" | ".Z");
    is_whole.then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> String {
        PackageName::of(path)
            .map_or("no package".to_owned(), |package| format!("{} | {}", package.name, package.version))
    }

    #[test]
    fn name_and_version_are_those_of_each_familys_files() {
        for (path, expected) in [
            ("http://d.test/pool/h/hello_2.10-3_amd64.deb", "hello | 2.10-3"),
            ("/pool/libs/libstdc%2b%2b6_12.2.0-14%2bdeb12u1_amd64.deb", "libstdc++6 | 12.2.0-14+deb12u1"),
            ("/pool/b/bind9_1%3a9.18.28-1_all.deb", "bind9 | 1:9.18.28-1"),
            ("/x/busybox-udeb_1.35.0-4_arm64.udeb", "busybox-udeb | 1.35.0-4"),
            ("/chrome_current_amd64.deb?mirror=1", "chrome | current"),
            ("/Packages/p/python3-libs-3.13.2-1.fc42.x86_64.rpm", "python3-libs | 3.13.2-1.fc42"),
            (
                "/rpm/ca-certificates-2023.2.60_v7.0.306-90.1.el9_2.noarch.rpm",
                "ca-certificates | 2023.2.60_v7.0.306-90.1.el9_2",
            ),
            ("/v3.20/main/x86_64/libgcc-13.2.1_git20240309-r0.apk", "libgcc | 13.2.1_git20240309-r0"),
            ("/v3.20/main/x86_64/py3-pip-24.0-r2.apk", "py3-pip | 24.0-r2"),
            ("/core/os/x86_64/zlib-1%3A1.3.1-2-x86_64.pkg.tar.zst", "zlib | 1:1.3.1-2"),
            ("/core/os/x86_64/gcc-libs-14.2.1+r753-1-x86_64.pkg.tar.xz", "gcc-libs | 14.2.1+r753-1"),
            ("/FreeBSD:14:amd64/quarterly/All/py311-foo-1.24.0_3,3.pkg", "py311-foo | 1.24.0_3,3"),
            ("/quarterly/All/Hashed/hello-2.12~0123456789.pkg", "hello | 2.12"),
            ("/HELLO_2.10-3_AMD64.DEB", "HELLO | 2.10-3"),
            ("/drpms/bash-5.1-1_5.1-2.el9.x86_64.drpm", "bash-5.1 | 1_5.1-2.el9"),
        ] {
            assert_eq!(named(path), expected, "{path}");
        }
    }

    #[test]
    fn a_file_with_an_odd_name_is_a_package_all_the_same() {
        for (path, expected) in [
            ("/hello.deb", "hello | "),
            ("/_1_all.deb", "_1_all | "),
            ("/hello.rpm", "hello | "),
            ("/hello-1.x86_64.rpm", "hello-1.x86_64 | "),
            ("/a%0Ab_1%2F2_all.deb", "a b | 1/2"),
        ] {
            assert_eq!(named(path), expected, "{path}");
        }
        assert!(named(&format!("/{}_1_all.deb", "x".repeat(1000))).len() < 300);
    }

    #[test]
    fn lists_signatures_and_everything_else_are_no_packages() {
        for path in [
            "/dists/bookworm/InRelease",
            "/dists/bookworm/main/binary-amd64/Packages.xz",
            "/repodata/repomd.xml",
            "/v3.20/main/x86_64/APKINDEX.tar.gz",
            "/core/os/x86_64/core.db",
            "/core/os/x86_64/zlib-1.3.1-2-x86_64.pkg.tar.zst.sig",
            "/quarterly/packagesite.pkg",
            "/quarterly/data.pkg",
            "/a.deb/",
            "/.deb",
            "/x?file=a_1_all.deb",
            "/",
            "",
        ] {
            assert_eq!(named(path), "no package", "{path}");
        }
    }
}
