//! `key` of `[[repository]]`: reads the file with the public key that signs a repository.

use std::{io, path::Path};

use crate::{
    Digest,
    error::Mistakes,
    find::{missing, unreadable},
    located::At,
    read::read_file,
    repository::{self, RepositoryKey},
};

/// Maximum length of a key, in bytes.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// The key in this file; `None`, and a mistake, if it does not exist or is none.
pub(crate) fn read(file: &At<String>, folder: &Path, mistakes: &mut Mistakes) -> Option<RepositoryKey> {
    let path = folder.join(file.text());
    let content = match read_file(&path, MAX_KEY_BYTES) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (looked, help) = missing(file.text(), folder);
            let message = format!("the key `{}` does not exist", file.text());
            mistakes.push(mistakes.at(file.span(), message, &looked).with_help(help));
            return None;
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::FileTooLarge) => {
            let message = format!("the key `{}` is {error}", file.text());
            let help = "name the file with the public key of this repository alone";
            mistakes.push(mistakes.at(file.span(), message, "this key").with_help(help));
            return None;
        }
        Err(error) => {
            unreadable(file, &path, &error, mistakes);
            return None;
        }
    };
    let wrong = match path.file_name().and_then(|name| name.to_str()).filter(|name| repository::is_file_name(name)) {
        None => Some((
            "has a file name that cannot be used in a guest",
            "rename it: letters, digits and `._@+-`, beginning with a letter or a digit",
        )),
        Some(_) => fault(&content),
    };
    if let Some((what, help)) = wrong {
        let message = format!("the key `{}` {what}", file.text());
        mistakes.push(mistakes.at(file.span(), message, "this key").with_help(help));
        return None;
    }
    let file_name = path.file_name()?.to_str()?.to_owned();
    let digest = Digest::of(&content);
    Some(RepositoryKey { file_name, content, digest })
}

/// What is plainly wrong with the content of a key, and the remedy. Whether it is a key is left to the package manager.
fn fault(content: &[u8]) -> Option<(&'static str, &'static str)> {
    const EXPORT: &str = "export the public key: `gpg --armor --export KEY`, for apk or pkg `openssl rsa -pubout`";
    if content.trim_ascii().is_empty() {
        return Some(("is empty", EXPORT));
    }
    // RFC 9580: 4.2 and 5: the first byte of a binary packet has its type, 5 is a secret key.
    let is_secret_packet = match content[0] {
        new if new & 0xc0 == 0xc0 => new & 0x3f == 5,
        old => old & 0xc0 == 0x80 && (old >> 2) & 0xf == 5,
    };
    let is_secret_text = String::from_utf8_lossy(content).lines().any(|line| {
        let line = line.trim();
        line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY")
    });
    (is_secret_packet || is_secret_text).then_some(("is a private key, and guests would read it", EXPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_never_sent_to_a_guest() {
        for secret in [
            &b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nx"[..],
            b"# mine\r\n-----BEGIN RSA PRIVATE KEY-----\r\n",
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
            b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
            b"\x94\x04x",
            b"\x95\x01\x02x",
            b"\xc5\x04x",
        ] {
            let (what, _) = fault(secret).expect("a private key");
            assert!(what.contains("private"), "{what}");
        }
        for public in [
            &b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx"[..],
            b"-----BEGIN PUBLIC KEY-----\n",
            b"\x98\x04x",
            b"\x99\x01\x02x",
            b"\xc6\x04x",
        ] {
            assert_eq!(fault(public), None);
        }
        assert_eq!(fault(b" \n").expect("nothing").0, "is empty");
    }
}
