//! Guests whose SSH server takes keys of one kind only.

use crate::lab::Lab;

/// The rules of ssh-audit's guides and those of FIPS mode; each server ends a connection at the first key that it refuses.
const MATRIX: &str = r#"
[[image]]
name = "hardened"
from = "debian-12-minimal"
[image.prepare]
inline = """
kinds=ssh-ed25519,rsa-sha2-512
printf '%s\n' "HostKeyAlgorithms $kinds" "PubkeyAcceptedAlgorithms $kinds" 'MaxAuthTries 1' >/etc/ssh/sshd_config.d/a.conf
rm /etc/ssh/ssh_host_ecdsa_key
systemctl restart ssh
"""
[[image]]
name = "fips"
from = "debian-12-minimal"
[image.prepare]
inline = """
kinds=ecdsa-sha2-nistp256,rsa-sha2-512
printf '%s\n' "HostKeyAlgorithms $kinds" "PubkeyAcceptedAlgorithms $kinds" 'MaxAuthTries 1' \\
    'KexAlgorithms ecdh-sha2-nistp256' 'Ciphers aes256-ctr' >/etc/ssh/sshd_config.d/a.conf
systemctl restart ssh
"""
[[suite]]
name = "forked"
inline = "ssh-keyscan -T 120 127.0.0.1 | cut -d' ' -f2-"
[[suite]]
name = "own"
identity = "unique"
inline = "ssh-keyscan -T 120 127.0.0.1 | cut -d' ' -f2-"
[[suite]]
name = "booted"
boot = "cold"
inline = "ssh-keyscan -T 120 127.0.0.1 | cut -d' ' -f2-"
"#;

#[test]
#[ignore = "on request: two templates and two cold guests; what servers take is tried with a server here (`over_ssh`)"]
fn guests_whose_server_takes_keys_of_one_kind_only_are_prepared_forked_booted_and_made_unique() {
    let lab = Lab::warm();
    let run = lab.run(MATRIX, "out", &[]);
    run.assert_code(0);
    for (image, kind) in [("hardened", "ssh-ed25519 "), ("fips", "ecdsa-sha2-nistp256 ")] {
        let keys = ["forked", "own", "booted"].map(|suite| {
            let id = format!("{image}.{suite}");
            assert_eq!(run.verdict(&id), "passed", "{id}: {}", run.reason(&id));
            let how = run.cell(&id)["attempts"][0]["guest"]["boot"]["how"].clone();
            assert_eq!(how, if suite == "booted" { "cold" } else { "forked" }, "{id}");
            run.file(&format!("cells/{id}/attempt-1/stdout.log"))
        });
        assert!(keys.iter().all(|key| key.starts_with(kind) && key.lines().count() == 1), "{image}: {keys:?}");
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2], "{image}: {keys:?}");
    }
    lab.assert_nothing_left();
}
