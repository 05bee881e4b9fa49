//! Disks that somebody else made: used as they lie, or taken out of what they were packed in.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use matrix::{Checksum, Digest, Firmware};
use sha2::Digest as _;

use crate::{
    Control, Entry,
    disk::{self, DiskFormat, Kind},
    entry::{Origin, Published},
    error::{Failure, PrepareErrorKind},
    fetch::{self, Fetched, Limits, Want, WrongChecksum},
    prepared::{Made, MadeFile, Start},
    site::Site,
    space,
};

/// Most files an appliance is looked through for; real ones have some ten.
const MOST_MEMBERS: usize = 1000;

/// Makes an image of such a disk; `part` keeps a download that is interrupted.
pub(crate) fn make(
    entry: &Entry,
    (file, firmware): (&Published, Option<Firmware>),
    site: &Site,
    part: &Path,
    control: &Control<'_>,
) -> Result<Made, Failure> {
    let (disk, format) = match &file.origin {
        Origin::Path(path) => {
            let digest = file.digest.map(|stated| compared(path, stated, control)).transpose()?.flatten();
            in_file(path, digest, site, control)?
        }
        Origin::Urls(urls) => downloaded(urls, file.digest, site, part, control)?,
    };
    let place = disk.at.clone().unwrap_or_else(|| site.image().join(&disk.name));
    let seen = disk::see(&place, format, entry.arch, firmware, control.cancel)?;
    Ok(Made { files: vec![disk], format, bytes: seen.bytes, start: Start::Firmware(seen.firmware) })
}

/// Downloads it into the site; what is not a disk there does not stay.
fn downloaded(
    urls: &[String],
    digest: Option<Checksum>,
    site: &Site,
    part: &Path,
    control: &Control<'_>,
) -> Result<(MadeFile, DiskFormat), Failure> {
    let image = site.image();
    let (file, content) = download(urls, digest, site, part, control)?;
    let (disk, format) = in_file(&file, Some(content), site, control)?;
    if disk.at.is_none() {
        fs::remove_file(&file).map_err(PrepareErrorKind::io("remove", &file))?;
        return Ok((disk, format));
    }
    let to = image.join(&disk.name);
    fs::rename(&file, &to).map_err(PrepareErrorKind::io("rename", &file))?;
    Ok((MadeFile { at: None, ..disk }, format))
}

/// Downloads what has this digest into the site, unpacked; with the digest of what that is.
pub(crate) fn download(
    urls: &[String],
    digest: Option<Checksum>,
    site: &Site,
    part: &Path,
    control: &Control<'_>,
) -> Result<(PathBuf, Digest), Failure> {
    if digest.is_none() {
        return Err(PrepareErrorKind::Unpinned { url: urls.first().cloned().unwrap_or_default() }.into());
    }
    let want = Want { urls: urls.to_vec(), digest, bytes: None };
    let fetched = fetch::fetch(&want, &site.image(), part, &Limits::default(), control);
    let Fetched { file, content, .. } = fetched.map_err(PrepareErrorKind::from)?;
    Ok((file, content))
}

/// Compares a file with the digest that was stated of it; its SHA-256, if that is what was computed.
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

/// The disk in a file: the file itself if it is one. `digest`: of the file, if it is known.
fn in_file(
    path: &Path,
    digest: Option<Digest>,
    site: &Site,
    control: &Control<'_>,
) -> Result<(MadeFile, DiskFormat), Failure> {
    let refused = |why: &str| Failure::from(PrepareErrorKind::Refused { path: path.to_owned(), why: why.to_owned() });
    match disk::kind(path).map_err(PrepareErrorKind::io("read", path))? {
        Kind::Disk(format) => {
            let path = path.canonicalize().map_err(PrepareErrorKind::io("find", path))?;
            Ok((MadeFile { name: disk_name(format), at: Some(path), digest }, format))
        }
        Kind::Ova => unpack_appliance(path, site, control),
        Kind::Descriptor => Err(refused("it only says in which other files a disk is: name one that holds all of it")),
        Kind::Compressed => Err(refused("it is compressed: unpack it first")),
        Kind::Unknown => {
            Err(refused("it is no disk: neither qcow2, vmdk, vhdx, vdi nor ova, and not bootable as it is"))
        }
    }
}

/// What the disk of this format is called in the store.
pub(crate) fn disk_name(format: DiskFormat) -> String {
    format!("disk.{}", format.name())
}

/// Takes the one disk out of an appliance (an `.ova`, which is a tar archive).
fn unpack_appliance(path: &Path, site: &Site, control: &Control<'_>) -> Result<(MadeFile, DiskFormat), Failure> {
    let refused = |why: String| Failure::from(PrepareErrorKind::Refused { path: path.to_owned(), why });
    let broken = |error: io::Error| refused(format!("its archive is broken: {error}"));
    (control.progress)("taking the disk out of the appliance");
    let image = site.image();
    let bytes = fs::metadata(path).map_err(PrepareErrorKind::io("look at", path))?.len();
    space::require(&[(&image, bytes)]).map_err(PrepareErrorKind::from)?;
    let file = File::open(path).map_err(PrepareErrorKind::io("open", path))?;
    let mut archive = tar::Archive::new(file);
    let mut found: Option<(PathBuf, String)> = None;
    let mut descriptor = false;
    for (index, member) in archive.entries().map_err(broken)?.enumerate() {
        if index >= MOST_MEMBERS {
            return Err(refused(format!("it has more than {MOST_MEMBERS} files: it is no appliance")));
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

/// Copies all of it, unless cancelled.
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

/// The digest of a file, of the kind that was stated.
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
