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
    flight::{Head, Other},
    package_name::PackageName,
    pins::{Asked, PackagePin, Pins},
    policy::Policy,
};

/// How long it takes at the most to find out what a file is, or who has the pinned one: shorter than package managers wait for an answer.
const KNOWN: Duration = Duration::from_secs(20);
/// Most answers of a service that lead on to another one.
const REDIRECTS: usize = 3;

/// What a guest with pins may get, and at whose expense.
pub(crate) struct Pinned<'a> {
    pub(crate) pins: &'a Pins,
    pub(crate) policy: Option<&'a Policy>,
    /// Takes bytes that are downloaded to look at them, and not passed on, from what the guest may receive.
    pub(crate) takes: &'a (dyn Fn(u64) -> Result<(), String> + Send + Sync),
}

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
        pinned: &Pinned<'_>,
    ) -> Result<Answer, String> {
        match pinned.pins.asked(url) {
            Asked::Metadata(pin) => {
                if let Some(answer) = self.known(wanted, pin, ContentSource::Cache).await {
                    return Ok(answer);
                }
                let asked = Wanted { digest: pin, ..wanted.clone() };
                if let Some(pin) = pin
                    && let Some(answer) = self.list_as_it_was(&asked, pin, url, pinned).await
                {
                    return Ok(answer);
                }
                // The server's current list: an unpinned package is refused when the guest asks for it.
                self.get(&asked).await
            }
            Asked::Pinned(pin, offered) => self.pinned_package(wanted, url, (pin, &offered), pinned).await,
            Asked::Delta => Err("differences of packages are not passed on where whole packages are pinned".to_owned()),
            Asked::Unpinned(offered) => match self.get(wanted).await? {
                Answer::File(found) => {
                    let source = found.source;
                    let digest = self.digest_of(*found, pinned).await;
                    match digest.as_ref().ok().copied().filter(|digest| pinned.pins.has(*digest)) {
                        Some(same) => {
                            let answer = self.known(wanted, Some(same), source).await;
                            answer.ok_or_else(|| format!("{offered} is pinned, and could not be kept in the cache"))
                        }
                        None => Err(pinned.pins.refusal(&offered, &digest)),
                    }
                }
                Answer::Other(other) if other.status.is_success() => Err(odd(other.status)),
                other => Ok(other),
            },
        }
    }

    /// A pinned package: from the cache, its server, or a service that has it as it was.
    async fn pinned_package(
        self: &Arc<Self>,
        wanted: &Wanted,
        url: &str,
        (pin, offered): (&PackagePin, &PackageName),
        pinned: &Pinned<'_>,
    ) -> Result<Answer, String> {
        if let Some(answer) = self.known(wanted, Some(pin.digest), ContentSource::Cache).await {
            return Ok(answer);
        }
        // What the cache has under this URL is another content: the server may have the pinned one.
        let again = wanted.again || self.look(&wanted.url).await.is_some();
        let why = match self.get(&Wanted { again, digest: Some(pin.digest), ..wanted.clone() }).await {
            Ok(Answer::File(found)) => {
                let content = found.content.expecting(pin, offered.clone())?;
                return Ok(Answer::File(Box::new(Found { content, ..*found })));
            }
            Ok(Answer::Other(other)) if other.status.is_redirection() => return Ok(Answer::Other(other)),
            Ok(Answer::Other(other)) => self.why_not(pin, &other),
            Err(why) => why,
        };
        self.package_as_it_was((pin, offered), url, pinned).await.ok_or(why)
    }

    fn why_not(&self, pin: &PackagePin, other: &Other) -> String {
        match (self.upstream.own_words(&other.content), other.status) {
            (Some(words), _) => words,
            (None, StatusCode::NOT_FOUND | StatusCode::GONE) => pin.gone(&other.status.to_string()),
            (None, status) if status.is_success() => odd(status),
            (None, status) => format!("the server answered HTTP {status}"),
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
            Asked::Unpinned(_) | Asked::Delta => None,
        };
        match pin.and_then(|pin| self.entry(&wanted.url, pin)) {
            Some(entry) => Ok((StatusCode::OK, Head::from(&entry), HeaderMap::new(), ContentSource::Cache)),
            None => self.head(wanted).await,
        }
    }

    /// Digest of a file that nobody may have before that is known.
    ///
    /// # Errors
    ///
    /// It is not known in time, or at the guest's expense, in words.
    async fn digest_of(&self, found: Found, pinned: &Pinned<'_>) -> Result<Digest, String> {
        let bytes = found.head.length.ok_or("its server does not say how large it is")?;
        (pinned.takes)(bytes)?;
        let late = |_| Err(format!("timeout: it was not downloaded within {} s", KNOWN.as_secs()));
        timeout(KNOWN, found.content.whole()).await.unwrap_or_else(late)
    }

    /// Where else this pinned content may be had: nowhere if that was tried before.
    fn services(&self, pin: Digest, url: &str, pins: &Pins) -> Vec<String> {
        match self.offline || self.missed().contains(&pin) {
            true => Vec::new(),
            false => pins.snapshots(url),
        }
    }

    /// The pinned list: what its server has, if it still has that, or from a service that has its repository as it was.
    async fn list_as_it_was(
        self: &Arc<Self>,
        asked: &Wanted,
        pin: Digest,
        url: &str,
        pinned: &Pinned<'_>,
    ) -> Option<Answer> {
        let services = self.services(pin, url, pinned.pins);
        // Nothing is downloaded for a guest that has received what it may.
        if services.is_empty() || (pinned.takes)(0).is_err() {
            return None;
        }
        let finding = async {
            let source_of = |answer: Result<Answer, String>| async {
                let Ok(Answer::File(found)) = answer else { return None };
                let source = found.source;
                (self.digest_of(*found, pinned).await == Ok(pin)).then_some(source)
            };
            let of_server = source_of(self.get(asked).await).await;
            if of_server.is_some() {
                return of_server;
            }
            for url in services {
                let of_service = source_of(self.of_service(url, pin, pinned).await).await;
                if of_service.is_some() {
                    return of_service;
                }
            }
            None
        };
        let Some(source) = timeout(KNOWN, finding).await.ok().flatten() else {
            self.missed().insert(pin);
            return None;
        };
        self.known(asked, Some(pin), source).await
    }

    /// The pinned package, from such a service; its content is proved as it is passed on.
    async fn package_as_it_was(
        self: &Arc<Self>,
        (pin, offered): (&PackagePin, &PackageName),
        url: &str,
        pinned: &Pinned<'_>,
    ) -> Option<Answer> {
        let services = self.services(pin.digest, url, pinned.pins);
        if services.is_empty() {
            return None;
        }
        let finding = async {
            for url in services {
                if let Ok(Answer::File(found)) = self.of_service(url, pin.digest, pinned).await
                    && let Ok(content) = found.content.expecting(pin, offered.clone())
                {
                    return Some(Found { content, ..*found });
                }
            }
            None
        };
        let Some(found) = timeout(KNOWN, finding).await.ok().flatten() else {
            self.missed().insert(pin.digest);
            return None;
        };
        Some(Answer::File(Box::new(found)))
    }

    /// What a service answers, which may lead to the date that it has.
    ///
    /// # Errors
    ///
    /// In words.
    async fn of_service(self: &Arc<Self>, url: String, pin: Digest, pinned: &Pinned<'_>) -> Result<Answer, String> {
        let not_asked = || "it must not be asked".to_owned();
        let mut at = Url::parse(&url).map_err(|error| error.to_string())?;
        for _ in 0..REDIRECTS {
            let reach = pinned.policy.and_then(|policy| policy.reach(at.as_str())).ok_or_else(not_asked)?;
            let (url, may_change, again) = (at.to_string(), false, false);
            let other = match self.get(&Wanted { url, reach, may_change, again, digest: Some(pin) }).await? {
                Answer::File(mut found) => {
                    // The cache may have it already, that of the host of an L1, too.
                    if found.source == ContentSource::Server {
                        found.source = ContentSource::Snapshot;
                    }
                    return Ok(Answer::File(found));
                }
                Answer::Other(other) => other,
            };
            let to = other.headers.get(LOCATION).filter(|_| other.status.is_redirection());
            let to = to.and_then(|to| at.join(to.to_str().ok()?).ok());
            let Some(to) = to.filter(|to| to.host() == at.host() && to.port() == at.port()) else {
                return Ok(Answer::Other(other));
            };
            at = to;
        }
        Err("it leads on and on".to_owned())
    }

    /// The content of this digest, if the cache has it by now; `source`: where it came from.
    pub(crate) async fn known(&self, wanted: &Wanted, digest: Option<Digest>, source: ContentSource) -> Option<Answer> {
        let entry = self.entry(&wanted.url, digest?)?;
        self.kept(entry, source).await.ok()
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

/// Package managers may take it for the file.
fn odd(status: StatusCode) -> String {
    format!("the server answered HTTP {status}, which is no proof of a whole file")
}
