//! Names become addresses here, once for each connection: the very addresses that were checked are those that are connected to.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{sync::Semaphore, time::timeout};

use crate::address::is_public;

/// Until a name is resolved.
const LONGEST: Duration = Duration::from_secs(20);
/// Most addresses of a name that are tried.
const ADDRESSES: usize = 4;
/// Most names at once. Each has a thread of the runtime, which has 512, until the system's resolver gives it up.
const AT_ONCE: usize = 64;

/// Which addresses may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those of the internet.
    Public,
    /// Whatever the name has: the matrix names it.
    Any,
}

/// Resolves names.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// Blocks.
    lookup: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    is_public: fn(IpAddr) -> bool,
    threads: Arc<Semaphore>,
}

impl Resolver {
    /// With the system's resolver.
    pub(crate) fn of_system() -> Self {
        Self::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()), is_public)
    }

    pub(crate) fn new(lookup: fn(&str, u16) -> io::Result<Vec<SocketAddr>>, is_public: fn(IpAddr) -> bool) -> Self {
        Self { lookup, is_public, threads: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The addresses of a name that may be reached.
    ///
    /// # Errors
    ///
    /// In words.
    pub(crate) async fn addresses(&self, host: &str, port: u16, reach: Reach) -> Result<Vec<SocketAddr>, String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let found = timeout(LONGEST, self.look(bare, port)).await;
        let found = found.map_err(|_| format!("timeout: {host} was not resolved within {} s", LONGEST.as_secs()))?;
        let found = found.map_err(|error| format!("{host} cannot be resolved: {error}"))?;
        let may_be_reached = |address: &SocketAddr| reach == Reach::Any || (self.is_public)(address.ip());
        let allowed: Vec<_> = found.iter().copied().filter(may_be_reached).take(ADDRESSES).collect();
        match found.first() {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(found) => Err(not_public(host, found.ip())),
            None => Err(format!("{host} has no address")),
        }
    }

    async fn look(&self, host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(io::Error::other)?;
        let lookup = self.lookup;
        let found = tokio::task::spawn_blocking(move || {
            // Until it is done, and not until nobody waits for it any more.
            let _thread = thread;
            lookup(&host, port)
        });
        found.await.map_err(io::Error::other)?
    }

    /// For the names in URLs.
    pub(crate) fn within(&self, reach: Reach) -> Arc<dyn Resolve> {
        Arc::new(Within(self.clone(), reach))
    }
}

struct Within(Resolver, Reach);

impl Resolve for Within {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, reach) = (self.0.clone(), self.1);
        Box::pin(async move {
            let found = resolver.addresses(name.as_str(), 0, reach).await.map_err(io::Error::other)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What is said of a name that leads to where guests never go.
pub(crate) fn not_public(host: &str, address: IpAddr) -> String {
    let leads = if host.trim_matches(['[', ']']) == address.to_string() {
        String::new()
    } else {
        format!(" leads to {address}, which")
    };
    format!("{host}{leads} is a private address; `network.private` in the matrix allows a host's private addresses")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    static OPEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static STARTED: AtomicUsize = AtomicUsize::new(0);

    /// Slow until the gate is open, but for one name.
    fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if host == "slow.test" {
            STARTED.fetch_add(1, Ordering::SeqCst);
            let open = OPEN.0.lock().map_err(|_| io::ErrorKind::Other)?;
            drop(OPEN.1.wait_while(open, |open| !*open));
        }
        Ok(vec![([203, 0, 113, 80], port).into()])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn names_that_nobody_waits_for_any_more_take_no_further_threads() {
        let resolver = Resolver::new(lookup, is_public);
        let mut slow = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let resolver = resolver.clone();
            slow.spawn(async move { resolver.addresses("slow.test", 80, Reach::Public).await });
        }
        while STARTED.load(Ordering::SeqCst) < AT_ONCE {
            tokio::task::yield_now().await;
        }
        slow.shutdown().await;
        assert_eq!(resolver.threads.available_permits(), 0, "the threads are still at work");
        *OPEN.0.lock().expect("the gate") = true;
        OPEN.1.notify_all();
        let quick = resolver.addresses("quick.test", 80, Reach::Public).await;
        assert_eq!(quick, Ok(vec![([203, 0, 113, 80], 80).into()]));
    }
}
