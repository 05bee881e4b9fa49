//! A third-party repository that guests are given, in the words of their package managers.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{Digest, HostPattern, PackageFamily};

/// Maximum length of a repository's name.
pub(crate) const MAX_NAME_LEN: usize = 40;
/// Maximum length of a key's file name.
const MAX_FILE_NAME_LEN: usize = 200;

/// A repository, and the images whose guests are given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its name: 1 to 40 letters, digits and `-`, not beginning with `-`; unique in the plan. Safe as a file name.
    pub name: String,
    /// [`crate::Image::name`] of every image of the plan whose guests are given it, in the order of the plan; at least one.
    pub images: Vec<String>,
    /// Its description for guests of each family, as their package manager writes it; at least one.
    pub descriptions: BTreeMap<PackageFamily, String>,
    /// The key that signs it; `None`: the guest has it already, or it is not signed.
    pub key: Option<RepositoryKey>,
    /// The hosts of all addresses in the descriptions, each once; at least one, no wildcards.
    pub hosts: Vec<HostPattern>,
}

/// The public key that signs a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryKey {
    /// Last path component of its file, which some package managers need as it is (apk). Safe as a file name in a guest.
    pub file_name: String,
    /// Its content, armored or binary, at most 64 KiB; written in Base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub content: Vec<u8>,
    /// Digest of its content.
    pub digest: Digest,
}

impl Repository {
    /// What is wrong with a repository that was read back, where its types alone do not guarantee it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !is_name(&self.name) {
            return Some("its name is invalid");
        }
        match &self.key {
            Some(key) if !is_file_name(&key.file_name) => Some("the file name of its key is invalid"),
            Some(key) if Digest::of(&key.content) != key.digest => Some("its key has another digest"),
            _ => None,
        }
    }
}

/// True for the name of a repository.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// True for the file name of a key: one plain path component that no shell and no package manager reads as anything else.
pub(crate) fn is_file_name(text: &str) -> bool {
    text.len() <= MAX_FILE_NAME_LEN
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._@+-".contains(c))
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}
