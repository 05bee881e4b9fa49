//! Fetches an image from its publisher, on a machine where guests are to run.
//!
//! Its entry is prepared as it was where the run was started, in a store of its own, which goes when it is done or fails. The digest of
//! what is made is compared with that of the image there: only then it gets its name.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use images::{Control, Entry, PrepareErrorKind, PreparedImage, Store, StoreErrorKind};
use serde::{Deserialize, Serialize};

use super::{
    coming::{Coming, Reply, line, remove, say},
    job_bundle::DISK,
};
use crate::fanout::{FetchSource, ImageFacts};

/// How long a fetch may take.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 60);
/// How often it is said that it goes on.
const SAID: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };
/// If nothing has come of it after so long, the network leads nowhere.
const FIRST_BYTE: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(60) };
/// Longest line with what is to be fetched.
const LONGEST_LINE: u64 = 64 << 10;

/// An image that is to be fetched.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// What it must be.
    pub(crate) facts: ImageFacts,
    /// Where its disk is.
    pub(crate) source: FetchSource,
}

/// Fetches the image that the line on `input` names, into the folder of its digest.
pub(super) fn fetch(
    root: &Path,
    folder: &str,
    input: &mut impl io::BufRead,
    output: &mut impl io::Write,
) -> io::Result<()> {
    let Wanted { facts, source } = line(input, LONGEST_LINE)?;
    if facts.digest.hex() != folder {
        return Err(io::Error::other("the folder is not named after the image"));
    }
    let Some(entry) = source.entry(folder, &facts) else {
        return Err(io::Error::other("not the address of a publisher"));
    };
    let Some(coming) = Coming::new(root, folder, output)? else { return Ok(()) };
    let fetching = Fetching(coming.fetched.clone());
    let create = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
    create(&fetching.0)?;
    let image = prepared(&fetching.0.join("store"), &entry, output)?;
    if image.digest != facts.digest {
        let (found, wanted) = (image.digest.short(), facts.digest.short());
        return Err(io::Error::other(format!(
            "what was fetched makes another image: its digest is {found}, not {wanted}"
        )));
    }
    let whole = fetching.0.join("whole");
    create(&whole)?;
    fs::rename(&image.disk, whole.join(DISK))?;
    coming.is_whole(&whole)?;
    // It is of no use any more, and of no harm.
    let _ = remove(&coming.part);
    Ok(())
}

/// The folder of a fetch; nothing of it stays.
struct Fetching(PathBuf);

impl Drop for Fetching {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// Prepares it in this store, and meanwhile says how far it is: who cannot be told needs it no more.
fn prepared(store: &Path, entry: &Entry, output: &mut impl io::Write) -> io::Result<PreparedImage> {
    let (cancel, last) = (AtomicBool::new(false), Mutex::new(String::new()));
    let note = |line: &str| line.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
    let (began, mut most) = (Instant::now(), 0);
    let mut goes_on = || {
        let downloaded = downloaded(store);
        most = most.max(downloaded.unwrap_or_default());
        let limit = if (downloaded, most) == (Some(0), 0) { FIRST_BYTE } else { LONGEST };
        if began.elapsed() >= limit {
            let last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let reason = format!("timeout: {most} bytes in {} s: {last}", began.elapsed().as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        say(output, &Reply::Fetching(most))
    };
    thread::scope(|scope| {
        let (done, result) = mpsc::channel();
        let control = Control { refresh: false, cancel: &cancel, progress: &note };
        scope.spawn(move || {
            let _ = done.send(prepare(store, entry, &control));
        });
        let mut stopped = None;
        loop {
            match result.recv_timeout(SAID) {
                Ok(Err(_)) if let Some(why) = stopped => return Err(why),
                Ok(prepared) => return prepared,
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it failed inside nestmatrix")),
                Err(RecvTimeoutError::Timeout) if stopped.is_some() => {}
                Err(RecvTimeoutError::Timeout) => {
                    stopped = goes_on().err();
                    cancel.store(stopped.is_some(), Ordering::Relaxed);
                }
            }
        }
    })
}

fn prepare(store: &Path, entry: &Entry, control: &Control<'_>) -> io::Result<PreparedImage> {
    let full = |is_full, error: String| match is_full {
        true => io::Error::new(io::ErrorKind::StorageFull, error),
        false => io::Error::other(error),
    };
    let store = Store::open(store)
        .map_err(|error| full(matches!(error.kind, StoreErrorKind::DiskFull { .. }), error.to_string()))?;
    store
        .prepare(entry, control)
        .map_err(|error| full(matches!(error.kind, PrepareErrorKind::DiskFull { .. }), error.kind.to_string()))
}

/// Bytes that are there of the one download of a store; `None`: it has not begun, or is over.
fn downloaded(store: &Path) -> Option<u64> {
    let mut files = fs::read_dir(store.join("downloads")).ok()?.flatten();
    let part = files.find(|file| file.path().extension().is_some_and(|kind| kind == "part"))?;
    Some(part.metadata().ok()?.len())
}

/// The server of the downloads' own tests.
#[cfg(test)]
#[path = "../../../images/tests/it/server.rs"]
#[expect(dead_code, reason = "most of what it can do wrong is tried there")]
mod server;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use matrix::{Arch, ByteSize, Digest};
    use serde_json::{Value, json};

    use super::{
        super::coming::FETCHED,
        server::{Act, Served, Server, answer},
        *,
    };

    /// A disk that seems to boot by BIOS.
    fn disk() -> Arc<[u8]> {
        let mut disk = vec![7; 1 << 20];
        disk[510..512].copy_from_slice(b"\x55\xaa");
        disk.into()
    }

    /// What is asked for, of an image that was prepared where nothing is fetched.
    fn wanted(url: &str) -> Wanted {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::of(Served::new(&disk())));
        let source = |url: &str| -> FetchSource {
            let line = json!({"urls": [url], "checksum": Digest::of(&disk()), "firmware": null});
            serde_json::from_value(line).unwrap()
        };
        let mut facts = ImageFacts {
            digest: Digest::of(b""),
            arch: Arch::X86_64,
            family: None,
            bytes: ByteSize::from_mib(1),
            start: images::Start::Firmware(matrix::Firmware::Bios),
            login_user: "admin".into(),
        };
        let entry = source(&server.url("/a")).entry("debian-12", &facts).unwrap();
        let control = Control { refresh: false, cancel: &AtomicBool::new(false), progress: &|_| {} };
        facts.digest = Store::open(folder.path()).unwrap().prepare(&entry, &control).unwrap().digest;
        Wanted { facts, source: source(url) }
    }

    fn run(root: &Path, wanted: &Wanted, output: &mut impl io::Write) -> io::Result<()> {
        let line = serde_json::to_string(wanted).unwrap() + "\n";
        fetch(root, &wanted.facts.digest.hex(), &mut line.as_bytes(), output)
    }

    /// What lies there, locks aside.
    fn left(root: &Path) -> Vec<String> {
        let names = fs::read_dir(root.join("images")).unwrap().map(|entry| entry.unwrap().file_name().into_string());
        let mut names: Vec<String> = names.flatten().filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_fetched_lies_there_as_if_it_had_been_uploaded_and_is_fetched_once() {
        let (root, server) = (tempfile::tempdir().unwrap(), Server::of(Served::new(&disk())));
        let wanted = wanted(&server.url("/debian.raw"));
        let folder = wanted.facts.digest.hex();
        let interrupted = root.path().join(format!("images/{folder}.part"));
        fs::create_dir_all(&interrupted).unwrap();
        run(root.path(), &wanted, &mut io::sink()).unwrap();
        run(root.path(), &wanted, &mut io::sink()).unwrap();
        assert_eq!(server.seen().len(), 1);
        assert_eq!(left(root.path()).join(" "), folder);
        let files = fs::read_dir(root.path().join("images").join(&folder)).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, [DISK, "used"]);
        assert_eq!(fs::read(root.path().join("images").join(folder).join(DISK)).unwrap(), *disk());
    }

    #[test]
    fn what_is_not_the_image_or_not_there_leaves_nothing() {
        let (root, server) = (
            tempfile::tempdir().unwrap(),
            Server::start(|seen| match seen.path.as_str() {
                "/gone" => answer("404 Not Found", "", ""),
                "/other" => Served::new(&vec![1; 1 << 20].into()).into(),
                _ => Served::new(&disk()).into(),
            }),
        );
        let fails = |wanted: &Wanted, words: &str| {
            let why = run(root.path(), wanted, &mut io::sink()).unwrap_err().to_string();
            assert!(why.contains(words), "{why}");
            assert_eq!(left(root.path()), [""; 0], "{words}");
        };
        fails(&wanted(&server.url("/gone")), "404");
        fails(&wanted(&server.url("/other")), "digest mismatch");
        let mut another = wanted(&server.url("/debian.raw"));
        another.facts.login_user = "root".into();
        fails(&another, "makes another image");
    }

    #[test]
    fn what_a_killed_fetch_left_is_removed_by_the_next_one_and_not_while_it_runs() {
        let (root, server) = (tempfile::tempdir().unwrap(), Server::of(Served::new(&disk())));
        let wanted = wanted(&server.url("/debian.raw"));
        let own = wanted.facts.digest.hex();
        for name in [&own, "killed", "running"] {
            let folder = root.path().join(format!("images/{name}.{FETCHED}"));
            fs::create_dir_all(folder.join("store/downloads")).unwrap();
            fs::create_dir_all(folder.join("whole")).unwrap();
            fs::write(folder.join("whole").join(DISK), "half").unwrap();
        }
        let running = fs::File::create(root.path().join("images/running.lock")).unwrap();
        running.lock().unwrap();
        run(root.path(), &wanted, &mut io::sink()).unwrap();
        assert_eq!(left(root.path()), [own.clone(), format!("running.{FETCHED}")]);
        assert_eq!(fs::read(root.path().join("images").join(own).join(DISK)).unwrap(), *disk());
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up_and_meanwhile_it_is_said_that_it_goes_on() {
        let (root, server) = (tempfile::tempdir().unwrap(), Server::start(|_| Act::Silence));
        let mut said = Vec::new();
        let error = run(root.path(), &wanted(&server.url("/debian.raw")), &mut said).unwrap_err();
        assert!(error.to_string().contains("downloading from 127.0.0.1"), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let said = String::from_utf8(said).unwrap();
        assert!(said.lines().count() > 5 && said.lines().all(|line| line == "{\"fetching\":0}"), "{said}");
        assert_eq!(left(root.path()), [""; 0]);
    }

    #[test]
    fn a_fetch_that_nobody_listens_to_any_more_ends() {
        let served = Served::new(&disk()).stalling_after(1 << 19);
        let (root, server) = (tempfile::tempdir().unwrap(), Server::of(served));
        let mut room = [0; 60];
        let error = run(root.path(), &wanted(&server.url("/debian.raw")), &mut room.as_mut_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        assert_eq!(left(root.path()), [""; 0]);
    }

    #[test]
    fn what_names_no_publisher_is_refused_before_anything_is_done() {
        let root = tempfile::tempdir().unwrap();
        let good = wanted("http://127.0.0.1:9/debian.raw");
        let (folder, good) = (good.facts.digest.hex(), serde_json::to_value(good).unwrap());
        let urls = |urls: Value| {
            let mut line = good.clone();
            line["source"]["urls"] = urls;
            line.to_string() + "\n"
        };
        let of_urls = [
            json!([]),
            json!(["/etc/shadow"]),
            json!(["file:///etc/shadow"]),
            json!(["ftp://127.0.0.1/a"]),
            json!(["http://me:secret@127.0.0.1/a"]),
            json!(["http://127.0.0.1/a", "a"]),
            json!(vec!["http://127.0.0.1/a"; 33]),
        ];
        let mut more = good.clone();
        more["path"] = "/etc/shadow".into();
        let others = [String::new(), "{}\n".into(), good.to_string(), more.to_string() + "\n", " ".repeat(1 << 17)];
        for line in of_urls.map(urls).into_iter().chain(others) {
            fetch(root.path(), &folder, &mut line.as_bytes(), &mut io::sink()).unwrap_err();
        }
        for folder in ["abc", "../abc", ""] {
            let line = good.to_string() + "\n";
            fetch(root.path(), folder, &mut line.as_bytes(), &mut io::sink()).unwrap_err();
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
