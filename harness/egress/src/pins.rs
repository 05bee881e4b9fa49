//! What guests of an image got from repositories once and are to get again: which of it a request is for, and how another offer is told
//! from it. Pure.

use std::collections::BTreeMap;

use matrix::Digest;
use serde::{Deserialize, Serialize};
use url::{Position, Url};

use crate::{
    package_name::{PackageName, is_delta},
    snapshot::Snapshot,
};

/// The file of the pins: every refusal names it.
const FILE: &str = "repositories.lock";
/// Most pins of one package that a sentence names.
const NAMED: usize = 3;

/// What is pinned for guests of one image, by [`file_url`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Lists of packages, and every other file that is no package.
    pub metadata: BTreeMap<String, Digest>,
    /// Packages: guests get these and no others.
    pub packages: BTreeMap<String, PackagePin>,
    /// Where their repositories can be had as they were, once the cache and the servers have something else.
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
}

/// A pinned package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagePin {
    /// Its name, as that of its file says.
    pub name: String,
    /// Its version, likewise; empty: unknown.
    pub version: String,
    /// Digest of its file.
    pub digest: Digest,
}

/// What a request is for, as the pins see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// No package: what is pinned, if that can be had.
    Metadata(Option<Digest>),
    /// A pinned package, as its file is called.
    Pinned(&'a PackagePin, PackageName),
    /// A package of which no URL like this is pinned: right only if its content is.
    Unpinned(PackageName),
    /// A difference of two packages that is not pinned. Nobody needs it: package managers get the whole package instead.
    Delta,
}

/// Whether a request of a guest with pins failed for this reason because of them.
pub fn is_difference(reason: &str) -> bool {
    reason.contains(FILE)
}

/// The URL of a file of an http server, in the one spelling that pins know it by.
pub fn file_url(host: &str, port: u16, path: &str) -> String {
    match port {
        80 => format!("http://{host}{path}"),
        _ => format!("http://{host}:{port}{path}"),
    }
}

/// Whether a URL is spelled as [`file_url`] does.
pub fn is_file_url(text: &str) -> bool {
    let spelled = Url::parse(text).ok().filter(|url| url.scheme() == "http").and_then(|url| {
        let path = &url[Position::BeforePath..Position::AfterQuery];
        Some(file_url(url.host_str()?.trim_end_matches('.'), url.port_or_known_default()?, path))
    });
    spelled.as_deref() == Some(text)
}

impl Pins {
    /// What a request for this URL is for.
    pub(crate) fn asked(&self, url: &str) -> Asked<'_> {
        match (PackageName::of(url), self.packages.get(url).or_else(|| self.elsewhere(url))) {
            (Some(name), Some(pin)) => Asked::Pinned(pin, name),
            (Some(_), None) if is_delta(url) => Asked::Delta,
            (Some(name), None) => Asked::Unpinned(name),
            (None, _) => Asked::Metadata(self.metadata.get(url).copied()),
        }
    }

    /// The pinned package whose file is called so, if there is one: mirrors have the same.
    fn elsewhere(&self, url: &str) -> Option<&PackagePin> {
        let file = url.rsplit('/').next();
        let mut called_so =
            self.packages.iter().filter(|(known, _)| known.rsplit('/').next() == file).map(|(_, pin)| pin);
        let first = called_so.next()?;
        called_so.all(|other| other.digest == first.digest).then_some(first)
    }

    /// Where else a file of this URL may be had, the likeliest first.
    pub(crate) fn snapshots(&self, url: &str) -> Vec<String> {
        self.snapshots.iter().flat_map(|snapshot| snapshot.addresses(url)).collect()
    }

    /// Some pinned package has this content, wherever it was got: mirrors have the same.
    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.packages.values().any(|pin| pin.digest == digest)
    }

    /// What is said of a package that is offered and not pinned; its digest, or why that is not known.
    pub(crate) fn refusal(&self, offered: &PackageName, digest: &Result<Digest, String>) -> String {
        let pinned: Vec<_> = self.packages.values().filter(|pin| pin.name == offered.name).take(NAMED).collect();
        match pinned.is_empty() {
            true => format!("{offered} ({}) is not in {FILE}; --lock renews it", words(digest)),
            false => differs(&pinned, offered, digest),
        }
    }
}

impl PackagePin {
    /// What is said of another content than this one.
    pub(crate) fn differs(&self, offered: &PackageName, digest: &Result<Digest, String>) -> String {
        differs(&[self], offered, digest)
    }

    /// What is said when its server does not have it: an HTTP status.
    pub(crate) fn gone(&self, status: &str) -> String {
        let Self { name, digest, .. } = self;
        format!(
            "{name}: {FILE} pins {} ({}), the repository does not have it (HTTP {status}); --lock renews it",
            self.version(),
            words(&Ok(*digest))
        )
    }

    fn version(&self) -> &str {
        version(&self.version)
    }
}

fn differs(pinned: &[&PackagePin], offered: &PackageName, digest: &Result<Digest, String>) -> String {
    let pins: Vec<_> = pinned.iter().map(|pin| format!("{} ({})", pin.version(), words(&Ok(pin.digest)))).collect();
    format!(
        "{}: {FILE} pins {}, the repository offers {} ({}); --lock renews it",
        offered.name,
        pins.join(" and "),
        version(&offered.version),
        words(digest)
    )
}

fn version(version: &str) -> &str {
    if version.is_empty() { "a file without a version" } else { version }
}

fn words(digest: &Result<Digest, String>) -> String {
    match digest {
        Ok(digest) => format!("sha256:{}\u{2026}", digest.short()),
        Err(why) => format!("its digest is unknown: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins() -> Pins {
        let pin = |name: &str, version: &str, content: &str| PackagePin {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: Digest::of(content.as_bytes()),
        };
        Pins {
            metadata: [("http://d.test/InRelease".to_owned(), Digest::of(b"list"))].into(),
            packages: [
                ("http://d.test/nginx-common_1.22.1-9_all.deb".to_owned(), pin("nginx-common", "1.22.1-9", "old")),
                ("http://d.test/hello.deb".to_owned(), pin("hello", "", "hello")),
            ]
            .into(),
            snapshots: Vec::new(),
        }
    }

    fn offered(name: &str, version: &str) -> PackageName {
        PackageName { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_request_is_for_a_pinned_file_by_its_url_and_for_a_package_by_its_name() {
        let pins = pins();
        assert_eq!(pins.asked("http://d.test/InRelease"), Asked::Metadata(Some(Digest::of(b"list"))));
        assert_eq!(pins.asked("http://d.test/Packages.xz"), Asked::Metadata(None));
        let url = "http://d.test/nginx-common_1.22.1-9_all.deb";
        assert_eq!(pins.asked(url), Asked::Pinned(&pins.packages[url], offered("nginx-common", "1.22.1-9")));
        let newer = offered("nginx-common", "1.22.1-10");
        assert_eq!(pins.asked("http://d.test/nginx-common_1.22.1-10_all.deb"), Asked::Unpinned(newer));
        assert!(pins.has(Digest::of(b"old")) && !pins.has(Digest::of(b"list")));
        assert_eq!(file_url("d.test", 80, "/x"), "http://d.test/x");
        assert_eq!(file_url("[::1]", 8080, "/x"), "http://[::1]:8080/x");
        // On a mirror that is not known.
        let elsewhere = "http://m.test/pool/nginx-common_1.22.1-9_all.deb";
        assert_eq!(pins.asked(elsewhere), Asked::Pinned(&pins.packages[url], offered("nginx-common", "1.22.1-9")));
        assert_eq!(pins.asked("http://d.test/x-1-1_1-2.x86_64.drpm"), Asked::Delta);
    }

    #[test]
    fn a_url_has_one_spelling() {
        for right in ["http://d.test/x_1%2b1_all.deb", "http://d.test:8080/x?y", "http://[::1]/x"] {
            assert!(is_file_url(right), "{right}");
        }
        let wrong = [
            "http://D.test/x",
            "http://d.test:80/x",
            "http://d.test./x",
            "http://d.test/a/../x",
            "https://d.test/x",
            "x",
        ];
        for wrong in wrong {
            assert!(!is_file_url(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_offered_instead_is_named_with_both_versions_and_digests() {
        let (pins, digest) = (pins(), Ok(Digest::of(b"new")));
        insta::assert_snapshot!(pins.refusal(&offered("nginx-common", "1.22.1-10"), &digest), @"nginx-common: repositories.lock pins 1.22.1-9 (sha256:cba06b5736fa…), the repository offers 1.22.1-10 (sha256:11507a0e2f5e…); --lock renews it");
        insta::assert_snapshot!(pins.refusal(&offered("libfoo", "1.2"), &digest), @"libfoo 1.2 (sha256:11507a0e2f5e…) is not in repositories.lock; --lock renews it");
        insta::assert_snapshot!(pins.refusal(&offered("libfoo", "1.2"), &Err("timeout".to_owned())), @"libfoo 1.2 (its digest is unknown: timeout) is not in repositories.lock; --lock renews it");
        insta::assert_snapshot!(pins.refusal(&offered("hello", ""), &digest), @"hello: repositories.lock pins a file without a version (sha256:2cf24dba5fb0…), the repository offers a file without a version (sha256:11507a0e2f5e…); --lock renews it");
        assert!(is_difference(&pins.refusal(&offered("libfoo", "1.2"), &digest)) && !is_difference("timeout"));
        let pin = &pins.packages["http://d.test/nginx-common_1.22.1-9_all.deb"];
        insta::assert_snapshot!(pin.differs(&offered("nginx-common", "1.22.1-9"), &digest), @"nginx-common: repositories.lock pins 1.22.1-9 (sha256:cba06b5736fa…), the repository offers 1.22.1-9 (sha256:11507a0e2f5e…); --lock renews it");
        insta::assert_snapshot!(pin.gone("404 Not Found"), @"nginx-common: repositories.lock pins 1.22.1-9 (sha256:cba06b5736fa…), the repository does not have it (HTTP 404 Not Found); --lock renews it");
    }
}
