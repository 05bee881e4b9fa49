//! What was proved in an earlier L1 of the same kind: remembered in the store, like the proof for this machine itself.
//!
//! An L1 is made anew for each run, but always of the same parts: what decides whether guests run under KVM in it is its image,
//! its kernel's words, its CPU, and the QEMU and the machine below it. All of that is the key.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::agent::protocol::GuestProof;

/// The proofs of one store.
pub(crate) struct Proofs {
    file: PathBuf,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Known {
    key: String,
    proof: GuestProof,
}

impl Proofs {
    /// Those for an L1 that this key describes.
    pub(crate) fn new(store: &Path, key: String) -> Self {
        Self { file: store.join("l1-probe.json"), key }
    }

    /// The answer of an earlier proof, if it still holds.
    pub(crate) fn known(&self) -> Option<GuestProof> {
        let known: Known = serde_json::from_slice(&fs::read(&self.file).ok()?).ok()?;
        (known.key == self.key && (1.0..=100.0).contains(&known.proof.speed)).then_some(known.proof)
    }

    /// Remembers one. Not being able to costs the next run some seconds and this one nothing.
    pub(crate) fn remember(&self, proof: &GuestProof) {
        let write = || -> io::Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(self.file.parent().unwrap_or(Path::new(".")))?;
            serde_json::to_writer_pretty(&mut new, &Known { key: self.key.clone(), proof: proof.clone() })?;
            new.persist(&self.file)?;
            Ok(())
        };
        let _ = write();
    }

    /// Forgets it: an L1 of this kind was lost, and the proof may have been good luck.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_the_l1_it_was_made_in_and_for_no_other() {
        let store = tempfile::tempdir().unwrap();
        let proofs = |key: &str| Proofs::new(store.path(), key.to_owned());
        let proof = GuestProof { reason: "a guest ran".into(), speed: 13.4 };
        assert_eq!(proofs("image a").known(), None);
        proofs("image a").remember(&proof);
        assert_eq!(proofs("image a").known(), Some(proof));
        assert_eq!(proofs("image b").known(), None);
        fs::write(store.path().join("l1-probe.json"), "{").unwrap();
        assert_eq!(proofs("image a").known(), None, "half a file is no proof");
        proofs("image a").forget();
        assert!(!store.path().join("l1-probe.json").exists());
    }
}
