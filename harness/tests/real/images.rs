//! The store and the catalog from the command line: what is asked for by name is pinned, downloaded, checked, found and removed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use crate::{
    lab::Lab,
    server::{Act, Served, Server, answer},
};

/// What a publisher has: nothing, or a disk that boots by BIOS, as far as anybody sees.
type Published = Arc<Mutex<Option<Arc<[u8]>>>>;

fn disk(fill: u8) -> Arc<[u8]> {
    let mut disk = vec![fill; 1 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    disk.into()
}

fn sha256(bytes: &[u8]) -> String {
    matrix::Digest::of(bytes).hex()
}

/// Serves the disk, and the list of digests that belongs to it.
fn publisher(published: &Published) -> Server {
    let published = Arc::clone(published);
    Server::start(move |seen| match (&*published.lock().unwrap(), seen.path.as_str()) {
        (Some(disk), "/base.raw") => Act::File(Served::new(disk)),
        (Some(disk), "/SHA256SUMS") => {
            answer("200 OK", "Content-Type: text/plain\r\n", &format!("{}  base.raw\n", sha256(disk)))
        }
        _ => answer("404 Not Found", "Content-Type: text/html\r\n", "<html>gone</html>"),
    })
}

struct Desk {
    lab: Lab,
    published: Published,
    _server: Server,
}

/// What a command said, on both outputs, and its exit code.
struct Said(i32, String);

impl Said {
    #[track_caller]
    fn expect(&self, code: i32, words: &[&str]) -> &Self {
        // The terminal breaks long lines anywhere.
        let flat: String = self.1.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert_eq!(self.0, code, "{}", self.1);
        for word in words {
            assert!(flat.contains(word), "`{word}` is missing in:\n{}", self.1);
        }
        self
    }
}

impl Desk {
    fn new() -> Self {
        let lab = Lab::without_guests();
        let published: Published = Arc::new(Mutex::new(Some(disk(1))));
        let server = publisher(&published);
        let catalog = format!(
            "[[image]]\nname = \"ours\"\nfamily = \"deb\"\narch = \"x86_64\"\nurl = \"{}\"\nchecksums = {{ url = \"{}\" }}\n",
            server.url("/base.raw"),
            server.url("/SHA256SUMS")
        );
        lab.write("images.toml", &catalog);
        lab.write("m.toml", "images = [\"ours-x86_64\"]\n[[suite]]\nname = \"s\"\ninline = \"true\"\n");
        Self { lab, published, _server: server }
    }

    fn publish(&self, disk: Option<Arc<[u8]>>) {
        *self.published.lock().unwrap() = disk;
    }

    fn images(&self, args: &[&str]) -> Said {
        said(self.lab.nestmatrix().arg("images").args(args))
    }

    /// The same with a store of this name, which is empty at first.
    fn elsewhere(&self, store: &str, args: &[&str]) -> Said {
        said(self.lab.nestmatrix().arg("images").args(args).arg("--store").arg(self.lab.path(store)))
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.lab.path("images.lock")).unwrap_or_default()
    }

    fn path(&self) -> PathBuf {
        let path = self.images(&["path", "ours-x86_64"]);
        path.expect(0, &[]);
        PathBuf::from(path.1.trim())
    }
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Said(output.status.code().unwrap_or(-1), text)
}

/// How many images a store holds.
fn count(store: &Path) -> usize {
    fs::read_dir(store.join("images")).map_or(0, Iterator::count)
}

#[test]
fn an_image_is_pinned_downloaded_found_checked_and_removed() {
    let desk = Desk::new();
    let first = sha256(&disk(1));
    desk.images(&["prepare", "ours-x86_64"]).expect(3, &["no digest", "images update"]);
    for args in [&["plan", "m.toml"][..], &["run", "m.toml"], &["shell", "ours-x86_64.s", "m.toml"]] {
        let refused = said(desk.lab.nestmatrix().args(args));
        refused.expect(2, &["m.toml: no digest in the catalog for ours-x86_64", "images update m.toml", "images.lock"]);
    }
    desk.images(&["list"]).expect(0, &["ours", "not pinned"]);
    assert_eq!(count(desk.lab.store()), 0, "nothing is downloaded that nobody vouches for");

    desk.images(&["update", "m.toml"]).expect(0, &["new", &first[..12], "written"]);
    assert!(desk.lock().contains(&first), "{}", desk.lock());
    said(desk.lab.nestmatrix().args(["plan", "m.toml"])).expect(0, &["ours-x86_64.s"]);
    desk.images(&["update", "m.toml", "--check"]).expect(0, &["1 unchanged", "nothing to change"]);
    desk.images(&["prepare", "--matrix", "m.toml", "--offline"]).expect(3, &["ours"]);
    desk.images(&["prepare", "--matrix", "m.toml"]).expect(0, &["ours"]);
    desk.publish(None);
    desk.images(&["prepare", "--matrix", "m.toml", "--offline"]).expect(0, &["in the store"]);
    assert_eq!(fs::read(desk.path()).unwrap(), *disk(1));
    desk.images(&["show", "ours-x86_64", "--format", "json"]).expect(0, &[&first, "base.raw"]);
    desk.images(&["list"]).expect(0, &["in the store"]);
    desk.images(&["verify"]).expect(0, &["intact"]);

    let path = desk.path();
    let mut damaged = disk(1).to_vec();
    damaged[4096] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, damaged).unwrap();
    desk.images(&["verify"]).expect(1, &["damaged", "--refresh"]);
    desk.images(&["prepare", "ours-x86_64"]).expect(3, &["damaged"]);
    desk.publish(Some(disk(1)));
    desk.images(&["prepare", "--refresh", "ours-x86_64"]).expect(0, &[]);
    desk.images(&["verify", "ours-x86_64"]).expect(0, &["intact"]);

    desk.images(&["gc", "--keep-days", "0"]).expect(0, &[]);
    assert_eq!(count(desk.lab.store()), 1, "it is named");
    fs::remove_file(desk.lab.path("images.toml")).unwrap();
    fs::remove_file(desk.lab.path("images.lock")).unwrap();
    desk.images(&["verify"]).expect(0, &["ours: intact"]);
    desk.images(&["gc", "--keep-days", "0", "--dry-run"]).expect(0, &[]);
    assert_eq!(count(desk.lab.store()), 1, "it was only said");
    desk.images(&["gc", "--keep-days", "0"]).expect(0, &[]);
    assert_eq!(count(desk.lab.store()), 0, "nobody names it any more");
}

#[test]
fn what_changed_at_its_publishers_or_went_away_is_said_and_not_used() {
    let desk = Desk::new();
    let (first, second) = (sha256(&disk(1)), sha256(&disk(2)));
    desk.images(&["update", "m.toml"]).expect(0, &["written"]);
    desk.publish(Some(disk(2)));
    desk.elsewhere("changed", &["prepare", "ours-x86_64"]).expect(3, &[&first, &second]);
    assert_eq!(count(&desk.lab.path("changed")), 0, "nothing of it is used");
    let before = desk.lock();
    desk.images(&["update", "m.toml", "--check"]).expect(1, &["WARNING", &first[..12], &second[..12], "would change"]);
    assert_eq!(desk.lock(), before, "it was only said");
    desk.publish(None);
    desk.elsewhere("gone", &["prepare", "ours-x86_64"]).expect(3, &["404", "base.raw", "images update"]);
    assert_eq!(count(&desk.lab.path("gone")), 0);
    desk.images(&["update", "m.toml"]).expect(3, &["404", "nothing was written"]);
    assert_eq!(desk.lock(), before);
    desk.publish(Some(disk(2)));
    desk.images(&["update", "m.toml"]).expect(0, &["changed", "written"]);
    desk.elsewhere("changed", &["prepare", "ours-x86_64"]).expect(0, &[]);
    assert_eq!(count(&desk.lab.path("changed")), 1);
}

#[test]
fn a_mistake_in_a_catalog_or_a_lock_names_its_line_and_starts_nothing() {
    let desk = Desk::new();
    desk.lab.write("images.toml", "[[image]]\nname = \"ours\"\nurll = \"https://example.com/a\"\n");
    desk.images(&["list"]).expect(2, &["images.toml:3", "urll"]);
    fs::remove_file(desk.lab.path("images.toml")).unwrap();
    desk.lab.write("images.lock", "version = 7\n");
    desk.images(&["list"]).expect(2, &["images.lock", "version"]);
}

#[test]
fn a_run_goes_on_with_the_image_it_began_with_or_not_at_all() {
    let lab = Lab::open();
    fs::write(lab.path("own.raw"), disk(1)).unwrap();
    let matrix = "[timeout]\nboot = \"20s\"\n[[image]]\nname = \"own\"\npath = \"own.raw\"\n\
                  [[suite]]\nname = \"s\"\ninline = \"true\"\n";
    let mut run = lab.start(matrix, "out", &[]);
    lab.wait_for_event("out", "guest-started");
    run.kill().unwrap();
    run.wait().unwrap();
    fs::write(lab.path("own.raw"), disk(2)).unwrap();
    let resumed = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).spawn().unwrap();
    let run = lab.finish(resumed, "out");
    run.assert_code(3);
    assert_eq!(run.verdict("own.s"), "error(image)", "{}", run.stderr);
    let reason = run.reason("own.s");
    assert!(reason.contains("digest mismatch") && reason.contains("when the run began"), "{reason}");
    lab.assert_nothing_left();
}
