//! Everything `doctor` reads before it judges. Nothing is judged here.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use images::{Catalog, Control, Source, Store};
use matrix::ByteSize;
use rustix::fs::Access;

use crate::{
    guest::{Accelerator, Spawner},
    host::{self, Machine, Nesting, Qemu},
};

/// The catalog's image of the machine that the `qemu` runner boots.
pub(super) use crate::runner::L1_IMAGE;
/// Programs that bootstrapping an image calls, and what they are for.
const BUILDERS: [(&str, &str); 3] =
    [("mmdebstrap", "builds images"), ("mke2fs", "builds images"), ("unshare", "builds images")];

/// All of it.
pub(super) struct Facts {
    pub(super) basics: Basics,
    pub(super) virtualization: Virtualization,
}

/// Tools and size.
pub(super) struct Basics {
    /// QEMU, or why there is none.
    pub(super) qemu: Result<Qemu, String>,
    pub(super) builders: Vec<Builder>,
    /// What is a TPM for guests; `None`: not installed.
    pub(super) swtpm: Option<PathBuf>,
    pub(super) machine: Machine,
    /// Where the store is or will be.
    pub(super) store: PathBuf,
    /// What can still be written there, or why that is not known.
    pub(super) free: Result<ByteSize, String>,
}

/// A program that builds images.
pub(super) struct Builder {
    pub(super) program: &'static str,
    pub(super) purpose: &'static str,
    /// `None`: not installed.
    pub(super) path: Option<PathBuf>,
}

/// What the choice of a runner depends on.
pub(super) struct Virtualization {
    pub(super) nesting: Nesting,
    pub(super) accelerator: Accelerated,
    /// What the store has of [`L1_IMAGE`], in words; `None`: nothing.
    pub(super) l1_image: Option<String>,
}

/// What is known of the accelerator.
pub(super) enum Accelerated {
    /// There is no QEMU to try it with.
    NoQemu,
    /// There is no image to try it with.
    NoImage,
    /// This one works.
    Proved { accelerator: Accelerator, speed: f64, reason: String },
    /// None works.
    Failed(String),
}

impl Accelerated {
    /// A guest ran under KVM here; `None`: nobody tried.
    pub(super) fn kvm(&self) -> Option<bool> {
        match self {
            Self::NoQemu | Self::NoImage => None,
            Self::Proved { accelerator, .. } => Some(*accelerator == Accelerator::Kvm),
            Self::Failed(_) => Some(false),
        }
    }
}

impl Facts {
    /// Reads this machine and the store below `root`. May boot the probe guest: that takes seconds, with software emulation up
    /// to minutes.
    pub(super) async fn read(root: &Path, fresh: bool) -> io::Result<Self> {
        let machine = Machine::read()?;
        let qemu = Qemu::find().await.map_err(|error| error.to_string());
        let virtualization = Virtualization {
            nesting: Nesting::read(Path::new("/"))?,
            accelerator: match &qemu {
                Ok(qemu) => accelerated(root, qemu, &machine, fresh).await,
                Err(_) => Accelerated::NoQemu,
            },
            l1_image: l1_image(root),
        };
        let builder = |(program, purpose)| Builder { program, purpose, path: host::find(program) };
        let builders = BUILDERS.map(builder).into();
        let swtpm = host::swtpm().ok();
        let basics = Basics { qemu, builders, swtpm, machine, store: root.to_owned(), free: free(root) };
        Ok(Self { basics, virtualization })
    }
}

fn free(root: &Path) -> Result<ByteSize, String> {
    let root = std::path::absolute(root).map_err(|error| format!("the store has no path: {error}"))?;
    // The store may not exist yet: its nearest existing parent is on the same disk. A link to nowhere is none of them.
    let existing = root.ancestors().find(|folder| folder.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let usable = match existing.metadata() {
        Ok(metadata) if !metadata.is_dir() => Err("not a folder".to_owned()),
        Ok(_) => rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    usable.map_err(|why| format!("the store {} cannot be used: {}: {why}", root.display(), existing.display()))?;
    host::free_bytes(existing).map_err(|error| format!("free space of {} is unknown: {error}", existing.display()))
}

/// The store, if there is one: asking must not make it.
fn store(root: &Path) -> Option<Store> {
    root.is_dir().then(|| Store::open(root).ok()).flatten()
}

fn l1_image(root: &Path) -> Option<String> {
    let present = store(root)?.look(Catalog::shipped().get(L1_IMAGE)?)?;
    Some(format!("{}, built {}", present.digest.short(), present.built_at.strftime("%Y-%m-%d")))
}

async fn accelerated(root: &Path, qemu: &Qemu, machine: &Machine, fresh: bool) -> Accelerated {
    let known = if fresh { None } else { host::known(root, qemu, machine) };
    let proof = match known {
        Some(proof) => Some(Ok(proof)),
        None => prove(machine, root, qemu).await,
    };
    match proof {
        None => Accelerated::NoImage,
        Some(Ok(proof)) => {
            Accelerated::Proved { accelerator: proof.accelerator, speed: proof.speed, reason: proof.reason }
        }
        Some(Err(error)) => Accelerated::Failed(error),
    }
}

/// Proves it with any image of the store; `None`: there is none.
async fn prove(machine: &Machine, root: &Path, qemu: &Qemu) -> Option<Result<host::Proof, String>> {
    let store = store(root)?;
    // Disks that boot by themselves have no kernel to prove it with.
    let mut built = Catalog::shipped().entries().iter().filter(|entry| matches!(entry.source, Source::Bootstrap(_)));
    let entry = built.find(|entry| store.look(entry).is_some())?;
    let cancel = AtomicBool::new(false);
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    let image = store.prepare(entry, &control).ok()?;
    let scratch = tempfile::tempdir().ok()?;
    let spawner = Spawner::start().ok()?;
    let target = host::Target { kernel: image.kernel.as_ref()?, scratch: scratch.path() };
    let proof = host::prove(store.root(), qemu, machine, &spawner, &target).await;
    Some(proof.map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_has_the_image_of_the_l1() {
        assert!(Catalog::shipped().get(L1_IMAGE).is_some());
    }

    #[test]
    fn a_store_that_cannot_be_one_is_said_and_one_that_is_not_there_yet_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
        for (store, why) in [("file", "not a folder"), ("file/below", "not a folder"), ("link", "No such file")] {
            let said = free(&path(store)).unwrap_err();
            assert!(said.contains(path(store).to_str().unwrap()) && said.contains(why), "{said}");
        }
        assert!(free(folder.path()).is_ok() && free(&path("a/b")).is_ok());
        assert!(!path("a").exists());
    }

    #[test]
    fn asking_for_the_l1_image_does_not_make_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        assert_eq!(l1_image(&root), None);
        assert!(!root.exists());
    }
}
