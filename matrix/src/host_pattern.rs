//! Hosts that a guest may reach, as a matrix names them: one host, or all hosts below a name.
//!
//! A pattern decides what a hostile guest reaches, so what is not plainly a DNS name or an IP address is none: no other spelling of
//! an address (`127.1`, `0x7f000001`), no name that another program could read differently.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Maximum length of a DNS name, and of one label of it, in bytes (RFC 1035: 2.3.4).
const MAX_NAME_LEN: usize = 253;
const MAX_LABEL_LEN: usize = 63;

/// One host, or every host below a name; written `example.com`, `*.example.com`, `192.0.2.7` or `[2001:db8::7]`, each also with `:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    name: String,
    wildcard: bool,
    port: Option<u16>,
}

impl HostPattern {
    /// A DNS name in lower case and without a dot at its end, or an IP address in its usual form, an IPv6 address without brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if it is the hosts below `name` that are meant, and not the host of that name.
    pub const fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The only port that is meant; `None`: the default one of the request's scheme (http: 80, https: 443).
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// True if it means this host and port. `host`: as in a URL, in any case, an IPv6 address with or without brackets.
    /// `is_default_port`: the port is that of the request's scheme.
    pub fn matches(&self, host: &str, port: u16, is_default_port: bool) -> bool {
        let right_port = self.port.map_or(is_default_port, |named| named == port);
        right_port && normal(host).is_some_and(|host| self.matches_name(&host))
    }

    fn matches_name(&self, host: &str) -> bool {
        match host.strip_suffix(&self.name) {
            Some(rest) if self.wildcard => rest.len() > 1 && rest.ends_with('.'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }

    /// The host of a URL: its authority, without a user.
    ///
    /// # Errors
    ///
    /// It is not exactly one host: it may hold a variable.
    pub(crate) fn of_authority(authority: &str) -> Result<Self, HostPatternError> {
        let pattern: Self = authority.parse()?;
        if pattern.wildcard { Err(HostPatternError { why: "it names more than one host" }) } else { Ok(pattern) }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        match self.name.contains(':') {
            true => write!(f, "[{}]", self.name)?,
            false => write!(f, "{star}{}", self.name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The text is no pattern of hosts, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{why}: write a DNS name such as `example.com`, `*.example.com` for all names below it, or an IP address (IPv6 in brackets), each also with `:port`"
)]
pub struct HostPatternError {
    /// The reason alone.
    pub(crate) why: &'static str,
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let wrong = |why| Err(HostPatternError { why });
        if text.contains("://") {
            return wrong("it is a URL");
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((_, "")) => (text, None),
                Some((address, port)) if port.starts_with(':') => (&text[..address.len() + 2], Some(&port[1..])),
                _ => return wrong("`[` without `]`"),
            },
            None => match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return wrong("an IPv6 address without brackets"),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port.map(|port| (port, port.parse::<u16>())) {
            None => None,
            // Numbers may begin with `+` in Rust.
            Some((text, Ok(port))) if port > 0 && !text.starts_with('+') => Some(port),
            Some(_) => return wrong("the port is not a number from 1 to 65535"),
        };
        let (wildcard, host) = host.strip_prefix("*.").map_or((false, host), |host| (true, host));
        if host.contains('*') {
            return wrong("`*` may only stand for all names below a name");
        }
        if !host.is_ascii() {
            return wrong("it has characters beyond ASCII (write an international name as `xn--...`)");
        }
        let Some(name) = normal(host) else { return wrong("it is neither a DNS name nor an IP address") };
        if wildcard && is_address(&name) {
            return wrong("there are no names below an IP address");
        }
        Ok(Self { name, wildcard, port })
    }
}

written_as_text!(HostPattern);

fn is_address(name: &str) -> bool {
    name.contains(':') || name.parse::<Ipv4Addr>().is_ok()
}

/// The one spelling of a host; `None`: it is neither a DNS name nor an IP address.
fn normal(host: &str) -> Option<String> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some() || host.contains(':') {
        return bare.unwrap_or(host).parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    // Programs read such a name as an IPv4 address, in whatever spelling (URL Standard: ends in a number).
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number =
        last.bytes().all(|byte| byte.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hexadecimal);
    if is_number {
        return name.parse::<Ipv4Addr>().ok().map(|address| address.to_string());
    }
    (name.len() <= MAX_NAME_LEN && name.split('.').all(is_label)).then_some(name)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Letters, digits and `-`, not at its ends. `_` is in the names of some hosts, although not of those that RFC 952 knows.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_LEN).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_pattern_has_one_spelling() {
        for (text, written) in [
            ("example.com", "example.com"),
            ("Deb.Example.COM.", "deb.example.com"),
            ("*.example.com:8080", "*.example.com:8080"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("my_mirror.example", "my_mirror.example"),
            ("192.0.2.7:3142", "192.0.2.7:3142"),
            ("[2001:DB8:0::7]", "[2001:db8::7]"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let read = pattern(text);
            assert_eq!(read.to_string(), written);
            assert_eq!(pattern(written), read);
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(json, format!("\"{written}\""));
            assert_eq!(serde_json::from_str::<HostPattern>(&json).unwrap(), read);
        }
    }

    #[test]
    fn what_is_not_plainly_a_host_is_no_pattern() {
        for text in [
            "",
            ".",
            "*",
            "*.",
            "**.example.com",
            "a.*.example.com",
            "*example.com",
            "*.192.0.2.7",
            "*.[::1]",
            ".example.com",
            "example..com",
            "-a.example",
            "a-.example",
            "http://example.com",
            "example.com/debian",
            "user@example.com",
            "example.com:",
            "example.com:0",
            "example.com:+80",
            "example.com:65536",
            "example.com:http",
            "bücher.example",
            "a b",
            "a\n",
            "$host.example",
            "::1",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[example.com]",
            // Other spellings of 127.0.0.1.
            "127.1",
            "2130706433",
            "0x7f000001",
            "127.0.0.0x1",
            "0177.0.0.1",
            "example.1",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
        let label = "a".repeat(MAX_LABEL_LEN);
        assert!(label.parse::<HostPattern>().is_ok() && format!("{label}a").parse::<HostPattern>().is_err());
        let long = [label.as_str(); 4].join(".");
        assert!(long.parse::<HostPattern>().is_err() && long[3..].parse::<HostPattern>().is_ok());
    }

    #[test]
    fn a_name_means_itself_and_a_star_what_is_below() {
        let (one, below) = (pattern("example.com"), pattern("*.example.com"));
        for (host, is_one, is_below) in [
            ("example.com", true, false),
            ("EXAMPLE.com.", true, false),
            ("deb.example.com", false, true),
            ("a.b.Example.com", false, true),
            ("badexample.com", false, false),
            ("example.com.evil.example", false, false),
            (".example.com", false, false),
            ("com", false, false),
            ("", false, false),
        ] {
            assert_eq!((one.matches(host, 80, true), below.matches(host, 80, true)), (is_one, is_below), "{host}");
        }
    }

    #[test]
    fn an_address_is_matched_in_every_spelling_that_is_one() {
        assert!(pattern("[2001:db8::7]").matches("2001:DB8::0:7", 443, true));
        assert!(pattern("[2001:db8::7]").matches("[2001:db8::7]", 443, true));
        assert!(!pattern("[::1]").matches("[::2]", 443, true));
        assert!(pattern("127.0.0.1").matches("127.0.0.1", 80, true));
        assert!(!pattern("127.0.0.1").matches("127.1", 80, true));
    }

    #[test]
    fn without_a_port_only_the_default_one_is_meant_and_with_one_only_that() {
        let (usual, own) = (pattern("a.example"), pattern("a.example:8080"));
        assert!(usual.matches("a.example", 443, true) && !usual.matches("a.example", 8080, false));
        assert!(own.matches("a.example", 8080, false) && !own.matches("a.example", 80, true));
        // Named, although it is the default one of a scheme.
        assert!(pattern("a.example:443").matches("a.example", 443, true));
        assert!(pattern("a.example:443").matches("a.example", 443, false));
    }

    proptest! {
        #[test]
        fn every_text_is_refused_or_has_a_spelling_that_means_the_same(text in "[*.a-cA-C0-9x:\\[\\]_-]{0,24}|\\PC{0,12}") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(&pattern.to_string().parse::<HostPattern>().unwrap(), &pattern);
                prop_assert_eq!(pattern.matches(pattern.name(), 80, true), !pattern.is_wildcard() && pattern.port().is_none_or(|port| port == 80));
            }
        }
    }
}
