//! Errors of downloads, and their remedies.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::trouble::Trouble;
use crate::space::{self, NoRoom};

/// A file could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// [`crate::Control::cancel`] was set.
    #[error("cancelled")]
    Cancelled,
    /// [`super::Limits::offline`] is set, and the file is not there.
    #[error("{url} cannot be downloaded: the network is disabled")]
    Offline {
        /// The first address that would be used.
        url: String,
    },
    /// It has no address.
    #[error("it has no download address")]
    Nowhere,
    /// An address is invalid, or has another scheme.
    #[error("`{url}` cannot be downloaded: {reason}")]
    Address {
        /// The given text.
        url: String,
        /// Why not.
        reason: String,
    },
    /// No mirror had it.
    #[error("{}", all(failures))]
    Mirrors {
        /// What each of them did, in the order they were given.
        failures: Vec<MirrorFailure>,
    },
    /// It matches its checksum, but cannot be used.
    #[error("{url} matches its checksum, but {trouble}")]
    Unusable {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        trouble: Trouble,
    },
    /// The total time limit was reached.
    #[error("download timeout: {url} is incomplete after {} s{}", limit.as_secs_f64().round(), so_far(failures))]
    Overdue {
        /// The last address, or the next one.
        url: String,
        /// The limit.
        limit: Duration,
        /// What failed in that time.
        failures: Vec<MirrorFailure>,
    },
    /// The disk is full.
    #[error("disk full: {} has {free} bytes free{}", path.display(), needed.map_or(String::new(), |n| format!(", {n} needed")))]
    DiskFull {
        /// A file or folder on the full disk.
        path: PathBuf,
        /// Bytes an ordinary user may still write there.
        free: u64,
        /// Missing bytes of the file, if the server stated its size.
        needed: Option<u64>,
    },
    /// Reading or writing failed.
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

/// The result of one mirror.
#[derive(Debug, thiserror::Error)]
#[error("{url} {trouble}{}", if *tries > 1 { format!(" (tried {tries} times)") } else { String::new() })]
pub struct MirrorFailure {
    /// Its address.
    pub url: String,
    /// The last failure.
    pub trouble: Trouble,
    /// Number of requests.
    pub tries: u32,
}

fn all(failures: &[MirrorFailure]) -> String {
    failures.iter().map(MirrorFailure::to_string).collect::<Vec<_>>().join("; ")
}

fn so_far(failures: &[MirrorFailure]) -> String {
    if failures.is_empty() { String::new() } else { format!(": {}", all(failures)) }
}

impl FetchError {
    /// The remedy, if one is known.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Offline { .. } => Some("prepare it once with a network; it stays in the store"),
            Self::Address { .. } => Some("give an address that begins with https:// or http://"),
            Self::DiskFull { .. } => {
                Some("free some space there, or put the store elsewhere: `--store DIR` or NESTMATRIX_STORE")
            }
            Self::Overdue { .. } => Some("try again: the download resumes where it stopped"),
            Self::Mirrors { failures } => {
                // The most informative first: of several mirrors one usually is out of date, another just down.
                let advice = failures.iter().filter_map(|failure| failure.trouble.advice());
                advice.min_by_key(|(rank, _)| *rank).map(|(_, text)| text)
            }
            Self::Unusable { trouble, .. } => trouble.advice().map(|(_, text)| text),
            Self::Cancelled | Self::Nowhere | Self::Io { .. } => None,
        }
    }

    /// Wraps an error of the file system; a full disk becomes its own kind.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let folder = path.parent().unwrap_or(path);
                Self::DiskFull { path: path.to_owned(), free: space::free(folder).unwrap_or(0), needed: None }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}

impl From<NoRoom> for FetchError {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Unknown { path, source } => Self::io("inspect", &path)(source),
            NoRoom::Full { path, free, needed } => Self::DiskFull { path, free, needed: Some(needed) },
        }
    }
}
