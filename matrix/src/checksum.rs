//! A digest as publishers of images write it: SHA-256 or SHA-512.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The digest of a published file; written `sha256:<64 hex digits>` or `sha512:<128 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Checksum {
    /// SHA-256.
    Sha256(Digest),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Checksum {
    /// The hex digits alone.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => hex::encode(bytes),
        }
    }

    /// The kind and the first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take("sha256:".len() + 12).collect()
    }
}

impl From<Digest> for Checksum {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        };
        write!(f, "{kind}:{}", self.hex())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({})", self.short())
    }
}

/// The text is not a digest of a published file.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 hex digits, or `sha512:` and 128")]
pub struct ChecksumParseError(String);

impl FromStr for Checksum {
    type Err = ChecksumParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_prefix("sha512:") {
            Some(digits) => {
                let mut bytes = [0; 64];
                hex::decode_to_slice(digits, &mut bytes).ok().map(|()| Self::Sha512(bytes))
            }
            None => text.parse().ok().map(Self::Sha256),
        };
        parsed.ok_or_else(|| ChecksumParseError(text.chars().take(160).collect()))
    }
}

written_as_text!(Checksum);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_as_they_are_written_and_nothing_else_is() {
        for text in [format!("sha256:{}", "0a".repeat(32)), format!("sha512:{}", "f1".repeat(64))] {
            assert_eq!(text.parse::<Checksum>().expect("a digest").to_string(), text);
        }
        for text in ["", "sha256:", "md5:00", "0a0a", &format!("sha256:{}", "0".repeat(63)), &"0".repeat(64)] {
            text.parse::<Checksum>().expect_err(text);
        }
    }
}
