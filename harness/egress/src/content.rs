//! The content of a file, read piece by piece, while it is downloaded or from the cache; proved before its last piece is passed on.

use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use matrix::Digest;
use sha2::Digest as _;

use crate::{
    cache::Entry,
    flight::{AHEAD, Follower, Progress},
    package_name::PackageName,
    pins::PackagePin,
};

/// Piece of content that is passed on at once, in bytes.
const PIECE: usize = 128 * 1024;

const GIVEN_UP: &str = "the download was given up";

/// The content of a file, read piece by piece.
pub(crate) struct Content {
    file: Arc<File>,
    at: u64,
    from: Origin,
    expected: Option<Expected>,
}

/// What the content has to be, and what it is called where it is offered.
struct Expected {
    pin: PackagePin,
    offered: PackageName,
}

enum Origin {
    /// What was kept; it is proved once more as it is read.
    Cache(Box<(Entry, sha2::Sha256)>),
    Download(Follower),
}

impl Content {
    /// What the cache has.
    pub(crate) fn of_cache(file: File, entry: Entry) -> Self {
        let from = Origin::Cache(Box::new((entry, sha2::Sha256::new())));
        Self { file: Arc::new(file), at: 0, from, expected: None }
    }

    /// What comes from a server.
    pub(crate) fn of_download(file: Arc<File>, follower: Follower) -> Self {
        Self { file, at: 0, from: Origin::Download(follower), expected: None }
    }

    /// The same, if it is what is pinned. Where that is not known yet, its last byte is passed on only if it is.
    ///
    /// # Errors
    ///
    /// It is known to be something else, in words.
    pub(crate) fn expecting(self, pin: &PackagePin, offered: PackageName) -> Result<Self, String> {
        let expected = Expected { pin: pin.clone(), offered };
        if let Some(digest) = self.known() {
            expected.check(digest)?;
        }
        Ok(Self { expected: Some(expected), ..self })
    }

    /// Digest of all of it, as soon as that is known.
    ///
    /// # Errors
    ///
    /// The download fails, in words.
    pub(crate) async fn whole(mut self) -> Result<Digest, String> {
        if let Origin::Download(follower) = &mut self.from {
            // Nobody reads it, and it is to come all the same.
            follower.has_read(u64::MAX);
            let over = |progress: &Progress| !matches!(progress, Progress::Asked | Progress::Running { .. });
            let state = follower.progress.wait_for(over).await.map_err(|_| GIVEN_UP.to_owned())?;
            if let Progress::Failed(why) = &*state {
                return Err(why.clone());
            }
        }
        self.known().ok_or_else(|| GIVEN_UP.to_owned())
    }

    fn known(&self) -> Option<Digest> {
        match &self.from {
            Origin::Cache(kept) => Some(kept.0.digest),
            Origin::Download(follower) => match &*follower.progress.borrow() {
                Progress::Done { entry, .. } => Some(entry.digest),
                _ => None,
            },
        }
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
                // What may turn out to be another content is never passed on whole.
                let (at, held) = (self.at, u64::from(self.expected.is_some()));
                let further = |progress: &Progress| match progress {
                    Progress::Running { bytes, .. } => *bytes > at + held,
                    _ => true,
                };
                let state = progress.wait_for(further).await.map_err(|_| GIVEN_UP.to_owned())?;
                match &*state {
                    Progress::Running { bytes, .. } => *bytes - held,
                    Progress::Done { entry, .. } => {
                        self.expected.as_ref().map_or(Ok(()), |expected| expected.check(entry.digest))?;
                        entry.bytes
                    }
                    Progress::Failed(why) => return Err(why.clone()),
                    _ => return Err(GIVEN_UP.to_owned()),
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

    /// Ends when its download has ended, if that is not waiting for readers. The digest, if it is known then.
    pub(crate) async fn settle(mut self) -> Option<Digest> {
        if let Origin::Download(follower) = &mut self.from {
            let ended = |progress: &Progress| match progress {
                Progress::Running { head, bytes, .. } => head.length.unwrap_or(*bytes).max(*bytes) > AHEAD,
                _ => true,
            };
            let _ = follower.progress.wait_for(ended).await;
        }
        self.known()
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

impl Expected {
    fn check(&self, digest: Digest) -> Result<(), String> {
        match digest == self.pin.digest {
            true => Ok(()),
            false => Err(self.pin.differs(&self.offered, &Ok(digest))),
        }
    }
}
