//! What was asked, and what was wrong with it.

use serde_json::Value;

/// A request and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Of the contract, such as `compute.instances.insert`; `sts.token`; `unknown`.
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// Null if there was none.
    pub(crate) body: Value,
    /// Of the answer; 0: the connection was cut.
    pub(crate) status: u16,
}

/// All of it, in order.
#[derive(Default)]
pub(super) struct Record {
    pub(super) requests: Vec<Recorded>,
    pub(super) violations: Vec<String>,
}
