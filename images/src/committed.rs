//! Lock files beside a matrix, which people commit: read with limits, mistakes told by line, replaced atomically.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// Maximum length, in bytes: some ten thousand entries.
const MAX_BYTES: u64 = 4 << 20;

/// A lock file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", file.display(), line.map_or(String::new(), |line| format!(":{line}")))]
pub struct LockError {
    /// The file.
    pub file: PathBuf,
    /// Line of the mistake, from 1, if it is in one.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// A kind of lock file.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// Its version, the value of the key `version`.
    pub version: u32,
    /// The command that writes it.
    pub written_by: &'static str,
}

/// What every lock file has.
#[derive(serde::Deserialize)]
struct Head {
    version: u32,
}

impl Committed {
    /// The text of a file; `None`: the file does not exist.
    ///
    /// # Errors
    ///
    /// It cannot be read, or was not written by nestmatrix.
    pub fn read(&self, file: &Path) -> Result<Option<String>, LockError> {
        // A pipe of that name would be waited for, and a link to nowhere is not the same as no lock.
        let found = match file.symlink_metadata().and_then(|_| fs::metadata(file)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.symlink_metadata().is_err() => {
                return Ok(None);
            }
            Err(error) => return Err(self.failed(file, "cannot be read", &error)),
        };
        let mut text = String::new();
        if found.is_file() {
            let opened = File::open(file).map_err(|error| self.failed(file, "cannot be read", &error))?;
            let read = opened.take(MAX_BYTES + 1).read_to_string(&mut text);
            read.map_err(|error| self.failed(file, "cannot be read", &error))?;
        }
        if !found.is_file() || text.len() as u64 > MAX_BYTES {
            return Err(self.failed(file, "cannot be read", &"it was not written by nestmatrix"));
        }
        Ok(Some(text))
    }

    /// What a text says.
    ///
    /// # Errors
    ///
    /// It is no such file, or one of another version.
    pub fn parse<T: DeserializeOwned>(&self, file: &Path, text: &str) -> Result<T, LockError> {
        let parsed = toml::from_str(text).map_err(|error| {
            let message = error.message().lines().next().unwrap_or_default().to_owned();
            self.wrong(file, error.span().map(|span| line(text, span.start)), message)
        });
        match toml::from_str(text) {
            Ok(Head { version }) if version != self.version => {
                let message = format!("its version is {version}, this nestmatrix supports {}", self.version);
                let help =
                    format!("use the nestmatrix that wrote it, or remove the file and run `{}`", self.written_by);
                Err(LockError { help, ..self.wrong(file, None, message) })
            }
            _ => parsed,
        }
    }

    /// A mistake in the text.
    pub fn wrong(&self, file: &Path, line: Option<usize>, message: String) -> LockError {
        let help = format!("repair it, or remove the file and run `{}`", self.written_by);
        LockError { file: file.to_owned(), line, message, help }
    }

    /// Replaces the file atomically.
    ///
    /// # Errors
    ///
    /// It cannot be written, or would be too large to be read again.
    pub fn write(&self, file: &Path, text: Result<String, toml::ser::Error>) -> Result<(), LockError> {
        let text = text.map_err(|error| self.failed(file, "cannot be written", &error))?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("its {} bytes are more than the {MAX_BYTES} that it may have", text.len());
            let help = "split the matrix".to_owned();
            return Err(LockError { help, ..self.failed(file, "cannot be written", &message) });
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
            fresh.write_all(text.as_bytes())?;
            // Readable by everybody who may read the matrix.
            fresh.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            fresh.as_file().sync_all()?;
            fresh.persist(file).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error: io::Error| self.failed(file, "cannot be written", &error))
    }

    fn failed(&self, file: &Path, what: &str, why: &dyn std::fmt::Display) -> LockError {
        let written_by = self.written_by;
        let help = format!("make the matrix file's folder readable and writable; `{written_by}` writes a new file");
        LockError { file: file.to_owned(), line: None, message: format!("it {what}: {why}"), help }
    }
}

/// The line of a text, from 1, at this offset.
pub fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
