//! Errors of images, and their remedies.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix::{Arch, Digest};

use crate::{
    fetch::{FetchError, Trouble, WrongChecksum},
    space::{self, NoRoom},
};

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the image store {}: {kind}", path.display())]
pub struct StoreError {
    /// The store's folder.
    pub path: PathBuf,
    /// Why.
    pub kind: StoreErrorKind,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is neither a store nor a home folder for one.
    #[error("none of NESTMATRIX_STORE, XDG_CACHE_HOME and HOME is set")]
    Nowhere,
    /// It cannot be created or written to.
    #[error("{action}: {source}")]
    Io {
        /// The failed action.
        action: String,
        /// The system's error.
        source: io::Error,
    },
    /// Its disk is full.
    #[error("its disk is full ({free} bytes free)")]
    DiskFull {
        /// Bytes an ordinary user may still write.
        free: u64,
    },
}

/// An image is not available.
#[derive(Debug, thiserror::Error)]
#[error("image `{image}`: {kind}")]
pub struct PrepareError {
    /// Its catalog name.
    pub image: Box<str>,
    /// What went wrong.
    pub kind: PrepareErrorKind,
    /// Last lines of the tool that failed, oldest first; may be empty.
    pub tail: Vec<String>,
    /// The remedy.
    pub help: Option<String>,
}

impl PrepareError {
    /// True if its publisher has removed the file from all addresses.
    pub(crate) fn is_vanished(&self) -> bool {
        let PrepareErrorKind::Download(error) = &self.kind else { return false };
        let FetchError::Mirrors { failures } = &**error else { return false };
        !failures.is_empty()
            && failures.iter().all(|failure| matches!(failure.trouble, Trouble::Status { code: 404 | 410, .. }))
    }

    /// The same with another remedy; `copies`: disks of images that had this name.
    pub(crate) fn with_copies(self, copies: &[PathBuf]) -> Self {
        let mut help = "its publisher has removed it: for a catalog image, `nestmatrix images update MATRIX` looks for its successor; for an `[[image]]` with `url`, write the new address and digest; name mirrors in a catalog of your own (images.toml: `url = [...]`)"
            .to_owned();
        if let Some(copy) = copies.first() {
            let path = copy.display();
            help += &format!("; an earlier one is in the store: `[[image]]` with `path = \"{path}\"` uses it");
        }
        Self { help: Some(help), ..self }
    }
}

/// What went wrong with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareErrorKind {
    /// [`crate::Control::cancel`] was set.
    #[error("cancelled")]
    Cancelled,
    /// A tool the build needs is not installed.
    #[error("`{tool}` is not installed")]
    ToolMissing {
        /// Its program name.
        tool: String,
    },
    /// Building requires programs of the image to run here, and they cannot.
    #[error(
        "building it requires running {arch} programs on this machine, but {}",
        old_kernel.as_ref().map_or("no emulator is installed".to_owned(), |release| format!(
            "no emulator is registered; before Linux 6.7 (this is {release}) only root can register one"
        ))
    )]
    NoEmulator {
        /// Their architecture.
        arch: Arch,
        /// The kernel on which only root can register the installed emulator.
        old_kernel: Option<String>,
    },
    /// A tool that the build needs failed.
    #[error("`{tool}` failed ({status})")]
    ToolFailed {
        /// Its program name.
        tool: String,
        /// How it ended, for example `exit status: 1`.
        status: String,
    },
    /// A tool succeeded, but did not make what it should have.
    #[error("the build made no usable {what}")]
    Incomplete {
        /// What is missing.
        what: String,
    },
    /// A tool was killed because it took too long.
    #[error("timeout: `{tool}` still ran after {} s", limit.as_secs_f64())]
    Stalled {
        /// Its program name.
        tool: String,
        /// Its time limit.
        limit: Duration,
    },
    /// The download failed.
    #[error("{0}")]
    Download(Box<FetchError>),
    /// The disk is full.
    #[error("disk full: {} has {free} bytes free{}", path.display(), needed.map_or(String::new(), |n| format!(", about {n} needed")))]
    DiskFull {
        /// A folder on the full disk.
        path: PathBuf,
        /// Bytes an ordinary user may still write there.
        free: u64,
        /// Bytes the build needs there, if that was checked beforehand.
        needed: Option<u64>,
    },
    /// No folder is suitable to build in.
    #[error("no folder to build in: {tried}")]
    NoWorkFolder {
        /// The folders that were tried, and why they are unsuitable.
        tried: String,
    },
    /// A file in the store is damaged.
    #[error("{} is damaged: recorded as {}, found {}", path.display(), digests.recorded, digests.found)]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The expected and the actual digest.
        digests: Box<Mismatch>,
    },
    /// It cannot be used as an image.
    #[error("{} is not used: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It would be downloaded, but has no digest.
    #[error("{url} has no digest, so it cannot be verified")]
    Unpinned {
        /// Where it is.
        url: String,
    },
    /// It has another digest than stated.
    #[error("digest mismatch of {what}: expected {}, found {}", digests.expected, digests.found)]
    WrongDigest {
        /// The file, or where it came from.
        what: String,
        /// The expected and the actual digest.
        digests: Box<WrongChecksum>,
    },
    /// It is not in the store, and the network is disabled.
    #[error("not in the store, and `--offline` forbids downloading and building")]
    Offline,
    /// It is not in the store ([`crate::Store::verify`] only).
    #[error("not in the store")]
    Absent,
    /// The copy in the store cannot be used ([`crate::Store::verify`] only; otherwise it is rebuilt on next use).
    #[error("damaged: {why}; it is rebuilt on next use")]
    Broken {
        /// What is wrong with it.
        why: String,
    },
    /// Reading or writing in the store failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// For example `read`.
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Two digests that should be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The digest when it was stored.
    pub recorded: Digest,
    /// The digest now.
    pub found: Digest,
}

impl PrepareErrorKind {
    /// Wraps an error of the file system; a full disk becomes its own kind.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), free: space::free(path).unwrap_or(0), needed: None }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}

impl From<FetchError> for PrepareErrorKind {
    fn from(error: FetchError) -> Self {
        match error {
            // One kind per cause, wherever it happens.
            FetchError::Cancelled => Self::Cancelled,
            FetchError::DiskFull { path, free, needed } => Self::DiskFull { path, free, needed },
            other => Self::Download(Box::new(other)),
        }
    }
}

impl From<NoRoom> for PrepareErrorKind {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Unknown { path, source } => Self::io("inspect", &path)(source),
            NoRoom::Full { path, free, needed } => Self::DiskFull { path, free, needed: Some(needed) },
        }
    }
}

/// An error that does not yet name its image.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: PrepareErrorKind,
    pub(crate) tail: Vec<String>,
}

impl From<PrepareErrorKind> for Failure {
    fn from(kind: PrepareErrorKind) -> Self {
        Self { kind, tail: Vec::new() }
    }
}

impl Failure {
    /// The error as the caller sees it.
    pub(crate) fn about(self, image: &str) -> PrepareError {
        let help = help(&self.kind, &self.tail, image);
        PrepareError { image: image.into(), kind: self.kind, tail: self.tail, help }
    }
}

/// The remedy: from the kind, or from the tool's output.
fn help(kind: &PrepareErrorKind, tail: &[String], image: &str) -> Option<String> {
    let said = |words: &str| tail.iter().any(|line| line.contains(words));
    let text = match kind {
        PrepareErrorKind::Download(error) => return error.help().map(str::to_owned),
        PrepareErrorKind::Offline => {
            format!(
                "download it first: `nestmatrix images prepare --matrix FILE`, or `nestmatrix images prepare {image}` for a catalog image"
            )
        }
        PrepareErrorKind::ToolMissing { .. } => "run `cargo xtask setup`".to_owned(),
        PrepareErrorKind::NoEmulator { arch, old_kernel } => {
            let package = if old_kernel.is_some() { "binfmt-support" } else { "qemu-user-static" };
            format!("run `cargo xtask setup --arch {arch}`, or install `{package}`")
        }
        PrepareErrorKind::DiskFull { .. } => {
            "free some space there, or put the store elsewhere: `--store DIR` or NESTMATRIX_STORE".to_owned()
        }
        PrepareErrorKind::Damaged { .. } => {
            format!("replace it: `nestmatrix images prepare --refresh {image}`, or `--refresh --matrix FILE`")
        }
        PrepareErrorKind::Refused { .. } => {
            "supported images: `path` or `url`: a bootable disk in a single file (qcow2, raw, vmdk, vhdx, vdi), or an `.ova` with one; `rootfs`: a tarball with a system that needs no boot loader; `from`: a variant of a catalog image"
                .to_owned()
        }
        PrepareErrorKind::Stalled { .. } => {
            "this machine or the package mirror is too slow or hangs: see the last lines, then try again"
                .to_owned()
        }
        PrepareErrorKind::Io { .. } => {
            "check the permissions of that folder, or choose another store: `--store DIR` or NESTMATRIX_STORE"
                .to_owned()
        }
        PrepareErrorKind::Unpinned { .. } => {
            "`nestmatrix images update MATRIX` writes its digest into `images.lock`, beside the matrix file".to_owned()
        }
        PrepareErrorKind::WrongDigest { .. } => {
            "download the file again; if its publisher announces a new version, write its new digest".to_owned()
        }
        PrepareErrorKind::NoWorkFolder { .. } => {
            "set TMPDIR to a folder that all users may enter, such as /var/tmp".to_owned()
        }
        PrepareErrorKind::ToolFailed { .. } if said("newuidmap") || said("/etc/subuid") || said("/etc/subgid") => {
            "this user needs subordinate ids: install the package uidmap, then \
             `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`"
                .to_owned()
        }
        PrepareErrorKind::ToolFailed { .. } if said("unshare") && said("Operation not permitted") => {
            "this system forbids user name spaces: `sudo sysctl kernel.unprivileged_userns_clone=1` or \
             `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, whichever exists"
                .to_owned()
        }
        PrepareErrorKind::ToolFailed { .. }
            if said("Could not resolve") || said("Could not connect") || said("Temporary failure resolving") =>
        {
            "the package mirror is unreachable: check the network and this machine's apt sources".to_owned()
        }
        PrepareErrorKind::ToolFailed { .. } if said("404  Not Found") => {
            "the package mirror lists files that it lacks, probably because it is being updated: try again later"
                .to_owned()
        }
        PrepareErrorKind::ToolFailed { .. } if said("is expired (invalid since") => {
            "the package mirror is outdated, or this machine's clock is ahead; to accept that, set \
             `Acquire::Check-Valid-Until \"false\";` in this machine's apt configuration"
                .to_owned()
        }
        PrepareErrorKind::ToolFailed { .. } if said("NO_PUBKEY") || said("is not signed") => {
            "this machine's Debian keyring is too old for that release: upgrade debian-archive-keyring".to_owned()
        }
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_image_what_happened_and_what_to_do() {
        let kind = PrepareErrorKind::ToolMissing { tool: "mmdebstrap".to_owned() };
        let error = Failure::from(kind).about("debian-12-minimal");
        insta::assert_snapshot!(error, @"image `debian-12-minimal`: `mmdebstrap` is not installed");
        insta::assert_snapshot!(error.help.as_deref().unwrap_or_default(), @"run `cargo xtask setup`");
    }

    #[test]
    fn a_full_disk_names_the_folder_and_the_bytes_free() {
        let kind = PrepareErrorKind::DiskFull { path: "/store".into(), free: 4096, needed: Some(1 << 30) };
        insta::assert_snapshot!(
            Failure::from(kind).about("debian-12-minimal"),
            @"image `debian-12-minimal`: disk full: /store has 4096 bytes free, about 1073741824 needed"
        );
    }

    #[test]
    fn a_download_that_failed_says_whom_it_asked_and_a_full_disk_is_one_wherever_it_was_noticed() {
        let offline = FetchError::Offline { url: "https://mirror.test/disk.img".to_owned() };
        let error = Failure::from(PrepareErrorKind::from(offline)).about("debian-12");
        insta::assert_snapshot!(
            error,
            @"image `debian-12`: https://mirror.test/disk.img cannot be downloaded: the network is disabled"
        );
        assert!(error.help.is_some_and(|help| help.contains("prepare it once with a network")));
        let full = FetchError::DiskFull { path: "/store".into(), free: 0, needed: None };
        assert!(matches!(PrepareErrorKind::from(full), PrepareErrorKind::DiskFull { .. }));
        assert!(matches!(PrepareErrorKind::from(FetchError::Cancelled), PrepareErrorKind::Cancelled));
    }

    #[test]
    fn what_the_tool_said_decides_the_advice() {
        let advice = |line: &str| {
            let kind =
                PrepareErrorKind::ToolFailed { tool: "mmdebstrap".to_owned(), status: "exit status: 1".to_owned() };
            let failure = Failure { kind, tail: vec![line.to_owned()] };
            failure.about("debian-12-minimal").help.unwrap_or_default()
        };
        assert!(advice("E: newuidmap 1 0 1 1 failed").contains("uidmap"));
        assert!(advice("Err:1 Could not resolve 'mirror.test'").contains("network"));
        assert!(advice("E: unshare() failed: Operation not permitted").contains("name spaces"));
        assert!(advice("  404  Not Found [IP: 192.0.2.1 80]").contains("later"));
        assert!(advice("E: Release file for x is expired (invalid since 16d 3h)").contains("outdated"));
        assert!(advice("NO_PUBKEY 0E98404D386FA1D9").contains("keyring"));
        assert_eq!(advice("E: something else"), "");
    }
}
