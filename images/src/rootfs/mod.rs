//! Root file systems from tarballs: systems without a kernel, such as minimal root file systems of a distribution and exported
//! containers.
//!
//! ```text
//! tarball   reads it into a tree, whatever it contains     (packed: however it is compressed)
//! tree      its content as data: nothing of it becomes a file of this machine
//! disk      the file system of that tree    (read_back: compared with it)
//! boot_files kernel, drivers, SSH server, first program    (elf: which libraries; cpio: the initial RAM disk)
//! ```

pub(crate) mod boot_files;
mod cpio;
mod disk;
mod elf;
mod libss;
mod packed;
mod read_back;
mod tarball;
mod tree;

use std::{
    fs::{self, DirBuilder, File},
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

use matrix::{Arch, Checksum};

use crate::{
    Control, Entry, PreparedImage,
    bootstrap::{blame_full_disk, convert},
    build_dir::BuildDir,
    disk::DiskFormat,
    error::{Failure, PrepareErrorKind},
    prepared::{DISK, INITRD, KERNEL, Made, MadeFile, Start},
    published::{compared, stamp},
    space, tool,
};

/// Path of the shell on every system that has one.
const SHELL: &str = "/bin/sh";
/// Room for unpacking the donor image, in bytes.
const DONOR_BYTES: u64 = 1 << 30;

/// Fails if guests of root file systems cannot be started on this architecture.
pub(crate) fn possible(arch: Arch) -> Result<(), PrepareErrorKind> {
    if arch == Arch::here() {
        return Ok(());
    }
    Err(PrepareErrorKind::Incomplete {
        what: format!("kernel for a root file system of {arch}: only {} has one", Arch::here()),
    })
}

/// Makes an image of the tarball at `path`, verified against the `stated` digest, with boot files of the image `donor`. `stays`:
/// the tarball is a user's file that stays there while the image is used.
pub(crate) fn make(
    entry: &Entry,
    (path, stays): (&Path, bool),
    stated: Option<Checksum>,
    donor: &PreparedImage,
    build_dir: &BuildDir,
    control: &Control<'_>,
) -> Result<Made, Failure> {
    if let Some(tool) = tool::missing(&["mke2fs", "debugfs", "e2fsck", "qemu-img"]) {
        return Err(PrepareErrorKind::ToolMissing { tool: tool.to_owned() }.into());
    }
    let Some(kernel) = &donor.kernel else {
        return Err(PrepareErrorKind::Incomplete {
            what: format!("boot files for root file systems: {} has no kernel", donor.name),
        }
        .into());
    };
    let path = &path.canonicalize().map_err(PrepareErrorKind::io("find", path))?;
    let before = stamp(path)?;
    if let Some(stated) = stated {
        compared(path, stated, control)?;
    }
    let (image, work) = (build_dir.image(), build_dir.folder().join("rootfs"));
    DirBuilder::new().mode(0o700).create(&work).map_err(PrepareErrorKind::io("create", &work))?;
    space::require(&[(&work, DONOR_BYTES)]).map_err(PrepareErrorKind::from)?;
    let made = || {
        let blobs = work.join("blobs");
        fs::create_dir(&blobs).map_err(PrepareErrorKind::io("create", &blobs))?;
        (control.progress)("reading the tarball");
        let unpacked = tarball::read(path, &blobs, tarball::LIMITS, control.cancel)?;
        check_system(entry, path, &unpacked)?;
        (control.progress)("making a file system of it");
        let bytes = disk::make(&unpacked, &image, &work, control)?;
        fs::remove_dir_all(&blobs).map_err(PrepareErrorKind::io("remove", &blobs))?;
        convert(&image, control)?;
        (control.progress)("taking a kernel and an SSH server out of another image");
        let initrd = boot_files::make(donor, &work, control)?;
        let to = image.join(INITRD);
        fs::write(&to, initrd).map_err(PrepareErrorKind::io("write", &to))?;
        fs::copy(&kernel.kernel, image.join(KERNEL)).map_err(PrepareErrorKind::io("copy", &kernel.kernel))?;
        Ok(bytes)
    };
    let bytes = made().map_err(|failure| blame_full_disk(failure, &[&work, &image]))?;
    if stamp(path)? != before {
        let why = "it changed while it was read: try again when it is complete".to_owned();
        return Err(PrepareErrorKind::Refused { path: path.clone(), why }.into());
    }
    let ours = |name: &str| MadeFile { name: name.to_owned(), at: None, digest: None };
    let mut files: Vec<MadeFile> = [DISK, KERNEL, INITRD].map(ours).into();
    // Part of the image, so that another tarball in its place makes another image.
    files.extend(stays.then(|| MadeFile { name: "rootfs".to_owned(), at: Some(path.clone()), digest: None }));
    Ok(Made { files, format: DiskFormat::Qcow2, bytes, start: Start::Kernel(boot_files::CMDLINE.to_owned()) })
}

/// Checks that guests of it can run anything: they need a shell for their CPU.
fn check_system(entry: &Entry, path: &Path, unpacked: &tarball::Unpacked) -> Result<(), PrepareErrorKind> {
    let refused = |why: String| PrepareErrorKind::Refused { path: path.to_owned(), why };
    let Some(shell) = unpacked.tree.file(SHELL) else {
        return Err(refused(format!(
            "there is no {SHELL} in it, and every test needs one: it must be a whole system, at its root (of a container, what \
             `export` writes, not `save`)"
        )));
    };
    let place = unpacked.blob(shell);
    let mut head = Vec::new();
    let read = File::open(&place).and_then(|file| file.take(64).read_to_end(&mut head));
    read.map_err(PrepareErrorKind::io("read", &place))?;
    match elf::arch(&head) {
        Some(arch) if arch == entry.arch => Ok(()),
        Some(arch) => Err(refused(format!("it is a system for {arch}, expected {}", entry.arch))),
        None => Err(refused(format!("its {SHELL} is not a program for {}", entry.arch))),
    }
}
