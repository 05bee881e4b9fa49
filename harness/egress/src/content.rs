//! The content of a file, read piece by piece, while it is downloaded or from the cache.

use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use matrix::Digest;
use sha2::Digest as _;

use crate::{
    cache::Entry,
    flight::{AHEAD, Follower, Progress},
};

/// Piece of content that is passed on at once, in bytes.
const PIECE: usize = 128 * 1024;

/// The content of a file, read piece by piece.
pub(crate) struct Content {
    file: Arc<File>,
    at: u64,
    from: Origin,
}

enum Origin {
    /// What was kept; it is proved once more as it is read.
    Cache(Box<(Entry, sha2::Sha256)>),
    Download(Follower),
}

impl Content {
    /// What the cache has.
    pub(crate) fn of_cache(file: File, entry: Entry) -> Self {
        Self { file: Arc::new(file), at: 0, from: Origin::Cache(Box::new((entry, sha2::Sha256::new()))) }
    }

    /// What comes from a server.
    pub(crate) fn of_download(file: Arc<File>, follower: Follower) -> Self {
        Self { file, at: 0, from: Origin::Download(follower) }
    }

    /// The next piece; `None`: that was all.
    ///
    /// # Errors
    ///
    /// What follows is not there, or what was there is not what the digest says.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let most = match &mut self.from {
            Origin::Cache(kept) => kept.0.bytes,
            Origin::Download(Follower { progress, .. }) => {
                let at = self.at;
                let further = |progress: &Progress| match progress {
                    Progress::Running { bytes, .. } => *bytes > at,
                    _ => true,
                };
                let state = progress.wait_for(further).await.map_err(|_| "the download was given up".to_owned())?;
                match &*state {
                    Progress::Running { bytes, .. } => *bytes,
                    Progress::Done { entry, .. } => entry.bytes,
                    Progress::Failed(why) => return Err(why.clone()),
                    _ => return Err("the download was given up".to_owned()),
                }
            }
        };
        let piece = usize::try_from(most - self.at).unwrap_or(PIECE).min(PIECE);
        if piece == 0 {
            return self.proved().map(|()| None);
        }
        let mut buffer = vec![0; piece];
        // What was just written, or is read anew after a while: a disk's answer at the longest.
        tokio::task::block_in_place(|| self.file.read_exact_at(&mut buffer, self.at))
            .map_err(|error| format!("the cache: {error}"))?;
        self.at += piece as u64;
        match &mut self.from {
            Origin::Cache(kept) => kept.1.update(&buffer),
            Origin::Download(follower) => follower.has_read(self.at),
        }
        if self.at == most {
            self.proved()?;
        }
        Ok(Some(buffer.into()))
    }

    /// Ends when its download has ended, if that is not waiting for readers.
    pub(crate) async fn settle(self) {
        if let Origin::Download(mut follower) = self.from {
            let ended = |progress: &Progress| match progress {
                Progress::Running { head, bytes, .. } => head.length.unwrap_or(*bytes).max(*bytes) > AHEAD,
                _ => true,
            };
            let _ = follower.progress.wait_for(ended).await;
        }
    }

    /// Digest of all of it, once it was read.
    pub(crate) fn digest(&self) -> Option<Digest> {
        match &self.from {
            Origin::Cache(kept) => (self.at == kept.0.bytes).then_some(kept.0.digest),
            Origin::Download(follower) => match &*follower.progress.borrow() {
                Progress::Done { entry, .. } => (self.at == entry.bytes).then_some(entry.digest),
                _ => None,
            },
        }
    }

    /// Before the last piece is passed on: a guest never gets all of a damaged file.
    fn proved(&self) -> Result<(), String> {
        match &self.from {
            Origin::Cache(kept) if Digest::from_bytes(kept.1.clone().finalize().into()) != kept.0.digest => {
                Err("its content in the cache is damaged".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The content that was found to be damaged.
    pub(crate) fn damaged(&self) -> Option<Digest> {
        match &self.from {
            Origin::Cache(kept) if self.proved().is_err() && self.at == kept.0.bytes => Some(kept.0.digest),
            _ => None,
        }
    }
}
