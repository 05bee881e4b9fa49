//! Disks that others made: used where they lie, or unpacked.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use matrix::{Checksum, Digest, Firmware};
use sha2::Digest as _;

use crate::{
    Control, Entry,
    build_dir::BuildDir,
    disk::{self, DiskFormat, Kind},
    entry::{Origin, Published},
    error::{Failure, PrepareErrorKind},
    fetch::{self, Fetched, Limits, Want, WrongChecksum},
    prepared::{Made, MadeFile, Start},
    space, tool,
};

/// Maximum number of files in an appliance; real ones have about ten.
const MAX_MEMBERS: usize = 1000;

/// Makes an image of such a disk; `part` keeps an interrupted download.
pub(crate) fn make(
    entry: &Entry,
    (file, firmware): (&Published, Option<Firmware>),
    build_dir: &BuildDir,
    part: &Path,
    control: &Control<'_>,
) -> Result<Made, Failure> {
    if let Some(tool) = tool::missing(&["qemu-img"]) {
        return Err(PrepareErrorKind::ToolMissing { tool: tool.to_owned() }.into());
    }
    let (disk, format, from) = match &file.origin {
        Origin::Path(path) => {
            let path = path.canonicalize().map_err(PrepareErrorKind::io("find", path))?;
            let before = stamp(&path)?;
            let digest = file.digest.map(|stated| compared(&path, stated, control)).transpose()?.flatten();
            let (disk, format) = in_file(&path, digest, build_dir, control)?;
            (disk, format, Some((path, before)))
        }
        Origin::Urls(urls) => {
            let (disk, format) = downloaded(urls, file.digest, build_dir, part, control)?;
            (disk, format, None)
        }
    };
    let place = disk.at.clone().unwrap_or_else(|| build_dir.image().join(&disk.name));
    let seen = disk::see(&place, format, entry.arch, firmware, control.cancel)?;
    let mut files = vec![disk];
    if let Some((path, before)) = from {
        // Digests an unpacked file, so that another one in its place makes another image.
        if files.iter().all(|file| file.at.is_none()) {
            files.push(MadeFile { name: "appliance".to_owned(), at: Some(path.clone()), digest: None });
        }
        if stamp(&path)? != before {
            let why = "it changed while it was read: try again when it is complete".to_owned();
            return Err(PrepareErrorKind::Refused { path, why }.into());
        }
    }
    Ok(Made { files, format, bytes: seen.bytes, start: Start::Firmware(seen.firmware) })
}

/// Downloads it into the build directory; a file that is not a disk is removed.
fn downloaded(
    urls: &[String],
    digest: Option<Checksum>,
    build_dir: &BuildDir,
    part: &Path,
    control: &Control<'_>,
) -> Result<(MadeFile, DiskFormat), Failure> {
    let image = build_dir.image();
    let (file, content) = download(urls, digest, build_dir, part, control)?;
    let (disk, format) = in_file(&file, Some(content), build_dir, control)?;
    if disk.at.is_none() {
        fs::remove_file(&file).map_err(PrepareErrorKind::io("remove", &file))?;
        return Ok((disk, format));
    }
    let to = image.join(&disk.name);
    fs::rename(&file, &to).map_err(PrepareErrorKind::io("rename", &file))?;
    Ok((MadeFile { at: None, ..disk }, format))
}

/// Downloads the file with this digest into the build directory, unpacked; returns its path and digest.
pub(crate) fn download(
    urls: &[String],
    digest: Option<Checksum>,
    build_dir: &BuildDir,
    part: &Path,
    control: &Control<'_>,
) -> Result<(PathBuf, Digest), Failure> {
    if digest.is_none() {
        return Err(PrepareErrorKind::Unpinned { url: urls.first().cloned().unwrap_or_default() }.into());
    }
    let want = Want { urls: urls.to_vec(), digest, bytes: None };
    let fetched = fetch::fetch(&want, &build_dir.image(), part, &Limits::default(), control);
    let Fetched { file, content, .. } = fetched.map_err(PrepareErrorKind::from)?;
    Ok((file, content))
}

/// A fingerprint that changes with the file.
pub(crate) fn stamp(path: &Path) -> Result<(u64, i64, i64, u64), PrepareErrorKind> {
    let found = fs::metadata(path).map_err(PrepareErrorKind::io("inspect", path))?;
    Ok((found.len(), found.mtime(), found.mtime_nsec(), found.ino()))
}

/// Compares a file with its stated digest; returns its SHA-256, if that was computed.
pub(crate) fn compared(path: &Path, stated: Checksum, control: &Control<'_>) -> Result<Option<Digest>, Failure> {
    (control.progress)("comparing it with its digest");
    match checksum(path, stated, control.cancel)? {
        found if found != stated => {
            let digests = Box::new(WrongChecksum { expected: stated, found });
            Err(PrepareErrorKind::WrongDigest { what: path.display().to_string(), digests }.into())
        }
        Checksum::Sha256(digest) => Ok(Some(digest)),
        Checksum::Sha512(_) => Ok(None),
    }
}

/// The disk in a file: the file itself if it is one. `digest`: of the file, if known.
fn in_file(
    path: &Path,
    digest: Option<Digest>,
    build_dir: &BuildDir,
    control: &Control<'_>,
) -> Result<(MadeFile, DiskFormat), Failure> {
    let refused = |why: &str| Failure::from(PrepareErrorKind::Refused { path: path.to_owned(), why: why.to_owned() });
    match disk::kind(path).map_err(PrepareErrorKind::io("read", path))? {
        Kind::Disk(format) => {
            let path = path.canonicalize().map_err(PrepareErrorKind::io("find", path))?;
            Ok((MadeFile { name: disk_name(format), at: Some(path), digest }, format))
        }
        Kind::Ova => unpack_appliance(path, build_dir, control),
        Kind::Descriptor => {
            Err(refused("it only describes a disk in other files: name one file that contains all of it"))
        }
        Kind::Compressed => Err(refused("it is compressed: unpack it first, or is it a tarball for `rootfs`?")),
        Kind::Unknown => {
            Err(refused("it is not a disk: neither qcow2, vmdk, vhdx, vdi nor ova, and not bootable as raw"))
        }
    }
}

/// File name of a disk of this format in the store.
pub(crate) fn disk_name(format: DiskFormat) -> String {
    format!("disk.{}", format.name())
}

/// Unpacks the one disk of an appliance (an `.ova`, which is a tar archive).
fn unpack_appliance(
    path: &Path,
    build_dir: &BuildDir,
    control: &Control<'_>,
) -> Result<(MadeFile, DiskFormat), Failure> {
    let refused = |why: String| Failure::from(PrepareErrorKind::Refused { path: path.to_owned(), why });
    let broken = |error: io::Error| refused(format!("its archive is damaged: {error}"));
    (control.progress)("taking the disk out of the appliance");
    let image = build_dir.image();
    let bytes = fs::metadata(path).map_err(PrepareErrorKind::io("inspect", path))?.len();
    space::require(&[(&image, bytes)]).map_err(PrepareErrorKind::from)?;
    let file = File::open(path).map_err(PrepareErrorKind::io("open", path))?;
    let mut archive = tar::Archive::new(file);
    let mut found: Option<(PathBuf, String)> = None;
    let mut descriptor = false;
    for (index, member) in archive.entries().map_err(broken)?.enumerate() {
        if index >= MAX_MEMBERS {
            return Err(refused(format!("it is not an appliance: it has more than {MAX_MEMBERS} files")));
        }
        let mut member = member.map_err(broken)?;
        let name = member.path().map_err(broken)?.display().to_string();
        let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        descriptor |= extension == "ovf";
        if !member.header().entry_type().is_file()
            || !["vmdk", "vhdx", "vdi", "qcow2", "raw", "img"].contains(&extension.as_str())
        {
            continue;
        }
        if let Some((_, first)) = &found {
            return Err(refused(format!("it has two disks, `{first}` and `{name}`: guests have one")));
        }
        let to = image.join("unpacked");
        let mut out = File::create(&to).map_err(PrepareErrorKind::io("create", &to))?;
        copy(&mut member, &mut out, control.cancel, broken, PrepareErrorKind::io("write", &to))?;
        found = Some((to, name));
    }
    let Some((unpacked, name)) = found.filter(|_| descriptor) else {
        return Err(refused("it is a tar archive, but not an appliance with a descriptor (.ovf) and a disk".into()));
    };
    let Kind::Disk(format) = disk::kind(&unpacked).map_err(PrepareErrorKind::io("read", &unpacked))? else {
        return Err(refused(format!("`{name}` in it is not a disk")));
    };
    let to = image.join(disk_name(format));
    fs::rename(&unpacked, &to).map_err(PrepareErrorKind::io("rename", &unpacked))?;
    Ok((MadeFile { name: disk_name(format), at: None, digest: None }, format))
}

/// Copies everything, unless cancelled.
pub(crate) fn copy(
    from: &mut dyn io::Read,
    to: &mut dyn io::Write,
    cancel: &AtomicBool,
    unreadable: impl FnOnce(io::Error) -> Failure,
    unwritable: impl FnOnce(io::Error) -> PrepareErrorKind,
) -> Result<(), Failure> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(PrepareErrorKind::Cancelled.into());
        }
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(unreadable(error)),
        };
        if let Err(error) = to.write_all(&buffer[..read]) {
            return Err(unwritable(error).into());
        }
    }
}

/// The digest of a file, with the algorithm of the stated one.
pub(crate) fn checksum(path: &Path, like: Checksum, cancel: &AtomicBool) -> Result<Checksum, Failure> {
    let mut file = File::open(path).map_err(PrepareErrorKind::io("open", path))?;
    let (mut short, mut long) = (sha2::Sha256::new(), sha2::Sha512::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(PrepareErrorKind::Cancelled.into());
        }
        let read = file.read(&mut buffer).map_err(PrepareErrorKind::io("read", path))?;
        match (read, like) {
            (0, Checksum::Sha256(_)) => return Ok(Digest::from_bytes(short.finalize().into()).into()),
            (0, Checksum::Sha512(_)) => return Ok(Checksum::Sha512(long.finalize().into())),
            (read, Checksum::Sha256(_)) => short.update(&buffer[..read]),
            (read, Checksum::Sha512(_)) => long.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use matrix::Arch;

    use super::*;
    use crate::{PrepareError, PreparedImage, Source, Store, Upstream, alone::alone};

    /// A disk that seems to boot by BIOS.
    fn disk(fill: u8) -> Vec<u8> {
        let mut disk = vec![fill; 1 << 20];
        disk[510..512].copy_from_slice(b"\x55\xaa");
        disk
    }

    fn prepare(store: &Store, path: &Path, digest: Option<Checksum>) -> Result<PreparedImage, PrepareError> {
        let file = Published { origin: Origin::Path(path.to_owned()), digest };
        let entry = Entry {
            name: "own".into(),
            title: "own".into(),
            arch: Arch::X86_64,
            family: None,
            login_user: "root".into(),
            end_of_life: None,
            source: Source::Disk { file, firmware: None },
            upstream: Upstream::default(),
        };
        store.prepare(&entry, &Control { refresh: false, cancel: &AtomicBool::new(false), progress: &|_| {} })
    }

    fn appliance(path: &Path, disks: &[(&str, &[u8])]) {
        let mut archive = tar::Builder::new(File::create(path).expect("file"));
        for (name, content) in [("box.ovf", b"<Envelope/>".as_slice())].iter().chain(disks) {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, *content).expect("member");
        }
        archive.finish().expect("archive");
    }

    #[test]
    fn a_disk_on_this_machine_is_used_where_it_lies_until_it_changes() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let (store, path) = (Store::open(&folder.path().join("store")).expect("store"), folder.path().join("a.raw"));
        fs::write(&path, disk(1)).expect("file");
        let first = prepare(&store, &path, None).expect("image");
        assert_eq!((first.disk.as_path(), first.cached), (path.canonicalize().expect("path").as_path(), false));
        assert!(prepare(&store, &path, None).expect("image").cached);
        fs::write(&path, disk(2)).expect("file");
        let second = prepare(&store, &path, None).expect("image");
        assert!(!second.cached && second.digest != first.digest);

        let stated = Checksum::from(Digest::of(&disk(2)));
        assert!(prepare(&store, &path, Some(stated)).is_ok());
        fs::write(&path, disk(3)).expect("file");
        let error = prepare(&store, &path, Some(stated)).expect_err("another file").to_string();
        assert!(error.contains(&stated.hex()) && error.contains(&Digest::of(&disk(3)).hex()), "{error}");
    }

    #[test]
    fn the_disk_in_an_appliance_is_taken_out_again_when_the_appliance_changes() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let (store, path) = (Store::open(&folder.path().join("store")).expect("store"), folder.path().join("a.ova"));
        appliance(&path, &[("box.raw", &disk(1))]);
        let first = prepare(&store, &path, None).expect("image");
        assert_eq!(fs::read(&first.disk).expect("disk"), disk(1));
        appliance(&path, &[("box.raw", &disk(2))]);
        let second = prepare(&store, &path, None).expect("image");
        assert_eq!(fs::read(&second.disk).expect("disk"), disk(2));

        let refused = |disks: &[(&str, &[u8])]| {
            appliance(&path, disks);
            prepare(&store, &path, None).expect_err("no appliance").to_string()
        };
        assert!(refused(&[]).contains("not an appliance"));
        assert!(refused(&[("a.raw", &disk(1)), ("b.raw", &disk(2))]).contains("two disks"));
        assert!(refused(&[("box.vmdk", b"<html>not found</html>")]).contains("not a disk"));
    }

    #[test]
    fn what_is_no_disk_is_refused_with_what_it_is() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let (store, path) = (Store::open(&folder.path().join("store")).expect("store"), folder.path().join("a"));
        let said = |content: &[u8]| {
            fs::write(&path, content).expect("file");
            prepare(&store, &path, None).expect_err("no disk").to_string()
        };
        assert!(said(b"<!DOCTYPE html><html>").contains("it is not a disk"));
        assert!(said(b"# Disk DescriptorFile\nRW 8 FLAT \"/etc/shadow\" 0\n").contains("a disk in other files"));
        assert!(said(b"\xfd7zXZ\0 and so on").contains("unpack it first"));
        // An overlay: its content is in another file.
        let mut overlay = b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x02\0".to_vec();
        overlay.resize(1 << 16, 0);
        assert!(said(&overlay).contains("backing file"));
    }
}
