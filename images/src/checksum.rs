//! What a publisher says his file's bytes add up to: SHA-256 or SHA-512, as his checksum files have it.
//!
//! Of other algorithms there is none: MD5 and SHA-1 prove nothing any more.

use std::{fmt, str::FromStr};

use matrix::Digest;
use serde::{Deserialize, Serialize};

/// The checksum of a published file; written `sha256:<64 hex digits>` or `sha512:<128 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Checksum {
    /// SHA-256.
    Sha256(Digest),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Checksum {
    /// The hex digits, lower case, without the name of the algorithm.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => hex::encode(bytes),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "{digest}"),
            Self::Sha512(bytes) => write!(f, "sha512:{}", hex::encode(bytes)),
        }
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

impl From<Digest> for Checksum {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

/// The text is not the name of an algorithm, a colon and as many hex digits as it gives.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a checksum: expected `sha256:` and 64 hex digits, or `sha512:` and 128")]
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
        parsed.ok_or_else(|| ChecksumParseError(text.to_owned()))
    }
}

impl TryFrom<String> for Checksum {
    type Error = ChecksumParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(short: [u8; 32], long in proptest::collection::vec(any::<u8>(), 64)) {
            let long: [u8; 64] = long.try_into().expect("64 bytes");
            for checksum in [Checksum::Sha256(Digest::from_bytes(short)), Checksum::Sha512(long)] {
                let text = serde_json::to_string(&checksum).expect("text");
                prop_assert_eq!(&text, &format!("\"{checksum}\""));
                prop_assert_eq!(serde_json::from_str::<Checksum>(&text).expect("checksum"), checksum);
            }
        }
    }

    #[test]
    fn digits_of_the_other_algorithm_or_of_none_are_refused_with_the_text() {
        let (short, long) = ("ab".repeat(32), "ab".repeat(64));
        for text in [format!("sha256:{long}"), format!("sha512:{short}"), format!("md5:{short}"), short, String::new()]
        {
            let error = text.parse::<Checksum>().expect_err("no checksum");
            assert!(error.to_string().starts_with(&format!("`{text}` is not a checksum: expected")), "{error}");
        }
        assert!(format!("sha256:{}", "AB".repeat(32)).parse::<Checksum>().is_ok(), "some publishers write capitals");
    }
}
