//! The store with a builder that only writes small files: everything but the bootstrap itself.

use std::{
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use super::*;
use crate::{
    Catalog,
    alone::{Alone, alone},
    error::Mismatch,
    prepared::{DISK, INITRD, KERNEL, Made},
};

/// Writes small files, counts how often, and can fail or delay on request.
#[derive(Default)]
struct Fake {
    builds: AtomicUsize,
    disk: Mutex<String>,
    fails: bool,
    /// Two points of a build: its begin and its end.
    gate: Option<Barrier>,
}

impl Build for Fake {
    fn build(&self, entry: &Entry, build_dir: &BuildDir, control: &Control<'_>) -> Result<Made, Failure> {
        self.builds.fetch_add(1, Ordering::SeqCst);
        let image = build_dir.image();
        let disk = self.disk.lock().expect("lock").clone();
        fs::write(image.join(DISK), format!("disk of {} {disk}", entry.name)).expect("file");
        if let Some(gate) = &self.gate {
            gate.wait();
            gate.wait();
        }
        if control.cancel.load(Ordering::Relaxed) {
            return Err(PrepareErrorKind::Cancelled.into());
        }
        if self.fails {
            let kind = PrepareErrorKind::ToolFailed { tool: "mmdebstrap".into(), status: "exit status: 1".into() };
            return Err(Failure { kind, tail: vec!["E: the mirror is on fire".into()] });
        }
        fs::write(image.join(KERNEL), "kernel").expect("file");
        fs::write(image.join(INITRD), "initrd").expect("file");
        fs::write(image.join(PACKAGES), "libc6\t2.36-9\nbash\t5.2\n").expect("file");
        Ok(Made::with_kernel("root=/dev/vda"))
    }
}

mod damage;
mod gc;

struct House {
    _alone: Alone,
    folder: tempfile::TempDir,
    store: Store,
    cancel: AtomicBool,
    told: Mutex<Vec<String>>,
}

impl House {
    fn new() -> Self {
        let alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("store");
        Self { _alone: alone, folder, store, cancel: AtomicBool::new(false), told: Mutex::default() }
    }

    fn prepare(&self, name: &str, refresh: bool, fake: &Fake) -> Result<PreparedImage, PrepareError> {
        let progress = |line: &str| self.told.lock().expect("lock").push(line.to_owned());
        let control = Control { refresh, cancel: &self.cancel, progress: &progress };
        self.store.prepare_with(entry(name), &control, fake)
    }

    fn debian_12(&self, fake: &Fake) -> PreparedImage {
        self.prepare("debian-12-minimal", false, fake).expect("image")
    }

    /// Everything in the store's folders except locks.
    fn left(&self) -> Vec<String> {
        let mut names = Vec::new();
        for folder in ["recipes", "images", "builds"] {
            for entry in fs::read_dir(self.store.root().join(folder)).expect("folder") {
                names.push(format!("{folder}/{}", entry.expect("entry").file_name().to_string_lossy()));
            }
        }
        names.retain(|name| !name.ends_with(".lock"));
        names
    }
}

fn entry(name: &str) -> &'static Entry {
    Catalog::shipped().get(name).expect("shipped")
}

#[test]
fn an_image_is_built_once_and_then_found() {
    let (house, fake) = (House::new(), Fake::default());
    let built = house.debian_12(&fake);
    let found = house.debian_12(&fake);
    assert_eq!((built.cached, found.cached, fake.builds.load(Ordering::SeqCst)), (false, true, 1));
    assert_eq!(built.digest, found.digest);
    assert_eq!(built.disk, house.store.root().join("images").join(built.digest.hex()).join("disk.qcow2"));
    assert_eq!(house.store.look(entry("debian-12-minimal")).expect("present").packages, 2);
    assert_eq!(fs::metadata(&found.disk).expect("disk").permissions().mode() & 0o777, 0o444);
    // Also when another process opens the store later.
    let later = Store::open(house.store.root()).expect("store");
    let all = Catalog::shipped().entries().iter();
    let present: Vec<&str> = all.filter(|entry| later.look(entry).is_some()).map(|entry| entry.name.as_str()).collect();
    assert_eq!(present, ["debian-12-minimal"]);
    assert_eq!(later.verify(entry("debian-12-minimal")).expect("intact"), built.digest);
}

#[test]
fn two_who_want_the_same_image_build_it_once_and_the_second_says_whom_it_waits_for() {
    let (house, fake) = (House::new(), Fake { gate: Some(Barrier::new(2)), ..Fake::default() });
    let gate = fake.gate.as_ref().expect("gate");
    thread::scope(|scope| {
        let first = scope.spawn(|| house.debian_12(&fake));
        gate.wait();
        let second = scope.spawn(|| house.debian_12(&fake));
        let waiting = format!("waiting for process {} building it", std::process::id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !house.told.lock().expect("lock").contains(&waiting) {
            assert!(Instant::now() < deadline, "it never said that it waits");
            thread::yield_now();
        }
        gate.wait();
        let (first, second) = (first.join().expect("first"), second.join().expect("second"));
        assert_eq!((first.cached, second.cached), (false, true));
    });
    assert_eq!(fake.builds.load(Ordering::SeqCst), 1);
}

#[test]
fn different_images_are_built_side_by_side() {
    // The gate opens only when both builds are inside at once.
    let (house, fake) = (House::new(), Fake { gate: Some(Barrier::new(2)), ..Fake::default() });
    thread::scope(|scope| {
        let builds = ["debian-11-minimal", "debian-12-minimal"];
        let builds = builds.map(|name| scope.spawn(|| house.prepare(name, false, &fake).expect("image").digest));
        let digests = builds.map(|build| build.join().expect("build"));
        assert_ne!(digests[0], digests[1]);
    });
}

#[test]
fn waiting_for_another_build_can_be_cancelled() {
    let (house, fake) = (House::new(), Fake::default());
    let recipe = build::recipe(entry("debian-12-minimal"));
    let other = lock::open(&house.store.root().join("recipes").join(format!("{}.lock", recipe.hex()))).expect("lock");
    assert!(lock::try_exclusive(&other).expect("lock"));
    house.cancel.store(true, Ordering::Relaxed);
    let error = house.prepare("debian-12-minimal", false, &fake).expect_err("cancelled");
    assert!(matches!(error.kind, PrepareErrorKind::Cancelled), "{error}");
    assert_eq!(fake.builds.load(Ordering::SeqCst), 0);
}

#[test]
fn a_failed_build_leaves_nothing_and_shows_the_tools_last_lines() {
    let (house, fake) = (House::new(), Fake { fails: true, ..Fake::default() });
    let error = house.prepare("debian-12-minimal", false, &fake).expect_err("it fails");
    insta::assert_snapshot!(error, @"image `debian-12-minimal`: `mmdebstrap` failed (exit status: 1)");
    assert_eq!(error.tail, ["E: the mirror is on fire"]);
    assert_eq!(house.left(), Vec::<String>::new());
    house.debian_12(&Fake::default());
}

#[test]
fn a_torn_pointer_is_built_anew_and_the_reason_is_told() {
    let (house, fake) = (House::new(), Fake::default());
    let before = house.debian_12(&fake).digest;
    let pointer = house.store.pointer_path(build::recipe(entry("debian-12-minimal")));
    fs::write(&pointer, b"{\"name\":\"debi").expect("file");
    assert_eq!(house.debian_12(&fake).digest, before);
    assert_eq!(fake.builds.load(Ordering::SeqCst), 2);
    let told = house.told.lock().expect("lock").join("\n");
    assert!(told.contains("rebuilding it: ") && told.contains("cannot be read: EOF"), "{told}");
}

#[test]
fn an_image_with_a_file_missing_is_built_anew() {
    let (house, fake) = (House::new(), Fake::default());
    let image = house.debian_12(&fake);
    fs::remove_file(&image.kernel.as_ref().expect("a kernel").initrd).expect("file");
    drop(image);
    let again = house.debian_12(&fake);
    assert!(!again.cached && again.kernel.as_ref().expect("a kernel").initrd.exists());
    assert_eq!(house.left().len(), 2, "{:?}", house.left());
}

#[test]
fn a_changed_disk_is_an_error_that_names_both_digests_and_a_refresh_mends_it() {
    let (house, fake) = (House::new(), Fake::default());
    let image = house.debian_12(&fake);
    let (digest, disk) = (image.digest, image.disk.clone());
    drop(image);
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o644)).expect("permissions");
    fs::write(&disk, "changed").expect("file");
    let error = house.prepare("debian-12-minimal", false, &fake).expect_err("damaged");
    let PrepareErrorKind::Damaged { digests, .. } = &error.kind else { panic!("{error}") };
    let Mismatch { recorded, found } = **digests;
    assert_ne!(recorded, found);
    assert!(error.to_string().contains(&recorded.hex()) && error.to_string().contains(&found.hex()), "{error}");
    assert!(house.store.verify(entry("debian-12-minimal")).is_err());
    assert_eq!(house.prepare("debian-12-minimal", true, &fake).expect("mended").digest, digest);
    assert_eq!(house.store.verify(entry("debian-12-minimal")).expect("intact"), digest);
}

#[test]
fn a_store_that_was_copied_is_read_once_and_then_trusted_again() {
    let (house, fake) = (House::new(), Fake::default());
    let disk = house.debian_12(&fake).disk;
    let before = fs::metadata(&disk).expect("disk").modified().expect("time");
    File::open(&disk).expect("disk").set_modified(std::time::UNIX_EPOCH).expect("time");
    assert!(house.debian_12(&fake).cached);
    assert_eq!(fs::metadata(&disk).expect("disk").modified().expect("time"), before);
}

#[test]
fn a_refresh_moves_the_pointer_and_keeps_what_a_guest_stands_on() {
    let (house, fake) = (House::new(), Fake::default());
    let in_use = house.debian_12(&fake);
    *fake.disk.lock().expect("lock") = "newer".into();
    let newer = house.prepare("debian-12-minimal", true, &fake).expect("image");
    assert_ne!(in_use.digest, newer.digest);
    assert!(in_use.disk.exists(), "a guest runs on it");
    assert_eq!(house.debian_12(&fake).digest, newer.digest);

    let unused = newer.disk.clone();
    drop(newer);
    *fake.disk.lock().expect("lock") = "newest".into();
    house.prepare("debian-12-minimal", true, &fake).expect("image");
    assert!(!unused.exists(), "nobody uses it any more");
}

#[test]
fn a_refresh_that_makes_the_same_bytes_leaves_them_in_place() {
    let (house, fake) = (House::new(), Fake::default());
    let image = house.debian_12(&fake);
    let again = house.prepare("debian-12-minimal", true, &fake).expect("image");
    assert_eq!((again.digest, again.disk.clone()), (image.digest, image.disk.clone()));
    assert_eq!(house.left().len(), 2, "{:?}", house.left());
}

#[test]
fn what_nothing_points_to_is_gone_once_nobody_uses_it() {
    let (house, fake) = (House::new(), Fake::default());
    let (in_use, other) = (house.debian_12(&fake), house.prepare("debian-13-minimal", false, &fake).expect("image"));
    // The state after a build was killed before it could point to its content.
    fs::remove_file(house.store.pointer_path(in_use.recipe)).expect("pointer");
    Store::open(house.store.root()).expect("store");
    assert!(in_use.disk.exists(), "a guest runs on it");
    let disk = in_use.disk.clone();
    drop(in_use);
    Store::open(house.store.root()).expect("store");
    assert!(!disk.exists() && other.disk.exists());
    assert_eq!(house.left().len(), 2, "{:?}", house.left());
}

#[test]
fn the_same_bytes_of_another_recipe_are_recorded_with_what_that_recipe_says() {
    let (house, fake) = (House::new(), Fake::default());
    let first = house.debian_12(&fake);
    let mut entry = entry("debian-12-minimal").clone();
    let Source::Bootstrap(bootstrap) = &mut entry.source else { panic!("{entry:?}") };
    bootstrap.packages.push("locales".to_owned());
    let control = Control { refresh: false, cancel: &house.cancel, progress: &|_| {} };
    let second = house.store.prepare_with(&entry, &control, &fake).expect("image");
    let found = house.store.prepare_with(&entry, &control, &fake).expect("image");
    assert_eq!((found.digest, found.cached), (second.digest, true));
    assert_ne!(first.digest, second.digest, "what is done with the bytes is another matter");
    assert_eq!((found.recipe, house.debian_12(&fake).recipe), (second.recipe, first.recipe));
}

#[test]
fn opening_a_store_sweeps_what_a_killed_build_left() {
    let house = House::new();
    let dead = house.store.builds().join("bdead");
    fs::create_dir_all(dead.join("image")).expect("folder");
    fs::write(dead.join("image/disk.raw"), "half").expect("file");
    let store = Store::open(house.store.root()).expect("store");
    assert_eq!(store.swept().len(), 1);
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn a_store_that_cannot_be_written_to_is_refused_with_its_path() {
    let house = House::new();
    let file = house.folder.path().join("file");
    fs::write(&file, "x").expect("file");
    let error = Store::open(&file.join("store")).expect_err("a file is in the way");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[test]
fn a_store_on_a_full_disk_is_refused_with_the_bytes_free() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(folder.path())
        .stderr(std::process::Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let filled = fs::write(folder.path().join("fill"), vec![1; 1 << 20]);
    let error = Store::open(&folder.path().join("store")).expect_err("the disk is full");
    let _ = std::process::Command::new("umount").arg(folder.path()).status();
    filled.expect_err("larger than the file system");
    assert!(matches!(error.kind, StoreErrorKind::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
}

#[test]
fn the_store_is_where_the_environment_says_or_in_the_users_cache() {
    let root = |variables: &[(&str, &str)]| {
        let variables = variables.to_vec();
        let value = move |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        default_root(value).map(|path| path.display().to_string()).unwrap_or_else(|error| error.to_string())
    };
    let home = ("HOME", "/home/u");
    assert_eq!(root(&[home]), "/home/u/.cache/nestmatrix");
    assert_eq!(root(&[home, ("XDG_CACHE_HOME", "/cache")]), "/cache/nestmatrix");
    assert_eq!(root(&[home, ("XDG_CACHE_HOME", "relative")]), "/home/u/.cache/nestmatrix");
    assert_eq!(root(&[home, ("XDG_CACHE_HOME", "/cache"), ("NESTMATRIX_STORE", "/store")]), "/store");
    insta::assert_snapshot!(
        root(&[]),
        @"cannot use the image store ?: none of NESTMATRIX_STORE, XDG_CACHE_HOME and HOME is set"
    );
}
