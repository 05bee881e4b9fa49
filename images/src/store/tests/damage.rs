//! A damaged store returns what was put there, or nothing.

use proptest::prelude::*;

use super::*;

const NAME: &str = "debian-12-minimal";
const FILES: [&str; 6] = [DISK, KERNEL, INITRD, PACKAGES, RECORD, "pointer"];

#[derive(Clone, Copy, Debug)]
enum Damage {
    Truncated,
    Flipped,
    /// Its time of change is kept: a faulty disk, not a person.
    FlippedUnseen,
    Longer,
    Gone,
    Folder,
    Link,
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::*;
    prop::sample::select(vec![Truncated, Flipped, Flipped, FlippedUnseen, Longer, Gone, Folder, Link])
}

fn inflict(path: &Path, damage: Damage, place: usize) {
    let bytes = fs::read(path).expect("it is there");
    let time = fs::metadata(path).expect("it is there").modified().expect("time");
    let at = place % bytes.len();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("permissions");
    let mut flipped = bytes.clone();
    flipped[at] ^= 1 << (place % 8);
    match damage {
        Damage::Truncated => fs::write(path, &bytes[..at]).expect("file"),
        Damage::Flipped => fs::write(path, flipped).expect("file"),
        Damage::FlippedUnseen => {
            fs::write(path, flipped).expect("file");
            File::open(path).expect("file").set_modified(time).expect("time");
        }
        Damage::Longer => fs::write(path, [&bytes[..], b"x"].concat()).expect("file"),
        Damage::Gone | Damage::Folder | Damage::Link => fs::remove_file(path).expect("file"),
    }
    match damage {
        Damage::Folder => fs::create_dir(path).expect("folder"),
        Damage::Link => std::os::unix::fs::symlink("/dev/null", path).expect("link"),
        _ => {}
    }
}

/// All facts of an image, except when it was built and whether it was there.
fn described(image: &PreparedImage) -> String {
    let files: Vec<String> = FILES[..4]
        .iter()
        .map(|name| fs::read_to_string(image.disk.with_file_name(name)).unwrap_or_else(|error| error.to_string()))
        .collect();
    let PreparedImage { name, arch, family, digest, recipe, disk, format, bytes, start, login_user, .. } = image;
    format!("{name} {arch} {family:?} {digest} {recipe} {disk:?} {format:?} {bytes} {start:?} {login_user} {files:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_damaged_store_gives_what_was_put_there_or_an_error(
        file in 0..FILES.len(), damage in damage(), place in any::<usize>()
    ) {
        let (house, fake) = (House::new(), Fake::default());
        let image = house.debian_12(&fake);
        let (before, folder) = (described(&image), image.disk.parent().expect("folder").to_owned());
        let pointer = house.store.pointer_path(image.recipe);
        drop(image);
        let path = if FILES[file] == "pointer" { pointer.clone() } else { folder.join(FILES[file]) };
        // An obstacle in place of a pointer is not ours to remove.
        prop_assume!(!(path == pointer && matches!(damage, Damage::Folder)));
        inflict(&path, damage, place);

        let is_content = file < 4;
        let verified = house.store.verify(entry(NAME));
        if is_content {
            prop_assert!(verified.is_err(), "{} {damage:?}", FILES[file]);
        }
        // Only what nothing points to is missing; damaged content is reported as damaged.
        if let Err(error) = &verified {
            let missing = path == pointer && matches!(damage, Damage::Gone);
            prop_assert_eq!(matches!(error.kind, PrepareErrorKind::Absent), missing, "{} {:?}: {}", FILES[file], damage, error);
        }
        // A file of the recorded size and time is assumed to be unchanged until it is verified.
        if !(is_content && matches!(damage, Damage::FlippedUnseen)) {
            match house.prepare(NAME, false, &fake) {
                Ok(image) => prop_assert_eq!(described(&image), &*before, "{} {:?}", FILES[file], damage),
                Err(error) => prop_assert!(matches!(error.kind, PrepareErrorKind::Damaged { .. }), "{}", error),
            }
        }
        let mended = house.prepare(NAME, true, &fake).expect("it is built again");
        prop_assert_eq!(described(&mended), before);
        prop_assert!(house.store.verify(entry(NAME)).is_ok());
    }
}

#[test]
fn how_an_image_is_used_is_as_sure_as_what_is_in_it() {
    let (house, fake) = (House::new(), Fake::default());
    let image = house.debian_12(&fake);
    let (before, record) = (described(&image), image.disk.with_file_name(RECORD));
    drop(image);
    for (is, other) in [("\"root\"", "\"rook\""), ("root=/dev/vda", "root=/dev/vdb"), ("\"x86_64\"", "\"aarch64\"")] {
        let text = fs::read_to_string(&record).expect("record");
        assert!(text.contains(is), "{text}");
        fs::set_permissions(&record, fs::Permissions::from_mode(0o644)).expect("permissions");
        fs::write(&record, text.replacen(is, other, 1)).expect("record");
        let builds = fake.builds.load(Ordering::SeqCst);
        assert_eq!(described(&house.debian_12(&fake)), before, "{other}");
        assert_eq!(fake.builds.load(Ordering::SeqCst), builds + 1, "{other}");
    }
}

#[test]
fn what_says_which_image_is_whose_is_told_of_when_it_cannot_be_read_and_nothing_is_removed_for_it() {
    let (house, fake) = (House::new(), Fake::default());
    let image = house.debian_12(&fake);
    let (pointer, disk) = (house.store.pointer_path(image.recipe), image.disk.clone());
    let other = house.prepare("debian-13-minimal", false, &fake).expect("image").digest;
    drop(image);
    fs::remove_file(&pointer).expect("pointer");
    fs::create_dir(&pointer).expect("in its way");
    let store = Store::open(house.store.root()).expect("store");
    assert!(disk.exists(), "somebody may mean it");
    let all = store.verify_all(&|_| {});
    let mut found: Vec<bool> = all.iter().map(|verified| verified.found.is_ok()).collect();
    found.sort();
    assert_eq!(found, [false, true], "{all:?}");
    assert!(all.iter().any(|verified| verified.found.as_ref().is_ok_and(|digest| *digest == other)));
}
