//! Finds out which file a publisher offers today: the content of `images.lock`.
//!
//! Fetches a list of digests, checks its signature if the keys are on this machine, and looks up the image. Only texts are
//! downloaded.

mod checksums;
mod signature;

use matrix::Checksum;

use crate::{Entry, Origin, Source, fetch::FetchError};
use checksums::Listed;

/// Maximum length of a list of digests, in bytes.
pub const LONGEST_LIST: u64 = 4 << 20;

/// A file as its publisher lists it today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where it is.
    pub url: String,
    /// Its digest.
    pub digest: Checksum,
    /// Its size in bytes, if the list states it.
    pub bytes: Option<u64>,
    /// Whether the list is proved to be the publisher's.
    pub trust: Trust,
}

/// The result of checking a list's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The signature is correct.
    Verified,
    /// It was not checked, with the reason.
    NotChecked(String),
}

/// The file could not be determined.
#[derive(Debug, thiserror::Error)]
#[error("image `{image}`: {kind}")]
pub struct UpdateError {
    /// Its name.
    pub image: String,
    /// Why.
    pub kind: UpdateErrorKind,
}

/// Why the file could not be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateErrorKind {
    /// The list, or its signature, could not be downloaded.
    #[error("{0}")]
    Download(Box<FetchError>),
    /// Its signature is bad.
    #[error("the signature of its list of digests is bad: {0}")]
    Signature(String),
    /// The list lacks the file.
    #[error("{list} does not list {wanted}{}", near.as_ref().map_or(String::new(), |near| format!("; it lists {near}")))]
    Unlisted {
        /// Where the list is.
        list: String,
        /// What it should list: a file, or a glob.
        wanted: String,
        /// The most similar file in it.
        near: Option<String>,
    },
}

impl UpdateErrorKind {
    /// The remedy.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Download(error) => error.help().unwrap_or("try again later"),
            Self::Signature(_) => {
                "nothing was written: the list may have been changed in transit, or the keys on this machine are too old"
            }
            Self::Unlisted { .. } => {
                "the publisher has moved the file: write its new `url` and `digest` into a catalog of your own (images.toml)"
            }
        }
    }
}

/// The file that the publisher of an image lists today, fetched with `fetch`; `None`: it has no publisher, or no known list.
///
/// # Errors
///
/// The list cannot be downloaded, its signature is bad, or the image is not in it.
pub fn resolve(
    entry: &Entry,
    fetch: &dyn Fn(&str) -> Result<String, FetchError>,
) -> Result<Option<Resolved>, UpdateError> {
    let Source::Disk { file, .. } = &entry.source else { return Ok(None) };
    let (Origin::Urls(urls), Some(list)) = (&file.origin, &entry.upstream.checksums) else { return Ok(None) };
    let Some(url) = urls.first() else { return Ok(None) };
    let about = |kind| UpdateError { image: entry.name.clone(), kind };
    let fetched = |url: &str| fetch(url).map_err(|error| about(UpdateErrorKind::Download(Box::new(error))));
    let text = fetched(&list.url)?;
    let (text, trust) = match &list.signature {
        None => {
            let open = list.url.starts_with("http:");
            let open = if open { ", and the list came over http, so it may have been changed in transit" } else { "" };
            (text, Trust::NotChecked(format!("no signature of its publisher is known{open}")))
        }
        Some(signature) => {
            let detached = signature.url.as_deref().map(fetched).transpose()?;
            signature::verify(&text, detached.as_deref(), &signature.keyring).map_err(about)?
        }
    };
    let listed = checksums::parse(&text);
    let (url, found) = match &entry.upstream.latest {
        Some(pattern) => latest(&listed, pattern, &list.url),
        None => at(&listed, url, &list.url),
    }
    .map_err(about)?;
    Ok(Some(Resolved { url, digest: found.digest, bytes: found.bytes, trust }))
}

/// The newest file that matches, which lies beside the list.
fn latest<'a>(listed: &'a [Listed], pattern: &str, list: &str) -> Result<(String, &'a Listed), UpdateErrorKind> {
    // Patterns of the catalog are valid.
    let glob = globset::Glob::new(pattern).map(|glob| glob.compile_matcher()).ok();
    let matching = listed.iter().filter(|listed| glob.as_ref().is_some_and(|glob| glob.is_match(&listed.name)));
    match matching.max_by(|one, other| alphanumeric_sort::compare_str(&one.name, &other.name)) {
        Some(newest) => {
            let folder = list.rsplit_once('/').map_or(list, |(folder, _)| folder);
            Ok((format!("{folder}/{}", newest.name), newest))
        }
        None => {
            let near = nearest(listed, pattern);
            Err(UpdateErrorKind::Unlisted { list: list.to_owned(), wanted: pattern.to_owned(), near })
        }
    }
}

/// The file at this address.
fn at<'a>(listed: &'a [Listed], url: &str, list: &str) -> Result<(String, &'a Listed), UpdateErrorKind> {
    let name = url.rsplit('/').next().unwrap_or_default();
    // Of two digests of one file the longer one is preferred.
    let named = listed.iter().filter(|listed| listed.name == name);
    let named = named.max_by_key(|listed| listed.digest.hex().len());
    // A list named like the file is about nothing else, whatever name it contains.
    let only = match listed {
        [only] if list.strip_prefix(url).is_some_and(|rest| rest.starts_with('.')) => Some(only),
        _ => None,
    };
    named.or(only).map(|found| (url.to_owned(), found)).ok_or_else(|| UpdateErrorKind::Unlisted {
        list: list.to_owned(),
        wanted: name.to_owned(),
        near: nearest(listed, name),
    })
}

fn nearest(listed: &[Listed], wanted: &str) -> Option<String> {
    let alike = |name: &str| name.bytes().zip(wanted.bytes()).take_while(|(one, other)| one == other).count();
    let named = listed.iter().filter(|listed| !listed.name.is_empty());
    named.max_by_key(|listed| alike(&listed.name)).map(|listed| listed.name.clone())
}

#[cfg(test)]
mod tests;
