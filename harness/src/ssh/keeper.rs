//! The thread that owns a session: one command after the other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use super::{
    Exec, Exit, SshError, pump,
    wire::{Credentials, Line},
};

/// A command for the thread.
pub(super) struct Request {
    pub(super) exec: Exec,
    /// What the login shell is sent, and the mark at which the command's own output starts.
    pub(super) line: String,
    pub(super) mark: String,
    pub(super) given_up: Arc<AtomicBool>,
    pub(super) reply: oneshot::Sender<Result<Exit, SshError>>,
}

/// The life of the thread.
pub(super) fn serve(
    mut line: Line,
    credentials: &Credentials,
    ready: oneshot::Sender<Result<(), SshError>>,
    inbox: &mpsc::Receiver<Request>,
) {
    let opened = line.open(credentials);
    let stands = opened.is_ok();
    let _ = ready.send(opened);
    while stands && !line.ended.load(Ordering::Acquire) {
        let request = match inbox.try_recv() {
            Ok(request) => request,
            Err(mpsc::TryRecvError::Disconnected) => break,
            Err(mpsc::TryRecvError::Empty) => {
                // Only the alarm is watched: what happens to the connection meanwhile, the next command finds out.
                if poll(&mut [PollFd::new(line.wake.fd(), PollFlags::IN)], None).is_ok() {
                    line.wake.clear();
                }
                continue;
            }
        };
        line.given_up = Some(request.given_up);
        line.heard.note();
        let answer = pump::run(&mut line, request.exec, &request.line, &request.mark);
        line.given_up = None;
        let lost = matches!(&answer, Err(error) if error.is_connection_lost());
        let _ = request.reply.send(answer);
        if lost || line.given_up_on {
            break;
        }
    }
}
