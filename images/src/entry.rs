//! An entry of the catalog: one operating system, and where it comes from.

use std::path::PathBuf;

use matrix::{Arch, Checksum, Firmware, ImageSource, Location, PackageFamily};
use serde::Deserialize;

use crate::DISK_BYTES;

/// One operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, for example `debian-12-minimal`.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// Its architecture.
    pub arch: Arch,
    /// The kind of packages it installs; `None`: found out in the guest.
    pub family: Option<PackageFamily>,
    /// The user who logs in over SSH; users other than root work through `sudo`.
    pub login_user: String,
    /// Last day of support (`YYYY-MM-DD`), if it has one.
    pub end_of_life: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// What its publisher states elsewhere, as far as the catalog has it.
    pub upstream: Upstream,
}

/// What the publisher of an image states about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The image's default user; guests of nestmatrix get [`Entry::login_user`] instead.
    pub default_user: Option<String>,
    /// The publisher's list of digests.
    pub checksums: Option<ChecksumFile>,
    /// Glob of file names in that list: the highest of them is the image, beside the list; `None`: the image stays at its
    /// address.
    pub latest: Option<String>,
}

/// A publisher's list of digests.
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
    /// Where it is, in ASCII; `None`: it is inline, around the signed text.
    pub url: Option<String>,
    /// The file on this machine with the publisher's keys, as `gpgv` reads it.
    pub keyring: PathBuf,
}

/// Where an operating system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built here, from its distribution's packages.
    Bootstrap(Bootstrap),
    /// A disk with a boot loader.
    Disk {
        /// The file.
        file: Published,
        /// What starts its boot loader; `None`: read from the disk.
        firmware: Option<Firmware>,
    },
    /// A tarball with a root file system, booted with our kernel.
    Rootfs(Published),
}

/// An image that is built from packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The distribution's name of the release: a Debian suite.
    pub release: String,
    /// Suites added to the release itself.
    pub suites: Vec<Suite>,
    /// Packages on top of the minimal system and of those that every image has.
    pub packages: Vec<String>,
}

/// A file that others made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it is.
    pub origin: Origin,
    /// Its stated digest, of the file as it lies there; downloads without one are refused.
    pub digest: Option<Checksum>,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At any of these addresses, tried in this order.
    Urls(Vec<String>),
    /// On this machine.
    Path(PathBuf),
}

/// A part of a distribution's archive with changes since the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Changes that do not wait for the next point release.
    Updates,
    /// Security fixes.
    Security,
}

impl Suite {
    /// The suffix of its name, after the release's.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Security => "security",
        }
    }
}

impl Entry {
    /// Minimum size of its disk as a guest sees it, in bytes, if known in advance; `None`: the publisher decides.
    pub fn least_disk(&self) -> Option<u64> {
        match self.source {
            Source::Bootstrap(_) | Source::Rootfs(_) => Some(DISK_BYTES),
            Source::Disk { .. } => None,
        }
    }

    /// The entry for an image that a matrix describes itself; `None`: it is to be looked up in the catalog.
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
