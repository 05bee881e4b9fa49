//! A connection to an https server: bytes both ways, of which nothing is seen.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use reports::RequestOutcome;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    time::timeout,
};

use crate::{account::Asked, upstream::Stream};

/// Longest time in which nothing comes or is taken on one side.
const IDLE: Duration = Duration::from_secs(120);
/// Longest connection.
const LONGEST: Duration = Duration::from_secs(3600);
const PIECE: usize = 64 * 1024;

/// Carries it to its end.
pub(crate) async fn run(asked: Asked, upgrade: hyper::upgrade::OnUpgrade, server: Box<dyn Stream>) {
    let bytes = AtomicU64::new(0);
    let carried = async {
        let guest = timeout(IDLE, upgrade).await.map_err(|_| "timeout: the guest did not begin".to_owned())?;
        let guest = guest.map_err(|_| "the guest gave it up".to_owned())?;
        let ((from_guest, to_guest), (from_server, to_server)) = (split(TokioIo::new(guest)), split(server));
        let up = carry((from_guest, true), to_server, &asked, &bytes);
        let down = carry((from_server, false), to_guest, &asked, &bytes);
        timeout(LONGEST, async { tokio::try_join!(up, down) })
            .await
            .map_err(|_| format!("timeout: the connection did not end within {} s", LONGEST.as_secs()))?
    };
    // A guest that may reach nothing any more loses the connections that it has.
    let mut policy = asked.state.policy.subscribe();
    let carried = async {
        tokio::select! {
            carried = carried => carried,
            _ = policy.wait_for(Option::is_none) => Err("what the guest may reach has ended".to_owned()),
        }
    };
    let outcome = match carried.await {
        Ok(_) => RequestOutcome::Tunnelled,
        Err(reason) => RequestOutcome::Failed { reason },
    };
    asked.over(outcome, bytes.load(Ordering::Relaxed));
}

/// One direction, to its end.
async fn carry(
    (mut from, is_guest): (impl AsyncRead + Unpin, bool),
    mut to: impl AsyncWrite + Unpin,
    asked: &Asked,
    bytes: &AtomicU64,
) -> Result<(), String> {
    let mut buffer = vec![0; PIECE];
    let late = |_| format!("timeout: nothing came or was taken for {} s", IDLE.as_secs());
    loop {
        // The other direction may be at work meanwhile.
        let before = bytes.load(Ordering::Relaxed);
        let read = match timeout(IDLE, from.read(&mut buffer)).await {
            Err(_) if bytes.load(Ordering::Relaxed) != before => continue,
            read => read.map_err(late)?,
        };
        let size = match read {
            Err(_) if is_guest => return Err("the guest's connection ended".to_owned()),
            // A server that ends without a goodbye has ended all the same; what was cut, TLS tells.
            Ok(0) | Err(_) => break,
            Ok(size) => size,
        };
        asked.takes(size as u64)?;
        bytes.fetch_add(size as u64, Ordering::Relaxed);
        if timeout(IDLE, to.write_all(&buffer[..size])).await.map_err(late)?.is_err() {
            break;
        }
    }
    let _ = timeout(IDLE, to.shutdown()).await;
    Ok(())
}
