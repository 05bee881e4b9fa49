//! What a guest's resolver is told of the network (`network.sh`), with every payload: the same template is forked for guests that are
//! isolated and for guests that are not.

use matrix::Network;

/// Is sent along under this name.
pub(super) const NAME: &str = "network";
pub(super) const SCRIPT: &str = include_str!("network.sh");

/// Runs it in the payload's folder. Whatever comes of it, the payload has arrived.
pub(super) const fn command(network: Network) -> &'static str {
    match network {
        // A proxy looks up names for those who ask it.
        Network::Isolated | Network::Repositories => "sh ./network isolated </dev/null >/dev/null 2>&1",
        Network::Open => "sh ./network open </dev/null >/dev/null 2>&1",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    /// A guest's /etc, and an `ip` that writes down what it is asked for.
    struct Guest(tempfile::TempDir);

    impl Guest {
        fn new(hosts: &str, resolv: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("etc")).unwrap();
            let guest = Self(folder);
            fs::write(guest.path("etc/hosts"), hosts).unwrap();
            fs::write(guest.path("etc/resolv.conf"), resolv).unwrap();
            fs::write(guest.path("ip"), format!("#!/bin/sh\necho \"$@\" >>{}\n", guest.path("asked").display()))
                .unwrap();
            fs::set_permissions(guest.path("ip"), fs::Permissions::from_mode(0o755)).unwrap();
            guest
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap_or_default()
        }

        fn told(&self, shell: &[&str], network: &str) {
            let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", SCRIPT, "sh", network]).arg(self.path("etc")).env("PATH", path);
            let output = command.output().unwrap();
            assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        }
    }

    /// Every shell there is on this machine.
    fn shells() -> Vec<Vec<&'static str>> {
        let all = [&["sh"][..], &["bash", "--posix"], &["busybox", "sh"]];
        let here = |shell: &&[&str]| Command::new(shell[0]).args(&shell[1..]).args(["-c", "exit"]).output().is_ok();
        all.into_iter().filter(here).map(<[&str]>::to_vec).collect()
    }

    fn own_name() -> String {
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
    }

    const RESOLV: &str = "# from the network\nsearch  example.org\nnameserver 10.0.2.3\nnameserver fec0::3";

    #[test]
    fn questions_of_an_isolated_guest_are_refused_at_once_and_those_of_an_open_one_sent_as_ever() {
        for shell in shells() {
            let guest = Guest::new("", RESOLV);
            guest.told(&shell, "open");
            assert_eq!(guest.text("etc/resolv.conf"), RESOLV, "nothing is to be taken back");
            guest.told(&shell, "isolated");
            guest.told(&shell, "isolated");
            let isolated = guest.text("etc/resolv.conf");
            let lines: Vec<&str> = isolated.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, ["nameserver 127.0.0.1", "options timeout:0 attempts:1"], "{shell:?}");
            guest.told(&shell, "open");
            assert_eq!(guest.text("etc/resolv.conf"), format!("{RESOLV}\n"), "{shell:?}");
            let routes = guest.text("asked");
            let added = "route add unreachable 10.0.2.3\nroute add unreachable fec0::3\n";
            assert!(routes.contains(added) && routes.ends_with(&added.replace("add", "del")), "{routes}");
        }
    }

    #[test]
    fn a_file_that_names_a_server_in_the_guest_or_cannot_be_written_is_left() {
        for shell in shells() {
            for resolv in ["nameserver 127.0.0.53\noptions edns0\n", "nameserver\t::1\n", ""] {
                let guest = Guest::new("", resolv);
                guest.told(&shell, "isolated");
                assert_eq!(guest.text("etc/resolv.conf"), resolv, "{shell:?}");
            }
            let guest = Guest::new("", "");
            for file in ["etc/hosts", "etc/resolv.conf"] {
                fs::remove_file(guest.path(file)).unwrap();
            }
            guest.told(&shell, "isolated");
            assert_eq!(fs::read_dir(guest.path("etc")).unwrap().count(), 0, "{shell:?}");
        }
    }

    #[test]
    fn a_guest_knows_its_own_name_with_an_address_of_each_kind_and_keeps_what_it_knew() {
        let (name, six) = (
            own_name(),
            fs::metadata("/proc/net/if_inet6").is_ok() && !fs::read("/proc/net/if_inet6").unwrap().is_empty(),
        );
        let last = if six { format!("::1 {name}\n") } else { String::new() };
        for shell in shells() {
            for (hosts, expected) in [
                (format!("127.0.0.1 localhost\n127.0.1.1\t{name}"), format!("{}{last}", if six { "\n" } else { "" })),
                (format!("127.0.0.1 localhost # {name}\n"), format!("127.0.1.1 {name}\n{last}")),
                (format!("#127.0.1.1 {name}\n"), format!("127.0.1.1 {name}\n{last}")),
                (format!("# 127.0.1.1 {name}\n10.0.2.15 x {name} y\n::1 {name}\n"), String::new()),
            ] {
                let guest = Guest::new(&hosts, "");
                guest.told(&shell, "isolated");
                guest.told(&shell, "open");
                assert_eq!(guest.text("etc/hosts"), format!("{hosts}{expected}"), "{shell:?}");
            }
        }
    }
}
