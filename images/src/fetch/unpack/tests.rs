//! Packed files as publishers make them, and broken ones.

use std::{
    io::{Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    sync::atomic::AtomicBool,
};

use super::*;
use crate::{Control, fetch::Limits};

const ALL: [Format; 4] = [Format::Xz, Format::Zstd, Format::Gzip, Format::Bzip2];

fn packed(format: Format, bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    match format {
        Format::Xz => liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).map(drop),
        Format::Zstd => zstd::stream::read::Encoder::new(bytes, 1)
            .and_then(|mut encoder| {
                // As `zstd` does it; the library by itself does not.
                encoder.include_checksum(true)?;
                encoder.read_to_end(&mut packed)
            })
            .map(drop),
        Format::Gzip => {
            flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut packed).map(drop)
        }
        Format::Bzip2 => {
            bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast()).read_to_end(&mut packed).map(drop)
        }
    }
    .expect("packed");
    packed
}

/// A disk with a hole in it.
fn disk() -> Vec<u8> {
    let noise = (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes());
    noise.chain(std::iter::repeat_n(0, 4 << 20)).collect()
}

struct Unpacked {
    digest: Digest,
    bytes: Vec<u8>,
    taken: u64,
}

fn unpacked_within(packed: &[u8], limits: &Limits) -> Result<Unpacked, Stop> {
    let mut published = tempfile::tempfile().expect("temporary file");
    published.write_all(packed).expect("room");
    published.rewind().expect("beginning");
    let format = format(&mut published).expect("readable").expect("a packed file");
    let cancel = AtomicBool::new(false);
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    let disk = tempfile::NamedTempFile::new().expect("temporary file");
    let digest = unpack(published, format, (disk.as_file(), disk.path()), &Watch::start(limits, &control))?;
    let taken = disk.as_file().metadata().expect("metadata").blocks() * 512;
    Ok(Unpacked { digest, bytes: std::fs::read(disk.path()).expect("disk"), taken })
}

fn trouble(packed: &[u8], limits: &Limits) -> String {
    match unpacked_within(packed, limits) {
        Err(Stop::Miss(miss)) => miss.trouble.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(unpacked) => panic!("{} bytes were in it", unpacked.bytes.len()),
    }
}

#[test]
fn a_disk_comes_out_as_it_went_in_with_its_digest_and_without_its_zeros() {
    let disk = disk();
    for format in ALL {
        let unpacked = unpacked_within(&packed(format, &disk), &Limits::default()).expect("a good file");
        assert!(unpacked.bytes == disk, "{format:?}");
        assert_eq!(unpacked.digest, Digest::of(&disk), "{format:?}");
        assert!(unpacked.taken < 1 << 20, "{format:?} takes {} bytes", unpacked.taken);
    }
}

#[test]
fn members_that_follow_one_another_are_one_disk() {
    for format in ALL {
        let members = [packed(format, b"first "), packed(format, b"second "), packed(format, b"third")].concat();
        let unpacked = unpacked_within(&members, &Limits::default()).expect("a good file");
        assert_eq!(String::from_utf8_lossy(&unpacked.bytes), "first second third", "{format:?}");
    }
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &packed(Format::Zstd, b"disk")].concat();
    assert_eq!(unpacked_within(&skipped, &Limits::default()).expect("a good file").bytes, b"disk");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_an_error() {
    let disk = &disk()[..100_000];
    for format in ALL {
        let packed = packed(format, disk);
        for kept in [8, 20, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
            let trouble = trouble(&packed[..kept], &Limits::default());
            assert!(trouble.starts_with(&format!("cannot be unpacked as {}: ", format.name())), "{kept}: {trouble}");
        }
    }
}

#[test]
fn a_second_member_that_is_cut_off_is_an_error_too() {
    for format in ALL {
        let (first, second) = (packed(format, b"first"), packed(format, &disk()[..10_000]));
        let members = [first, second[..second.len() - 20].to_vec()].concat();
        assert!(trouble(&members, &Limits::default()).starts_with("cannot be unpacked as"), "{format:?}");
    }
}

#[test]
fn damage_inside_is_noticed() {
    for format in ALL {
        let mut packed = packed(format, &disk()[..100_000]);
        let middle = packed.len() / 2;
        packed[middle] ^= 0x55;
        assert!(trouble(&packed, &Limits::default()).starts_with("cannot be unpacked as"), "{format:?}");
    }
}

#[test]
fn a_small_file_that_unpacks_to_a_huge_one_is_given_up() {
    let limits = Limits { unpacked_bytes: 1 << 20, ..Limits::default() };
    for format in ALL {
        let bomb = packed(format, &vec![0; 2 << 20]);
        assert!(bomb.len() < 1 << 16);
        assert_eq!(trouble(&bomb, &limits), "has a file that is too large: the limit is 1048576 bytes", "{format:?}");
    }
}

#[test]
fn nothing_packed_is_no_disk() {
    for format in ALL {
        assert_eq!(trouble(&packed(format, b""), &Limits::default()), "sent an empty file", "{format:?}");
    }
}

#[test]
fn what_is_not_packed_is_known_too() {
    for beginning in [&b"QFI\xfb"[..], b"\0\0\0\0", b"", b"BZh", b"BZh0", b"\x1f\x8b", b"\xfd7zXZ"] {
        assert_eq!(Format::of(beginning), None, "{beginning:?}");
    }
}

#[test]
fn a_disk_that_is_full_while_unpacking_is_said_to_be() {
    let mut published = tempfile::tempfile().expect("temporary file");
    published.write_all(&packed(Format::Gzip, b"disk")).expect("room");
    published.rewind().expect("beginning");
    // Every write to it fails as on a full disk.
    let path = Path::new("/dev/full");
    let full = File::options().write(true).open(path).expect("/dev/full");
    let (limits, cancel) = (Limits::default(), AtomicBool::new(false));
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    let stop = unpack(published, Format::Gzip, (&full, path), &Watch::start(&limits, &control)).expect_err("no room");
    assert!(matches!(stop, Stop::Fatal(FetchError::DiskFull { .. })), "{stop:?}");
}

#[test]
fn unpacking_ends_when_it_is_cancelled() {
    let cancel = AtomicBool::new(true);
    let (limits, disk) = (Limits::default(), tempfile::NamedTempFile::new().expect("temporary file"));
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    let published = tempfile::tempfile().expect("temporary file");
    let stop = unpack(published, Format::Gzip, (disk.as_file(), disk.path()), &Watch::start(&limits, &control));
    assert!(matches!(stop, Err(Stop::Fatal(FetchError::Cancelled))));
}
