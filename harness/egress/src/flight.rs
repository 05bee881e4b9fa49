//! One download that all guests share who want its file at the same time.
//!
//! It belongs to nobody: guests read along from its file, each at its own speed, and it ends when the last one is gone. It is never far
//! ahead of the fastest of them, so that a guest that only asks, and does not read, fills no disk.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION, TRANSFER_ENCODING},
};
use jiff::Timestamp;
use matrix::Digest;
use reports::ContentSource;
use sha2::Digest as _;
use tokio::sync::watch;

use crate::{
    cache::Entry,
    fetch::{Fetches, Wanted},
    upstream::chain,
};

/// Most bytes of an answer that is no file: an error page.
const SMALL: usize = 64 * 1024;
/// Longest download.
const LONGEST: Duration = Duration::from_secs(3600);
/// How far a download is ahead of the guest that has read most of it, in bytes; a piece from the server comes on top.
pub(crate) const AHEAD: u64 = 4 << 20;
/// Longest value of a header that is kept, in bytes.
const LONGEST_VALUE: usize = 1024;

/// The downloads that are under way, by [`Wanted::key`]. Each belongs to its task: what it leaves here when that panics is nothing.
pub(crate) type Running = Mutex<HashMap<String, Weak<Flight>>>;

/// A download under way.
#[derive(Debug)]
pub(crate) struct Flight {
    progress: watch::Sender<Progress>,
    furthest: Arc<watch::Sender<u64>>,
}

/// One reader of a download.
pub(crate) struct Follower {
    pub(crate) progress: watch::Receiver<Progress>,
    furthest: Arc<watch::Sender<u64>>,
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
    /// Where the next proxy, if it is ours, had it from.
    pub(crate) source: Option<ContentSource>,
}

/// What one proxy of ours tells another one with each file: where its content came from.
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("x-nestmatrix-source");

impl From<&Entry> for Head {
    fn from(entry: &Entry) -> Self {
        let Entry { bytes, etag, last_modified, content_type, .. } = entry.clone();
        Self { length: Some(bytes), etag, last_modified, content_type, source: None }
    }
}

impl Follower {
    /// It has read so many bytes.
    pub(crate) fn has_read(&self, bytes: u64) {
        self.furthest.send_if_modified(|furthest| {
            let further = bytes > *furthest;
            *furthest = bytes.max(*furthest);
            further
        });
    }
}

impl Flight {
    fn new() -> Arc<Self> {
        Arc::new(Self { progress: watch::Sender::new(Progress::Asked), furthest: Arc::new(watch::Sender::new(0)) })
    }

    fn follow(&self) -> Follower {
        Follower { progress: self.progress.subscribe(), furthest: Arc::clone(&self.furthest) }
    }

    /// Ends when nobody reads it any more. Nobody joins it afterwards.
    async fn abandoned(self: &Arc<Self>, running: &Running, key: &str) {
        loop {
            self.progress.closed().await;
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            // Readers join under this lock only.
            if self.progress.is_closed() {
                self.leave(&mut running, key);
                return;
            }
        }
    }

    /// Its place may be another one's already.
    fn leave(self: &Arc<Self>, running: &mut HashMap<String, Weak<Self>>, key: &str) {
        if running.get(key).is_some_and(|other| Weak::as_ptr(other) == Arc::as_ptr(self)) {
            running.remove(key);
        }
    }
}

impl Fetches {
    /// The download of this URL, which is started if there is none.
    pub(crate) fn join(self: &Arc<Self>, wanted: &Wanted, known: Option<Entry>) -> Follower {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, flight| flight.strong_count() > 0);
        let key = wanted.key();
        if let Some(flight) = running.get(&key).and_then(Weak::upgrade) {
            return flight.follow();
        }
        let flight = Flight::new();
        let follower = flight.follow();
        running.insert(key.clone(), Arc::downgrade(&flight));
        let (fetches, wanted) = (Arc::clone(self), wanted.clone());
        tokio::spawn(async move {
            let download = tokio::time::timeout(LONGEST, fetches.download(&wanted, known, &flight));
            let ended = tokio::select! {
                ended = download => ended.unwrap_or_else(|_| Err(format!("timeout: it was not done within {} s", LONGEST.as_secs()))),
                () = flight.abandoned(&fetches.running, &key) => return,
            };
            flight.leave(&mut fetches.running.lock().unwrap_or_else(PoisonError::into_inner), &key);
            flight.progress.send_replace(ended.unwrap_or_else(Progress::Failed));
        });
        follower
    }

    /// Asks, and follows the answer to its end.
    async fn download(&self, wanted: &Wanted, known: Option<Entry>, flight: &Flight) -> Result<Progress, String> {
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
        let source = answer.headers().get(SOURCE).filter(|_| self.upstream.is_ours());
        let source = source.and_then(|source| serde_json::from_value(source.to_str().ok()?.into()).ok());
        let head = Arc::new(Head { source, ..head(&answer) });
        let mut file = self.cache.download().map_err(|error| unwritable(&error))?;
        let reading = Arc::new(file.reader().map_err(|error| unwritable(&error))?);
        let (mut bytes, mut digest, mut furthest) = (0, sha2::Sha256::new(), flight.furthest.subscribe());
        let running = |bytes| Progress::Running { head: Arc::clone(&head), file: Arc::clone(&reading), bytes };
        flight.progress.send_replace(running(bytes));
        while let Some(piece) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
            bytes += piece.len() as u64;
            if bytes > self.largest {
                return Err(format!("the file does not end within {} bytes", self.largest));
            }
            digest.update(&piece);
            file.write(&piece).map_err(|error| unwritable(&error))?;
            flight.progress.send_replace(running(bytes));
            // Cannot fail: the flight has its sender.
            let _ = furthest.wait_for(|furthest| furthest.saturating_add(AHEAD) >= bytes).await;
        }
        if let Some(announced) = announced.filter(|announced| *announced != bytes) {
            return Err(format!("the server sent {bytes} bytes of {announced}"));
        }
        let Head { etag, last_modified, content_type, .. } = (*head).clone();
        let digest = Digest::from_bytes(digest.finalize().into());
        let entry =
            Entry { url: url.clone(), digest, bytes, etag, last_modified, content_type, checked: Timestamp::now() };
        // Otherwise the end of the connection was the end of the file, and a connection that broke looks the same.
        if announced.is_some() || is_chunked(answer.headers()) {
            tokio::task::block_in_place(|| self.cache.keep(file, &entry)).map_err(|error| unwritable(&error))?;
        }
        Ok(Progress::Done { head, file: reading, entry })
    }
}

async fn other(mut answer: reqwest::Response) -> Result<Other, String> {
    let (status, headers) = (answer.status(), passed_on(answer.headers()));
    let mut content = Vec::new();
    let mut whole = status != StatusCode::PARTIAL_CONTENT;
    while let Some(piece) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
        let room = SMALL - content.len();
        content.extend(piece.iter().take(room));
        if piece.len() > room {
            whole = false;
            break;
        }
    }
    // A guest would take it for a file. An error page may be cut.
    if status.is_success() && !whole {
        return Err(format!("the server answered {status}, with a part of a file"));
    }
    Ok(Other { status, headers, content: content.into() })
}

/// What a guest is told of an answer that is no file.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let kept = [CONTENT_TYPE, LOCATION];
    kept.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

/// What the server says of the file.
pub(crate) fn head(answer: &reqwest::Response) -> Head {
    // Entries of the cache stay small, whatever the server calls its file.
    let short = |text: &&str| text.len() <= LONGEST_VALUE;
    let text = |name: HeaderName| Some(answer.headers().get(name)?.to_str().ok().filter(short)?.to_owned());
    let (etag, last_modified, content_type) = (text(ETAG), text(LAST_MODIFIED), text(CONTENT_TYPE));
    Head { length: length(answer.headers()), etag, last_modified, content_type, source: None }
}

/// The length that counts: a transfer coding overrides it (RFC 9112, 6.3).
fn length(headers: &HeaderMap) -> Option<u64> {
    let announced = headers.get(CONTENT_LENGTH).filter(|_| !headers.contains_key(TRANSFER_ENCODING));
    announced?.to_str().ok()?.parse().ok()
}

/// Whether the end of the content is marked.
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let coding = last.and_then(|codings| codings.to_str().ok()?.rsplit(',').next());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

fn unwritable(error: &io::Error) -> String {
    format!("the cache cannot be written: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_ends_leaves_the_one_that_took_its_place() {
        let (first, second) = (Flight::new(), Flight::new());
        let mut running = HashMap::from([("http://a/x".to_owned(), Arc::downgrade(&second))]);
        first.leave(&mut running, "http://a/x");
        assert!(running.contains_key("http://a/x"), "others join it");
        second.leave(&mut running, "http://a/x");
        assert!(running.is_empty());
    }

    #[tokio::test]
    async fn the_readers_of_a_download_whose_task_is_gone_do_not_wait() {
        let flight = Flight::new();
        let mut follower = flight.follow();
        drop(flight);
        assert!(follower.progress.wait_for(|_| false).await.is_err());
    }
}
