//! One download that all guests share who want its file at the same time.
//!
//! It belongs to nobody: guests read along from its file, each at its own speed, and it ends when the last one is gone. It is never far
//! ahead of the fastest of them, so that a guest that only asks, and does not read, fills no disk.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION, TRANSFER_ENCODING},
};
use reports::ContentSource;
use tokio::sync::watch;

use crate::{cache::Entry, upstream::chain};

/// Most bytes of an answer that is no file: an error page.
const SMALL: usize = 64 * 1024;
/// How far a download is ahead of the guest that has read most of it, in bytes; a piece from the server comes on top.
pub(crate) const AHEAD: u64 = 4 << 20;
/// Longest value of a header that is kept, in bytes.
const LONGEST_VALUE: usize = 1024;

/// The downloads that are under way, by what is wanted. Each belongs to its task: what it leaves here when that panics is nothing.
pub(crate) type Running = Mutex<HashMap<String, Weak<Flight>>>;

/// A download under way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) furthest: Arc<watch::Sender<u64>>,
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
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { progress: watch::Sender::new(Progress::Asked), furthest: Arc::new(watch::Sender::new(0)) })
    }

    pub(crate) fn follow(&self) -> Follower {
        Follower { progress: self.progress.subscribe(), furthest: Arc::clone(&self.furthest) }
    }

    /// Ends when nobody reads it any more. Nobody joins it afterwards.
    pub(crate) async fn abandoned(self: &Arc<Self>, running: &Running, key: &str) {
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
    pub(crate) fn leave(self: &Arc<Self>, running: &mut HashMap<String, Weak<Self>>, key: &str) {
        if running.get(key).is_some_and(|other| Weak::as_ptr(other) == Arc::as_ptr(self)) {
            running.remove(key);
        }
    }
}

pub(crate) async fn other(mut answer: reqwest::Response) -> Result<Other, String> {
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
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    let announced = headers.get(CONTENT_LENGTH).filter(|_| !headers.contains_key(TRANSFER_ENCODING));
    announced?.to_str().ok()?.parse().ok()
}

/// Whether the end of the content is marked.
pub(crate) fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let coding = last.and_then(|codings| codings.to_str().ok()?.rsplit(',').next());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
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
