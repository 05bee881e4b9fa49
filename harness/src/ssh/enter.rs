//! The command a person types to enter a guest that was left running, or an L1.

use std::path::{Path, PathBuf};

/// `ssh` for this guest, quoted for a shell; its host keys are pinned as ours were.
pub fn command_to_enter(keys: &[PathBuf; 2], known_hosts: &Path, user: &str, port: u16) -> String {
    let (keys, known_hosts) = (keys.each_ref().map(|key| key.to_string_lossy()), known_hosts.to_string_lossy());
    // ssh takes this for a list of files, in which `%` and backslashes mean something too.
    let known_hosts = known_hosts.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    let known_hosts = format!("UserKnownHostsFile=\"{known_hosts}\"");
    let (port, host) = (port.to_string(), format!("{user}@127.0.0.1"));
    let words: [&str; 17] = [
        "ssh",
        "-F",
        "none",
        "-i",
        &keys[0],
        "-i",
        &keys[1],
        "-p",
        &port,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        &known_hosts,
        "-q",
        &host,
    ];
    // Only a NUL byte cannot be quoted, and no path holds one.
    shlex::try_join(words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_pins_the_host_keys_takes_either_login_key_and_survives_blanks_in_paths() {
        let command = command_to_enter(
            &["/my store/a", "/my store/b"].map(PathBuf::from),
            Path::new("/my store/known"),
            "root",
            4022,
        );
        assert_eq!(
            shlex::split(&command).unwrap(),
            [
                "ssh",
                "-F",
                "none",
                "-i",
                "/my store/a",
                "-i",
                "/my store/b",
                "-p",
                "4022",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "UserKnownHostsFile=\"/my store/known\"",
                "-q",
                "root@127.0.0.1"
            ]
        );
    }
}
