//! Templates in a store of each test.

use std::{sync::atomic::AtomicBool, time::Duration};

use super::*;
use crate::alone::{Alone, alone};

struct Fixture {
    store: tempfile::TempDir,
    _alone: Alone,
}

impl Fixture {
    fn new() -> Self {
        Self { _alone: alone(), store: tempfile::tempdir().expect("temporary folder") }
    }

    fn templates(&self, limit: u64) -> Templates {
        let store = Store::open(self.store.path()).expect("store");
        store.templates(ByteSize::from_bytes(limit)).expect("templates")
    }

    fn begin(&self, key: Digest) -> Begun<u32> {
        self.templates(1 << 30).begin(key, 0, &AtomicBool::new(false), &|_| {}).expect("begun")
    }

    /// Makes one with a memory of 8 MiB that is mostly a hole.
    fn make(&self, templates: &Templates, name: &str) -> Digest {
        self.make_and_count(templates, name).0
    }

    /// The same, with the number of others that were removed for it.
    fn make_and_count(&self, templates: &Templates, name: &str) -> (Digest, usize) {
        let key = Digest::of(name.as_bytes());
        let Begun::Free(unfinished) = self.begin(key) else { panic!("it is there") };
        let ram = File::create(unfinished.folder().join("ram")).expect("file");
        ram.set_len(8 << 20).expect("length");
        std::os::unix::fs::FileExt::write_all_at(&ram, &[7; 300_000], 3 << 20).expect("content");
        fs::write(unfinished.folder().join("state"), name).expect("file");
        let (_, gone) = templates.publish(unfinished, 7_u32).expect("published");
        (key, gone)
    }
}

#[test]
fn what_was_put_there_is_found_with_what_was_noted() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30);
    assert!(templates.find::<u32>(Digest::of(b"a")).expect("nothing wrong").is_none());
    let key = fixture.make(&templates, "a");
    let found = templates.find::<u32>(key).expect("sound").expect("there");
    assert_eq!(found.note, 7);
    assert_eq!(fs::read(found.folder.join("state")).expect("file"), b"a");
    assert!(matches!(fixture.begin(key), Begun::Found(_)));
}

#[test]
fn what_was_cut_short_flipped_grown_or_swapped_is_not_used_and_gone() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("has 3 bytes", |folder| fs::write(folder.join("ram"), "cut").expect("file")),
        ("content", |folder| {
            let ram = File::options().write(true).open(folder.join("ram")).expect("file");
            let before = ram.metadata().expect("metadata").modified().expect("time");
            std::os::unix::fs::FileExt::write_all_at(&ram, &[6], (3 << 20) + 5).expect("one byte");
            ram.set_modified(before).expect("time");
        }),
        // In a former hole.
        ("content", |folder| {
            let ram = File::options().write(true).open(folder.join("ram")).expect("file");
            std::os::unix::fs::FileExt::write_all_at(&ram, &[1], 7 << 20).expect("one byte");
        }),
        ("No such file", |folder| fs::remove_file(folder.join("state")).expect("removed")),
        ("not a file", |folder| {
            fs::rename(folder.join("state"), folder.join("elsewhere")).expect("moved");
            std::os::unix::fs::symlink("elsewhere", folder.join("state")).expect("link");
        }),
        ("template.json is damaged", |folder| {
            let text = fs::read_to_string(folder.join(record::RECORD)).expect("record");
            fs::write(folder.join(record::RECORD), text.replace("\"note\": 7", "\"note\": 8")).expect("record");
        }),
        ("another template", |folder| {
            let text = fs::read_to_string(folder.join(record::RECORD)).expect("record");
            let key = folder.file_name().expect("name").to_string_lossy().into_owned();
            fs::write(folder.join(record::RECORD), text.replace(&key, &Digest::of(b"other").hex())).expect("record");
        }),
    ];
    for (words, harm) in harms {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30);
        let key = fixture.make(&templates, "a");
        harm(&templates.place(key));
        let said = templates.find::<u32>(key).expect_err(words);
        assert!(said.contains(words), "{said}");
        assert!(!templates.place(key).exists());
        assert!(matches!(fixture.begin(key), Begun::Free(_)), "it can be made again");
    }
}

#[test]
fn who_trusts_looks_at_sizes_alone() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30).trusting();
    let key = fixture.make(&templates, "a");
    let ram = templates.place(key).join("ram");
    std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(&ram).expect("file"), &[6], 3 << 20)
        .expect("one byte");
    templates.find::<u32>(key).expect("taken as it is").expect("there");
    fs::write(&ram, "cut").expect("file");
    templates.find::<u32>(key).expect_err("cut short");
}

#[test]
fn a_template_that_is_not_published_leaves_nothing() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30);
    let Begun::Free(unfinished) = fixture.begin(Digest::of(b"a")) else { panic!("it is there") };
    fs::write(unfinished.folder().join("ram"), "half").expect("file");
    drop(unfinished);
    assert_eq!(fs::read_dir(fixture.store.path().join("builds")).expect("folder").count(), 0);
    assert!(templates.find::<u32>(Digest::of(b"a")).expect("nothing wrong").is_none());
}

#[test]
fn one_template_is_made_by_one_at_a_time() {
    let fixture = Fixture::new();
    let key = Digest::of(b"a");
    let Begun::Free(first) = fixture.begin(key) else { panic!("it is there") };
    let waits = std::sync::atomic::AtomicU32::new(0);
    let (templates, cancel) = (fixture.templates(1 << 30), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let waiting = |holder: Option<u32>| {
                assert_eq!(holder, Some(std::process::id()));
                waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            };
            templates.begin::<u32>(key, 0, &cancel, &waiting).expect("begun")
        });
        while waits.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        fixture.templates(1 << 30).publish(first, 1_u32).expect("published");
        assert!(matches!(second.join().expect("no panic"), Begun::Found(template) if template.note == 1));
    });
}

#[test]
fn the_least_recently_used_goes_first_and_nothing_that_is_in_use() {
    let fixture = Fixture::new();
    // Each takes some 300 KiB: two fit.
    let templates = fixture.templates(800_000);
    let (a, b) = (fixture.make(&templates, "a"), fixture.make(&templates, "b"));
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    File::open(templates.place(b).join(USED)).and_then(|file| file.set_modified(long_ago)).expect("time");
    let (c, gone) = fixture.make_and_count(&templates, "c");
    assert_eq!((gone, templates.count(), templates.limit().bytes()), (1, 2, 800_000));
    let there = |key| templates.place(key).exists();
    assert_eq!((there(a), there(b), there(c)), (true, false, true));
    let held = templates.find::<u32>(a).expect("sound").expect("there");
    File::open(held.folder.join(USED)).and_then(|file| file.set_modified(long_ago)).expect("time");
    let d = fixture.make(&templates, "d");
    assert_eq!((there(a), there(c), there(d)), (true, false, true), "the oldest is in use");
    assert!(templates.bytes() <= 800_000);
}

#[test]
fn what_is_given_up_while_others_use_it_is_found_by_nobody_and_keeps_its_place_until_it_is_made_anew() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30);
    let key = fixture.make(&templates, "a");
    let find = || templates.find::<u32>(key);
    let (used, bad) = (find().expect("sound").expect("there"), find().expect("sound").expect("there"));
    templates.discard(&bad);
    drop(bad);
    assert!(used.folder.join("state").exists() && used.is_in_place(), "it is used");
    assert!(find().expect_err("given up").contains("given up"));
    fixture.make(&templates, "a");
    find().expect("sound").expect("made anew");
    assert!(!used.is_in_place(), "another one has its name");
    // A late report about the old one does not affect users of the new one.
    templates.discard(&used);
    find().expect("sound").expect("still there");
}

#[test]
fn locks_of_templates_that_are_gone_go_as_well_but_none_that_is_held() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30);
    let lock = |name: &str| templates.folder.join(format!("{}.lock", Digest::of(name.as_bytes()).hex()));
    let gone = fixture.make(&templates, "gone");
    let held = fixture.begin(Digest::of(b"held"));
    fs::remove_dir_all(templates.place(gone)).expect("removed");
    fixture.make(&templates, "new");
    assert_eq!((lock("gone").exists(), lock("held").exists(), lock("new").exists()), (false, true, true));
    drop(held);
    assert!(matches!(fixture.begin(gone), Begun::Free(_)), "it can be made again");
}

#[test]
fn two_that_are_made_at_once_do_not_count_on_the_same_room() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30);
    let free = space::free(fixture.store.path()).expect("known");
    let begin = |name: &str, bytes| {
        templates.begin::<u32>(Digest::of(name.as_bytes()), bytes, &AtomicBool::new(false), &|_| {})
    };
    let first = begin("a", free / 4 * 3).expect("it fits");
    begin("b", free / 4 * 3).expect_err("what is left does not do");
    drop(first);
    begin("b", free / 4 * 3).expect("it is gone");
}

#[test]
fn where_there_is_no_room_it_is_said() {
    let fixture = Fixture::new();
    let templates = fixture.templates(1 << 30);
    let key = fixture.make(&templates, "a");
    let wants = templates.begin::<u32>(Digest::of(b"b"), u64::MAX, &AtomicBool::new(false), &|_| {});
    assert!(wants.expect_err("nobody has that much").to_string().contains("bytes"));
    assert!(templates.place(key).exists(), "what would not help is not thrown away");
}
