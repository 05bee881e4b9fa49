//! Garbage collection: what is removed, what stays, and what is only reported.

use super::*;
use crate::gc::{Collected, Keep};

fn nothing() -> Keep {
    Keep { entries: Vec::new(), unused: Duration::from_secs(30 * 86_400), templates: true }
}

/// As if every image had been used last this many days ago.
fn aged(house: &House, days: u64) {
    let past = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
    for entry in fs::read_dir(house.store.root().join("recipes")).expect("folder").flatten() {
        File::open(entry.path()).expect("file").set_modified(past).expect("time");
    }
}

fn told(collected: &Collected) -> Vec<&str> {
    collected.garbage.iter().map(|garbage| garbage.what.as_str()).collect()
}

#[test]
fn an_image_that_nobody_names_and_nobody_used_for_a_month_goes() {
    let (house, fake) = (House::new(), Fake::default());
    drop(house.debian_12(&fake));
    aged(&house, 29);
    assert_eq!(house.store.gc(&nothing(), false).expect("cleaned"), Collected::default());
    aged(&house, 31);
    let named = Keep { entries: vec![entry("debian-12-minimal").clone()], ..nothing() };
    assert_eq!(told(&house.store.gc(&named, false).expect("cleaned")), Vec::<&str>::new());

    let before = house.left();
    let dry = house.store.gc(&nothing(), true).expect("looked");
    assert_eq!(told(&dry), ["image debian-12-minimal, unused for 31 days"]);
    assert!(dry.bytes() > 0);
    assert_eq!(house.left(), before, "only looked");
    let wet = house.store.gc(&nothing(), false).expect("cleaned");
    assert_eq!(wet.garbage[0], dry.garbage[0]);
    assert_eq!(house.left(), Vec::<String>::new());
    assert_eq!(fs::read_dir(house.store.root().join("recipes")).expect("folder").count(), 0, "its lock, too");
}

#[test]
fn to_use_an_image_keeps_it_for_another_month() {
    let (house, fake) = (House::new(), Fake::default());
    drop(house.debian_12(&fake));
    aged(&house, 31);
    drop(house.debian_12(&fake));
    assert_eq!(told(&house.store.gc(&nothing(), false).expect("cleaned")), Vec::<&str>::new());
}

#[test]
fn what_is_in_use_stays_and_is_said_to() {
    let (house, fake) = (House::new(), Fake::default());
    let image = house.debian_12(&fake);
    aged(&house, 31);
    let collected = house.store.gc(&nothing(), false).expect("cleaned");
    assert_eq!((told(&collected).len(), collected.in_use.len()), (0, 1));
    assert!(image.disk.exists());
    drop(image);
    assert_eq!(house.store.gc(&nothing(), false).expect("cleaned").garbage.len(), 2, "image and lock");
}

#[test]
fn interrupted_downloads_go_unless_they_go_on() {
    let house = House::new();
    let (recipes, downloads) = (house.store.root().join("recipes"), house.store.root().join("downloads"));
    for name in ["aa.part", "aa.part.json", "bb.part"] {
        fs::write(downloads.join(name), "half of it").expect("part");
    }
    let downloading = lock::open(&recipes.join("bb.lock")).expect("lock");
    assert!(lock::try_exclusive(&downloading).expect("lock"));
    let collected = house.store.gc(&nothing(), false).expect("cleaned");
    assert_eq!(told(&collected), ["interrupted download", "interrupted download"]);
    assert_eq!(collected.in_use.len(), 1);
    assert!(downloads.join("bb.part").exists() && !downloads.join("aa.part").exists());
}

#[test]
fn frozen_guests_go_only_if_that_is_asked_for() {
    let house = House::new();
    let templates = house.store.templates(matrix::ByteSize::from_bytes(u64::MAX)).expect("templates");
    let key = Digest::of(b"key");
    let crate::Begun::Free(unfinished) = templates.begin::<u32>(key, 1, &house.cancel, &|_| {}).expect("begun") else {
        panic!("it is ours to make")
    };
    fs::write(unfinished.folder().join("memory"), "frozen").expect("file");
    let (template, _) = templates.publish(unfinished, 1).expect("published");
    let all = Keep { templates: false, ..nothing() };
    assert_eq!(house.store.gc(&all, false).expect("cleaned").in_use.len(), 1, "somebody forks it");
    drop(template);
    assert_eq!(told(&house.store.gc(&nothing(), false).expect("cleaned")), Vec::<&str>::new());
    assert_eq!(told(&house.store.gc(&all, true).expect("looked")), ["frozen guest"]);
    assert_eq!(templates.count(), 1);
    assert_eq!(told(&house.store.gc(&all, false).expect("cleaned")), ["frozen guest"]);
    assert_eq!(templates.count(), 0);
}

#[test]
fn without_a_network_only_what_is_there_is_used() {
    let (house, fake) = (House::new(), Fake::default());
    let progress = |_: &str| {};
    let control = Control { refresh: false, cancel: &house.cancel, progress: &progress };
    let error = house.store.prepare_offline(entry("debian-12-minimal"), &control).expect_err("not there");
    insta::assert_snapshot!(
        error,
        @"image `debian-12-minimal`: not in the store, and `--offline` forbids downloading and building"
    );
    assert!(
        error.help.as_deref().is_some_and(|help| help.contains("or `nestmatrix images prepare debian-12-minimal`"))
    );
    drop(house.debian_12(&fake));
    assert!(house.store.prepare_offline(entry("debian-12-minimal"), &control).expect("there").cached);
}
