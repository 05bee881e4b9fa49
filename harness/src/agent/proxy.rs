//! The proxy that guests on this machine reach repositories through.

use std::path::Path;

use super::protocol::Work;

/// How guests get to repositories here; `store`: the folder of the store.
pub(super) fn proxy(store: &Path, work: &Work) -> Result<egress::Proxy, String> {
    let cache = &images::packages(store);
    let (through, offline) = (work.proxy.as_deref(), work.offline);
    egress::Proxy::open(egress::Settings { cache, limit: egress::Settings::LIMIT, through, offline })
}
