//! Which file a publisher means today: what `images.lock` is made of.
//!
//! A list with digests is fetched, its signature checked where the keys are here, and the image looked up in it. Nothing is
//! downloaded but texts.

mod checksums;
mod signature;

use matrix::Checksum;

use crate::{Entry, Origin, Source, fetch::FetchError};
use checksums::Listed;

/// Largest list with digests, in bytes.
pub const LONGEST_LIST: u64 = 4 << 20;

/// A publisher's file as he lists it today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where it is.
    pub url: String,
    /// Its digest.
    pub digest: Checksum,
    /// Its size in bytes, if the list says so.
    pub bytes: Option<u64>,
    /// How far it is proved that the publisher wrote the list.
    pub trust: Trust,
}

/// Whether a list with digests is what its publisher signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is.
    Verified,
    /// Nobody looked, and why.
    NotChecked(String),
}

/// It is not known which file is meant.
#[derive(Debug, thiserror::Error)]
#[error("image `{image}`: {kind}")]
pub struct UpdateError {
    /// Its name.
    pub image: String,
    /// Why.
    pub kind: UpdateErrorKind,
}

/// Why it is not known which file is meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateErrorKind {
    /// The list, or its signature, could not be had.
    #[error("{0}")]
    Download(Box<FetchError>),
    /// It is not what the publisher signed.
    #[error("the signature of its list of digests is bad: {0}")]
    Signature(String),
    /// The list has other files.
    #[error("{list} does not list {wanted}{}", near.as_ref().map_or(String::new(), |near| format!("; it lists {near}")))]
    Unlisted {
        /// Where the list is.
        list: String,
        /// What it should list: a file, or files like this.
        wanted: String,
        /// The file in it that looks most like it.
        near: Option<String>,
    },
}

impl UpdateErrorKind {
    /// What to do about it.
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

/// What the publisher of an image lists today, by way of `fetch`; `None`: nobody publishes it, or no list of his is known.
///
/// # Errors
///
/// The list cannot be had, its signature is bad, or the image is not in it.
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

/// The newest file of these names, which lies beside the list.
fn latest<'a>(listed: &'a [Listed], pattern: &str, list: &str) -> Result<(String, &'a Listed), UpdateErrorKind> {
    // The catalog has no other patterns than good ones.
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
    // Of two digests of one file the longer one says more.
    let named = listed.iter().filter(|listed| listed.name == name);
    let named = named.max_by_key(|listed| listed.digest.hex().len());
    // A list that is called like the file is about nothing else, whatever name stands in it.
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
