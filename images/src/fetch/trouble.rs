//! Failures of a single server, and whether a retry is worthwhile.

use std::time::Duration;

use matrix::Checksum;

/// What was wrong with a server or its answer; a predicate of its address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// No answer.
    #[error("is unreachable: {reason}")]
    Unreachable {
        /// The error of the system or of TLS.
        reason: String,
    },
    /// An HTTP error.
    #[error("answered {code}{}{}", spaced(name), quoted(line))]
    Status {
        /// The HTTP status, for example 404.
        code: u16,
        /// Its usual name, for example `Not Found`; may be empty.
        name: &'static str,
        /// The first line of its body.
        line: Option<String>,
    },
    /// It redirects in a way that is not followed.
    #[error("redirects {reason}")]
    Redirect {
        /// The target, and what is wrong with it.
        reason: String,
    },
    /// A web page in place of an image.
    #[error("sent an error page, not an image{}", quoted(line))]
    ErrorPage {
        /// Its title or first line.
        line: Option<String>,
    },
    /// The file has no bytes.
    #[error("sent an empty file")]
    Empty,
    /// The connection ended too early.
    #[error("broke off after {received}{} bytes: {reason}", total.map_or(String::new(), |total| format!(" of {total}")))]
    BrokeOff {
        /// Bytes of the file that are there.
        received: u64,
        /// Size of the file in bytes, if stated by the server.
        total: Option<u64>,
        /// How it ended.
        reason: String,
    },
    /// Timeout: no more bytes.
    #[error("timed out: no data for {} s, after {received} bytes", limit.as_secs_f64())]
    Silent {
        /// The time limit.
        limit: Duration,
        /// Bytes of the file that are there.
        received: u64,
    },
    /// It is too slow.
    #[error("is too slow: {speed} bytes/s, the minimum is {least}")]
    Slow {
        /// Bytes a second.
        speed: u64,
        /// The limit.
        least: u64,
    },
    /// It does not resume: asked for the rest of a file, it sent something else.
    #[error("does not resume at byte {offset}: it sent {sent}")]
    WrongRest {
        /// The first requested byte.
        offset: u64,
        /// What it states that it sends.
        sent: String,
    },
    /// The file has the wrong size.
    #[error("has a file of the wrong size: expected {expected} bytes, found {found}")]
    WrongSize {
        /// The expected size.
        expected: u64,
        /// The actual size.
        found: u64,
    },
    /// The file is too large.
    #[error("has a file that is too large: the limit is {most} bytes")]
    TooLarge {
        /// The limit.
        most: u64,
    },
    /// Completeness cannot be checked.
    #[error("does not state the length of the file, and neither its size nor its checksum is known")]
    Endless,
    /// Digest mismatch.
    #[error("sent a file with another digest (digest mismatch): expected {}, found {}", .0.expected, .0.found)]
    WrongChecksum(Box<WrongChecksum>),
    /// It is damaged or truncated.
    #[error("cannot be unpacked as {format}: {reason}")]
    Packed {
        /// For example `xz`.
        format: &'static str,
        /// The decoder's error.
        reason: String,
    },
    /// It is not text.
    #[error("sent something that is not text")]
    NotText,
}

/// Two checksums that should be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongChecksum {
    /// The expected one.
    pub expected: Checksum,
    /// The actual one.
    pub found: Checksum,
}

fn quoted(line: &Option<String>) -> String {
    line.as_ref().map_or(String::new(), |line| format!(": \"{line}\""))
}

fn spaced(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" {name}") }
}

impl Trouble {
    /// True if the same request to the same server may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Status { code, .. } => *code >= 500 || matches!(code, 408 | 425 | 429),
            Self::Unreachable { .. }
            // The target may be down for a moment, or change.
            | Self::Redirect { .. }
            | Self::BrokeOff { .. }
            | Self::Silent { .. }
            | Self::Slow { .. }
            | Self::WrongRest { .. } => true,
            _ => false,
        }
    }

    /// The remedy, and its rank among other remedies: 0 is the most informative.
    pub(super) fn advice(&self) -> Option<(u8, &'static str)> {
        let advice = match self {
            Self::WrongChecksum(_) | Self::WrongSize { .. } => (
                0,
                "the publisher may have replaced the file: compare with the checksum published now, and do not accept the file without that",
            ),
            Self::Unreachable { reason } if reason.contains("certificate") => (
                1,
                "check this machine's clock and its CA certificates (package ca-certificates; SSL_CERT_FILE, SSL_CERT_DIR)",
            ),
            Self::ErrorPage { .. } => {
                (2, "a proxy or a login page answers instead of the publisher: open the address in a browser")
            }
            Self::Status { code: 401 | 403 | 404 | 410 | 451, .. } => (
                3,
                "the publisher has moved or removed the file, or access is restricted: open the address in a browser",
            ),
            Self::Status { code: 407, .. } => (
                3,
                "the proxy requires a login: write it into HTTPS_PROXY and HTTP_PROXY, as in http://user:password@host:port",
            ),
            Self::TooLarge { .. } | Self::Packed { .. } => {
                (4, "the published file is damaged, or not a disk: ask its publisher")
            }
            Self::Slow { .. } | Self::BrokeOff { .. } | Self::Silent { .. } => {
                (5, "try again later: the download resumes where it stopped")
            }
            Self::Status { code: 408 | 425 | 429 | 500.., .. } => (6, "server error: try again later"),
            Self::Unreachable { .. } => {
                (7, "check the network, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY if there is a proxy")
            }
            _ => return None,
        };
        Some(advice)
    }
}
