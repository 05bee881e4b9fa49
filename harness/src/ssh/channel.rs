//! One channel of a session, on libssh2 itself.
//!
//! Not the `ssh2` crate's: to it a command whose exit status never came has exited with 0 (libssh2's `get_exit_status` is 0 then),
//! and so has one that was killed by a signal whose name is no UTF-8. Whether a status came, only
//! `libssh2_channel_has_exit_status` says, and the crate neither declares it nor shows its own pointer.

use std::{
    ffi::{c_char, c_int, c_long, c_uint},
    ptr::{NonNull, null, null_mut},
    time::Duration,
};

use libssh2_sys as raw;

use super::End;

/// Longest name of a signal that is kept, in characters.
const SIGNAL_NAME: usize = 32;
/// Number of the stream for standard error (RFC 4254, 5.2).
const STDERR: c_int = 1;

unsafe extern "C" {
    /// Whether an `exit-status` request came (libssh2.h; missing in libssh2-sys 0.3.4).
    fn libssh2_channel_has_exit_status(channel: *mut raw::LIBSSH2_CHANNEL) -> c_int;
    /// How many seconds libssh2 itself waits for a packet that must come, 60 if nobody says (missing there, too).
    fn libssh2_session_set_read_timeout(session: *mut raw::LIBSSH2_SESSION, seconds: c_long);
}

/// Has libssh2 give up the wait for an answer no earlier than this.
pub(super) fn wait_for_answers(session: &ssh2::Session, least: Duration) {
    let seconds = c_long::try_from(least.as_secs().max(60)).unwrap_or(c_long::MAX);
    // SAFETY: the session is alive and locked.
    unsafe { libssh2_session_set_read_timeout(&raw mut *session.raw(), seconds) }
}

/// Which of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// An open channel. Every call may fail with "would block"; see `wire` for what follows from that.
pub(super) struct Channel {
    /// Belongs to `session`, which frees what is left when it ends.
    channel: NonNull<raw::LIBSSH2_CHANNEL>,
    /// Keeps libssh2's session alive for as long as there is a channel of it. Its lock is held during each call.
    session: ssh2::Session,
}

impl Channel {
    /// Opens a channel for one command.
    pub(super) fn open(session: &ssh2::Session) -> Result<Self, ssh2::Error> {
        const KIND: &[u8] = b"session";
        let mut locked = session.raw();
        // SAFETY: the session is alive and locked; the name is read within its length; there is no message.
        let channel = unsafe {
            raw::libssh2_channel_open_ex(
                &raw mut *locked,
                KIND.as_ptr().cast(),
                KIND.len() as c_uint,
                raw::LIBSSH2_CHANNEL_WINDOW_DEFAULT,
                raw::LIBSSH2_CHANNEL_PACKET_DEFAULT,
                null(),
                0,
            )
        };
        drop(locked);
        match NonNull::new(channel) {
            Some(channel) => Ok(Self { channel, session: session.clone() }),
            None => Err(ssh2::Error::last_session_error(session).unwrap_or_else(ssh2::Error::unknown)),
        }
    }

    /// Has the server start a command.
    pub(super) fn exec(&mut self, command: &str) -> Result<(), ssh2::Error> {
        const REQUEST: &[u8] = b"exec";
        let length = c_uint::try_from(command.len()).unwrap_or(c_uint::MAX);
        self.call(|channel| {
            // SAFETY: `call` passes a live channel under its session's lock; both texts are read within their lengths.
            unsafe {
                raw::libssh2_channel_process_startup(
                    channel,
                    REQUEST.as_ptr().cast(),
                    REQUEST.len() as c_uint,
                    command.as_ptr().cast(),
                    length,
                )
            }
        })
        .map(drop)
    }

    /// Reads what came; 0 at the end of all output.
    pub(super) fn read(&mut self, output: Output, buffer: &mut [u8]) -> Result<usize, ssh2::Error> {
        let stream = match output {
            Output::Stdout => 0,
            Output::Stderr => STDERR,
        };
        self.move_bytes(|channel| {
            // SAFETY: `move_bytes` passes a live channel under its session's lock; at most `buffer.len()` bytes are written.
            unsafe { raw::libssh2_channel_read_ex(channel, stream, buffer.as_mut_ptr().cast::<c_char>(), buffer.len()) }
        })
    }

    /// Sends input; how much of it went out.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, ssh2::Error> {
        self.move_bytes(|channel| {
            // SAFETY: as above; at most `bytes.len()` bytes are read.
            unsafe { raw::libssh2_channel_write_ex(channel, 0, bytes.as_ptr().cast::<c_char>(), bytes.len()) }
        })
    }

    /// Says that no more input follows.
    pub(super) fn send_eof(&mut self) -> Result<(), ssh2::Error> {
        // SAFETY: `call` passes a live channel under its session's lock.
        self.call(|channel| unsafe { raw::libssh2_channel_send_eof(channel) }).map(drop)
    }

    /// The server has said that no more output follows, and all of it was read.
    pub(super) fn is_at_eof(&mut self) -> bool {
        // SAFETY: `call` passes a live channel under its session's lock.
        self.call(|channel| unsafe { raw::libssh2_channel_eof(channel) }).is_ok_and(|eof| eof != 0)
    }

    /// Waits for the server to close a channel at its end of output.
    pub(super) fn wait_closed(&mut self) -> Result<(), ssh2::Error> {
        // SAFETY: `call` passes a live channel under its session's lock.
        self.call(|channel| unsafe { raw::libssh2_channel_wait_closed(channel) }).map(drop)
    }

    /// Closes the channel from our end.
    pub(super) fn close(&mut self) -> Result<(), ssh2::Error> {
        // SAFETY: `call` passes a live channel under its session's lock.
        self.call(|channel| unsafe { raw::libssh2_channel_close(channel) }).map(drop)
    }

    /// How the command has ended; `None`: the server has not said so, whatever libssh2's exit status reads.
    ///
    /// A signal outweighs a status: no server sends both (RFC 4254, 6.10), and what was killed has not passed.
    pub(super) fn end(&mut self) -> Result<Option<End>, ssh2::Error> {
        if let Some(signal) = self.signal()? {
            return Ok(Some(End::Killed(signal)));
        }
        let locked = self.session.raw();
        let channel = self.channel.as_ptr();
        // SAFETY: the channel is alive and its session is locked; both only read a field of it.
        let (has, status) =
            unsafe { (libssh2_channel_has_exit_status(channel), raw::libssh2_channel_get_exit_status(channel)) };
        drop(locked);
        Ok((has != 0).then_some(End::Exited(status)))
    }

    fn signal(&mut self) -> Result<Option<String>, ssh2::Error> {
        let (mut name, mut length) = (null_mut::<c_char>(), 0);
        self.call(|channel| {
            // SAFETY: `call` passes a live channel under its session's lock; libssh2 writes the two places that are given and
            // skips those that are null.
            unsafe {
                raw::libssh2_channel_get_exit_signal(
                    channel,
                    &raw mut name,
                    &raw mut length,
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut(),
                )
            }
        })?;
        if name.is_null() {
            return Ok(None);
        }
        // SAFETY: libssh2 allocated `length` bytes (and a NUL) at `name` for us in the call above.
        let bytes = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), length) };
        let said: String = String::from_utf8_lossy(bytes).chars().take(SIGNAL_NAME).collect();
        // SAFETY: allocated by this session, freed once, not used any more.
        unsafe { raw::libssh2_free(&raw mut *self.session.raw(), name.cast()) };
        Ok(Some(if said.is_empty() { "without a name".to_owned() } else { said }))
    }

    /// One call that returns 0 or more, or libssh2's error.
    fn call(&mut self, call: impl FnOnce(*mut raw::LIBSSH2_CHANNEL) -> c_int) -> Result<c_int, ssh2::Error> {
        self.move_bytes(|channel| call(channel) as isize).map(|n| n as c_int)
    }

    /// One call that returns a number of bytes, or libssh2's error.
    fn move_bytes(&mut self, call: impl FnOnce(*mut raw::LIBSSH2_CHANNEL) -> isize) -> Result<usize, ssh2::Error> {
        let locked = self.session.raw();
        let n = call(self.channel.as_ptr());
        drop(locked);
        usize::try_from(n).map_err(|_| ssh2::Error::from_session_error(&self.session, n as c_int))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let locked = self.session.raw();
        // SAFETY: the channel is alive, its session is locked, and nobody uses the pointer any more. If libssh2 would block here, it
        // keeps the channel in the session's list and frees it with the session.
        let _ = unsafe { raw::libssh2_channel_free(self.channel.as_ptr()) };
        drop(locked);
    }
}
