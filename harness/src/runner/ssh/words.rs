//! What OpenSSH says when it cannot connect, or loses a connection: the reason, and what helps. Pure.
//!
//! Its messages are not part of any interface, and have been the same for many years (OpenSSH: ssh.c, sshconnect.c, sshconnect2.c).

use matrix::SshHost;
use reports::{Phase, Trouble, TroubleKind, clean};

/// What is said of a connection that stood.
pub(super) const LOST: &str = "the connection was lost";
/// Lines that are kept as evidence.
const KEPT: usize = 10;

/// A connection to this machine could not be made, or was lost, and the client said this on its standard error.
pub(super) fn trouble(host: &SshHost, said: &str, was_up: bool) -> Trouble {
    let lines: Vec<String> = said.lines().map(clean::line).filter(|line| !line.trim().is_empty()).collect();
    let last = lines.last().cloned().unwrap_or_else(|| "ssh said nothing".to_owned());
    let says = |words: &str| said.contains(words);
    let (kind, what, help) = if was_up {
        let help = "see whether that machine, its SSH server and the network between are up";
        (TroubleKind::RunnerLost, LOST, help.to_owned())
    } else if says("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let entry = match host.port() {
            Some(port) => format!("'[{}]:{port}'", host.name()),
            None => host.name().to_owned(),
        };
        let help = format!(
            "find out why its key is another one; if that is right, `ssh-keygen -R {entry}` forgets the old one"
        );
        (TroubleKind::RunnerUnusable, "its host key is not the one in known_hosts", help)
    } else if says("Host key verification failed") || says("host key is known for") {
        let help = format!(
            "log in once with `ssh {host}` and compare the fingerprint it shows with the machine's own: nestmatrix accepts no key that is not in known_hosts"
        );
        let help = match host.port() {
            Some(port) => help.replace(&format!("ssh {host}"), &format!("ssh -p {port} {}", without_port(host))),
            None => help,
        };
        (TroubleKind::RunnerUnusable, "its host key is not in known_hosts", help)
    } else if says("Permission denied") || says("Too many authentication failures") {
        let help = "check the user's name; add its key to your agent (`ssh-add`) or name the file with `--identity` or `runner.identity`: \
                    no password is asked for";
        (TroubleKind::RunnerUnusable, "the login was refused", help.to_owned())
    } else if says("Temporary failure in name resolution") {
        (TroubleKind::RunnerLost, "its name could not be resolved", "check this machine's network".to_owned())
    } else if says("Could not resolve hostname") {
        let help = "check its name, or add it to ~/.ssh/config".to_owned();
        (TroubleKind::RunnerUnusable, "its name could not be resolved", help)
    } else if says("Connection refused") {
        let help = "check that its SSH server runs, and its port (`ssh:user@host:port`)".to_owned();
        (TroubleKind::RunnerLost, "the connection was refused", help)
    } else if says("timed out") {
        let help = "check that the machine is up, and that no firewall is between".to_owned();
        (TroubleKind::Timeout, "timeout while connecting", help)
    } else {
        let help = format!("try `ssh {} true`", without_port(host));
        (TroubleKind::RunnerLost, "the connection failed", help)
    };
    let evidence = lines[lines.len().saturating_sub(KEPT)..].to_vec();
    Trouble::new(kind, Phase::Runner, format!("{host}: {what}: {last}")).with_help(help).with_evidence(evidence)
}

fn without_port(host: &SshHost) -> String {
    match host.user() {
        Some(user) => format!("{user}@{}", host.name()),
        None => host.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usual_failure_has_its_kind_and_what_helps() {
        use TroubleKind::{RunnerLost, RunnerUnusable, Timeout};
        let host: SshHost = "me@lab:2222".parse().unwrap();
        let table = [
            (
                "No ED25519 host key is known for [lab]:2222 and you have requested strict checking.\r\nHost key verification failed.\r\n",
                RunnerUnusable,
                "ssh -p 2222 me@lab",
            ),
            (
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.\n",
                RunnerUnusable,
                "ssh-keygen -R '[lab]:2222'",
            ),
            ("me@lab: Permission denied (publickey).\r\n", RunnerUnusable, "runner.identity"),
            (
                "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures\n",
                RunnerUnusable,
                "ssh-add",
            ),
            ("ssh: connect to host lab port 2222: Connection refused\r\n", RunnerLost, "port"),
            ("ssh: Could not resolve hostname lab: Name or service not known\r\n", RunnerUnusable, "~/.ssh/config"),
            ("ssh: Could not resolve hostname lab: Temporary failure in name resolution\r\n", RunnerLost, "network"),
            ("ssh: connect to host lab port 2222: Connection timed out\r\n", Timeout, "firewall"),
            ("Connection timed out during banner exchange\n", Timeout, "up"),
            ("kex_exchange_identification: Connection closed by remote host\n", RunnerLost, "ssh me@lab true"),
            ("", RunnerLost, "ssh me@lab true"),
        ];
        for (said, kind, help) in table {
            let trouble = trouble(&host, said, false);
            assert_eq!(trouble.kind, kind, "{said}");
            assert!(trouble.help.as_deref().is_some_and(|text| text.contains(help)), "{said}: {:?}", trouble.help);
            let last = said.lines().last().unwrap_or("ssh said nothing").trim();
            assert!(
                trouble.reason.starts_with("me@lab:2222: ") && trouble.reason.ends_with(last),
                "{}",
                trouble.reason
            );
        }
    }

    #[test]
    fn a_connection_that_was_up_and_is_gone_is_a_lost_machine_whatever_is_said() {
        let host: SshHost = "lab".parse().unwrap();
        let trouble = trouble(&host, "Permission denied\n\nTimeout, server lab not responding.\r\n", true);
        assert_eq!(trouble.kind, TroubleKind::RunnerLost);
        assert!(trouble.reason.ends_with("Timeout, server lab not responding."), "{}", trouble.reason);
        assert_eq!(trouble.evidence.len(), 2);
    }
}
