//! A folder to download into, and its state afterwards.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use images::{
    Control,
    fetch::{FetchError, Fetched, Limits, Want, fetch},
};
use matrix::{Checksum, Digest};
use tempfile::TempDir;

/// A file that is not text and does not repeat itself.
pub(crate) fn noise(bytes: usize) -> Arc<[u8]> {
    let numbers = 1..=(bytes as u64).div_ceil(8);
    let mixed = numbers.flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes());
    mixed.take(bytes).collect::<Vec<u8>>().into()
}

/// Realistic limits, only shorter.
pub(crate) fn quick() -> Limits {
    Limits {
        // Long enough for a busy machine; tests that want less set it.
        connect: Duration::from_secs(30),
        idle: Duration::from_secs(30),
        slow_bytes: 0,
        pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        overall: Duration::from_secs(120),
        tries: 2,
        ..Limits::default()
    }
}

/// A file at these addresses, without further facts.
pub(crate) fn anything(urls: &[String]) -> Want {
    Want { urls: urls.to_vec(), digest: None, bytes: None }
}

/// The file with these bytes, at these addresses.
pub(crate) fn exactly(body: &[u8], urls: &[String]) -> Want {
    Want { digest: Some(Checksum::Sha256(Digest::of(body))), ..anything(urls) }
}

pub(crate) struct Place {
    root: TempDir,
    told: Mutex<Vec<String>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(root.path().join("folder")).expect("folder");
        Self { root, told: Mutex::default() }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("folder")
    }

    pub(crate) fn partial(&self) -> PathBuf {
        self.root.path().join("key.part")
    }

    pub(crate) fn fetch(&self, want: &Want, limits: &Limits) -> Result<Fetched, FetchError> {
        self.fetch_unless(&AtomicBool::new(false), want, limits)
    }

    /// Sets the flag after that time.
    pub(crate) fn fetch_for(&self, time: Duration, want: &Want, limits: &Limits) -> Result<Fetched, FetchError> {
        let cancel = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(time);
                cancel.store(true, Ordering::Relaxed);
            });
            self.fetch_unless(&cancel, want, limits)
        })
    }

    fn fetch_unless(&self, cancel: &AtomicBool, want: &Want, limits: &Limits) -> Result<Fetched, FetchError> {
        let progress = |line: &str| self.told.lock().expect("lines").push(line.to_owned());
        let fetched = fetch(
            want,
            &self.folder(),
            &self.partial(),
            limits,
            &Control { refresh: false, cancel, progress: &progress },
        );
        if fetched.is_err() {
            let left = fs::read_dir(self.folder()).map_or(0, Iterator::count);
            assert_eq!(left, 0, "an error leaves nothing in the folder");
        }
        fetched
    }

    /// Downloads it and compares every byte.
    pub(crate) fn fetch_right(&self, body: &[u8], want: &Want) -> Fetched {
        self.fetch_right_within(body, want, &quick())
    }

    pub(crate) fn fetch_right_within(&self, body: &[u8], want: &Want, limits: &Limits) -> Fetched {
        let fetched = self.fetch(want, limits).expect("it is there");
        assert!(fs::read(&fetched.file).expect("disk") == body, "not the bytes that were sent");
        assert_eq!(fetched.content, Digest::of(body));
        assert_eq!(self.kept(), Vec::<String>::new(), "what was downloaded is not kept twice");
        fetched
    }

    /// Expects a failure; returns the message, with the server's port masked.
    pub(crate) fn error(&self, want: &Want) -> String {
        self.error_within(want, &quick())
    }

    pub(crate) fn error_within(&self, want: &Want, limits: &Limits) -> String {
        let error = self.fetch(want, limits).expect_err("nobody has it");
        let help = error.help().map_or(String::new(), |help| format!("\nhelp: {help}"));
        masked(&format!("{error}{help}"))
    }

    /// The progress messages.
    pub(crate) fn progress_lines(&self) -> Vec<String> {
        self.told.lock().expect("lines").clone()
    }

    /// Names of the kept files.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).expect("folder");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "folder").collect();
        names.sort();
        names
    }
}

/// Ports differ from run to run.
pub(crate) fn masked(text: &str) -> String {
    let mut pieces = text.split("127.0.0.1:");
    let mut masked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        masked += "SERVER";
        masked += piece.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    masked
}
