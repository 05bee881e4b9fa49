//! Signs the lists of repositories that are made of artifacts, with a key that this process makes and that ends with it.
//!
//! Package managers check OpenPGP signatures; apk checks plain ones of RSA. Of OpenPGP this writes the three packets that are needed, in
//! the form that the oldest of them read (RFC 4880: version 4, RSA, SHA-256), around the RSA of OpenSSL, which is linked anyway: a crate
//! that does all of OpenPGP would bring 60 others along.

use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openssl::{
    error::ErrorStack,
    hash::{MessageDigest, hash},
    pkey::{PKey, Private},
    rsa::Rsa,
    sign,
};

/// How the list of a repository is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing {
    /// OpenPGP, armored.
    OpenPgp,
    /// The bare signature of a SHA-1 digest by RSA; the key is PEM. (apk takes SHA-256 too, but not every version does.)
    Rsa,
}

/// Size of the key, in bits: apt and rpm refuse small ones.
const BITS: u32 = 3072;
/// When the key and all signatures say that they were made, in seconds since 1970: the clocks of guests may be wrong, but not by years.
const MADE: u32 = 1_577_836_800;
const USER: &str = "nestmatrix (artifacts of one run)";

/// OpenPGP's numbers (RFC 4880, 4.3, 5.2.1, 5.2.3.1, 9.1, 9.4).
const SIGNATURE: u8 = 2;
const PUBLIC_KEY: u8 = 6;
const USER_ID: u8 = 13;
const OF_A_FILE: u8 = 0x00;
const OF_A_USER: u8 = 0x13;
const RSA: u8 = 1;
const SHA256: u8 = 8;

/// A key.
pub(super) struct Signer {
    key: PKey<Private>,
    /// The body of its OpenPGP packet.
    public: Vec<u8>,
    fingerprint: Vec<u8>,
}

impl Signer {
    /// That of this process.
    pub(super) fn of_this_process() -> Result<&'static Self, ErrorStack> {
        static SIGNER: OnceLock<Signer> = OnceLock::new();
        if let Some(signer) = SIGNER.get() {
            return Ok(signer);
        }
        let new = Self::new()?;
        Ok(SIGNER.get_or_init(|| new))
    }

    fn new() -> Result<Self, ErrorStack> {
        let rsa = Rsa::generate(BITS)?;
        let mut public = vec![4];
        public.extend(MADE.to_be_bytes());
        public.push(RSA);
        public.extend(integer(&rsa.n().to_vec()));
        public.extend(integer(&rsa.e().to_vec()));
        let fingerprint = hash(MessageDigest::sha1(), &hashed(0x99, &public))?.to_vec();
        Ok(Self { key: PKey::from_rsa(rsa)?, public, fingerprint })
    }

    /// What proves its signatures.
    pub(super) fn public(&self, signing: Signing) -> Result<Vec<u8>, ErrorStack> {
        match signing {
            Signing::Rsa => self.key.public_key_to_pem(),
            Signing::OpenPgp => {
                let user = [&[0xb4][..], &length(USER.len()), USER.as_bytes()].concat();
                let certified = [hashed(0x99, &self.public), user].concat();
                let own = self.signature(OF_A_USER, &certified)?;
                let packets = [packet(PUBLIC_KEY, &self.public), packet(USER_ID, USER.as_bytes()), own].concat();
                Ok(armored("PUBLIC KEY BLOCK", &packets))
            }
        }
    }

    /// Its signature of this.
    pub(super) fn sign(&self, signing: Signing, content: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        match signing {
            Signing::Rsa => sign::Signer::new(MessageDigest::sha1(), &self.key)?.sign_oneshot_to_vec(content),
            Signing::OpenPgp => Ok(armored("SIGNATURE", &self.signature(OF_A_FILE, content)?)),
        }
    }

    /// A signature as a packet.
    fn signature(&self, of: u8, content: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let mut said = subpacket(2, &MADE.to_be_bytes());
        said.extend(subpacket(33, &[&[4], &*self.fingerprint].concat()));
        if of == OF_A_USER {
            // The key may certify and sign.
            said.extend(subpacket(27, &[0x03]));
        }
        let mut body = vec![4, of, RSA, SHA256];
        body.extend(short(said.len()));
        body.extend(said);
        let end = [&[4, 0xff][..], &length(body.len())].concat();
        let signed = [content, &body, &end].concat();
        let unproved = subpacket(16, &self.fingerprint[self.fingerprint.len() - 8..]);
        body.extend(short(unproved.len()));
        body.extend(unproved);
        body.extend(&hash(MessageDigest::sha256(), &signed)?[..2]);
        body.extend(integer(&sign::Signer::new(MessageDigest::sha256(), &self.key)?.sign_oneshot_to_vec(&signed)?));
        Ok(packet(SIGNATURE, &body))
    }
}

/// A packet (4.2.1, lengths of two octets).
fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    hashed(0x81 | tag << 2, body)
}

/// What is hashed of a key, which looks like its packet.
fn hashed(head: u8, body: &[u8]) -> Vec<u8> {
    [&[head][..], &short(body.len()), body].concat()
}

/// Short enough for a length of one octet.
fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[short(body.len() + 1)[1], kind][..], body].concat()
}

/// A number of any size (3.2): its length in bits, without zeros before it.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    let bits = bytes.len() * 8 - bytes.first().map_or(0, |first| first.leading_zeros() as usize);
    [&short(bits)[..], bytes].concat()
}

/// What has a length here is some hundred bytes long.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Packets as text (6.2), which is all that apt takes.
fn armored(what: &str, packets: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(packets);
    let lines: String =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect();
    let sum = STANDARD.encode(&crc24(packets).to_be_bytes()[1..]);
    format!("-----BEGIN PGP {what}-----\n\n{lines}={sum}\n-----END PGP {what}-----\n").into_bytes()
}

/// The checksum of such text (6.1).
fn crc24(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 0x80_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x186_4cfb };
    bytes.iter().fold(0xb7_04ce, |crc, byte| (0..8).fold(crc ^ u32::from(*byte) << 16, |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    /// What gpgv says of a signature by this key of the file.
    fn is_good(folder: &Path, signature: &[u8], content: &[u8]) -> bool {
        fs::write(folder.join("signature"), signature).unwrap();
        fs::write(folder.join("content"), content).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            Command::new(program).current_dir(folder).args(arguments).output().unwrap().status.success()
        };
        assert!(run("gpg", &["--dearmor", "--yes", "--output", "key.gpg", "key"]), "the key is armored well");
        run("gpgv", &["--homedir", ".", "--keyring", "./key.gpg", "signature", "content"])
    }

    #[test]
    fn gnupg_takes_a_signature_of_what_was_signed_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (signer, other) = (Signer::of_this_process().unwrap(), Signer::new().unwrap());
        fs::write(folder.path().join("key"), signer.public(Signing::OpenPgp).unwrap()).unwrap();
        for content in [&b""[..], b"a\n", &[0; 70_000]] {
            let signature = signer.sign(Signing::OpenPgp, content).unwrap();
            assert!(is_good(folder.path(), &signature, content));
            assert!(!is_good(folder.path(), &signature, &[content, b"x"].concat()));
            assert!(!is_good(folder.path(), &other.sign(Signing::OpenPgp, content).unwrap(), content));
        }
        // The key is its own user's, too.
        let mut listed = Command::new("gpg");
        listed.arg("--homedir").arg(folder.path()).args(["--batch", "--import"]).arg(folder.path().join("key"));
        assert!(listed.output().unwrap().status.success(), "without its own signature gpg imports no key");
    }

    #[test]
    fn openssl_takes_a_bare_signature() {
        let signer = Signer::of_this_process().unwrap();
        let key = PKey::public_key_from_pem(&signer.public(Signing::Rsa).unwrap()).unwrap();
        let signature = signer.sign(Signing::Rsa, b"a").unwrap();
        let is_good = |content: &[u8]| {
            sign::Verifier::new(MessageDigest::sha1(), &key).unwrap().verify_oneshot(&signature, content).unwrap()
        };
        assert!(is_good(b"a") && !is_good(b"b"));
    }

    #[test]
    fn numbers_have_no_zeros_before_them() {
        assert_eq!(integer(&[0, 0, 1, 0xff]), [0, 9, 1, 0xff]);
        assert_eq!(integer(&[0x80]), [0, 8, 0x80]);
    }
}
