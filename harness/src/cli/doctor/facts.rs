//! Everything `doctor` reads before it judges. Nothing is judged here.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use images::{Catalog, Control, Source, Store};
use matrix::ByteSize;

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
        let basics = Basics { qemu, builders, machine, store: root.to_owned(), free: free(root) };
        Ok(Self { basics, virtualization })
    }
}

fn free(root: &Path) -> Result<ByteSize, String> {
    // The store may not exist yet: its nearest existing parent is on the same disk.
    let existing = root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    host::free_bytes(existing).map_err(|error| error.to_string())
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
    let images::Kernel { kernel, initrd, .. } = image.kernel()?;
    let target = host::Target { kernel, initrd, scratch: scratch.path() };
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
    fn asking_for_the_l1_image_does_not_make_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        assert_eq!(l1_image(&root), None);
        assert!(!root.exists());
    }
}
