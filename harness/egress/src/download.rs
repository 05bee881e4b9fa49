//! Downloads a file, for all guests who want it.

use std::{
    io,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use matrix::Digest;
use sha2::Digest as _;

use crate::{
    cache::Entry,
    fetch::{Fetches, Wanted},
    flight::{AHEAD, Flight, Follower, Head, Progress, SOURCE, head, is_chunked, length, other},
    upstream::chain,
};

/// Longest download.
const LONGEST: Duration = Duration::from_secs(3600);

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

fn unwritable(error: &io::Error) -> String {
    format!("the cache cannot be written: {error}")
}
