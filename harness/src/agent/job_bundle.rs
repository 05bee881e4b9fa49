//! The bundle: everything an agent needs besides its orders, as one tar archive. It goes into the L1 as a read-only disk.
//!
//! ```text
//! nestmatrix          this program, static: the agent
//! job.json          the plan, and the images with the serial number of each one's disk
//! kernels/<serial>/   vmlinuz, initrd.img of each image
//! files/<digest>      what the plan sends to guests: artifacts and files of suites
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use images::{DiskFormat, Kernel, Start};
use matrix::{Digest, Plan};
use serde::{Deserialize, Serialize};

use crate::{
    fanout::{BootImage, ImageFacts},
    guest::DiskFile,
};

/// Name of the program in the archive.
pub(crate) const PROGRAM: &str = "nestmatrix";
const JOB: &str = "job.json";
/// Names of an image's files.
pub(crate) const DISK: &str = "disk";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRD: &str = "initrd.img";

/// What the agent reads first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JobBundle {
    /// The plan; its paths lead into the bundle's own folder.
    pub(crate) plan: Plan,
    /// Images by catalog name; the disk of each is attached under its [`serial`] number.
    pub(crate) images: BTreeMap<String, ImageFacts>,
}

/// An image whose files are all in one folder on the agent's machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredImage {
    /// What it is.
    pub(crate) facts: ImageFacts,
    /// Where its files are.
    pub(crate) folder: PathBuf,
    /// How its disk's content is stored.
    pub(crate) format: DiskFormat,
}

impl StoredImage {
    /// The image as guests are booted from it there.
    pub(crate) fn here(&self) -> BootImage {
        let kernel = || Kernel { kernel: self.folder.join(KERNEL), initrd: self.folder.join(INITRD) };
        BootImage {
            facts: self.facts.clone(),
            disk: DiskFile { file: self.folder.join(DISK), format: self.format },
            kernel: matches!(self.facts.start, Start::Kernel(_)).then(kernel),
            source: None,
            lease: None,
        }
    }
}

/// The serial number an image's disk has: as much of its digest as one can hold.
pub(crate) fn serial(digest: Digest) -> String {
    digest.hex()[..20].to_owned()
}

/// The bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// It cannot be written where it is to be.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that belongs into it cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it was when the plan was made.
    #[error("{} has changed since the plan was made ({was} then, {now} now)", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its digest then, for people.
        was: String,
        /// Its digest now.
        now: String,
    },
}

impl BundleError {
    /// The same of the archive that was being written.
    fn at(self, archive: &Path) -> Self {
        match self {
            Self::Write { source, .. } => Self::Write { path: archive.to_owned(), source },
            error => error,
        }
    }
}

/// Writes the archive.
pub(crate) fn write(
    archive: &Path,
    program: &Path,
    plan: &Plan,
    images: &BTreeMap<String, BootImage>,
) -> Result<(), BundleError> {
    let unwritable = |source| BundleError::Write { path: archive.to_owned(), source };
    let file = File::create(archive).map_err(unwritable)?;
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, file));
    let mut add = |from: &Path, name: &str| {
        let mut file = File::open(from).map_err(|source| BundleError::File { path: from.to_owned(), source })?;
        tar.append_file(name, &mut file).map_err(unwritable)
    };
    add(program, PROGRAM)?;
    for image in images.values() {
        if let Some(Kernel { kernel, initrd }) = &image.kernel {
            let folder = kernels(image.facts.digest);
            add(kernel, &format!("{folder}/vmlinuz"))?;
            add(initrd, &format!("{folder}/initrd.img"))?;
        }
    }
    write_plan(&mut tar, plan, images).map_err(|error| error.at(archive))?;
    tar.into_inner().and_then(|buffer| buffer.into_inner().map_err(|error| error.into_error())).map_err(unwritable)?;
    Ok(())
}

/// Writes what is different in each run: the plan, and what it sends to guests.
pub(crate) fn write_plan<W: io::Write>(
    tar: &mut tar::Builder<W>,
    plan: &Plan,
    images: &BTreeMap<String, BootImage>,
) -> Result<(), BundleError> {
    let unwritable = |source| BundleError::Write { path: PathBuf::from(JOB), source };
    let mut add = |from: &Path, name: &str| {
        let mut file = File::open(from).map_err(|source| BundleError::File { path: from.to_owned(), source })?;
        tar.append_file(name, &mut file).map_err(unwritable)
    };
    let mut plan = plan.clone();
    let mut sent = std::collections::HashSet::new();
    let artifacts = plan.package.iter_mut().flat_map(|package| &mut package.artifacts);
    let artifacts = artifacts.map(|artifact| (&mut artifact.path, artifact.digest));
    let files = plan.cells.iter_mut().flat_map(|cell| &mut cell.files).map(|file| (&mut file.path, file.digest));
    for (path, digest) in artifacts.chain(files) {
        let name = format!("files/{}", digest.hex());
        if sent.insert(digest) {
            check(path, digest)?;
            add(path, &name)?;
        }
        *path = name.into();
    }
    let images = images.iter().map(|(name, image)| (name.clone(), image.facts.clone())).collect();
    let text = serde_json::to_vec(&JobBundle { plan, images }).map_err(|error| unwritable(error.into()))?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, JOB, text.as_slice()).map_err(unwritable)
}

/// A file of the plan must be what it was when the plan was made: the guest would find out, but could not name it.
fn check(path: &Path, digest: Digest) -> Result<(), BundleError> {
    let now = Digest::of_file(path).map_err(|source| BundleError::File { path: path.to_owned(), source })?;
    if now == digest {
        return Ok(());
    }
    Err(BundleError::Changed { path: path.to_owned(), was: digest.short(), now: now.short() })
}

impl JobBundle {
    /// Reads the bundle unpacked in `folder`; its paths are made absolute.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut bundle: Self = serde_json::from_slice(&std::fs::read(folder.join(JOB))?)?;
        let artifacts = bundle.plan.package.iter_mut().flat_map(|package| &mut package.artifacts);
        artifacts.for_each(|artifact| artifact.path = folder.join(&artifact.path));
        let files = bundle.plan.cells.iter_mut().flat_map(|cell| &mut cell.files);
        files.for_each(|file| file.path = folder.join(&file.path));
        Ok(bundle)
    }
}

/// An image as guests are booted from it here, where the bundle is unpacked in `folder`.
pub(crate) fn here(folder: &Path, facts: &ImageFacts) -> io::Result<BootImage> {
    let kernels = folder.join(kernels(facts.digest));
    let kernel = || Kernel { kernel: kernels.join("vmlinuz"), initrd: kernels.join("initrd.img") };
    let disk = block_device(Path::new("/sys/class/block"), &serial(facts.digest))?;
    Ok(BootImage {
        facts: facts.clone(),
        disk: DiskFile { file: disk, format: DiskFormat::Raw },
        kernel: matches!(facts.start, Start::Kernel(_)).then(kernel),
        source: None,
        lease: None,
    })
}

/// Where an image's kernel is in the bundle.
fn kernels(digest: Digest) -> String {
    format!("kernels/{}", serial(digest))
}

/// The block device with this serial number, among those the kernel lists in `class`.
fn block_device(class: &Path, serial: &str) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(class)? {
        let entry = entry?;
        // Disks whose kind has no serial number have no such file.
        let found = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim_end_matches(['\n', '\0']) == serial {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no disk with the serial number {serial} is attached")))
}

#[cfg(test)]
mod tests {
    use matrix::{Arch, ByteSize, PackageFamily};

    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial_number_and_by_nothing_else() {
        let class = tempfile::tempdir().unwrap();
        for (name, serial) in [("vda", "root"), ("vdb", "0123456789abcdef0123"), ("loop0", "")] {
            std::fs::create_dir(class.path().join(name)).unwrap();
            if !serial.is_empty() {
                std::fs::write(class.path().join(name).join("serial"), serial).unwrap();
            }
        }
        let find = |serial| block_device(class.path(), serial);
        assert_eq!(find("0123456789abcdef0123").unwrap(), Path::new("/dev/vdb"));
        assert_eq!(find("0123").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_read_is_what_was_written_and_equal_files_go_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "same"), ("two", "same"), ("smoke.sh", "true"), ("kernel", "k"), ("initrd", "i")] {
            std::fs::write(path(name), text).unwrap();
        }
        let matrix =
            "images = ['debian-12-minimal']\n[[suite]]\nname = 's'\nrun = 'smoke.sh'\nfiles = ['one', 'two']\n";
        std::fs::write(path("m.toml"), matrix).unwrap();
        let plan = matrix::load(&path("m.toml"), &["debian-12-minimal"]).unwrap().plan;
        let image = BootImage {
            facts: ImageFacts {
                digest: Digest::of(b"image"),
                arch: Arch::here(),
                family: Some(PackageFamily::Deb),
                bytes: ByteSize::from_mib(1),
                start: Start::Kernel("root=/dev/vda".into()),
                login_user: "root".into(),
            },
            disk: DiskFile { file: path("disk"), format: DiskFormat::Qcow2 },
            kernel: Some(Kernel { kernel: path("kernel"), initrd: path("initrd") }),
            source: None,
            lease: None,
        };
        let facts = image.facts.clone();
        let images = BTreeMap::from([("debian-12-minimal".to_owned(), image)]);
        write(&path("job.tar"), &path("smoke.sh"), &plan, &images).unwrap();

        let unpacked = path("unpacked");
        tar::Archive::new(File::open(path("job.tar")).unwrap()).unpack(&unpacked).unwrap();
        assert_eq!(std::fs::read_dir(unpacked.join("files")).unwrap().count(), 1);
        let bundle = JobBundle::read(&unpacked).unwrap();
        assert_eq!(bundle.plan.digest, plan.digest, "where files lie decides nothing");
        for file in &bundle.plan.cells[0].files {
            assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "same");
        }
        std::fs::write(path("two"), "other").unwrap();
        std::fs::write(path("one"), "other").unwrap();
        let changed = write(&path("again.tar"), &path("smoke.sh"), &plan, &images).unwrap_err();
        assert!(matches!(&changed, BundleError::Changed { path, .. } if path.ends_with("one")), "{changed}");
        assert_eq!(bundle.images["debian-12-minimal"], facts);
        let initrd = unpacked.join(kernels(facts.digest)).join("initrd.img");
        assert_eq!(std::fs::read_to_string(initrd).unwrap(), "i");
    }
}
