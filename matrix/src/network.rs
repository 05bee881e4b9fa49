//! What guests may reach. `[network]`: what those with the network `repositories` may reach beyond the repositories of their system.

use std::{collections::HashMap, ops::Range};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    HostPattern,
    error::{Mistakes, Problem},
    file::NetworkTable,
    located::At,
};

/// Maximum number of hosts in a list: each request of a guest is compared with all of them.
const MAX_HOSTS: usize = 64;

/// What a guest may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Nothing; only we reach its SSH port.
    #[default]
    Isolated,
    /// The repositories of its system, and the hosts that the matrix names, through a proxy on its runner.
    Repositories,
    /// Whatever the host reaches, by user-mode networking.
    Open,
}

/// What guests with the network [`Network::Repositories`] may reach beyond the repositories of their system, and what is done about
/// other requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRules {
    /// What is done about a request that was refused.
    pub unexpected: Unexpected,
    /// More hosts that they may reach; at most 64.
    pub allow: Vec<HostPattern>,
    /// Hosts that they may reach even at addresses that are private; at most 64, no wildcards. They are allowed, too.
    pub private: Vec<HostPattern>,
}

/// What is done about a request of a guest that was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unexpected {
    /// It is a warning of the cell.
    #[default]
    Warn,
    /// It makes the cell fail.
    Fail,
}

/// Checks the table.
pub(crate) fn check(table: &NetworkTable, mistakes: &mut Mistakes) -> NetworkRules {
    let private = hosts("private", table.private.as_ref(), mistakes);
    for (pattern, span) in private.iter().filter(|(pattern, _)| pattern.is_wildcard()) {
        let message = format!("`{pattern}` names no single host");
        let problem = mistakes.at(span.clone(), message, "names many hosts");
        mistakes.push(problem.with_help("name each host that may have a private address; wildcards belong in `allow`"));
    }
    let plain = |hosts: Vec<(HostPattern, Range<usize>)>| hosts.into_iter().map(|(pattern, _)| pattern).collect();
    NetworkRules {
        unexpected: table.unexpected.unwrap_or_default(),
        allow: plain(hosts("allow", table.allow.as_ref(), mistakes)),
        private: plain(private),
    }
}

/// The hosts of a list, each with its place.
fn hosts(key: &str, list: Option<&At<Vec<At<String>>>>, mistakes: &mut Mistakes) -> Vec<(HostPattern, Range<usize>)> {
    let Some(list) = list else { return Vec::new() };
    let count = list.get().len();
    if count > MAX_HOSTS {
        let message = format!("`{key}` names {count} hosts, the limit is {MAX_HOSTS}");
        let problem = mistakes.at(list.span(), message, "too many");
        mistakes.push(problem.with_help("`*.example.com` stands for all names below one"));
        return Vec::new();
    }
    let mut hosts = Vec::new();
    let mut seen: HashMap<HostPattern, Range<usize>> = HashMap::new();
    for at in list.get() {
        match host(at, mistakes) {
            Err(problem) => mistakes.push(*problem),
            Ok(pattern) => match seen.get(&pattern) {
                Some(first) => {
                    let message = format!("`{key}` names `{pattern}` twice");
                    let problem = mistakes.at(at.span(), message, "again").with_label(first.clone(), "the first");
                    mistakes.push(problem.with_help("remove one of the two"));
                }
                None => {
                    seen.insert(pattern.clone(), at.span());
                    hosts.push((pattern, at.span()));
                }
            },
        }
    }
    hosts
}

fn host(at: &At<String>, mistakes: &Mistakes) -> Result<HostPattern, Box<Problem>> {
    at.text().parse().map_err(|error: crate::HostPatternError| {
        let message = format!("{:?} is not a host", at.text());
        Box::new(mistakes.at(at.span(), message, "invalid").with_help(error.to_string()))
    })
}
