//! The proxy of a runner, and the guests that it serves.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    account::{Recorder, State},
    cache::Cache,
    fetch::Fetches,
    link::{ADDRESS, Card, Limits, Link, PORT},
    pins::Pins,
    policy::Policy,
    resolve::Resolver,
    upstream::Upstream,
};

/// Largest file, in bytes: the largest package of a distribution has less than 2 GiB.
const LARGEST: u64 = 4 << 30;
/// What one guest takes of its runner's memory: dnf and pip open some ten connections, apt one for each host.
const LIMITS: Limits = Limits { connections: 32, buffer: 64 * 1024, idle: Duration::from_secs(180) };
/// How long what is under way has to end when its guest is gone.
const END: Duration = Duration::from_secs(5);
/// Longest life of one connection of a guest.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// Where a guest finds its proxy.
pub fn url() -> String {
    format!("http://{ADDRESS}:{PORT}")
}

/// What a proxy is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The folder of its cache.
    pub cache: &'a Path,
    /// Most bytes of its content.
    pub limit: u64,
    /// The proxy that it goes through, as `http://host:port`; `None`: what the environment says.
    pub through: Option<&'a str>,
    /// Answers from the cache alone.
    pub offline: bool,
}

impl Settings<'_> {
    /// A usual limit of the cache: some systems' lists, and a few thousand packages.
    pub const LIMIT: u64 = 8 << 30;
}

/// The proxy of a runner. Its guests see one state of each repository: what one of them was told of a file, the others are told as well.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Fetches>);

/// A guest that is served; dropped: its network card is dead.
pub struct Guest {
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// The cache's folder cannot be created, or the address of the proxy behind it is none; in words.
    pub fn open(settings: Settings<'_>) -> Result<Self, String> {
        let Settings { cache, limit, through, offline } = settings;
        let opened = Cache::open(cache, limit);
        let cache = opened.map_err(|error| format!("{} cannot be created: {error}", cache.display()))?;
        let (upstream, began) = (Upstream::new(through, Resolver::of_system())?, Timestamp::now());
        let (running, missed) = Default::default();
        Ok(Self(Arc::new(Fetches { cache, upstream, began, offline, largest: LARGEST, running, missed })))
    }

    /// Serves a guest, which may reach nothing yet, and gets no other packages than these `pins`; `None`: any. `record` is told of each
    /// request when it is over.
    pub fn serve(&self, card: Card, pins: Option<Pins>, record: Recorder) -> Guest {
        let state = Arc::new(State::new(Arc::clone(&self.0), pins, record));
        let mut link = Link::new(card, LIMITS);
        let serving = {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                // The connections end with it.
                let mut connections = tokio::task::JoinSet::new();
                // A link that fails is a guest that breaks the rules of its own network card: it has none any more.
                while let Ok(Some(connection)) = link.accept().await {
                    while connections.try_join_next().is_some() {}
                    connections.spawn(timeout(LONGEST, Arc::clone(&state).connection(connection)));
                }
            })
        };
        Guest { state, serving }
    }
}

impl Guest {
    /// From now on it may reach this; `None`: nothing, and connections to https servers end. Files that are under way still come.
    pub fn allow(&self, policy: Option<Policy>) {
        self.state.policy.send_replace(policy.map(Arc::new));
    }

    /// Ends what is under way, and waits until all of it is recorded.
    pub async fn close(self) {
        self.end();
        // Tasks that serve requests see that their connection is gone.
        let _ = timeout(END, self.state.under_way.subscribe().wait_for(|count| *count == 0)).await;
    }

    fn end(&self) {
        self.serving.abort();
        // A connection to a server that takes nothing does not see that the guest is gone.
        self.allow(None);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}
