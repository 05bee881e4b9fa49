//! Phase collect: files out of the guest.
//!
//! What the guest sends (`collect.sh`) goes to a file without a name first, up to a size, and is then read (`frames`). What came before a
//! time limit or the end of the connection is kept, and it is said that there is more.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Instant,
};

use super::{
    frames::{self, Item},
    quote,
    warnings::Warnings,
    words,
};
use crate::ssh::{End, Exec, Session, Sink, SshError, Stdin};

/// What the guest runs.
const SCRIPT: &str = include_str!("collect.sh");
/// What is done with files, and with links to files below a folder.
type Verb = (&'static str, &'static str);
const EVIDENCE: Verb = ("send", "");
/// A result may be told by any of them.
const RESULTS: Verb = ("send", "follow");
const OLD_RESULTS: Verb = ("remove", "follow");
/// How much of result files is read into memory, in bytes.
const RESULT_LIMITS: Limits = Limits { per_file: 16 << 20, total: 16 << 20, count: 1000 };

/// How much is fetched from one guest.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of one file.
    pub per_file: u64,
    /// Most bytes of all files together.
    pub total: u64,
    /// Most files and folders.
    pub count: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_file: 64 << 20, total: 256 << 20, count: 1000 }
    }
}

/// One file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Where it lies, relative to the folder collected into.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What was fetched, and what was not and why.
#[derive(Debug, Default)]
pub struct Collection {
    /// The files, in the order they came.
    pub files: Vec<Collected>,
    /// What was refused, cut or missing; a bounded number of clean lines.
    pub warnings: Vec<String>,
    /// Why nothing more came, if the guest cannot be reached any more.
    pub cut_off: Option<SshError>,
}

/// A suite's own results.
#[derive(Debug, Default)]
pub struct ResultFiles {
    /// Path in the guest and content of each.
    pub files: Vec<(String, Vec<u8>)>,
    /// What was refused, cut or missing; a bounded number of clean lines.
    pub warnings: Vec<String>,
    /// What that matched is not here, or not whole: it could be the failure.
    pub missing: Option<String>,
}

/// Nothing could be fetched.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// This machine's fault.
    #[error("{what}: {source}")]
    Local {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The connection, the deadline or the cancellation.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

/// Fetches what matches `globs` (absolute paths in the guest) into the folder `into`, which is made if need be.
///
/// A file `/var/log/x` lies at `into/var/log/x` afterwards. Nothing that exists is replaced. Symbolic links are followed where a pattern
/// matches them, and not below a folder.
///
/// # Errors
/// This machine's disk, or the cancellation. Where the guest stops answering, what came is kept: [`Collection::cut_off`].
pub async fn collect(
    session: &Session,
    globs: &[String],
    into: &Path,
    limits: &Limits,
    deadline: Instant,
) -> Result<Collection, CollectError> {
    if globs.is_empty() {
        return Ok(Collection::default());
    }
    let folder = into.to_owned();
    // On the same disk as what comes out of it.
    let spool = blocking(move || {
        let made = fs::create_dir_all(&folder).and_then(|()| tempfile::tempfile_in(&folder));
        made.map_err(|source| local(format!("{} cannot be made", folder.display()), source))
    });
    let fetched = fetch(session, EVIDENCE, globs, limits, spool.await?, deadline).await?;
    let (into, limits) = (into.to_owned(), *limits);
    blocking(move || {
        let Fetched { mut spool, mark, mut warnings, cut_off } = fetched;
        let mut files = Vec::new();
        frames::read(&mut spool, &mark, &limits, &mut warnings, |item| {
            let path = item.path.clone();
            let bytes = keep(&into, item)?;
            files.push(Collected { path, bytes });
            Ok(bytes)
        });
        Ok(Collection { files, warnings: warnings.into_lines(), cut_off })
    })
    .await
}

/// Fetches result files matching `glob` into memory, 16 MiB together at most. A file with two names (`latest.xml`, a symbolic link to
/// another that matches) counts once.
///
/// # Errors
/// This machine's disk, the connection, or the cancellation. Results that come to the deadline only in part are not complete.
pub async fn collect_results(session: &Session, glob: &str, deadline: Instant) -> Result<ResultFiles, CollectError> {
    let spool = blocking(temporary).await?;
    let fetched = fetch(session, RESULTS, &[glob.to_owned()], &RESULT_LIMITS, spool, deadline).await?;
    if let Some(error) = fetched.cut_off {
        return Err(error.into());
    }
    blocking(move || {
        let Fetched { mut spool, mark, mut warnings, .. } = fetched;
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut inodes = Vec::new();
        frames::read(&mut spool, &mark, &RESULT_LIMITS, &mut warnings, |item| {
            let mut bytes = Vec::new();
            item.content.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            let size = bytes.len() as u64;
            let same = |(inode, (_, other)): (&u64, &(String, Vec<u8>))| *inode == item.inode && *other == bytes;
            if !inodes.iter().zip(&files).any(same) {
                inodes.push(item.inode);
                files.push((format!("/{}", item.path), bytes));
            }
            Ok(size)
        });
        Ok(ResultFiles { files, missing: warnings.lost.clone(), warnings: warnings.into_lines() })
    })
    .await
}

/// Removes what matches `glob`, before a suite starts: what is there afterwards is the suite's. What was removed, one line each; or what
/// could not be.
///
/// # Errors
/// As [`collect_results`].
pub async fn remove_results(
    session: &Session,
    glob: &str,
    deadline: Instant,
) -> Result<Result<Vec<String>, String>, CollectError> {
    let spool = blocking(temporary).await?;
    let fetched = fetch(session, OLD_RESULTS, &[glob.to_owned()], &RESULT_LIMITS, spool, deadline).await?;
    if let Some(error) = fetched.cut_off {
        return Err(error.into());
    }
    blocking(move || {
        let Fetched { mut spool, mark, mut warnings, .. } = fetched;
        frames::read(&mut spool, &mark, &RESULT_LIMITS, &mut warnings, |_| Err("it was to be removed".to_owned()));
        let lost = warnings.lost.is_some();
        let lines = warnings.into_lines();
        Ok(if lost { Err(lines.join("; ")) } else { Ok(lines) })
    })
    .await
}

/// What came.
struct Fetched {
    spool: File,
    mark: String,
    warnings: Warnings,
    cut_off: Option<SshError>,
}

/// Has the guest send what matches into `spool`, or remove it.
async fn fetch(
    session: &Session,
    verb: Verb,
    globs: &[String],
    limits: &Limits,
    spool: File,
    deadline: Instant,
) -> Result<Fetched, CollectError> {
    let mark = format!("{:032x}", rand::random::<u128>());
    let mut warnings = Warnings::default();
    // Besides the content: frames, with paths of at most 4096 bytes.
    let cap = limits.total + limits.count as u64 * 8192 + (1 << 20);
    let file = spool.try_clone().map_err(|source| local("a temporary file cannot be used".to_owned(), source))?;
    let ended = session
        .exec(Exec {
            stdout: Sink::Spool { file, cap },
            ..Exec::new(command(verb, globs, &mark, limits), Stdin::None, deadline)
        })
        .await;
    let mut cut_off = None;
    match ended {
        Ok(exit) => {
            for line in words::lines(&exit.stderr_tail) {
                warnings.note(line);
            }
            match exit.end {
                End::Exited(0) => {}
                End::Cut => warnings.add(format!("more than {} bytes in all: the rest was not fetched", limits.total)),
                end => warnings.add(format!("the guest did not send its files to the end: {end}")),
            }
            for warning in &exit.warnings {
                warnings.add(warning);
            }
        }
        // Nothing is half removed.
        Err(error @ SshError::Timeout { .. }) if verb == OLD_RESULTS => return Err(error.into()),
        Err(SshError::Timeout { .. }) => {
            warnings.add(
                "files of the guest are not complete: time limit of phase collect reached; raise `timeout.collect`",
            );
        }
        Err(SshError::Cancelled) => return Err(SshError::Cancelled.into()),
        Err(error) => {
            warnings.add(format!("files of the guest are not complete: {error}"));
            cut_off = Some(error);
        }
    }
    Ok(Fetched { spool, mark, warnings, cut_off })
}

fn command((verb, links): Verb, globs: &[String], mark: &str, limits: &Limits) -> String {
    let patterns: Vec<String> = globs.iter().map(|glob| quote::pattern(glob)).collect();
    // Each expanded by itself: it may match as many files as there are.
    let matches: String = patterns.iter().map(|pattern| format!("match {pattern}\n")).collect();
    let script = format!("{SCRIPT}{matches}frame \"O$frames\"\n");
    let [most, all, count] = [limits.per_file, limits.total, limits.count as u64].map(|limit| limit.to_string());
    quote::script_with(&script, &[verb, mark, &most, &all, &count, links])
}

fn temporary() -> Result<File, CollectError> {
    tempfile::tempfile().map_err(|source| local("a temporary file cannot be made".to_owned(), source))
}

fn local(what: String, source: io::Error) -> CollectError {
    CollectError::Local { what, source }
}

/// Does what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CollectError> + Send + 'static,
) -> Result<T, CollectError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(local("the files of the guest are read".to_owned(), io::Error::other(error))))
}

/// Writes one file below `into`. Safe because every name is a plain one (`file_name`), everything below `into` was made here, and no link
/// is ever made.
fn keep(into: &Path, item: Item<'_>) -> Result<u64, String> {
    let path = into.join(&item.path);
    make_folder(into, path.parent().unwrap_or(into))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            "another file of this name was fetched before".to_owned()
        } else {
            error.to_string()
        }
    })?;
    io::copy(item.content, &mut file).map_err(|error| error.to_string())
}

/// Makes the folders between `into` and `folder`, one by one, none of them through a link.
fn make_folder(into: &Path, folder: &Path) -> Result<(), String> {
    let mut at = into.to_owned();
    for name in folder.strip_prefix(into).map_err(|error| error.to_string())?.components() {
        at.push(name);
        match fs::create_dir(&at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let existing = fs::symlink_metadata(&at).map_err(|error| error.to_string())?;
                if !existing.is_dir() {
                    return Err("a file is where its folder should be".to_owned());
                }
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(into: &Path, path: &str, mut content: &[u8]) -> Result<u64, String> {
        keep(into, Item { path: path.to_owned(), inode: 1, content: &mut content })
    }

    #[test]
    fn files_are_kept_below_their_folders_with_plain_permissions() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(put(dir.path(), "var/log/x.log", b"hello"), Ok(5));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join("var/log/x.log")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o7133, 0, "{mode:o}");
    }

    #[test]
    fn a_second_file_of_a_name_does_not_replace_the_first() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", b"first").unwrap();
        assert!(put(dir.path(), "a", b"second").is_err());
        assert!(put(dir.path(), "a/below", b"x").is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "first");
    }

    #[test]
    fn a_link_that_is_already_there_is_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("new"), dir.path().join("file")).unwrap();
        assert!(put(dir.path(), "var/x", b"x").is_err());
        assert!(put(dir.path(), "file", b"x").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
