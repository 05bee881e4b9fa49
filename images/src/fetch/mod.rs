//! Downloads a published image: verified, as a disk in a file.
//!
//! This module knows addresses, checksums and packed files, and nothing of catalogs, recipes or locks: the caller has locked the
//! folder and the part, and puts the disk where it belongs.
//!
//! ```text
//! fetch -> part      what is already there
//!       -> mirrors   which mirror, and when again
//!          -> transfer -> client   one request (answer: what it means, page: is it a file, pace: how fast)
//!       -> digests   checks the digests
//!       -> unpack    the disk in it (sparse: with holes)
//! ```
//!
//! Packed data is unpacked only after its checksum was compared, if one is known: a decoder must not see untrusted data.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use matrix::{Checksum, Digest};
use reqwest::Url;

use crate::Control;

mod answer;
mod client;
mod digests;
mod error;
mod limits;
mod mirrors;
mod pace;
mod page;
mod part;
mod sparse;
mod text;
mod transfer;
mod trouble;
mod unpack;
mod watch;

pub use error::{FetchError, MirrorFailure};
pub use limits::Limits;
pub use trouble::{Trouble, WrongChecksum};

use digests::Digests;
use part::Part;
use watch::{Miss, Stop, Watch};

/// The disk's name in the folder it is put into.
pub const DISK: &str = "disk";

/// A published file.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// Its addresses: the same file at each, tried in this order. `https` or `http`.
    pub urls: Vec<String>,
    /// Digest of the published (packed) file; `None`: any file is accepted.
    pub digest: Option<Checksum>,
    /// Size of the published file, in bytes.
    pub bytes: Option<u64>,
}

/// A file that was downloaded and unpacked.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The unpacked disk; complete and synced.
    pub file: PathBuf,
    /// SHA-256 of what is in [`Fetched::file`].
    pub content: Digest,
    /// SHA-256 of the file as it was published.
    pub published: Digest,
    /// SHA-512 of the file as it was published, if [`Want::digest`] is one.
    pub published_sha512: Option<Checksum>,
    /// Size of the file as it was published, in bytes.
    pub bytes_published: u64,
    /// The address it came from, or its beginning.
    pub url: String,
    /// Its last change, as the server states it.
    pub last_modified: Option<String>,
    /// The server's entity tag.
    pub etag: Option<String>,
}

/// Downloads `want`, verifies and unpacks it into the file [`DISK`] in `folder`.
///
/// Bytes of an interrupted download are kept in the file `partial` and in `<partial>.json` for the next call with the same
/// `partial`, also by another process. `folder` and `partial` are on one file system and used by nobody else. [`Control::cancel`]
/// takes effect within a second; [`Control::refresh`] is ignored.
///
/// # Errors
///
/// See [`FetchError`]. Then `folder` is empty, and `partial` exists only if it is useful.
pub fn fetch(
    want: &Want,
    folder: &Path,
    partial: &Path,
    limits: &Limits,
    control: &Control<'_>,
) -> Result<Fetched, FetchError> {
    let urls = addresses(&want.urls)?;
    let watch = Watch::start(limits, control);
    let overdue = |stop| match stop {
        Stop::Fatal(error) => error,
        Stop::Overdue | Stop::Miss(_) => {
            let url = urls.first().map(client::shown).unwrap_or_default();
            FetchError::Overdue { url, limit: limits.overall, failures: Vec::new() }
        }
    };
    let mut part = Part::open(partial, want, &watch).map_err(overdue)?;
    let fetched = kept(&mut part, want, folder, &watch).map_err(overdue).and_then(|kept| match kept {
        Some(fetched) => Ok(fetched),
        None => {
            online(&urls, limits)?;
            mirrors::first_good(&urls, &watch, |url| {
                transfer::transfer(&mut part, want, url, &watch)?;
                finish(&mut part, want, folder, &watch)
            })
        }
    });
    match &fetched {
        Ok(_) => part.remove(),
        Err(_) => part.keep(),
    }
    fetched
}

/// Downloads a small text.
///
/// # Errors
///
/// The download fails, is not text, or has more than `most` bytes.
pub fn fetch_text(url: &str, most: u64, limits: &Limits, control: &Control<'_>) -> Result<String, FetchError> {
    let urls = addresses(&[url.to_owned()])?;
    online(&urls, limits)?;
    let watch = Watch::start(limits, control);
    mirrors::first_good(&urls, &watch, |url| text::transfer(url, most, &watch))
}

fn addresses(urls: &[String]) -> Result<Vec<Url>, FetchError> {
    let parse = |text: &String| {
        let about = |reason: String| FetchError::Address { url: text.clone(), reason };
        let url = Url::parse(text).map_err(|error| about(error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            scheme => Err(about(format!("`{scheme}` is neither http nor https"))),
        }
    };
    if urls.is_empty() { Err(FetchError::Nowhere) } else { urls.iter().map(parse).collect() }
}

fn online(urls: &[Url], limits: &Limits) -> Result<(), FetchError> {
    match urls.first() {
        Some(url) if limits.offline => Err(FetchError::Offline { url: client::shown(url) }),
        _ => Ok(()),
    }
}

/// The disk, if the whole file was kept: an earlier process ended while it was unpacking.
fn kept(part: &mut Part, want: &Want, folder: &Path, watch: &Watch<'_>) -> Result<Option<Fetched>, Stop> {
    let is_complete = part.origin().is_some_and(|origin| origin.bytes == Some(part.length()));
    if !is_complete || want.digest.is_none() {
        return Ok(None);
    }
    match finish(part, want, folder, watch) {
        // The part was discarded.
        Err(Stop::Miss(_)) => Ok(None),
        finished => finished.map(Some),
    }
}

/// Compares the digest, and unpacks the file.
fn finish(part: &mut Part, want: &Want, folder: &Path, watch: &Watch<'_>) -> Result<Fetched, Stop> {
    watch.report("checking");
    let digests = part.digests();
    if let Some(expected) = want.digest
        && digests.like(expected) != expected
    {
        let trouble = Trouble::WrongChecksum(Box::new(WrongChecksum { expected, found: digests.like(expected) }));
        let discarded = part.reject()?;
        return Err(Stop::Miss(Miss { trouble, retry_after: None, made_progress: false, discarded }));
    }
    let unpacked = unpacked(part, &digests, folder, watch);
    let Some(origin) = part.origin().cloned() else {
        return Err(Trouble::Empty.into());
    };
    match unpacked {
        Ok(content) => Ok(Fetched {
            file: folder.join(DISK),
            content,
            published: digests.sha256,
            published_sha512: digests.sha512,
            bytes_published: part.length(),
            url: origin.url,
            last_modified: origin.last_modified,
            etag: origin.etag,
        }),
        // Other mirrors have the same bytes, if these are verified.
        Err(Stop::Miss(Miss { trouble, .. })) if want.digest.is_some() => {
            part.empty()?;
            Err(FetchError::Unusable { url: origin.url, trouble }.into())
        }
        Err(Stop::Miss(miss)) => {
            part.empty()?;
            Err(Stop::Miss(miss))
        }
        Err(stop) => Err(stop),
    }
}

/// Puts the disk into the folder; returns the digest of its content.
fn unpacked(part: &Part, digests: &Digests, folder: &Path, watch: &Watch<'_>) -> Result<Digest, Stop> {
    let disk = folder.join(DISK);
    let mut packed = part.reader()?;
    let format = unpack::format(&mut packed).map_err(FetchError::io("read", &disk))?;
    let content = match format {
        None => {
            part.become_file(&disk)?;
            digests.sha256
        }
        Some(format) => {
            let file = tempfile::NamedTempFile::new_in(folder).map_err(FetchError::io("create a file in", folder))?;
            let content = unpack::unpack(packed, format, (file.as_file(), file.path()), watch)?;
            file.persist(&disk).map_err(|error| FetchError::io("rename", &disk)(error.error))?;
            content
        }
    };
    // Syncs the name, too.
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    if let Err(error) = synced {
        let _ = fs::remove_file(&disk);
        return Err(FetchError::io("sync", folder)(error).into());
    }
    Ok(content)
}
