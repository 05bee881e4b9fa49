use std::io::Write as _;

use proptest::prelude::*;

use super::*;

static NEVER: AtomicBool = AtomicBool::new(false);
const SMALL: Limits = Limits { bytes: 1 << 20, files: 100, reserve: 0 };

/// A folder with a tarball written by `fill`, and the folder it is unpacked to.
fn unpack(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> (tempfile::TempDir, Result<Unpacked, Failure>) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    let bytes = builder.into_inner().expect("in memory");
    let result = unpack_bytes(folder.path(), &bytes);
    (folder, result)
}

fn unpack_bytes(folder: &Path, bytes: &[u8]) -> Result<Unpacked, Failure> {
    let (tarball, blobs) = (folder.join("x.tar"), folder.join("blobs"));
    fs::write(&tarball, bytes).expect("file");
    fs::create_dir(&blobs).expect("folder");
    read(&tarball, &blobs, SMALL, &NEVER)
}

/// A header of any name, however wrong.
fn header(kind: EntryType, name: &str, target: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(0);
    header.set_mtime(7);
    header.set_device_major(8).expect("it fits");
    header.set_device_minor(0).expect("it fits");
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    header
}

fn add(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str, content: &str) {
    tar.append(&header(kind, name, target, content.len() as u64), content.as_bytes()).expect("in memory");
}

#[track_caller]
fn assert_refused(result: Result<Unpacked, Failure>, words: &str) {
    let Err(failure) = result else { panic!("it is not refused: {words}") };
    assert!(matches!(failure.kind, PrepareErrorKind::Refused { .. }), "{failure:?}");
    assert!(failure.kind.to_string().contains(words), "{}", failure.kind);
}

/// Names of everything below a folder.
fn all(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("folder").flatten() {
        let kind = entry.file_type().expect("kind");
        names.push(format!(
            "{} {}",
            entry.file_name().to_string_lossy(),
            if kind.is_file() { "file" } else { "other" }
        ));
    }
    names.sort();
    names
}

#[test]
fn names_links_devices_and_modes_of_a_tarball_are_never_those_of_a_file_here() {
    let (folder, unpacked) = unpack(|tar| {
        add(tar, EntryType::Regular, "/bin/sh", "", "shell");
        add(tar, EntryType::Symlink, "out", "/etc", "");
        add(tar, EntryType::Symlink, "up", "../../../../tmp", "");
        add(tar, EntryType::Block, "disk", "", "");
        add(tar, EntryType::Fifo, "pipe", "", "");
        add(tar, EntryType::Link, "hard", "bin/sh", "");
        add(tar, EntryType::Directory, "0", "", "");
    });
    let unpacked = unpacked.expect("it is strange, but a system");
    let blob = unpacked.tree.file("/bin/sh").expect("a file");
    assert_eq!(fs::read(unpacked.blob(blob)).expect("a blob"), b"shell");
    assert_eq!(unpacked.tree.file("/hard"), Some(blob));
    assert_eq!(all(&folder.path().join("blobs")), [format!("{blob} file")]);
    assert_eq!(all(folder.path()), ["blobs other", "x.tar file"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(unpacked.blob(blob)).expect("it").permissions());
    assert_eq!(mode & 0o7111, 0, "neither executable nor with another's rights: {mode:o}");
}

#[test]
fn what_would_lead_out_of_the_tree_is_refused() {
    for (kind, name, target, words) in [
        (EntryType::Regular, "../evil", "", "leads out"),
        (EntryType::Directory, "a/../../evil", "", "leads out"),
        (EntryType::Link, "shadow", "/etc/shadow", "not in it"),
        (EntryType::Link, "shadow", "../../etc/shadow", "leads out"),
        (EntryType::Regular, "evil\nwrite /etc/shadow x", "", "control characters"),
        (EntryType::Symlink, "evil", "a\nwrite /etc/shadow x", "has no target"),
    ] {
        let (folder, result) = unpack(|tar| add(tar, kind, name, target, ""));
        assert_refused(result, words);
        assert_eq!(all(folder.path()), ["blobs other", "x.tar file"]);
    }
    let (_folder, result) = unpack(|tar| {
        add(tar, EntryType::Symlink, "etc", "/etc", "");
        add(tar, EntryType::Regular, "etc/passwd", "", "root::0:0::/:/bin/sh");
    });
    assert_refused(result, "is not a folder");
}

#[test]
fn no_amount_has_no_bound() {
    let (folder, result) = unpack(|tar| {
        // It claims more bytes than any disk has.
        tar.append(&header(EntryType::Regular, "bomb", "", 1 << 40), [0; 512].as_slice()).expect("in memory");
    });
    assert_refused(result, "more than 1 MiB");
    assert_eq!(all(&folder.path().join("blobs")), [""; 0]);

    let (_folder, result) = unpack(|tar| {
        for index in 0..3 {
            add(tar, EntryType::Regular, &index.to_string(), "", &"x".repeat(400 << 10));
        }
    });
    assert_refused(result, "more than 1 MiB");

    let (_folder, result) = unpack(|tar| (0..101).for_each(|_| add(tar, EntryType::Directory, "a", "", "")));
    assert_refused(result, "more than 100 files");

    let (_folder, result) = unpack(|tar| add(tar, EntryType::GNULongName, "l", "", &"x".repeat(2 << 20)));
    assert_refused(result, "headers are too long");
    let (_folder, result) = unpack(|tar| (0..9).for_each(|_| add(tar, EntryType::XHeader, "l", "", "8 a=b c\n")));
    assert_refused(result, "headers are too long");
    let (_folder, result) = unpack(|tar| add(tar, EntryType::XHeader, "l", "", "20 size=99999999999\n"));
    assert_refused(result, "8 GiB");
    let (_folder, result) = unpack(|tar| add(tar, EntryType::GNUSparse, "s", "", ""));
    assert_refused(result, "--sparse");
}

#[test]
fn a_bomb_of_zeros_is_given_up_when_it_is_larger_than_a_system_can_be() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(header(EntryType::new(b'V'), "x", "", 1 << 30).as_bytes()).expect("in memory");
    (0..64).for_each(|_| packed.write_all(&[0; 1 << 20]).expect("in memory"));
    assert_refused(unpack_bytes(folder.path(), &packed.finish().expect("in memory")), "size limit");
}

#[test]
fn no_byte_is_written_where_there_is_no_room_for_all_of_them() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, EntryType::Regular, "a", "", "hello");
    fs::write(folder.path().join("x.tar"), tar.into_inner().expect("in memory")).expect("file");
    let limits = Limits { reserve: u64::MAX >> 1, ..SMALL };
    let failure =
        read(&folder.path().join("x.tar"), folder.path(), limits, &NEVER).err().expect("no disk has that much");
    assert!(matches!(failure.kind, PrepareErrorKind::DiskFull { .. }), "{failure:?}");
    assert_eq!(all(folder.path()), ["x.tar file"]);
}

#[test]
fn what_is_no_tarball_or_half_of_one_is_refused() {
    for bytes in [&b""[..], &b"hello".repeat(1000), &[0; 10240]] {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_refused(unpack_bytes(folder.path(), bytes), "not a tarball");
    }
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, EntryType::Regular, "a", "", &"x".repeat(10_000));
    let bytes = tar.into_inner().expect("in memory");
    let folder = tempfile::tempdir().expect("temporary folder");
    assert_refused(unpack_bytes(folder.path(), &bytes[..4096]), "");
}

#[test]
fn a_tarball_that_was_cut_off_between_two_files_is_refused_and_so_is_one_with_what_nobody_knows() {
    let bytes = sample();
    let end = bytes.len() - 1024;
    for length in [512, end - 512, end] {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_refused(unpack_bytes(folder.path(), &bytes[..length]), "truncated");
    }
    let (_folder, whole) = unpack(|tar| add(tar, EntryType::new(b'V'), "a volume", "", ""));
    whole.map_err(|failure| failure.kind.to_string()).expect("names of volumes are no files");
    let (_folder, odd) = unpack(|tar| add(tar, EntryType::new(b'Z'), "etc/passwd", "", "root"));
    assert_refused(odd, "`etc/passwd` in it has an unknown type: `Z`");
}

#[test]
fn long_names_owners_times_and_capabilities_are_taken_from_where_they_stand() {
    let long = format!("{}/name", "folder".repeat(30));
    let (_folder, unpacked) = unpack(|tar| {
        let text = format!("{long}\0");
        add(tar, EntryType::GNULongName, "././@LongLink", "", &text);
        add(tar, EntryType::Regular, "short", "", "content");
        let mut records = String::new();
        for record in [
            "path=ping",
            "uid=70000",
            "mtime=12.5",
            "SCHILY.xattr.security.capability=CAP",
            "SCHILY.xattr.security.selinux=L",
        ] {
            let length = record.len() + 2;
            let length = length + (length + 2).to_string().len();
            records += &format!("{length} {record}\n");
        }
        add(tar, EntryType::XHeader, "pax", "", &records);
        add(tar, EntryType::Regular, "wrong", "", "");
        add(tar, EntryType::Char, "dev/null", "", "");
    });
    let unpacked = unpacked.map_err(|failure| failure.kind.to_string()).expect("a tree");
    assert!(unpacked.tree.file(&format!("/{long}")).is_some());
    assert!(unpacked.tree.file("/ping").is_some() && unpacked.tree.file("/wrong").is_none());
    let ping = (0..unpacked.tree.len()).map(|number| unpacked.tree.node(number)).find(|node| node.rights.uid == 70000);
    let rights = &ping.expect("its owner is not in the header").rights;
    assert_eq!((rights.mode, rights.modified, rights.attributes.len()), (0o4755, 12, 1));
    let Kind::Folder(root) = &unpacked.tree.node(0).kind else { panic!("the root is a folder") };
    assert!(!root.contains_key("dev"), "what the kernel makes is not taken");
}

#[test]
fn no_name_is_so_long_that_the_rest_of_it_is_an_order() {
    // Quotes are doubled for debugfs, and a hard link's command contains two paths.
    let long = |end: &str| [vec!["\"".repeat(250); 10], vec![end.to_owned()]].concat().join("/");
    let (_folder, unpacked) = unpack(|tar| {
        let mut file = header(EntryType::Regular, "x", "", 1);
        tar.append_data(&mut file, long("one"), b"x".as_slice()).expect("member");
        let mut link = header(EntryType::Link, "x", "", 0);
        tar.append_link(&mut link, long("two"), long("one")).expect("member");
    });
    let refused =
        super::super::disk::debugfs_script(&unpacked.expect("a tree")).expect_err("the rest would be an order");
    assert!(refused.contains("too long"), "{refused}");
}

/// A tarball with a member of every kind, and headers that continue.
fn sample() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, EntryType::Directory, "bin", "", "");
    add(&mut tar, EntryType::Regular, "bin/sh", "", "shell");
    add(&mut tar, EntryType::Link, "bin/ash", "bin/sh", "");
    add(&mut tar, EntryType::Symlink, "sh", "bin/../bin/sh", "");
    add(&mut tar, EntryType::GNULongName, "././@LongLink", "", "a/very/long/name\0");
    add(&mut tar, EntryType::Regular, "a", "", "content");
    add(&mut tar, EntryType::GNULongLink, "././@LongLink", "", "bin/sh\0");
    add(&mut tar, EntryType::Link, "b", "x", "");
    let records = "12 path=pax\n13 mtime=9.5\n42 SCHILY.xattr.security.capability=12345\n";
    add(&mut tar, EntryType::XHeader, "pax", "", records);
    add(&mut tar, EntryType::Regular, "c", "", "more");
    add(&mut tar, EntryType::Block, "disk", "", "");
    add(&mut tar, EntryType::Fifo, "pipe", "", "");
    tar.into_inner().expect("in memory")
}

/// Corrects the checksums of all headers, as an attacker would.
fn with_sums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// The result for any tarball: a tree of valid names, or a refusal; nothing beside the blobs, and no foreign command for
/// `debugfs`.
fn assert_harmless(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let result = unpack_bytes(folder.path(), bytes);
    assert_eq!(all(folder.path()), ["blobs other", "x.tar file"]);
    let blobs = all(&folder.path().join("blobs"));
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    assert!(blobs.iter().all(|name| name.strip_suffix(" file").is_some_and(is_number)), "{blobs:?}");
    let unpacked = match result {
        Ok(unpacked) => unpacked,
        Err(failure) => return assert!(matches!(failure.kind, PrepareErrorKind::Refused { .. }), "{failure:?}"),
    };
    for number in 0..unpacked.tree.len() {
        match &unpacked.tree.node(number).kind {
            Kind::Folder(names) => {
                for name in names.keys() {
                    let odd = name.is_empty() || name.len() > 255 || [".", ".."].contains(&name.as_str());
                    assert!(!odd && !name.contains('/') && !name.chars().any(char::is_control), "{name:?}");
                }
            }
            Kind::File(blob) => assert!(unpacked.blob(*blob).is_file()),
            Kind::Link(target) => assert!(!target.is_empty() && !target.chars().any(char::is_control), "{target:?}"),
            Kind::Device { .. } | Kind::Pipe => {}
        }
    }
    let ours = [
        "cd \"",
        "mkdir \"",
        "write \"",
        "symlink \"",
        "mknod \"",
        "ln \"",
        "sif \"",
        "sif / ",
        "ea_set -f \"",
        "expand_dir .",
    ];
    if let Ok(orders) = super::super::disk::debugfs_script(&unpacked) {
        let odd = orders.lines().find(|line| line.len() >= 4096 || !ours.iter().any(|order| line.starts_with(order)));
        assert_eq!(odd, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_are_a_tarball_that_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        assert_harmless(&bytes);
    }

    #[test]
    fn no_change_of_a_tarball_makes_one_that_does_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_headers in any::<bool>(), right in any::<bool>(), length in prop::option::of(any::<prop::sample::Index>())
    ) {
        let mut bytes = sample();
        for (place, byte) in changes {
            // Fields of the headers: name, mode, owners, size, time, kind, target.
            let at = if in_headers { place.index(bytes.len() / 512) * 512 + usize::from(byte) } else { place.index(bytes.len()) };
            bytes[at] = byte;
        }
        if right {
            with_sums(&mut bytes);
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()));
        }
        assert_harmless(&bytes);
    }
}

#[test]
fn the_sample_that_is_changed_is_a_tarball() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut bytes = sample();
    with_sums(&mut bytes);
    let unpacked = unpack_bytes(folder.path(), &bytes).map_err(|failure| failure.kind.to_string()).expect("a tree");
    for name in ["/bin/ash", "/sh", "/a/very/long/name", "/b", "/pax"] {
        assert!(unpacked.tree.file(name).is_some(), "{name}");
    }
    assert_harmless(&bytes);
}
