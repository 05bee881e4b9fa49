//! The checksums in a journal: each covers its line and the checksum before it.
//!
//! So a changed, dropped, moved, duplicated or added line is noticed, and so is a journal put together from two. They guard
//! against accidents, not against people: anybody who can write the file can recompute them.

use sha2::{Digest as _, Sha256};

/// Text before and after the checksum at the end of a line.
const BEFORE: &[u8] = b",\"sum\":\"";
const BEHIND: &[u8] = b"\"}";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 16;

/// The state of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Whether there are checksums: `None` before the first line. Older journals have none.
    sealed: Option<bool>,
    /// The checksum of the line before; `None` if that line could not be read.
    last: Option<Vec<u8>>,
}

impl Chain {
    /// The chain of an empty journal.
    pub(super) fn new() -> Self {
        Self { sealed: None, last: Some(Vec::new()) }
    }

    /// Appends the checksum to a line (a JSON object without its line end) and advances the chain.
    pub(super) fn seal(&mut self, line: &mut Vec<u8>) {
        if self.sealed == Some(false) {
            return;
        }
        let sum = sum(self.last.as_deref().unwrap_or_default(), line);
        line.pop();
        line.extend([BEFORE, &sum, BEHIND].concat());
        *self = Self { sealed: Some(true), last: Some(sum) };
    }

    /// Checks the next line of a file, without its line end. The error says what is wrong with it.
    pub(super) fn check(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let parts = parts(line);
        let before = std::mem::replace(&mut self.last, parts.as_ref().map(|(_, sum)| sum.to_vec()));
        let sealed = *self.sealed.get_or_insert(parts.is_some());
        match parts {
            None if sealed => Err("it has no checksum"),
            Some(_) if !sealed => Err("it has a checksum, and the first line has none"),
            // After an unreadable line the expected checksum is unknown.
            Some((event, found)) if before.as_deref().is_some_and(|before| sum(before, &event) != found) => {
                Err("it does not follow from the line before it: an event was changed, removed, added or moved")
            }
            _ => Ok(()),
        }
    }
}

/// A line without its checksum, and the checksum.
fn parts(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (rest, sum) = line.strip_suffix(BEHIND)?.split_last_chunk::<DIGITS>()?;
    let event = rest.strip_suffix(BEFORE)?;
    Some(([event, b"}"].concat(), sum))
}

fn sum(before: &[u8], event: &[u8]) -> Vec<u8> {
    let digest = Sha256::new().chain_update(before).chain_update(event).finalize();
    digest[..DIGITS / 2].iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}
