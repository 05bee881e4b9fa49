//! Which files of a repository never change under their name. Pure.

/// Files of these systems' repositories that have a package's name and version in theirs.
const PACKAGES: &[&str] = &[
    ".deb",
    ".udeb",
    ".ddeb",
    ".rpm",
    ".drpm",
    ".apk",
    ".pkg",
    ".pkg.tar.zst",
    ".pkg.tar.xz",
    ".pkg.tar.gz",
    ".pkg.tar",
    ".pkg.tar.zst.sig",
    ".pkg.tar.xz.sig",
    ".pkg.tar.gz.sig",
];
/// Files of a FreeBSD repository that are called like packages, and list them.
const LISTS: &[&str] = &["packagesite.pkg", "data.pkg", "filesite.pkg", "meta.pkg", "digests.pkg"];

/// Whether a distribution never puts other content under this path: it names a package and its version, or a digest.
pub(crate) fn is_immutable(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if lists_packages(name) {
        return false;
    }
    // apt's files by digest; dnf's begin with one.
    let by_hash = folder.rsplit('/').nth(1) == Some("by-hash") && is_digest(name);
    let hashed = folder.ends_with("/repodata") && name.split_once('-').is_some_and(|(digest, _)| is_digest(digest));
    by_hash || hashed || PACKAGES.iter().any(|end| name.ends_with(end) && name.len() > end.len())
}

/// A file that is called like a package, and lists packages.
pub(crate) fn lists_packages(name: &str) -> bool {
    LISTS.contains(&name)
}

/// Whether a file of this URL says which packages a repository has: what is installed depends on it.
pub fn is_list(url: &str) -> bool {
    const NAMES: &[&str] =
        &["InRelease", "Release", "repomd.xml", "APKINDEX.tar.gz", "packagesite.txz", "packagesite.tzst"];
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_packages = name.split('.').next() == Some("Packages") || name.ends_with("primary.xml.gz");
    NAMES.contains(&name)
        || lists_packages(name)
        || is_packages
        || name.ends_with(".db")
        || folder.contains("/by-hash/")
}

/// MD5, SHA-1, SHA-256 or SHA-512 in hex digits.
fn is_digest(text: &str) -> bool {
    [32, 40, 64, 128].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_files_named_by_a_digest_do_not_change() {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for path in [
            "/debian/pool/main/h/hello/hello_2.10-3_amd64.deb".to_owned(),
            "/fedora/Packages/h/hello-2.12.1-6.fc42.x86_64.rpm".to_owned(),
            "/alpine/v3.20/main/x86_64/hello-2.12-r0.apk".to_owned(),
            "/core/os/x86_64/zlib-1%3A1.3.1-2-x86_64.pkg.tar.zst".to_owned(),
            "/core/os/x86_64/zlib-1:1.3.1-2-x86_64.pkg.tar.zst.sig".to_owned(),
            "/FreeBSD:14:amd64/quarterly/All/hello-2.12.pkg".to_owned(),
            format!("/debian/dists/trixie/main/binary-amd64/by-hash/SHA256/{digest}"),
            format!("/repo/repodata/{digest}-primary.xml.zst"),
        ] {
            assert!(is_immutable(&path), "{path}");
        }
    }

    #[test]
    fn lists_of_packages_do() {
        for path in [
            "/debian/dists/trixie/InRelease",
            "/debian/dists/trixie/main/binary-amd64/Packages.xz",
            "/repo/repodata/repomd.xml",
            "/repo/repodata/primary.xml.gz",
            "/alpine/v3.20/main/x86_64/APKINDEX.tar.gz",
            "/core/os/x86_64/core.db",
            "/core/os/x86_64/core.db.tar.gz",
            "/FreeBSD:14:amd64/quarterly/packagesite.pkg",
            "/x/data.pkg",
            "/x/meta.conf",
            "/",
            "",
            "/.deb",
            "/latest.tar.gz",
            "/a.deb/b",
            "/by-hash/x",
            "/x?file=a.deb",
            "/debian/by-hash/SHA256/abc",
        ] {
            assert!(!is_immutable(path), "{path}");
        }
    }
}
