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
