//! Digests of a stream, computed beside it.

use std::{
    sync::mpsc::{self, SyncSender},
    thread::{self, JoinHandle},
};

use matrix::{Checksum, Digest};
use sha2::{Digest as _, Sha256, Sha512};

/// Maximum number of chunks that wait to be digested: a faster stream has to wait.
const WAITING: usize = 8;

/// The digests of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Digests {
    pub(super) sha256: Digest,
    /// Only if requested.
    pub(super) sha512: Option<Checksum>,
}

impl Digests {
    /// The digest of the algorithm that `expected` is of.
    pub(super) fn like(&self, expected: Checksum) -> Checksum {
        match (expected, self.sha512) {
            (Checksum::Sha512(_), Some(found)) => found,
            _ => self.sha256.into(),
        }
    }
}

/// A thread that digests chunks in order.
#[derive(Debug)]
pub(super) struct Digester {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<Digests>,
}

impl Digester {
    /// Starts the thread.
    pub(super) fn start(with_sha512: bool) -> Self {
        let (chunks, waiting) = mpsc::sync_channel::<Vec<u8>>(WAITING);
        let thread = thread::spawn(move || {
            let mut short = Sha256::new();
            let mut long = with_sha512.then(Sha512::new);
            for chunk in waiting {
                short.update(&chunk);
                if let Some(long) = &mut long {
                    long.update(&chunk);
                }
            }
            Digests {
                sha256: Digest::from_bytes(short.finalize().into()),
                sha512: long.map(|long| Checksum::Sha512(long.finalize().into())),
            }
        });
        Self { chunks, thread }
    }

    /// Hands over the next bytes; waits if too many are pending.
    pub(super) fn update(&self, chunk: Vec<u8>) {
        // It stops listening only when it is dropped.
        let _ = self.chunks.send(chunk);
    }

    /// The digests of everything that was handed over.
    pub(super) fn finish(self) -> Digests {
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_add_up_to_the_digests_of_the_whole() {
        let digester = Digester::start(true);
        for chunk in ["a", "", "bc"] {
            digester.update(chunk.into());
        }
        let digests = digester.finish();
        assert_eq!(digests.sha256, Digest::of(b"abc"));
        // FIPS 180-4's own example.
        let long = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                    2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(digests.sha512.map(|found| found.to_string()).as_deref(), Some(long));
        assert_eq!(digests.like(long.parse().expect("checksum")).to_string(), long);
        assert_eq!(digests.like(Digest::of(b"").into()), Digest::of(b"abc").into());
    }
}
