//! What a request asks for, and whether it is allowed. Pure.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use matrix::HostPattern;
use url::{Host, Url};

use crate::{
    address::is_public,
    resolve::{Reach, not_public},
};

/// Longest URL.
const LONGEST: usize = 4096;

/// What a guest may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The repositories of its system: packages there never change under their name, and need not be asked for again.
    pub repositories: Vec<HostPattern>,
    /// What the matrix names besides: a package in its author's own repository may change without a new version.
    pub named: Vec<HostPattern>,
    /// Hosts that may have private addresses.
    pub private: Vec<HostPattern>,
    /// Every other host counts as one of `repositories`: for a machine with a proxy of its own, which tells them apart.
    pub others: bool,
}

/// What an allowed request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) reach: Reach,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A file of an http server.
    File {
        url: String,
        /// Even what never changes under its name elsewhere may be another file now.
        may_change: bool,
    },
    /// A connection to an https server.
    Tunnel,
}

/// A request that is not allowed, as far as it can be told what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: Option<String>,
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

/// What the request asks for; `policy`: `None` while the guest may reach nothing.
///
/// # Errors
///
/// It is not allowed.
pub(crate) fn decide(
    policy: Option<&Policy>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Target, Refusal> {
    let refusal = |host: String, port, path, status, reason: &str| Refusal {
        host,
        port,
        path,
        status,
        reason: reason.to_owned(),
    };
    let unclear = |reason: &str| {
        let host = uri.host().map_or_else(|| "-".to_owned(), |host| host.chars().take(LONGEST).collect());
        let path = uri.path_and_query().map(|path| path.as_str().chars().take(LONGEST).collect());
        Err(refusal(host, uri.port_u16().unwrap_or(0), path, StatusCode::BAD_REQUEST, reason))
    };
    let connects = method == Method::CONNECT;
    let text = if connects { format!("https://{uri}/") } else { uri.to_string() };
    if text.len() > LONGEST {
        return unclear("the URL is too long");
    }
    if connects && uri.port_u16().is_none() {
        return unclear("CONNECT names no port");
    }
    // Browsers' rules, which are also those of what sends the request on: 2130706433 is 127.0.0.1, `..` is gone.
    let url = match Url::parse(&text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => url,
        _ => return unclear("it is no request to a proxy: absolute http URLs and CONNECT are"),
    };
    let Some(host) = url.host() else { return unclear("the URL names no host") };
    let address = address(&host);
    let host = host.to_string().trim_end_matches('.').to_ascii_lowercase();
    let Some(port) = url.port_or_known_default() else { return unclear("the URL names no port") };
    let path = (!connects).then(|| url[url::Position::BeforePath..url::Position::AfterQuery].to_owned());
    let refused = |status, reason: &str| Err(refusal(host.clone(), port, path.clone(), status, reason));
    if !connects && ![Method::GET, Method::HEAD].contains(method) {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and CONNECT are allowed");
    }
    if !connects && url.scheme() != "http" {
        return refused(StatusCode::BAD_REQUEST, "https is reached with CONNECT");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused(StatusCode::BAD_REQUEST, "the URL has a user name or a password");
    }
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
    if has_body {
        return refused(StatusCode::BAD_REQUEST, "the request has a body: nothing is sent to servers");
    }
    let Some(policy) = policy else {
        return refused(StatusCode::FORBIDDEN, "the guest may reach nothing now");
    };
    let usual = if connects { 443 } else { 80 };
    let listed = |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.matches(&host, port, port == usual));
    let (private, named) = (listed(&policy.private), listed(&policy.named));
    // A repository that the matrix adds is among those of its system in a guest that was prepared with it.
    let distribution = !named && (listed(&policy.repositories) || policy.others && !private);
    if !private && !named && !distribution {
        let also = if port == usual { String::new() } else { format!(" with port {port}") };
        let reason =
            format!("the host is none of the guest's repositories{also}; `network.allow` in the matrix adds hosts");
        return refused(StatusCode::FORBIDDEN, &reason);
    }
    let reach = match reach(address, private) {
        Ok(reach) => reach,
        Err(address) => return refused(StatusCode::FORBIDDEN, &not_public(&host, address)),
    };
    let what = match connects {
        true => What::Tunnel,
        false => What::File { url: url[..url::Position::AfterQuery].to_owned(), may_change: !distribution },
    };
    Ok(Target { host, port, reach, what })
}

fn address(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
        Host::Domain(_) => None,
    }
}

/// Which addresses a host may have.
///
/// # Errors
///
/// It is an address itself, and not one of those.
fn reach(address: Option<IpAddr>, private: bool) -> Result<Reach, IpAddr> {
    match address.filter(|address| !private && !is_public(*address)) {
        Some(address) => Err(address),
        None => Ok(if private { Reach::Any } else { Reach::Public }),
    }
}

impl Policy {
    /// Whether the server of this URL is one that it names.
    pub fn names(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
        let mut named = self.repositories.iter().chain(&self.named).chain(&self.private);
        named.any(|pattern| pattern.matches(host.trim_end_matches('.'), port, url.port().is_none()))
    }

    /// Which addresses the server of this URL may have, which no guest has asked for; `None`: it must not be asked.
    pub(crate) fn reach(&self, url: &str) -> Option<Reach> {
        let url = Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()))?;
        let (text, port) = (url.host_str()?.trim_end_matches('.'), url.port_or_known_default()?);
        let private = self.private.iter().any(|pattern| pattern.matches(text, port, url.port().is_none()));
        reach(address(&url.host()?), private).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(patterns: &[&str]) -> Vec<HostPattern> {
        patterns.iter().map(|pattern| pattern.parse().expect(pattern)).collect()
    }

    fn policy() -> Policy {
        Policy {
            repositories: patterns(&[
                "deb.example.org",
                "2130706433.example",
                "127.0.0.1",
                "169.254.169.254",
                "vendor.example",
            ]),
            named: patterns(&["vendor.example", "*.mirror.example", "odd.example:8080"]),
            private: patterns(&["10.1.2.3", "inside.example"]),
            others: false,
        }
    }

    fn asked_with(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().expect("a value")));
        let (method, uri) = (method.parse().expect("a method"), uri.parse().expect("a URI"));
        match decide(Some(&policy()), &method, &uri, &headers.collect()) {
            Ok(Target { host, port, reach, what: What::Tunnel }) => format!("tunnel {host} {port} {reach:?}"),
            Ok(Target { host, port, reach, what: What::File { url, may_change } }) => {
                format!("{url} of {host} {port} {reach:?}{}", if may_change { ", may change" } else { "" })
            }
            Err(refusal) => format!("{} {}", refusal.status.as_u16(), refusal.reason),
        }
    }

    fn asked(method: &str, uri: &str) -> String {
        asked_with(method, uri, &[])
    }

    #[test]
    fn files_of_repositories_and_of_hosts_that_the_matrix_names_are_allowed() {
        insta::assert_snapshot!(asked("GET", "http://deb.example.org/a/../b.deb?x=1"), @"http://deb.example.org/b.deb?x=1 of deb.example.org 80 Public");
        insta::assert_snapshot!(asked("HEAD", "http://DEB.example.org.:80/"), @"http://deb.example.org./ of deb.example.org 80 Public");
        insta::assert_snapshot!(asked("GET", "http://a.mirror.example/x"), @"http://a.mirror.example/x of a.mirror.example 80 Public, may change");
        insta::assert_snapshot!(asked("GET", "http://odd.example:8080/x"), @"http://odd.example:8080/x of odd.example 8080 Public, may change");
        insta::assert_snapshot!(asked("GET", "http://inside.example/x"), @"http://inside.example/x of inside.example 80 Any, may change");
        insta::assert_snapshot!(asked("GET", "http://10.1.2.3/x"), @"http://10.1.2.3/x of 10.1.2.3 80 Any, may change");
        insta::assert_snapshot!(asked("CONNECT", "vendor.example:443"), @"tunnel vendor.example 443 Public");
    }

    #[test]
    fn a_file_of_a_repository_that_the_matrix_adds_may_change_although_the_guest_was_prepared_with_it() {
        insta::assert_snapshot!(asked("GET", "http://vendor.example/a.deb"), @"http://vendor.example/a.deb of vendor.example 80 Public, may change");
    }

    #[test]
    fn other_hosts_and_other_ports_are_refused() {
        for (method, uri) in [
            ("GET", "http://evil.example/x"),
            ("GET", "http://deb.example.org.evil.example/"),
            ("GET", "http://deb.example.org:8080/"),
            ("GET", "http://mirror.example/"),
            ("GET", "http://odd.example/"),
            ("CONNECT", "deb.example.org:80"),
            ("CONNECT", "deb.example.org:22"),
            ("CONNECT", "evil.example:443"),
            ("CONNECT", "[::1]:443"),
            ("GET", "http://[::1]/"),
            ("GET", "http://127.0.0.2/"),
            ("GET", "http://0x7f000002/"),
        ] {
            assert!(
                asked(method, uri).starts_with("403 the host is none of the guest's repositories"),
                "{method} {uri}: {}",
                asked(method, uri)
            );
        }
    }

    #[test]
    fn a_private_address_is_refused_in_each_spelling_although_a_repository_is_said_to_be_there() {
        for uri in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://169.254.169.254/latest",
        ] {
            assert!(asked("GET", uri).contains("is a private address"), "{uri}: {}", asked("GET", uri));
        }
        assert!(asked("CONNECT", "127.0.0.1:443").contains("is a private address"));
    }

    #[test]
    fn what_is_no_plain_request_to_a_proxy_is_refused() {
        insta::assert_snapshot!(asked("GET", "/etc/passwd"), @"400 it is no request to a proxy: absolute http URLs and CONNECT are");
        insta::assert_snapshot!(asked("GET", "ftp://deb.example.org/"), @"400 it is no request to a proxy: absolute http URLs and CONNECT are");
        insta::assert_snapshot!(asked("GET", "https://vendor.example/"), @"400 https is reached with CONNECT");
        insta::assert_snapshot!(asked("POST", "http://deb.example.org/"), @"405 only GET, HEAD and CONNECT are allowed");
        insta::assert_snapshot!(asked("GET", "http://user:word@deb.example.org/"), @"400 the URL has a user name or a password");
        insta::assert_snapshot!(asked("CONNECT", "deb.example.org"), @"400 CONNECT names no port");
        let body = asked_with("GET", "http://deb.example.org/", &[("content-length", "5")]);
        insta::assert_snapshot!(body, @"400 the request has a body: nothing is sent to servers");
        assert_eq!(asked_with("GET", "http://deb.example.org/", &[("transfer-encoding", "chunked")]), body);
        assert!(!asked_with("GET", "http://deb.example.org/", &[("content-length", "0")]).starts_with("400"));
        let long = format!("http://deb.example.org/{}", "x".repeat(LONGEST));
        insta::assert_snapshot!(asked("GET", &long), @"400 the URL is too long");
    }

    #[test]
    fn while_the_guest_may_reach_nothing_everything_is_refused_by_name() {
        let refused =
            decide(None, &Method::GET, &"http://deb.example.org/x".parse().expect("a URI"), &HeaderMap::new());
        let refused = refused.expect_err("nothing is allowed");
        assert_eq!((&*refused.host, refused.port, refused.path.as_deref()), ("deb.example.org", 80, Some("/x")));
    }
}
