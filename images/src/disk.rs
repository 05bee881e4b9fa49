//! Disks that others made: their format, their size as a guest sees it, and what starts them.
//!
//! Such a file is untrusted: QEMU gets the format that is detected here and never guesses, and a disk whose content lies (or
//! claims to lie) in other files is refused before QEMU opens it.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    process::Stdio,
    sync::atomic::AtomicBool,
    time::Duration,
};

use matrix::{Arch, Firmware};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Failure, PrepareErrorKind},
    tool,
};

/// How a disk's content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// QEMU's own format.
    Qcow2,
    /// Raw.
    Raw,
    /// VMware's, in one file.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// VirtualBox's.
    Vdi,
}

impl DiskFormat {
    /// QEMU's name of it; also the usual file name extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A disk.
    Disk(DiskFormat),
    /// An archive with a disk in it.
    Ova,
    /// A descriptor that refers to the files of a disk.
    Descriptor,
    /// Something compressed.
    Compressed,
    /// Anything else.
    Unknown,
}

/// What a guest's start needs to know of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Size as a guest sees it, in bytes.
    pub(crate) bytes: u64,
    /// What starts it.
    pub(crate) firmware: Firmware,
}

/// Bytes at the beginning of a file that identify its format.
const HEAD: usize = 1024;
/// Bytes of a disk that contain its partition table, with sectors of 512 bytes.
const TABLE: usize = 34 * 512;
const INSPECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum length of the output of `qemu-img info`, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Maximum size of a disk, in bytes; the largest published images have some 100 GiB.
const MAX_DISK_BYTES: u64 = 16 << 40;
/// Maximum length of a descriptor inside a vmdk, in bytes.
const DESCRIPTOR: u64 = 1 << 20;

/// The kind of this file, from its first bytes.
pub(crate) fn kind(path: &Path) -> io::Result<Kind> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(kind_of(&head))
}

fn kind_of(head: &[u8]) -> Kind {
    let at = |offset: usize, bytes: &[u8]| head.get(offset..offset + bytes.len()) == Some(bytes);
    let any = |all: &[&[u8]]| all.iter().any(|bytes| at(0, bytes));
    if at(0, b"QFI\xfb") {
        Kind::Disk(DiskFormat::Qcow2)
    } else if at(0, b"KDMV") {
        Kind::Disk(DiskFormat::Vmdk)
    } else if at(0, b"vhdxfile") {
        Kind::Disk(DiskFormat::Vhdx)
    } else if at(0x40, &0xbeda_107f_u32.to_le_bytes()) {
        Kind::Disk(DiskFormat::Vdi)
    } else if at(0, b"# Disk DescriptorFile") || at(0, b"COWD") {
        Kind::Descriptor
    } else if any(&[b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"BZh"]) {
        Kind::Compressed
    } else if at(257, b"ustar") {
        Kind::Ova
    } else if at(510, b"\x55\xaa") {
        Kind::Disk(DiskFormat::Raw)
    } else {
        Kind::Unknown
    }
}

/// Inspects a disk of this format; `wanted`: the firmware that starts it, if stated.
pub(crate) fn see(
    path: &Path,
    format: DiskFormat,
    arch: Arch,
    wanted: Option<Firmware>,
    cancel: &AtomicBool,
) -> Result<Seen, Failure> {
    let refused = |why: String| PrepareErrorKind::Refused { path: path.to_owned(), why };
    alone(path, format).map_err(PrepareErrorKind::io("read", path))?.map_err(refused)?;
    let bytes = size(path, format, cancel)?;
    if bytes == 0 || bytes > MAX_DISK_BYTES {
        return Err(refused(format!("invalid disk size: {bytes} bytes")).into());
    }
    let table = table(path, format, cancel)?;
    let firmware = match (wanted, arch) {
        (Some(firmware), _) => firmware,
        (None, Arch::Aarch64) => Firmware::Uefi,
        (None, Arch::X86_64) => made_for(&table).ok_or_else(|| {
            refused("not bootable: its first sector has no boot code, and it has no EFI system partition".into())
        })?,
    };
    Ok(Seen { bytes, firmware })
}

/// Checks that the whole disk is in this file; the inner error says why not. Runs before QEMU sees it.
fn alone(path: &Path, format: DiskFormat) -> io::Result<Result<(), String>> {
    let mut file = File::open(path)?;
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let other = |what: &str| Err(format!("{what}: only disks in a single file are supported"));
    Ok(match format {
        DiskFormat::Qcow2 => {
            // docs/interop/qcow2.rst of QEMU: all numbers are big-endian.
            let long = |offset: usize| number(&head, offset, 8, true);
            let version = number(&head, 4, 4, true);
            if !(2..=3).contains(&version) {
                return Ok(Err(format!("unsupported qcow2 version {version}: supported are 2 and 3")));
            }
            if long(8) != 0 {
                return Ok(other("it is an overlay of another file (its backing file)"));
            }
            if number(&head, 32, 4, true) != 0 {
                return Ok(Err("it is encrypted".into()));
            }
            if version == 3 && long(72) & 0b100 != 0 {
                return Ok(other("its content is in another file (its data file)"));
            }
            if version == 3 && long(72) & 0b1 != 0 {
                return Ok(Err(
                    "it was not closed when it was written (its dirty bit is set): `qemu-img check -r all` repairs it"
                        .into(),
                ));
            }
            Ok(())
        }
        DiskFormat::Vmdk => {
            // The header of sparse extents (VMware, Virtual Disk Format 5.0): little-endian, sectors of 512 bytes.
            if number(&head, 12, 8, false) == 0 {
                return Ok(other("it is a descriptor of other files"));
            }
            let (offset, length) = (number(&head, 28, 8, false), number(&head, 36, 8, false));
            let bytes = length.saturating_mul(512).min(DESCRIPTOR);
            file.seek(SeekFrom::Start(offset.saturating_mul(512).min(i64::MAX as u64)))?;
            let mut text = Vec::new();
            file.take(bytes).read_to_end(&mut text)?;
            let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
            let parent = text.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
                key.trim() == "parentfilenamehint"
                    || (key.trim() == "parentcid" && value.trim().trim_matches('\0') != "ffffffff")
            });
            let extents = text.lines().filter(|line| line.starts_with("rw ") || line.starts_with("rdonly ")).count();
            if parent {
                return Ok(other("it is a child of another disk"));
            }
            if extents > 1 {
                return Ok(other("its content is in several files"));
            }
            Ok(())
        }
        // QEMU opens no second file for these: it refuses disks that have a parent.
        DiskFormat::Vhdx | DiskFormat::Vdi | DiskFormat::Raw => Ok(()),
    })
}

/// The unsigned number of `bytes` bytes there; 0 if the head is shorter.
fn number(head: &[u8], offset: usize, bytes: usize, big_endian: bool) -> u64 {
    let Some(bytes) = head.get(offset..offset + bytes) else { return 0 };
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    virtual_size: u64,
    #[serde(default)]
    backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
}

/// Size as a guest sees it.
fn size(path: &Path, format: DiskFormat, cancel: &AtomicBool) -> Result<u64, Failure> {
    let refused = |why: String| Failure::from(PrepareErrorKind::Refused { path: path.to_owned(), why });
    let mut info = tool::command("qemu-img");
    info.args(["info", "--output=json", "-f", format.name(), "--"]).arg(path);
    let text = tool::output(info, "qemu-img", INSPECT_TIMEOUT, MAX_ANSWER_BYTES, cancel)?;
    let info: Info = serde_json::from_slice(&text).map_err(|error| refused(format!("`qemu-img info` says {error}")))?;
    if info.backing_filename.is_some() || info.encrypted {
        return Err(refused("it needs another file or a key".into()));
    }
    Ok(info.virtual_size)
}

/// The sectors with its partition table.
fn table(path: &Path, format: DiskFormat, cancel: &AtomicBool) -> Result<Vec<u8>, Failure> {
    let out = tempfile::NamedTempFile::new().map_err(PrepareErrorKind::io("create a file for", path))?;
    let mut dd = tool::command("qemu-img");
    let (mut from, mut to) = (std::ffi::OsString::from("if="), std::ffi::OsString::from("of="));
    from.push(path);
    to.push(out.path());
    dd.args(["dd", "-f", format.name(), "-O", "raw", "bs=512", &format!("count={}", TABLE / 512)]).arg(from).arg(to);
    dd.stdout(Stdio::null());
    tool::run(dd, "qemu-img", INSPECT_TIMEOUT, cancel, |_| {})?;
    std::fs::read(out.path()).map_err(|error| PrepareErrorKind::io("read", out.path())(error).into())
}

/// The EFI system partition's type, as stored in a GUID partition table (UEFI 2.10, 5.3.3).
const ESP: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// The firmware for a disk with this partition table. A BIOS starts faster, so it is chosen where both work.
fn made_for(table: &[u8]) -> Option<Firmware> {
    let boot_code = table.get(..440).is_some_and(|code| code.iter().any(|byte| *byte != 0));
    if boot_code {
        return Some(Firmware::Bios);
    }
    // Types of the four primary partitions of a master boot record: 0xef is an EFI system partition.
    let in_mbr = (0..4).any(|index| table.get(446 + 16 * index + 4) == Some(&0xef));
    let entries = table.get(2 * 512..).unwrap_or_default();
    let in_gpt = table.get(512..520) == Some(b"EFI PART") && entries.chunks_exact(128).any(|entry| entry[..16] == ESP);
    (in_mbr || in_gpt).then_some(Firmware::Uefi)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        bytes
    }

    fn verdict(format: DiskFormat, bytes: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), bytes).expect("file");
        match alone(file.path(), format).expect("readable") {
            Ok(()) => "alone".to_owned(),
            Err(why) => why,
        }
    }

    #[test]
    fn a_file_is_known_by_what_it_begins_with_and_not_by_its_name() {
        let of = |offset, bytes: &[u8]| kind_of(&with(1024, &[(offset, bytes)]));
        assert_eq!(of(0, b"QFI\xfb"), Kind::Disk(DiskFormat::Qcow2));
        assert_eq!(of(0, b"KDMV"), Kind::Disk(DiskFormat::Vmdk));
        assert_eq!(of(0, b"vhdxfile"), Kind::Disk(DiskFormat::Vhdx));
        assert_eq!(of(0x40, b"\x7f\x10\xda\xbe"), Kind::Disk(DiskFormat::Vdi));
        assert_eq!(of(510, b"\x55\xaa"), Kind::Disk(DiskFormat::Raw));
        assert_eq!(of(257, b"ustar"), Kind::Ova);
        assert_eq!(of(0, b"\xfd7zXZ\0"), Kind::Compressed);
        assert_eq!(of(0, b"# Disk DescriptorFile"), Kind::Descriptor);
        assert_eq!(of(0, b"<!DOCTYPE html>"), Kind::Unknown);
        assert_eq!(kind_of(b"QF"), Kind::Unknown);
    }

    #[test]
    fn a_qcow2_that_needs_another_file_a_key_or_mending_is_refused() {
        let version = |number: u32| number.to_be_bytes();
        let disk = |parts: &[(usize, &[u8])]| {
            let three = version(3);
            let mut all: Vec<(usize, &[u8])> = vec![(0, b"QFI\xfb"), (4, &three)];
            all.extend_from_slice(parts);
            verdict(DiskFormat::Qcow2, &with(1024, &all))
        };
        assert_eq!(disk(&[]), "alone");
        assert!(disk(&[(8, &64_u64.to_be_bytes())]).contains("backing file"));
        assert!(disk(&[(72, &4_u64.to_be_bytes())]).contains("data file"));
        assert!(disk(&[(72, &1_u64.to_be_bytes())]).contains("dirty"));
        assert!(disk(&[(32, &2_u32.to_be_bytes())]).contains("encrypted"));
        assert!(disk(&[(4, &version(9))]).contains("version 9"));
    }

    #[test]
    fn a_vmdk_that_needs_another_file_is_refused() {
        let disk = |capacity: u64, descriptor: &str| {
            let (capacity, one) = (capacity.to_le_bytes(), 1_u64.to_le_bytes());
            let descriptor = descriptor.as_bytes();
            let parts: [(usize, &[u8]); 5] = [(0, b"KDMV"), (12, &capacity), (28, &one), (36, &one), (512, descriptor)];
            verdict(DiskFormat::Vmdk, &with(2048, &parts))
        };
        let plain =
            "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\nRW 8 SPARSE \"a.vmdk\"\n";
        assert_eq!(disk(8, plain), "alone");
        assert!(disk(0, plain).contains("descriptor"));
        assert!(disk(8, &plain.replace("ffffffff", "12345678")).contains("child"));
        assert!(disk(8, &format!("{plain}parentFileNameHint=\"/etc/shadow\"\n")).contains("child"));
        assert!(disk(8, &format!("{plain}RW 8 FLAT \"/dev/sda\" 0\n")).contains("several"));
    }

    #[test]
    fn a_disk_is_started_with_what_it_was_made_for() {
        assert_eq!(made_for(&with(TABLE, &[(0, b"\xeb\x63"), (510, b"\x55\xaa")])), Some(Firmware::Bios));
        let gpt = with(TABLE, &[(512, b"EFI PART"), (2 * 512 + 128, &ESP)]);
        assert_eq!(made_for(&gpt), Some(Firmware::Uefi));
        assert_eq!(made_for(&with(TABLE, &[(446 + 16 + 4, b"\xef")])), Some(Firmware::Uefi));
        assert_eq!(made_for(&with(TABLE, &[(512, b"EFI PART")])), None);
        assert_eq!(made_for(b""), None);
    }
}
