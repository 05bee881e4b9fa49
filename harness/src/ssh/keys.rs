//! Keys made for one run or one guest and forgotten with it: the login keys and the guests' host keys.
//!
//! Always of two kinds, because no kind is taken by every server: FIPS mode refuses ed25519, and guides for hardened servers forbid the
//! NIST curves.

use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, PrivateKey, PublicKey, rand_core::OsRng};

/// The kinds, in the order that all lists of keys have.
const KINDS: [Algorithm; 2] = [Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, Algorithm::Ed25519];

/// Names of the files with private login keys, one for each kind.
pub const LOGIN_FILES: [&str; 2] = ["login_ecdsa_key", "login_ed25519_key"];

/// A key pair of each kind, ECDSA on P-256 and then ed25519, all halves as the text OpenSSH reads.
#[derive(Clone)]
pub struct Keys {
    private: [String; 2],
    public: [String; 2],
}

/// A key could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("bad SSH key: {0}")]
pub struct KeyError(#[from] ssh_key::Error);

impl Keys {
    /// Fresh pairs from the system's randomness. `comment` tells people what the keys are for.
    pub fn generate(comment: &str) -> Result<Self, KeyError> {
        let [ecdsa, ed25519] = KINDS.map(|kind| {
            let mut key = PrivateKey::random(&mut OsRng, kind)?;
            key.set_comment(comment);
            Ok::<_, KeyError>((key.to_openssh(LineEnding::LF)?.to_string(), key.public_key().to_openssh()?))
        });
        let (ecdsa, ed25519) = (ecdsa?, ed25519?);
        Ok(Self { private: [ecdsa.0, ed25519.0], public: [ecdsa.1, ed25519.1] })
    }

    /// The pairs whose private halves are in these files of a folder.
    ///
    /// # Errors
    /// A file cannot be read, or its key is not of the kind that belongs there. The path is named.
    pub fn read(folder: &Path, names: [&str; 2]) -> io::Result<Self> {
        let mut keys = Self { private: Default::default(), public: Default::default() };
        for (at, (name, kind)) in names.into_iter().zip(KINDS).enumerate() {
            let path = folder.join(name);
            let bad = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
            keys.private[at] = std::fs::read_to_string(&path).map_err(|error| bad(&error))?;
            let key = PrivateKey::from_openssh(&keys.private[at]).map_err(|error| bad(&KeyError(error)))?;
            if key.algorithm() != kind {
                return Err(bad(&format!("expected an SSH key of kind {kind}, found {}", key.algorithm())));
            }
            keys.public[at] = key.public_key().to_openssh().map_err(|error| bad(&KeyError(error)))?;
        }
        Ok(keys)
    }

    /// The private halves, in OpenSSH's own format, each ending in a newline.
    pub fn private(&self) -> [&str; 2] {
        self.private.each_ref().map(String::as_str)
    }

    /// The public halves as lines without a newline: `ecdsa-sha2-nistp256 AAAA... comment`.
    pub fn public(&self) -> [&str; 2] {
        self.public.each_ref().map(String::as_str)
    }

    /// The lines of a `known_hosts` file for a guest with these host keys behind this port of loopback.
    pub fn known_hosts(&self, port: u16) -> String {
        self.public().map(|line| format!("[127.0.0.1]:{port} {line}\n")).concat()
    }

    /// Writes the private halves for `ssh -i`: mode 0600, replacing what is there. The paths of the files.
    pub fn write_private(&self, folder: &Path, names: [&str; 2]) -> io::Result<[PathBuf; 2]> {
        let paths = names.map(|name| folder.join(name));
        for (path, private) in paths.iter().zip(&self.private) {
            // Removed first: an older file's mode would survive being opened.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(path)?.write_all(private.as_bytes())?;
        }
        Ok(paths)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the private halves: debug output ends in logs.
        f.debug_struct("Keys").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The host keys that a server may show, and no others.
pub(super) struct Pinned([PublicKey; 2]);

impl Pinned {
    /// Of public lines.
    pub(super) fn new(lines: [&str; 2]) -> Result<Self, KeyError> {
        let [one, other] = lines.map(PublicKey::from_openssh);
        Ok(Self([one?, other?]))
    }

    /// The names of their algorithms, as servers offer them.
    pub(super) fn algorithms(&self) -> [String; 2] {
        self.0.each_ref().map(|key| key.algorithm().to_string())
    }

    /// Which of them a key in wire format is.
    ///
    /// # Errors
    /// It is none. The fingerprints of the one that was expected, both if it is of neither kind, and of the key itself.
    pub(super) fn find(&self, offered: &[u8]) -> Result<usize, (String, String)> {
        let same = |key: &PublicKey| key.to_bytes().is_ok_and(|own| own == offered);
        if let Some(at) = self.0.iter().position(same) {
            return Ok(at);
        }
        let kind = PublicKey::from_bytes(offered).ok().map(|key| (key.algorithm(), fingerprint(&key)));
        let (kind, offered) = kind.map_or((None, "an unreadable key".to_owned()), |(kind, print)| (Some(kind), print));
        let of_kind: Vec<_> = self.0.iter().filter(|key| Some(key.algorithm()) == kind).map(fingerprint).collect();
        let expected = if of_kind.is_empty() { self.0.each_ref().map(fingerprint).to_vec() } else { of_kind };
        Err((expected.join(" or "), offered))
    }
}

/// What `ssh-keygen -l` prints for a key.
fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_one_of_each_kind_never_the_same_twice_and_halves_belong_together() {
        let (one, other) = (Keys::generate("one").unwrap(), Keys::generate("other").unwrap());
        for (at, kind) in ["ecdsa-sha2-nistp256 ", "ssh-ed25519 "].into_iter().enumerate() {
            assert!(one.public()[at].starts_with(kind) && one.public()[at].ends_with(" one"), "{one:?}");
            assert_ne!(one.public()[at], other.public()[at]);
            let private = PrivateKey::from_openssh(one.private()[at]).unwrap();
            assert_eq!(private.public_key().to_openssh().unwrap(), one.public()[at]);
        }
    }

    #[test]
    fn written_private_keys_are_read_again_and_for_their_owner_only_even_if_a_file_was_open_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOGIN_FILES[1]);
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let keys = Keys::generate("k").unwrap();
        for path in keys.write_private(dir.path(), LOGIN_FILES).unwrap() {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let read = Keys::read(dir.path(), LOGIN_FILES).unwrap();
        assert_eq!((read.private(), read.public()), (keys.private(), keys.public()));
    }

    #[test]
    fn a_key_of_another_kind_than_belongs_into_its_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Keys::generate("k").unwrap().write_private(dir.path(), LOGIN_FILES).unwrap();
        let error = Keys::read(dir.path(), [LOGIN_FILES[0]; 2]).unwrap_err().to_string();
        assert!(error.contains(LOGIN_FILES[0]) && error.contains("ssh-ed25519"), "{error}");
    }

    #[test]
    fn a_host_key_that_is_not_pinned_is_told_from_those_that_are_by_the_fingerprint_of_its_kind() {
        let (own, other) = (Keys::generate("own").unwrap(), Keys::generate("other").unwrap());
        let wire = |line: &str| PublicKey::from_openssh(line).unwrap().to_bytes().unwrap();
        let print = |line: &str| fingerprint(&PublicKey::from_openssh(line).unwrap());
        let pinned = Pinned::new(own.public()).unwrap();
        for at in [0, 1] {
            assert_eq!(pinned.find(&wire(own.public()[at])), Ok(at));
            let (expected, offered) = (print(own.public()[at]), print(other.public()[at]));
            assert_eq!(pinned.find(&wire(other.public()[at])), Err((expected, offered)));
        }
        for unreadable in [&b""[..], b"\0\0\0\x0bssh-ed25519"] {
            let (expected, offered) = pinned.find(unreadable).unwrap_err();
            assert!(own.public().iter().all(|line| expected.contains(&print(line))), "{expected}");
            assert_eq!(offered, "an unreadable key");
        }
    }

    #[test]
    fn debug_output_does_not_show_the_private_halves() {
        let keys = Keys::generate("k").unwrap();
        assert!(!format!("{keys:?}").contains("PRIVATE"));
    }
}
