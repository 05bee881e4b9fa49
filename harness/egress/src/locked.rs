//! Files for a guest whose packages are pinned: what is pinned comes from the cache by its digest, and a package that is not pinned never
//! arrives.

use std::{sync::Arc, time::Duration};

use hyper::{HeaderMap, StatusCode, header::LOCATION};
use jiff::Timestamp;
use matrix::Digest;
use reports::ContentSource;
use tokio::time::timeout;
use url::Url;

use crate::{
    cache::Entry,
    fetch::{Answer, Fetches, Found, Wanted},
    flight::Head,
    package_name::PackageName,
    pins::{Asked, PackagePin, Pins},
    policy::Policy,
};

/// How long a file that is not pinned is waited for, to say what is offered: shorter than package managers wait for an answer.
const KNOWN: Duration = Duration::from_secs(20);
/// Most answers of a service that lead on to another one.
const REDIRECTS: usize = 3;

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
        policy: Option<&Policy>,
    ) -> Result<Answer, String> {
        let snapshots = if self.offline { Vec::new() } else { pins.snapshots(url) };
        match pins.asked(url) {
            Asked::Metadata(pin) => {
                if let Some(answer) = self.replayed(wanted, pin).await {
                    return Ok(answer);
                }
                let asked = Wanted { digest: pin, ..wanted.clone() };
                if let Some(pin) = pin.filter(|_| !snapshots.is_empty())
                    && !self.whole(self.get(&asked).await).await.is_ok_and(|digest| digest == pin)
                    && let Some(answer) = self.list_as_it_was(wanted, pin, snapshots, policy).await
                {
                    return Ok(answer);
                }
                // Whatever lists the server has: what decides is which packages come of it.
                self.get(&asked).await
            }
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
                    Answer::Other(other) if is_error(other.status) => {
                        let found = self.package_as_it_was(pin, &offered, snapshots, policy).await;
                        found.ok_or_else(|| pin.gone(&other.status.to_string()))
                    }
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

    /// Digest of all of what there is.
    ///
    /// # Errors
    ///
    /// It is no file, or does not come, in words.
    async fn whole(&self, got: Result<Answer, String>) -> Result<Digest, String> {
        match got? {
            Answer::File(found) => found.content.whole().await,
            Answer::Other(other) => Err(other.status.to_string()),
        }
    }

    /// The pinned list, from a service that has its repository as it was.
    async fn list_as_it_was(
        self: &Arc<Self>,
        wanted: &Wanted,
        pin: Digest,
        snapshots: Vec<String>,
        policy: Option<&Policy>,
    ) -> Option<Answer> {
        for url in snapshots {
            if self.whole(self.of_service(url, pin, policy).await).await.is_ok_and(|digest| digest == pin) {
                let entry = self.entry(&wanted.url, pin)?;
                return self.kept(entry, ContentSource::Snapshot).await.ok();
            }
        }
        None
    }

    /// The pinned package, likewise; its content is proved as it is passed on.
    async fn package_as_it_was(
        self: &Arc<Self>,
        pin: &PackagePin,
        offered: &PackageName,
        snapshots: Vec<String>,
        policy: Option<&Policy>,
    ) -> Option<Answer> {
        for url in snapshots {
            if let Ok(Answer::File(found)) = self.of_service(url, pin.digest, policy).await
                && let Ok(content) = found.content.expecting(pin, offered.clone())
            {
                return Some(Answer::File(Box::new(Found { content, source: ContentSource::Snapshot, ..*found })));
            }
        }
        None
    }

    /// What a service answers, which may lead to the date that it has.
    ///
    /// # Errors
    ///
    /// In words.
    async fn of_service(self: &Arc<Self>, url: String, pin: Digest, policy: Option<&Policy>) -> Result<Answer, String> {
        let not_asked = || "it must not be asked".to_owned();
        let mut at = Url::parse(&url).map_err(|error| error.to_string())?;
        for _ in 0..REDIRECTS {
            let reach = policy.and_then(|policy| policy.reach(at.as_str())).ok_or_else(not_asked)?;
            let (url, may_change, again) = (at.to_string(), false, false);
            let answer = self.get(&Wanted { url, reach, may_change, again, digest: Some(pin) }).await?;
            let Answer::Other(other) = &answer else { return Ok(answer) };
            let to = other.headers.get(LOCATION).filter(|_| other.status.is_redirection());
            let to = to.and_then(|to| at.join(to.to_str().ok()?).ok());
            let Some(to) = to.filter(|to| to.host() == at.host() && to.port() == at.port()) else {
                return Ok(answer);
            };
            at = to;
        }
        Err("it leads on and on".to_owned())
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
