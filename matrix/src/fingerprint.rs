//! The digest of a plan: over everything that decides the work, and nothing else.

use serde::Serialize;
use sha2::Digest as _;

use crate::{Artifact, Cell, Digest, Image, ImageSource, Location, Package, Plan, Prepare, Runner, UploadFile};

/// Raised with every change of the form below, so that equal digests of different versions mean equal work.
const FORM: u32 = 8;

impl Plan {
    /// The digest that this plan should carry.
    ///
    /// The patterns name every field: a new field must be added or ignored explicitly.
    pub(crate) fn fingerprint(&self) -> Digest {
        let Self { digest: _, matrix: _, package, runner, network, repositories, images, scripts, cells } = self;
        let package = package.as_ref().map(|Package { name, version, artifacts }| {
            let artifacts: Vec<_> = artifacts
                .iter()
                .map(|Artifact { path: _, file_name, bytes, digest }| (file_name, bytes, digest))
                .collect();
            (name, version, artifacts)
        });
        let images: Vec<_> = images
            .iter()
            .map(|Image { name, from, source, kernel_args, prepare }| {
                let prepare =
                    prepare.as_ref().map(|Prepare { script, script_origin: _, packages, network, timeout }| {
                        (script, packages, network, timeout)
                    });
                (name, from, without_paths(source), kernel_args, prepare)
            })
            .collect();
        let runner = Runner { identity: None, ..runner.clone() };
        // Cell by cell: avoids a second copy of a plan of 100,000 cells in memory.
        let mut hasher = sha2::Sha256::new();
        hash_json(&mut hasher, &(FORM, package, &runner, network, repositories, images, scripts));
        for cell in cells {
            hash_json(&mut hasher, &decisive(cell));
        }
        Digest::from_bytes(hasher.finalize().into())
    }
}

/// The same source, wherever its file lies on this machine.
fn without_paths(source: &ImageSource) -> ImageSource {
    let mut source = source.clone();
    if let ImageSource::Disk { location, .. } | ImageSource::Rootfs { location, .. } = &mut source
        && let Location::Path(path) = location
    {
        path.clear();
    }
    source
}

fn decisive(cell: &Cell) -> impl Serialize + '_ {
    let Cell {
        id,
        image,
        suite,
        axes,
        guest,
        install_from,
        dependencies,
        timeouts,
        script,
        script_origin: _,
        env,
        files,
        options,
    } = cell;
    let files: Vec<_> =
        files.iter().map(|UploadFile { path: _, relative, bytes, digest }| (relative, bytes, digest)).collect();
    (id, image, suite, axes, guest, install_from, dependencies, timeouts, script, env, files, options)
}

/// Hashes a value by its JSON.
pub(crate) fn hash_json(hasher: &mut sha2::Sha256, value: &impl Serialize) {
    // Fails only for maps whose keys are not text; there are none here.
    hasher.update(serde_json::to_vec(value).unwrap_or_default());
}
