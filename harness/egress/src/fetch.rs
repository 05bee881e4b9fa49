//! Gets each file once, however many guests want it at the same time, and asks for nothing that the cache has and that cannot be newer.
//!
//! A download belongs to nobody: guests read along from its file, each at its own speed. It ends early when nobody reads any more.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION},
};
use jiff::Timestamp;
use matrix::Digest;
use reports::ContentSource;
use sha2::Digest as _;
use tokio::sync::watch;

use crate::{
    cache::{Cache, Entry},
    content::Content,
    immutable::is_immutable,
    upstream::{Reach, Upstream, chain},
};

/// Most bytes of an answer that is no file: an error page.
const SMALL: usize = 64 * 1024;
/// How long what a server has counts as what it has, if the server cannot be asked whether it is still the same.
const FRESH: Duration = Duration::from_secs(30 * 60);
/// Longest download.
const LONGEST: Duration = Duration::from_secs(3600);

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
    pub(crate) running: Mutex<HashMap<String, watch::Receiver<Progress>>>,
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
    fn key(&self) -> String {
        self.digest.map_or_else(|| self.url.clone(), |digest| format!("{} {digest}", self.url))
    }
}

/// How far a download is.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Asked,
    /// The server has nothing newer.
    Same(Entry),
    /// No file: an error, or a redirection.
    Other(Arc<Other>),
    Running {
        head: Arc<Head>,
        file: Arc<File>,
        bytes: u64,
    },
    Done {
        head: Arc<Head>,
        file: Arc<File>,
        entry: Entry,
    },
    Failed(String),
}

/// An answer that is no file.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Bytes,
}

/// What is known of a file before its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) length: Option<u64>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) content_type: Option<String>,
}

impl From<&Entry> for Head {
    fn from(entry: &Entry) -> Self {
        let Entry { bytes, etag, last_modified, content_type, .. } = entry.clone();
        Self { length: Some(bytes), etag, last_modified, content_type }
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
        let mut progress = self.join(wanted, known);
        let state = progress.wait_for(|progress| !matches!(progress, Progress::Asked)).await;
        let state = state.map_err(|_| "the download was given up".to_owned())?.clone();
        match state {
            Progress::Asked => Err("the download was given up".to_owned()),
            Progress::Failed(why) => Err(why),
            Progress::Other(other) => Ok(Answer::Other(other)),
            Progress::Same(entry) => self.kept(entry, ContentSource::Revalidated).await,
            Progress::Running { head, file, .. } | Progress::Done { head, file, .. } => {
                let (head, content) = ((*head).clone(), Content::coming(file, progress));
                Ok(Answer::File(Box::new(Found { head, source: ContentSource::Server, content })))
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
        let head = Head { length: length(answer.headers()), ..head(&answer) };
        Ok((answer.status(), head, passed_on(answer.headers()), ContentSource::Server))
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
        let head = Head::from(&entry);
        Ok(Answer::File(Box::new(Found { head, source, content: Content::kept(file, entry) })))
    }

    /// The download of this URL, which is started if there is none.
    fn join(self: &Arc<Self>, wanted: &Wanted, known: Option<Entry>) -> watch::Receiver<Progress> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, progress| progress.has_changed().is_ok());
        let key = wanted.key();
        if let Some(progress) = running.get(&key) {
            return progress.clone();
        }
        let (sender, receiver) = watch::channel(Progress::Asked);
        // What the map has is no reader: the download knows its readers by this count.
        running.insert(key.clone(), receiver.clone());
        let (fetches, wanted) = (Arc::clone(self), wanted.clone());
        tokio::spawn(async move {
            let unread = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    // Under the lock: nobody joins what is given up.
                    let mut running = fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
                    if sender.receiver_count() <= 1 {
                        running.remove(&key);
                        return;
                    }
                }
            };
            let download = tokio::time::timeout(LONGEST, fetches.download(&wanted, known, &sender));
            let ended = tokio::select! {
                ended = download => ended.unwrap_or_else(|_| Err(format!("timeout: it was not done within {} s", LONGEST.as_secs()))),
                () = unread => Err("nobody reads it any more".to_owned()),
            };
            fetches.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            sender.send_replace(ended.unwrap_or_else(Progress::Failed));
        });
        receiver
    }

    /// Asks, and follows the answer to its end.
    async fn download(
        &self,
        wanted: &Wanted,
        known: Option<Entry>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Progress, String> {
        let url = &wanted.url;
        let mut answer = self.upstream.ask(Method::GET, url, wanted.reach, known.as_ref(), wanted.digest).await?;
        if answer.status() == StatusCode::NOT_MODIFIED
            && let Some(entry) = known
        {
            let entry = Entry { checked: Timestamp::now(), ..entry };
            self.cache.note(&entry).map_err(|error| unwritable(&error))?;
            return Ok(Progress::Same(entry));
        }
        if answer.status() != StatusCode::OK {
            let other = other(answer).await?;
            return match self.upstream.own_words(&other.content) {
                Some(words) if other.status == StatusCode::BAD_GATEWAY => Err(words),
                _ => Ok(Progress::Other(Arc::new(other))),
            };
        }
        let announced = length(answer.headers());
        if announced.is_some_and(|bytes| bytes > self.largest) {
            return Err(format!("the file has {} bytes; the limit is {}", announced.unwrap_or(0), self.largest));
        }
        let head = Arc::new(Head { length: announced, ..head(&answer) });
        let mut file = self.cache.new_file().map_err(|error| unwritable(&error))?;
        let reading = Arc::new(file.reopen().map_err(|error| unwritable(&error))?);
        let (mut bytes, mut digest) = (0, sha2::Sha256::new());
        progress.send_replace(Progress::Running { head: Arc::clone(&head), file: Arc::clone(&reading), bytes });
        while let Some(piece) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
            bytes += piece.len() as u64;
            if bytes > self.largest {
                return Err(format!("the file does not end within {} bytes", self.largest));
            }
            digest.update(&piece);
            file.write_all(&piece).map_err(|error| unwritable(&error))?;
            progress.send_replace(Progress::Running { head: Arc::clone(&head), file: Arc::clone(&reading), bytes });
        }
        if let Some(announced) = announced.filter(|announced| *announced != bytes) {
            return Err(format!("the server sent {bytes} bytes of {announced}"));
        }
        let Head { etag, last_modified, content_type, .. } = (*head).clone();
        let digest = Digest::from_bytes(digest.finalize().into());
        let entry =
            Entry { url: url.clone(), digest, bytes, etag, last_modified, content_type, checked: Timestamp::now() };
        tokio::task::block_in_place(|| self.cache.keep(file, &entry)).map_err(|error| unwritable(&error))?;
        Ok(Progress::Done { head, file: reading, entry })
    }
}

async fn other(mut answer: reqwest::Response) -> Result<Other, String> {
    let (status, headers) = (answer.status(), passed_on(answer.headers()));
    let mut content = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
        content.extend(piece.iter().take(SMALL - content.len()));
        if content.len() >= SMALL {
            break;
        }
    }
    Ok(Other { status, headers, content: content.into() })
}

/// What a guest is told of an answer that is no file.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let kept = [CONTENT_TYPE, LOCATION];
    kept.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

fn head(answer: &reqwest::Response) -> Head {
    let text = |name: HeaderName| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
    Head { length: None, etag: text(ETAG), last_modified: text(LAST_MODIFIED), content_type: text(CONTENT_TYPE) }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(hyper::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn unwritable(error: &io::Error) -> String {
    format!("the cache cannot be written: {error}")
}

impl Fetches {
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
