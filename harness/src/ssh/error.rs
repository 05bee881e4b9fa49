//! What can go wrong between us and a guest's SSH server.

use std::{io, time::Duration};

/// A session could not be opened, or a command on it did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The server does not hold a key we gave the guest: what answers is not our guest.
    #[error("the host key is not the guest's: expected {expected}, the server has {offered}")]
    HostKey {
        /// Fingerprint of the key of that kind that we gave the guest.
        expected: String,
        /// Fingerprint of the key the server showed.
        offered: String,
    },
    /// The two sides could not agree on how to talk.
    #[error("SSH handshake failed: {reason}")]
    Handshake {
        /// In libssh2's words.
        reason: String,
    },
    /// The two sides have no algorithm in common.
    #[error("no {what} in common with the SSH server: it offers {theirs}, nestmatrix takes {ours}")]
    NoCommon {
        /// What kind of algorithm.
        what: &'static str,
        /// Their names, as the server lists them.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The server takes none of our login keys.
    #[error("login as `{user}` was refused: {reason}")]
    Auth {
        /// The account.
        user: String,
        /// In libssh2's words, for each key.
        reason: String,
    },
    /// The server would not start the command.
    #[error("the SSH server refused to {what}: {reason}")]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// In libssh2's words.
        reason: String,
    },
    /// The deadline came first. The command may still run in the guest.
    #[error("timeout while {doing}")]
    Timeout {
        /// What was being waited for.
        doing: &'static str,
    },
    /// The connection is gone.
    #[error("the SSH connection was lost while {doing}: {reason}")]
    Lost {
        /// What was going on.
        doing: &'static str,
        /// What the socket or libssh2 said.
        reason: String,
    },
    /// What came over the connection is not SSH, or it was not used as it must be: which side is at fault is not known.
    #[error("the SSH connection can no longer be used, it broke while {doing}: {reason}")]
    Broken {
        /// What was going on.
        doing: &'static str,
        /// What libssh2 or the system said.
        reason: String,
    },
    /// The connection stands, but the guest has not answered anything for longer than it may.
    #[error("the guest no longer answers: it was silent for {} s while {doing}", silence.as_secs())]
    Frozen {
        /// What was going on.
        doing: &'static str,
        /// For how long nothing came.
        silence: Duration,
    },
    /// The server closed the command's channel and said neither an exit code nor a signal: how it ended is not known.
    #[error("the SSH server closed the channel of a command without an exit status")]
    NoStatus,
    /// The login shell did not come to the command: one of its start-up files exits, waits, or prints too much.
    #[error(
        "the login shell does not start the command: {how}; check the start-up files of the account (.bashrc, .profile, .cshrc){said}"
    )]
    NotStarted {
        /// What it did instead.
        how: String,
        /// What it printed; empty, or in words that end a sentence.
        said: String,
    },
    /// We were told to stop.
    #[error("cancelled")]
    Cancelled,
    /// This machine's fault: a file, a thread or a socket could not be created.
    #[error("{what}: {source}")]
    Local {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl SshError {
    /// How the guest's system is set up makes it impossible: another guest of its image does no better.
    pub const fn is_the_images_fault(&self) -> bool {
        matches!(self, Self::NoCommon { .. } | Self::NotStarted { .. })
    }

    /// The guest can no longer be reached over this session, or its server is going down (as opposed to: this command took too long).
    pub const fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Broken { .. } | Self::Frozen { .. } | Self::NoStatus)
    }
}
