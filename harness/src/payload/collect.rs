//! Phase collect: files out of the guest.
//!
//! The guest's tar stream goes to a file without a name first, up to a size, and is then read entry by entry (`unpack`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Instant,
};

use super::{
    quote,
    unpack::{Item, Warnings, unpack},
    words,
};
use crate::ssh::{End, Exec, Session, Sink, SshError, Stdin, Until};

/// How the guest's script ends a line about a file it left out.
const NOT_FETCHED: &str = "and was not fetched";
/// How much of result files is read into memory, in bytes.
const RESULTS: u64 = 16 << 20;

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
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// The files, in the order they came.
    pub files: Vec<Collected>,
    /// What was refused, cut or missing; a bounded number of clean lines.
    pub warnings: Vec<String>,
}

/// A suite's own results.
#[derive(Clone, Debug, Default)]
pub struct ResultFiles {
    /// Path in the guest and content of each.
    pub files: Vec<(String, Vec<u8>)>,
    /// What was refused, cut or missing; a bounded number of clean lines.
    pub warnings: Vec<String>,
    /// Everything that matched is here and whole: what is not read could be the failure.
    pub complete: bool,
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
/// A file `/var/log/x` lies at `into/var/log/x` afterwards. Nothing that exists is replaced.
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
    let local = |source| CollectError::Local { what: format!("{} cannot be made", into.display()), source };
    fs::create_dir_all(into).map_err(local)?;
    let mut warnings = Warnings::default();
    // On the same disk as what comes out of it.
    let spool = tempfile::tempfile_in(into).map_err(local)?;
    fetch(session, globs, &spool, limits, &mut warnings, deadline).await?;
    let (into, limits) = (into.to_owned(), *limits);
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        unpack(io::BufReader::new(spool), &limits, &mut warnings, |item| {
            let path = item.path.clone();
            let kept = keep(&into, item);
            if let Ok(Some(bytes)) = kept {
                files.push(Collected { path, bytes });
            }
            kept.map(Option::unwrap_or_default)
        });
        Collection { files, warnings: warnings.into_lines() }
    });
    unpacked
        .await
        .map_err(|error| CollectError::Local { what: "unpacking".to_owned(), source: io::Error::other(error) })
}

/// Fetches result files matching `glob` into memory, 16 MiB together at most.
pub async fn collect_results(session: &Session, glob: &str, deadline: Instant) -> Result<ResultFiles, CollectError> {
    let limits = Limits { per_file: RESULTS, total: RESULTS, count: 1000 };
    let mut warnings = Warnings::default();
    let spool = tempfile::tempfile()
        .map_err(|source| CollectError::Local { what: "a temporary file cannot be made".to_owned(), source })?;
    fetch(session, &[glob.to_owned()], &spool, &limits, &mut warnings, deadline).await?;
    let mut files = Vec::new();
    unpack(io::BufReader::new(spool), &limits, &mut warnings, |item| {
        let Some(content) = item.content else { return Ok(0) };
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let size = bytes.len() as u64;
        files.push((format!("/{}", item.path), bytes));
        Ok(size)
    });
    Ok(ResultFiles { files, complete: !warnings.lost, warnings: warnings.into_lines() })
}

/// Has the guest pack what matches, into `spool`, which then stands at its beginning.
async fn fetch(
    session: &Session,
    globs: &[String],
    mut spool: &File,
    limits: &Limits,
    warnings: &mut Warnings,
    deadline: Instant,
) -> Result<(), CollectError> {
    let local = |source| CollectError::Local { what: "a temporary file cannot be used".to_owned(), source };
    // Besides the content: three blocks of header and padding for each file and its long name, and the end of the stream.
    let cap = limits.total + limits.count as u64 * 2048 + (1 << 20);
    let exit = session
        .exec(Exec {
            command: pack_script(globs, limits.per_file),
            stdin: Stdin::None,
            stdout: Sink::Spool { file: spool.try_clone().map_err(local)?, cap },
            stderr: Sink::Tail,
            deadline,
            until: Until::Silent,
        })
        .await?;
    for line in words::lines(&exit.stderr_tail) {
        // An odd line of tar's: everything is packed relative to the root on purpose.
        if !line.contains("Removing leading") {
            warnings.note(line.strip_prefix("tar: ").unwrap_or(&line));
        }
        warnings.lost |= line.ends_with(NOT_FETCHED);
    }
    match exit.end {
        End::Exited(0) => {}
        // tar has said what it could not read, or what changed while it was read.
        End::Exited(1 | 2) => warnings.lost = true,
        End::Cut => warnings.add(format!("more than {} bytes in all: the rest was not fetched", limits.total)),
        End::Exited(_) | End::Killed(_) => warnings.add("the guest did not pack its files to the end"),
    }
    for warning in &exit.warnings {
        warnings.add(warning);
    }
    spool.rewind().map_err(local)
}

/// What the guest is asked to do. Files that are too large are left out there already: a sparse one may seem larger than any
/// disk. The list of them is not written down, because the guest's disk may be full.
///
/// The tar of some busyboxes cannot be told what to leave out, so it is told what not to: every other file, by name.
fn pack_script(globs: &[String], per_file: u64) -> String {
    let patterns: Vec<String> = globs.iter().map(|glob| quote::pattern(glob)).collect();
    format!(
        r#"cd / || exit
set --
for path in {patterns}; do
    if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" ".$path"; else echo "nothing matches $path" >&2; fi
done
[ $# -gt 0 ] || exit 0
large=$(find "$@" -type f -size +{per_file}c 2>/dev/null)
[ -n "$large" ] || exec tar -c -f - "$@"
printf '%s\n' "$large" | while IFS= read -r path; do
    echo "${{path#.}} is larger than {per_file} bytes {NOT_FETCHED}" >&2
done
if tar -c -f /dev/null -X /dev/null /dev/null 2>/dev/null; then
    printf '%s\n' "$large" | sed 's/[][*?\\]/\\&/g' | tar -c -f - -X /dev/stdin "$@"
    exit
fi
find "$@" ! -type d ! -size +{per_file}c | {{
    set --
    while IFS= read -r path; do set -- "$@" "$path"; done
    [ $# -eq 0 ] || tar -c -f - "$@"
}}
"#,
        patterns = patterns.join(" ")
    )
}

/// Writes one item below `into`; `None` for a folder. Safe because every name is a plain one (`unpack`), everything below `into` was made
/// here, and no link is ever made.
fn keep(into: &Path, item: Item<'_>) -> Result<Option<u64>, String> {
    let path = into.join(&item.path);
    let folder = if item.content.is_some() { path.parent().unwrap_or(into) } else { &path };
    make_folder(into, folder)?;
    let Some(content) = item.content else { return Ok(None) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            "another file of this name was fetched before".to_owned()
        } else {
            error.to_string()
        }
    })?;
    io::copy(content, &mut file).map(Some).map_err(|error| error.to_string())
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
    use std::io::Read;

    use super::*;

    fn put(into: &Path, path: &str, content: Option<&str>) -> Result<Option<u64>, String> {
        let mut reader = content.map(str::as_bytes);
        keep(into, Item { path: path.to_owned(), content: reader.as_mut().map(|reader| reader as &mut dyn Read) })
    }

    #[test]
    fn files_are_kept_below_their_folders_with_plain_permissions() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(put(dir.path(), "var/log/x.log", Some("hello")), Ok(Some(5)));
        assert_eq!(put(dir.path(), "var/empty", None), Ok(None));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join("var/log/x.log")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o7133, 0, "{mode:o}");
        assert!(dir.path().join("var/empty").is_dir());
    }

    #[test]
    fn a_second_file_of_a_name_does_not_replace_the_first() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", Some("first")).unwrap();
        assert!(put(dir.path(), "a", Some("second")).is_err());
        assert!(put(dir.path(), "a/below", Some("x")).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "first");
    }

    #[test]
    fn a_link_that_is_already_there_is_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("new"), dir.path().join("file")).unwrap();
        assert!(put(dir.path(), "var/x", Some("x")).is_err());
        assert!(put(dir.path(), "file", Some("x")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
