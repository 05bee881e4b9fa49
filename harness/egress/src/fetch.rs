//! Gets each file once, however many guests want it at the same time, and asks for nothing that the cache has and that cannot be newer.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use matrix::Digest;
use reports::ContentSource;

use crate::{
    cache::{Cache, Entry},
    content::Content,
    flight::{Head, Other, Progress, Running, head, passed_on},
    immutable::is_immutable,
    resolve::Reach,
    upstream::Upstream,
};

/// How long what a server has counts as what it has, if the server cannot be asked whether it is still the same.
const FRESH: Duration = Duration::from_secs(30 * 60);

/// Where files come from.
#[derive(Debug)]
pub(crate) struct Fetches {
    pub(crate) cache: Cache,
    pub(crate) upstream: Upstream,
    /// What was asked since then need not be asked again: guests of one run see one state of a repository.
    pub(crate) began: Timestamp,
    /// No server is asked.
    pub(crate) offline: bool,
    /// Largest file, in bytes.
    pub(crate) largest: u64,
    pub(crate) running: Running,
    /// Pinned content that nobody had when all were asked: they are not asked again.
    pub(crate) missed: Mutex<HashSet<Digest>>,
}

/// A file that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) url: String,
    pub(crate) reach: Reach,
    /// It may have changed although its name says that it does not.
    pub(crate) may_change: bool,
    /// The guest had it already, and asks once more: something was wrong with it, or it looks for news.
    pub(crate) again: bool,
    /// The content that is pinned, and not here: a proxy of ours behind this one may have it.
    pub(crate) digest: Option<Digest>,
}

impl Wanted {
    /// The download that it can share.
    pub(crate) fn key(&self) -> String {
        self.digest.map_or_else(|| self.url.clone(), |digest| format!("{} {digest}", self.url))
    }
}

/// What there is.
pub(crate) enum Answer {
    Other(Arc<Other>),
    File(Box<Found>),
}

/// A file.
pub(crate) struct Found {
    pub(crate) head: Head,
    pub(crate) source: ContentSource,
    pub(crate) content: Content,
}

impl Fetches {
    pub(crate) fn missed(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, from the cache if that is right, else from its server.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn get(self: &Arc<Self>, wanted: &Wanted) -> Result<Answer, String> {
        let known = self.look(&wanted.url).await;
        if let Some(entry) = &known
            && (self.offline || !wanted.again && self.is_fresh(entry, wanted))
        {
            return self.kept(entry.clone(), ContentSource::Cache).await;
        }
        if self.offline {
            return Err("it is not in the cache, and no server is asked (--offline)".to_owned());
        }
        let mut follower = self.join(wanted, known);
        let state = follower.progress.wait_for(|progress| !matches!(progress, Progress::Asked)).await;
        let state = state.map_err(|_| "the download was given up".to_owned())?.clone();
        match state {
            Progress::Asked => Err("the download was given up".to_owned()),
            Progress::Failed(why) => Err(why),
            Progress::Other(other) => Ok(Answer::Other(other)),
            Progress::Same(entry) => self.kept(entry, ContentSource::Revalidated).await,
            Progress::Running { head, file, .. } | Progress::Done { head, file, .. } => {
                let source = head.source.unwrap_or(ContentSource::Server);
                let (head, content) = ((*head).clone(), Content::of_download(file, follower));
                Ok(Answer::File(Box::new(Found { head, source, content })))
            }
        }
    }

    /// What a server says of it without its content, if the cache does not know.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn head(&self, wanted: &Wanted) -> Result<(StatusCode, Head, HeaderMap, ContentSource), String> {
        if let Some(entry) = self.look(&wanted.url).await
            && (self.offline || self.is_fresh(&entry, wanted))
        {
            return Ok((StatusCode::OK, Head::from(&entry), HeaderMap::new(), ContentSource::Cache));
        }
        if self.offline {
            return Err("it is not in the cache, and no server is asked (--offline)".to_owned());
        }
        let answer = self.upstream.ask(Method::HEAD, &wanted.url, wanted.reach, None, None).await?;
        Ok((answer.status(), head(&answer), passed_on(answer.headers()), ContentSource::Server))
    }

    fn is_fresh(&self, entry: &Entry, wanted: &Wanted) -> bool {
        if entry.checked >= self.began || !wanted.may_change && is_immutable(&wanted.url) {
            return true;
        }
        let can_be_asked = entry.etag.is_some() || entry.last_modified.is_some();
        let age = Timestamp::now().duration_since(entry.checked);
        !can_be_asked && !wanted.may_change && !age.is_negative() && age.unsigned_abs() < FRESH
    }

    pub(crate) async fn look(&self, url: &str) -> Option<Entry> {
        // One small file.
        tokio::task::block_in_place(|| self.cache.look(url))
    }

    /// A file of the cache.
    ///
    /// # Errors
    ///
    /// It is gone, in words.
    pub(crate) async fn kept(&self, entry: Entry, source: ContentSource) -> Result<Answer, String> {
        let file = self.cache.read(entry.digest).map_err(|error| format!("the cache: {error}"))?;
        let (head, content) = (Head::from(&entry), Content::of_cache(file, entry));
        Ok(Answer::File(Box::new(Found { head, source, content })))
    }

    /// A connection to an https server.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        reach: Reach,
    ) -> Result<Box<dyn crate::upstream::Stream>, String> {
        if self.offline {
            return Err("https is not cached, and no server is asked (--offline)".to_owned());
        }
        self.upstream.connect(host, port, reach).await
    }
}
