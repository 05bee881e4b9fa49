//! Limits that a shell or a CI system sets for this process (`ulimit`).

use std::io;

/// Ignores SIGXFSZ, for this process and those it starts. A write beyond `ulimit -f` then fails with EFBIG ("File too large"), and the
/// error names the file. QEMU stops its guest instead of being killed.
pub(super) fn let_large_writes_fail() -> io::Result<()> {
    // SAFETY: no handler is installed, and no other thread runs yet.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
