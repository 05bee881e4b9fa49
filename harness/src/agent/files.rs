//! The files of finished attempts, on their way from the agent's machine to ours: sent in pieces, received with suspicion.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Component, Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use matrix::CellId;

use super::protocol::FromAgent;

/// Bytes of a file in one message: small enough that a heartbeat need not wait long behind it.
const PIECE: usize = 48 << 10;
/// Most bytes taken of one attempt: two streams and an installation log of 64 MiB each, artifacts of 256 MiB, consoles.
const MOST_BYTES: u64 = 1 << 30;
/// Most files taken of one attempt.
const MOST_FILES: usize = 5_000;

/// Sends every file of the attempt whose folder is `folder`; false: nobody takes them any more.
pub(super) fn send(
    folder: &Path,
    cell: &CellId,
    attempt: u32,
    say: &mut dyn FnMut(FromAgent) -> bool,
) -> io::Result<bool> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(inside) = waiting.pop() {
        for entry in fs::read_dir(folder.join(&inside))? {
            let entry = entry?;
            let path = inside.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                let Some(path) = path.to_str() else { continue };
                let mut file = File::open(folder.join(path))?;
                let mut first = true;
                loop {
                    let mut bytes = Vec::with_capacity(PIECE);
                    (&mut file).take(PIECE as u64).read_to_end(&mut bytes)?;
                    if bytes.is_empty() && !first {
                        break;
                    }
                    first = false;
                    let piece = STANDARD.encode(&bytes);
                    if !say(FromAgent::File { cell: cell.clone(), attempt, path: path.to_owned(), piece }) {
                        return Ok(false);
                    }
                }
            }
        }
    }
    Ok(true)
}

/// Writes what comes of one attempt. Whatever an agent says, nothing is written outside of the attempt's folder.
#[derive(Debug)]
pub(crate) struct Received {
    folder: PathBuf,
    bytes: u64,
    files: usize,
    open: Option<(String, File)>,
}

impl Received {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, bytes: 0, files: 0, open: None }
    }

    /// Takes the next piece; the error is for people.
    pub(crate) fn take(&mut self, path: &str, piece: &str) -> Result<(), String> {
        let inside = Path::new(path);
        if path.is_empty() || !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("`{}` leads out of the attempt's folder", reports::clean::line(path)));
        }
        let bytes = STANDARD.decode(piece).map_err(|error| format!("a piece of `{path}` is not base64: {error}"))?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes: the rest was not taken"));
        }
        let file = match &mut self.open {
            Some((open, file)) if open == path => file,
            _ => {
                self.files += 1;
                if self.files > MOST_FILES {
                    return Err(format!("more than {MOST_FILES} files: the rest was not taken"));
                }
                let file = self.create(inside).map_err(|error| format!("{path} could not be written: {error}"))?;
                &mut self.open.insert((path.to_owned(), file)).1
            }
        };
        file.write_all(&bytes).map_err(|error| format!("{path} could not be written: {error}"))
    }

    /// A new file: an agent that sends one twice does not replace the first.
    fn create(&self, inside: &Path) -> io::Result<File> {
        let file = self.folder.join(inside);
        fs::create_dir_all(file.parent().unwrap_or(&self.folder))?;
        OpenOptions::new().write(true).create_new(true).open(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> CellId {
        serde_json::from_str("\"image.suite\"").unwrap()
    }

    #[test]
    fn what_is_sent_arrives_byte_for_byte_in_however_many_pieces() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let large: Vec<u8> = (0..PIECE * 2 + 5).map(|number| number as u8).collect();
        fs::create_dir_all(from.path().join("artifacts/var")).unwrap();
        fs::write(from.path().join("artifacts/var/large"), &large).unwrap();
        fs::write(from.path().join("exact"), &large[..PIECE]).unwrap();
        fs::write(from.path().join("empty"), "").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", from.path().join("link")).unwrap();
        let mut received = Received::new(to.path().join("attempt-1"));
        let mut say = |message| {
            let FromAgent::File { path, piece, .. } = message else { panic!("{message:?}") };
            received.take(&path, &piece).unwrap();
            true
        };
        assert!(send(from.path(), &id(), 1, &mut say).unwrap());
        let read = |name: &str| fs::read(to.path().join("attempt-1").join(name)).unwrap();
        assert_eq!(read("artifacts/var/large"), large);
        assert_eq!(read("exact"), large[..PIECE]);
        assert!(read("empty").is_empty());
        assert!(!to.path().join("attempt-1/link").exists(), "links stay where they are");
    }

    #[test]
    fn nothing_is_written_outside_of_the_folder_or_over_what_is_there() {
        let to = tempfile::tempdir().unwrap();
        let mut received = Received::new(to.path().join("attempt-1"));
        for path in ["../evil", "/etc/evil", "a/../../evil", "", "./a"] {
            assert!(received.take(path, "").unwrap_err().contains("leads out"), "{path}");
        }
        received.take("log", &STANDARD.encode("one")).unwrap();
        received.take("other", "").unwrap();
        assert!(received.take("log", &STANDARD.encode("two")).unwrap_err().contains("could not be written"));
        assert_eq!(fs::read_to_string(to.path().join("attempt-1/log")).unwrap(), "one");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
        assert!(received.take("third", "not base64!").unwrap_err().contains("base64"));
    }
}
