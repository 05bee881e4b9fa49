//! Why nothing more comes from an agent.

use std::{fmt, time::Duration};

/// Why nothing more comes from an agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// It has ended.
    #[error("the agent ended by itself: {0}")]
    Ended(String),
    /// The connection has.
    #[error("{0}")]
    Connection(String),
    /// It does not say anything.
    #[error("timeout: no message from it for {} s", .0.as_secs())]
    Silent(Duration),
    /// It says what no agent says.
    #[error("the agent sent what is no message: {0}")]
    Garbage(String),
    /// It panicked in this process.
    #[error("{0}")]
    Panicked(String),
    /// It is of another version.
    #[error("{0}")]
    Version(String),
}

impl Broken {
    /// It ended in this way, having said this on its standard error.
    pub(crate) fn ended(how: &dyn fmt::Display, said: &[u8]) -> Self {
        let said = String::from_utf8_lossy(said);
        let said: Vec<_> = said.lines().map(reports::clean::line).filter(|line| !line.is_empty()).collect();
        Self::Ended(match said[said.len().saturating_sub(3)..].join("; ") {
            words if words.is_empty() => how.to_string(),
            words => format!("{how}; {words}"),
        })
    }
}
