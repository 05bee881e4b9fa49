use std::{fs::File, sync::atomic::AtomicBool};

use proptest::prelude::*;
use tar::EntryType;

use super::{
    super::{
        disk,
        tarball::{self, Limits},
    },
    *,
};
use crate::alone::alone;

const LIMITS: Limits = Limits { bytes: 1 << 20, files: 10_000, reserve: 0 };

fn read(folder: &Path, fill: impl FnOnce(&mut tar::Builder<File>)) -> Unpacked {
    let (tarball, blobs) = (folder.join("x.tar"), folder.join("blobs"));
    let mut tar = tar::Builder::new(File::create(&tarball).expect("file"));
    fill(&mut tar);
    tar.finish().expect("tarball");
    fs::create_dir(&blobs).expect("folder");
    let unpacked = tarball::read(&tarball, &blobs, LIMITS, &AtomicBool::new(false));
    unpacked.map_err(|failure| failure.kind.to_string()).expect("a tree")
}

fn header(kind: EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4751);
    header.set_uid(70_000);
    header.set_gid(9);
    header.set_mtime(7);
    header.set_device_major(8).expect("it fits");
    header.set_device_minor(1).expect("it fits");
    header
}

fn add(tar: &mut tar::Builder<File>, kind: EntryType, name: &str, target: &str) {
    match kind {
        EntryType::Regular => tar.append_data(&mut header(kind, 5), name, &b"hello"[..]),
        EntryType::Link | EntryType::Symlink => tar.append_link(&mut header(kind, 0), name, target),
        _ => tar.append_data(&mut header(kind, 0), name, std::io::empty()),
    }
    .expect("member");
}

/// Makes the disk, compares it, and runs `fsck` at the end.
fn make(folder: &Path, unpacked: &Unpacked) -> Result<(), Failure> {
    let (image, work) = (folder.join("image"), folder.join("work"));
    for folder in [&image, &work] {
        fs::create_dir(folder).expect("folder");
    }
    let control = Control { refresh: false, cancel: &AtomicBool::new(false), progress: &|_| {} };
    disk::make(unpacked, &image, &work, &control)?;
    let mut check = tool::command("e2fsck");
    check.args(["-fn", RAW_DISK]).current_dir(&image).stdout(std::process::Stdio::null());
    tool::run(check, "e2fsck", LIMIT, control.cancel, |_| {})
}

/// Folders that are larger than a block, with names of every kind and of maximum length.
#[test]
fn folders_grow_for_hard_links_and_for_everything_else_that_is_put_into_them() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let long = |kind: &str, number: usize| format!("{kind}{number:0>width$}", width = 255 - kind.len());
    let unpacked = read(folder.path(), |tar| {
        add(tar, EntryType::Regular, "bin/busybox", "");
        (0..1200).for_each(|number| add(tar, EntryType::Link, &format!("bin/applet-{number}"), "bin/busybox"));
        (0..70).for_each(|number| add(tar, EntryType::Link, &format!("long/{}", long("n", number)), "bin/busybox"));
        for (kind, name) in [
            (EntryType::Regular, "file"),
            (EntryType::Symlink, "symlink"),
            (EntryType::Fifo, "pipe"),
            (EntryType::Char, "char"),
            (EntryType::Block, "block"),
            (EntryType::Directory, "folder"),
        ] {
            (0..40).for_each(|number| add(tar, kind, &format!("{name}/{}", long("n", number)), "somewhere"));
            (0..40).for_each(|number| add(tar, kind, &format!("mixed/{}", long(name, number)), "somewhere"));
        }
        (0..40).for_each(|number| add(tar, EntryType::Link, &format!("mixed/{}", long("z", number)), "bin/busybox"));
    });
    make(folder.path(), &unpacked).map_err(|failure| failure.kind.to_string()).expect("a file system");
}

#[test]
fn a_file_with_more_names_than_a_file_system_counts_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let limits = Limits { files: 100_000, ..LIMITS };
    let (tarball, blobs) = (folder.path().join("x.tar"), folder.path().join("blobs"));
    let mut tar = tar::Builder::new(File::create(&tarball).expect("file"));
    add(&mut tar, EntryType::Regular, "a", "");
    (0..65_000).for_each(|number| add(&mut tar, EntryType::Link, &number.to_string(), "a"));
    tar.finish().expect("tarball");
    fs::create_dir(&blobs).expect("folder");
    let unpacked = tarball::read(&tarball, &blobs, limits, &AtomicBool::new(false));
    let refused =
        disk::debugfs_script(&unpacked.map_err(|failure| failure.kind).expect("a tree")).expect_err("one too many");
    assert!(refused.contains("has 65001 names"), "{refused}");
}

/// The debugfs listing of the tree below.
const LISTING: &str = r#"debugfs: ls -p "/"
/2/040755/0/0/.//
/2/040755/0/0/..//
/11/040700/0/0/lost+found//
/12/040755/0/0/bin//
/15/120777/70000/9/link/8/

debugfs: ls -p "/bin"
/12/040755/0/0/.//
/2/040755/0/0/..//
/13/104751/70000/9/a/5/
/13/104751/70000/9/b/5/
/14/104751/70000/9/debugfs: ls -p c/5/

"#;

fn sample(folder: &Path) -> (Unpacked, Vec<(String, usize)>) {
    let unpacked = read(folder, |tar| {
        add(tar, EntryType::Regular, "bin/a", "");
        add(tar, EntryType::Link, "bin/b", "bin/a");
        add(tar, EntryType::Regular, "bin/debugfs: ls -p c", "");
        add(tar, EntryType::Symlink, "link", "/bin/abc");
    });
    let mut folders = Vec::new();
    collect(&unpacked, String::new(), 0, &mut folders);
    (unpacked, folders)
}

#[test]
fn whatever_differs_between_tree_and_file_system_is_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (unpacked, folders) = sample(folder.path());
    let compared = |listing: &str| differences(&unpacked, &folders, listing);
    compared(LISTING).expect("the same");
    compared(&LISTING.replace("70000", "4464")).expect("the lower half of an owner is all that some versions show");
    for (is, other, words) in [
        ("/13/104751/70000/9/b/5/\n", "", "`/bin/b` is missing"),
        ("/b/5/", "/x/5/", "`/bin/x` is in it and should not be"),
        ("/13/104751/70000/9/b", "/16/104751/70000/9/b", "another file behind its name"),
        ("/14/", "/13/", "another file behind its name"),
        ("/14/104751", "/14/100751", "another kind or mode"),
        ("/15/120777", "/15/100777", "another kind or mode"),
        ("/14/104751/70000", "/14/104751/0", "another owner"),
        ("c/5/", "c/4/", "another size"),
        ("link/8/", "link/7/", "another size"),
        ("/14/", "14/", "`debugfs` says"),
    ] {
        let error = compared(&LISTING.replacen(is, other, 1)).expect_err(words);
        assert!(error.contains(words), "{words}: {error}");
    }
    compared(LISTING.split("debugfs: ls -p \"/bin").next().expect("a part")).expect_err("half of it");
    compared("").expect_err("nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_lost_or_changed_byte_of_a_listing_is_taken_for_the_tree(at in 0..LISTING.len(), byte in b'0'..b'z') {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (unpacked, folders) = sample(folder.path());
        let mut bytes = LISTING.as_bytes().to_vec();
        // Commands, and what no tree has, are ignored; inode numbers only show which names are one file.
        let line = LISTING[..at].lines().count();
        let line = LISTING.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let read = line.starts_with("/1") && !line.contains("lost+found") && !line.ends_with("/.//");
        let field = LISTING[..at].rsplit('\n').next().unwrap_or_default().matches('/').count();
        prop_assume!(read && field > 1 && bytes[at] != b'\n' && bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).expect("ASCII");
        prop_assert!(differences(&unpacked, &folders, &changed).is_err(), "{changed}");
    }
}
