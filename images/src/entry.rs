//! What can be asked of the store: one operating system, and where it comes from.

use std::path::PathBuf;

use matrix::{Arch, Checksum, Firmware, ImageSource, Location, PackageFamily};
use serde::Deserialize;

use crate::DISK_BYTES;

/// One operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name it is asked for by, for example `debian-12-minimal`.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// The kind of CPU it is made for.
    pub arch: Arch,
    /// What kind of packages it installs; `None`: that is seen in the guest.
    pub family: Option<PackageFamily>,
    /// Who logs in over SSH; anybody but root works through `sudo`.
    pub login_user: String,
    /// Last day it is looked after (`YYYY-MM-DD`), if there is one.
    pub end_of_life: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// What its publisher says of it elsewhere, as far as it was written down.
    pub upstream: Upstream,
}

/// What the publisher of an image says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Who logs in where nobody says otherwise; our guests are told otherwise.
    pub default_user: Option<String>,
    /// The file with the digests of his images.
    pub checksums: Option<ChecksumFile>,
    /// Glob of file names in that: the highest of them is the image, beside that file; `None`: the image stays at its address.
    pub latest: Option<String>,
}

/// A publisher's file with digests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChecksumFile {
    /// Where it is.
    pub url: String,
    /// How it is signed.
    pub signature: Option<Signature>,
}

/// The signature of a file with digests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Signature {
    /// Where it is, in ASCII; `None`: it is in the file itself, around what it signs.
    pub url: Option<String>,
    /// The file on this machine with the publisher's keys, as `gpgv` reads it.
    pub keyring: PathBuf,
}

/// Where an operating system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is built here, of its distribution's packages.
    Bootstrap(Bootstrap),
    /// It is a disk that boots by itself.
    Disk {
        /// The file.
        file: Published,
        /// What starts its boot loader; `None`: see what it is made for.
        firmware: Option<Firmware>,
    },
    /// It is a tarball with a root file system, booted with a kernel of ours.
    Rootfs(Published),
}

/// What is built of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The distribution's own word for the release: a Debian suite.
    pub release: String,
    /// What is added to the release itself.
    pub suites: Vec<Suite>,
    /// Packages on top of the minimal system and of what every image has.
    pub packages: Vec<String>,
}

/// A file that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it is.
    pub origin: Origin,
    /// Its digest as it was stated, of the file as it lies there; what is downloaded without one is refused.
    pub digest: Option<Checksum>,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At any of these addresses, in the order they are tried.
    Urls(Vec<String>),
    /// On this machine.
    Path(PathBuf),
}

/// A part of a distribution's archive with what changed since the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Changes that do not wait for the next point release.
    Updates,
    /// Security fixes.
    Security,
}

impl Suite {
    /// What its name ends in, after the release's.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Security => "security",
        }
    }
}

impl Entry {
    /// Size of its disk as a guest sees it, in bytes, as far as that is known before it is there: what it has at the least. `None`: that
    /// is its publisher's affair.
    pub fn least_disk(&self) -> Option<u64> {
        match self.source {
            Source::Bootstrap(_) | Source::Rootfs(_) => Some(DISK_BYTES),
            Source::Disk { .. } => None,
        }
    }

    /// What a matrix calls `name` and describes itself; `None`: it is to be looked up in the catalog.
    pub fn of_matrix(name: &str, source: &ImageSource) -> Option<Self> {
        let published = |location: &Location, digest: &Option<Checksum>| Published {
            origin: match location {
                Location::Urls(urls) => Origin::Urls(urls.clone()),
                Location::Path(path) => Origin::Path(path.clone()),
            },
            digest: *digest,
        };
        let (arch, family, login_user, source) = match source {
            ImageSource::Catalog => return None,
            ImageSource::Disk { location, digest, arch, firmware, family, login_user } => {
                let source = Source::Disk { file: published(location, digest), firmware: *firmware };
                (*arch, *family, login_user.clone(), source)
            }
            ImageSource::Rootfs { location, digest, arch, family } => {
                (*arch, *family, "root".to_owned(), Source::Rootfs(published(location, digest)))
            }
        };
        let (name, title) = (name.to_owned(), "of the matrix itself".to_owned());
        Some(Self { name, title, arch, family, login_user, end_of_life: None, source, upstream: Upstream::default() })
    }
}
