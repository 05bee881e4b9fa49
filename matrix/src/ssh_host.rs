//! The machine that `ssh` logs in to, as `user@host:port`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Maximum length: ample for a user name and a host name.
const MAX_LEN: usize = 320;

/// Where guests of the runner `ssh` run. Missing parts are left to the user's SSH configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshHost {
    user: Option<String>,
    name: String,
    port: Option<u16>,
}

impl SshHost {
    /// The user; `None`: as the user's SSH configuration says.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// A host name, an address, or an alias of the user's SSH configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of its SSH server; `None`: as the user's SSH configuration says.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for SshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.name.contains(':') => write!(f, "[{}]:{port}", self.name),
            Some(port) => write!(f, "{}:{port}", self.name),
            None if self.name.contains(':') => write!(f, "[{}]", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The text is not an SSH host, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write `host`, `user@host`, `user@host:port`, or `user@[address]:port` with an IPv6 address")]
pub struct SshHostError(String);

impl FromStr for SshHost {
    type Err = SshHostError;

    fn from_str(text: &str) -> Result<Self, SshHostError> {
        let wrong = |why: &str| Err(SshHostError(why.to_owned()));
        if text.len() > MAX_LEN {
            return wrong("longer than any host name");
        }
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, text),
        };
        // `ssh` takes a name with a leading dash for an option, and some programs pass such names to a shell.
        let plain = |part: &str, more: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !part.is_empty() && !part.starts_with('-') && part.chars().all(known)
        };
        if user.is_some_and(|user| !plain(user, "._-+@\\")) {
            return wrong("not the name of a user");
        }
        let (name, port) = match place.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((name, "")) => (name, None),
                Some((name, port)) if port.starts_with(':') => (name, Some(&port[1..])),
                _ => return wrong("`[` without `]`"),
            },
            None => match place.split_once(':') {
                Some((_, port)) if port.contains(':') => return wrong("an IPv6 address without brackets"),
                Some((name, port)) => (name, Some(port)),
                None => (place, None),
            },
        };
        let address = if place.starts_with('[') { ":%" } else { "" };
        if !plain(name, &format!("._-{address}")) {
            return wrong("not the name of a host");
        }
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return wrong("the port is not a number from 1 to 65535"),
        };
        Ok(Self { user: user.map(str::to_owned), name: name.to_owned(), port })
    }
}

written_as_text!(SshHost);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_in_every_way_it_may_be_written_and_written_as_it_was_read() {
        for (text, user, name, port) in [
            ("lab", None, "lab", None),
            ("lab:22", None, "lab", Some(22)),
            ("me@lab.example.org", Some("me"), "lab.example.org", None),
            ("me@192.0.2.7:2222", Some("me"), "192.0.2.7", Some(2222)),
            ("me@[fe80::1%eth0]:2222", Some("me"), "fe80::1%eth0", Some(2222)),
            ("[::1]", None, "::1", None),
            ("me@corp@bastion", Some("me@corp"), "bastion", None),
        ] {
            let host: SshHost = text.parse().unwrap();
            assert_eq!((host.user(), host.name(), host.port()), (user, name, port), "{text}");
            assert_eq!(host.to_string(), text);
        }
    }

    #[test]
    fn what_ssh_would_take_for_an_option_or_a_shell_for_a_command_is_no_host() {
        for text in [
            "",
            "@lab",
            "me@",
            "-oProxyCommand=true",
            "me@-oProxyCommand=true",
            "-l@lab",
            "lab:",
            "lab:0",
            "lab:65536",
            "lab:ssh",
            "::1",
            "[::1",
            "[::1]22",
            "lab name",
            "lab;reboot",
            "$(reboot)@lab",
            "lab\n",
            "[lab;x]",
        ] {
            assert!(text.parse::<SshHost>().is_err(), "{text:?}");
        }
        assert!("a".repeat(MAX_LEN + 1).parse::<SshHost>().is_err());
    }
}
