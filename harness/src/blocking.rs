//! Work that blocks, done where others wait.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does it here, and has other threads do what else this one would have: for work in the middle of an async function that needs what
/// that borrows. What owns everything it needs goes to `spawn_blocking`.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There are no other threads.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_blocks_holds_up_nobody_else() {
        let (sender, receiver) = mpsc::channel();
        let one = tokio::spawn(async move { blocking(|| receiver.recv_timeout(Duration::from_secs(60))) });
        // It runs on the only thread there is for tasks.
        let other = tokio::spawn(async move { sender.send(()) });
        assert_eq!(one.await.unwrap(), Ok(()));
        other.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn where_there_is_one_thread_it_is_done_there() {
        assert_eq!(blocking(|| 7), 7);
    }
}
