//! The L1's SSH host keys, as it says them itself: in its guest attributes, or on its serial port. Pure.
//!
//! Nobody but the machine's own system writes there before the first guest runs.

use crate::gce::GuestAttribute;

/// Lines of the start-up script begin with one of these.
const STATE: &str = "nestmatrix-state: ";
const HOST_KEY: &str = "nestmatrix-host-key: ";
/// Most host keys of a machine.
const MOST: usize = 16;
/// Longest key.
const LONGEST: usize = 2 << 10;

/// What the start-up script has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The state it is in.
    pub(super) state: Option<String>,
    keys: Vec<String>,
    /// The beginning of a line whose rest has not come yet.
    rest: String,
}

impl Said {
    /// Takes the next piece of the serial output in.
    pub(super) fn hear(&mut self, piece: &str) {
        let text = std::mem::take(&mut self.rest) + piece;
        let (lines, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        // Whoever prints without newlines is none of ours.
        self.rest = if rest.len() <= 2 * LONGEST { rest.to_owned() } else { String::new() };
        for line in lines.lines() {
            // Something of the kernel's, systemd's, or a prompt with the machine's name may stand before it on the same line.
            if let Some((_, state)) = line.split_once(STATE) {
                self.state = Some(reports::clean::line(state.trim_end()));
            } else if let Some((_, key)) = line.split_once(HOST_KEY) {
                self.keys.extend(key_of(key).filter(|_| self.keys.len() < MOST));
            }
        }
    }

    /// The host keys that it has said, as in `authorized_keys`; all of them once it is ready.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }
}

/// The host keys of the guest attributes `hostkeys/`: the kind is the key there.
pub(super) fn of_attributes(attributes: &[GuestAttribute]) -> Vec<String> {
    attributes.iter().take(MOST).filter_map(|item| key_of(&format!("{} {}", item.key, item.value))).collect()
}

/// `ssh-ed25519 AAAA...`, if that is what it is.
fn key_of(text: &str) -> Option<String> {
    let key = text.trim();
    let mut words = key.split(' ');
    let (kind, body) = (words.next()?, words.next()?);
    let plain = |word: &str, more: &str| {
        word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c)) && !word.is_empty()
    };
    (key.len() <= LONGEST && plain(kind, "-@.") && plain(body, "+/=")).then(|| format!("{kind} {body}"))
}

/// A known_hosts file with these keys for a name.
pub(super) fn known_hosts(name: &str, keys: &[String]) -> String {
    keys.iter().map(|key| format!("{name} {key}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_start_up_script_says_is_found_among_everything_else() {
        let mut said = Said::default();
        said.hear("[    1.0] Linux version 6\r\nnestmatrix-state: installing QEMU\r\nnoise nestmatrix-host-key: ssh-ed25519 AAA");
        assert_eq!((said.state.as_deref(), said.keys().len()), (Some("installing QEMU"), 0), "the line is not whole");
        said.hear(
            "AC3/x+\r\nnestmatrix-host-key: ssh-rsa AAAA\nnestmatrix-host-key: $(reboot)\nnestmatrix-state: ready\n",
        );
        assert_eq!(said.state.as_deref(), Some("ready"));
        said.hear("nestmatrix-20261129-1 login: nestmatrix-state: failed: no\r\n");
        assert_eq!(said.state.as_deref(), Some("failed: no"), "a prompt stood before it");
        assert_eq!(said.keys(), ["ssh-ed25519 AAAAC3/x+", "ssh-rsa AAAA"]);
        said.hear(&"x".repeat(3 * LONGEST));
        assert!(said.rest.is_empty(), "it does not grow without end");
    }

    #[test]
    fn host_keys_of_the_guest_attributes_are_keys_and_nothing_else() {
        let attribute = |key: &str, value: &str| GuestAttribute { key: key.into(), value: value.into() };
        let keys = of_attributes(&[
            attribute("ssh-ed25519", "AAAAC3Nz root@host"),
            attribute("ecdsa-sha2-nistp256", "AAAAE2Vj"),
            attribute("ssh-rsa", "AAAA\n* ssh-rsa BBBB"),
            attribute("", "x"),
        ]);
        assert_eq!(keys, ["ssh-ed25519 AAAAC3Nz", "ecdsa-sha2-nistp256 AAAAE2Vj"]);
        assert_eq!(known_hosts("nm-1", &keys[..1]), "nm-1 ssh-ed25519 AAAAC3Nz\n");
    }
}
