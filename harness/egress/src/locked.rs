//! Files for a guest whose packages are pinned: what is pinned comes from the cache by its digest, and a package that is not pinned never
//! arrives.

use std::{sync::Arc, time::Duration};

use hyper::{HeaderMap, StatusCode};
use jiff::Timestamp;
use matrix::Digest;
use reports::ContentSource;
use tokio::time::timeout;

use crate::{
    cache::Entry,
    fetch::{Answer, Fetches, Found, Wanted},
    flight::Head,
    pins::{Asked, Pins},
};

/// How long a file that is not pinned is waited for, to say what is offered: shorter than package managers wait for an answer.
const KNOWN: Duration = Duration::from_secs(20);

impl Fetches {
    /// The file, as the pins have it. `url`: as they spell it.
    ///
    /// # Errors
    ///
    /// In words; also where another package is offered.
    pub(crate) async fn get_pinned(
        self: &Arc<Self>,
        wanted: &Wanted,
        url: &str,
        pins: &Pins,
    ) -> Result<Answer, String> {
        match pins.asked(url) {
            Asked::Metadata(pin) => match self.replayed(wanted, pin).await {
                Some(answer) => Ok(answer),
                // Whatever lists the server has: what decides is which packages come of it.
                None => self.get(&Wanted { digest: pin, ..wanted.clone() }).await,
            },
            Asked::Pinned(pin, offered) => {
                if let Some(answer) = self.replayed(wanted, Some(pin.digest)).await {
                    return Ok(answer);
                }
                // What the cache has under this URL is another content: the server may have the pinned one.
                let again = wanted.again || self.look(&wanted.url).await.is_some();
                match self.get(&Wanted { again, digest: Some(pin.digest), ..wanted.clone() }).await? {
                    Answer::File(found) => {
                        let content = found.content.expecting(pin, offered)?;
                        Ok(Answer::File(Box::new(Found { content, ..*found })))
                    }
                    Answer::Other(other) if is_error(other.status) => Err(pin.gone(&other.status.to_string())),
                    other => Ok(other),
                }
            }
            Asked::Unpinned(offered) => match self.get(wanted).await? {
                Answer::File(found) => {
                    let late = |_| Err(format!("timeout: it was not downloaded within {} s", KNOWN.as_secs()));
                    let digest = timeout(KNOWN, found.content.whole()).await.unwrap_or_else(late);
                    let same = digest.as_ref().ok().copied().filter(|digest| pins.has(*digest));
                    let answer = self.replayed(wanted, same).await;
                    answer.ok_or_else(|| pins.refusal(&offered, &digest))
                }
                other => Ok(other),
            },
        }
    }

    /// What is said of it without its content.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn head_pinned(
        &self,
        wanted: &Wanted,
        url: &str,
        pins: &Pins,
    ) -> Result<(StatusCode, Head, HeaderMap, ContentSource), String> {
        let pin = match pins.asked(url) {
            Asked::Metadata(pin) => pin,
            Asked::Pinned(pin, _) => Some(pin.digest),
            Asked::Unpinned(_) => None,
        };
        match pin.and_then(|pin| self.entry(&wanted.url, pin)) {
            Some(entry) => Ok((StatusCode::OK, Head::from(&entry), HeaderMap::new(), ContentSource::Cache)),
            None => self.head(wanted).await,
        }
    }

    /// The content of this digest, if the cache has it.
    pub(crate) async fn replayed(&self, wanted: &Wanted, digest: Option<Digest>) -> Option<Answer> {
        let entry = self.entry(&wanted.url, digest?)?;
        self.kept(entry, ContentSource::Cache).await.ok()
    }

    /// This content as that of the URL, with the server's own words for it if it is still known as that.
    fn entry(&self, url: &str, digest: Digest) -> Option<Entry> {
        // Two small files.
        tokio::task::block_in_place(|| {
            let known = self.cache.look(url).filter(|entry| entry.digest == digest);
            known.or_else(|| {
                let (etag, last_modified, content_type) = Default::default();
                let (bytes, checked) = (self.cache.size(digest)?, Timestamp::UNIX_EPOCH);
                Some(Entry { url: url.to_owned(), digest, bytes, etag, last_modified, content_type, checked })
            })
        })
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
