//! Key pairs made for one run or one guest and forgotten with it: the login key and the guests' host keys.
//!
//! ECDSA on P-256, because every server takes it: OpenSSH since 5.7, and systems in FIPS mode, which refuse ed25519 for both.

use std::{io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, PrivateKey, PublicKey, rand_core::OsRng};

/// A key pair, both halves as the text OpenSSH reads.
#[derive(Clone)]
pub struct Keypair {
    private: String,
    public: String,
}

/// A key could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("bad SSH key: {0}")]
pub struct KeyError(#[from] ssh_key::Error);

impl Keypair {
    /// A fresh pair from the system's randomness. `comment` tells people what the key is for.
    pub fn generate(comment: &str) -> Result<Self, KeyError> {
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })?;
        key.set_comment(comment);
        Ok(Self { private: key.to_openssh(LineEnding::LF)?.to_string(), public: key.public_key().to_openssh()? })
    }

    /// The pair whose private half is this text.
    pub fn read(private: &str) -> Result<Self, KeyError> {
        let public = PrivateKey::from_openssh(private)?.public_key().to_openssh()?;
        Ok(Self { private: private.to_owned(), public })
    }

    /// The private half, in OpenSSH's own format, ending in a newline.
    pub fn private(&self) -> &str {
        &self.private
    }

    /// The public half as one line without a newline: `ecdsa-sha2-nistp256 AAAA... comment`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Writes the private half for `ssh -i`: mode 0600, replacing what is there.
    pub fn write_private(&self, path: &Path) -> io::Result<()> {
        // Removed first: an older file's mode would survive being opened.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?
            .write_all(self.private.as_bytes())
    }
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the private half: debug output ends in logs.
        f.debug_struct("Keypair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A public line as the bytes an SSH server shows in its handshake.
pub(super) fn wire_bytes(public: &str) -> Result<Vec<u8>, KeyError> {
    Ok(PublicKey::from_openssh(public)?.to_bytes()?)
}

/// The name of a public line's algorithm, as servers offer it.
pub(super) fn algorithm(public: &str) -> Result<String, KeyError> {
    Ok(PublicKey::from_openssh(public)?.algorithm().to_string())
}

/// The fingerprint `ssh-keygen -l` prints for a key in wire format.
pub(super) fn fingerprint(wire: &[u8]) -> String {
    PublicKey::from_bytes(wire)
        .map_or_else(|_| "an unreadable key".to_owned(), |key| key.fingerprint(HashAlg::Sha256).to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn two_pairs_are_never_equal_and_both_halves_belong_together() {
        let (one, other) = (Keypair::generate("one").unwrap(), Keypair::generate("other").unwrap());
        assert_ne!(one.public(), other.public());
        let private = PrivateKey::from_openssh(one.private()).unwrap();
        assert_eq!(private.public_key().to_openssh().unwrap(), one.public());
        assert!(one.public().ends_with(" one"));
    }

    #[test]
    fn a_written_private_key_is_for_its_owner_only_even_if_the_file_was_open_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let key = Keypair::generate("k").unwrap();
        key.write_private(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), key.private());
    }

    #[test]
    fn debug_output_does_not_show_the_private_half() {
        let key = Keypair::generate("k").unwrap();
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }
}
