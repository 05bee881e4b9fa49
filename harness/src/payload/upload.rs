//! The payload's way into the guest: one tar stream.
//!
//! What arrives, below the payload's folder in the guest (`$NESTMATRIX_ROOT` of the login, or `/var/tmp/nestmatrix`): `guard` (see
//! `guard.sh`), `install` (the family's script), `network` (what tells its resolver what it may reach), `facts` (what asks the system what it is), `start` (the environment, then the suite's script), `work/` (the suite's working directory: its script and its files), `artifacts/` (the package) and `tmp/`.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use indexmap::IndexMap;
use matrix::{Arch, Artifact, Digest, Network, PackageFamily, UploadFile};
use reports::SystemFacts;
use sha2::Digest as _;

use super::{facts, family, network, quote, words};
use crate::ssh::{Exec, Session, Sink, SshError, StdinWriter, Until};

/// Name of the suite's script in its working directory.
pub(super) const SCRIPT: &str = ".nestmatrix-suite";
/// What the tar stream is written in: one piece of the session's input.
const PIECE: usize = 64 * 1024;

/// What goes into the guest.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// The suite's script.
    pub script: &'a str,
    /// The suite's environment, besides `PATH`, `TMPDIR` and what a login has. Names are variable names of a shell.
    pub env: &'a IndexMap<String, String>,
    /// Files that lie beside the script.
    pub files: &'a [UploadFile],
    /// Files of the package; only those that `family` can install on `arch` are sent.
    pub artifacts: &'a [Artifact],
    /// The guest's package manager; `None`: nothing is to be installed.
    pub family: Option<PackageFamily>,
    /// The guest's CPU.
    pub arch: Arch,
    /// What the guest's resolver is told that it may reach; `None`: it is told nothing.
    pub network: Option<Network>,
    /// Whether the guest is asked what it is, as well.
    pub facts: bool,
}

/// The payload did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A file is not what it was when the plan was made.
    #[error("{} has changed since the plan was made ({detail})", path.display())]
    Changed {
        /// The file on this machine.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file on this machine.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has a name that cannot be had in the guest.
    #[error("`{name}` cannot be the name of a file in the guest: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The guest could not unpack it, for example because its disk is full.
    #[error("the guest could not unpack the payload: {words}")]
    Unpack {
        /// In the guest's words.
        words: String,
    },
    /// The connection, the deadline or the cancellation.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

/// Sends the payload into a fresh folder of the guest. What that said of itself, if it was asked and did.
///
/// # Errors
/// A file of this machine, the guest's disk, the connection, the deadline or the cancellation; never what the guest says of itself.
pub async fn upload(
    session: &Session,
    upload: &Upload<'_>,
    deadline: Instant,
) -> Result<Option<SystemFacts>, UploadError> {
    let parcel = Parcel::new(upload)?;
    let (writer, stdin) = session.stdin_stream();
    let sending = tokio::task::spawn_blocking(move || parcel.write(writer));
    // -m: the guest's clock may be wrong, and tar would say so file by file. -o: whoever owned a file here is nobody there.
    let unpack = "umask 022; d=${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}; \
                  rm -rf \"$d\" && mkdir -m 700 \"$d\" && cd \"$d\" && tar -x -m -o -f - || exit";
    // In the same round trip, when all that counts is done.
    let told = upload.network.map_or("", network::command);
    let ask = if upload.facts { facts::ASK } else { "exit 0" };
    let exit = session
        .exec(Exec {
            command: format!("{unpack}\n{told}\n{ask}"),
            stdin,
            stdout: Sink::Tail,
            stderr: Sink::Tail,
            deadline,
            until: Until::Silent,
        })
        .await;
    // The command is over and its input closed, so the sender is over too or about to be.
    let sent = sending.await.map_err(|_| lost("the payload was not sent to its end"))?;
    match (exit?, sent) {
        (_, Err(Fault::File(error))) => Err(error),
        (exit, sent) if exit.success() => {
            sent.map_err(|_| lost("the guest did not read all of the payload"))?;
            Ok(upload.facts.then(|| facts::read(&exit.stdout_tail)).filter(|facts| !facts.is_empty()))
        }
        (exit, _) => Err(UploadError::Unpack { words: words::last_lines(&exit.stderr_tail, 3).join("; ") }),
    }
}

fn lost(reason: &str) -> UploadError {
    SshError::Lost { doing: "the payload is sent", reason: reason.to_owned() }.into()
}

/// Why a parcel was not written to its end.
enum Fault {
    /// A file's fault.
    File(UploadError),
    /// The guest reads no more; it says itself why.
    Pipe,
}

/// Everything to be sent, in an order in which every folder comes before what is in it.
struct Parcel {
    texts: Vec<(String, u32, String)>,
    files: Vec<(String, LocalFile)>,
}

struct LocalFile {
    path: PathBuf,
    bytes: u64,
    digest: Digest,
}

impl Parcel {
    fn new(upload: &Upload<'_>) -> Result<Self, UploadError> {
        let mut texts = vec![
            ("guard".to_owned(), 0o755, include_str!("guard.sh").to_owned()),
            ("start".to_owned(), 0o755, start(upload.script, upload.env)),
            (format!("work/{SCRIPT}"), 0o755, upload.script.to_owned()),
        ];
        if let Some(family) = upload.family {
            texts.push(("install".to_owned(), 0o755, family::of(family).install.to_owned()));
        }
        if upload.network.is_some() {
            texts.push((network::NAME.to_owned(), 0o755, network::SCRIPT.to_owned()));
        }
        if upload.facts {
            texts.push(("facts".to_owned(), 0o755, facts::SCRIPT.to_owned()));
        }
        let mut files = Vec::new();
        for file in upload.files {
            let name = |reason: &str| UploadError::Name { name: file.relative.clone(), reason: reason.to_owned() };
            if file.relative == SCRIPT {
                return Err(name("the suite's script is called so"));
            }
            if !is_inside(Path::new(&file.relative)) {
                return Err(name("it leads out of the working directory"));
            }
            let local = LocalFile { path: file.path.clone(), bytes: file.bytes, digest: file.digest };
            files.push((format!("work/{}", file.relative), local));
        }
        let takes = |name: &str| upload.family.is_some_and(|family| family::accepts(family, upload.arch, name));
        for artifact in upload.artifacts.iter().filter(|artifact| takes(&artifact.file_name)) {
            let local = LocalFile { path: artifact.path.clone(), bytes: artifact.bytes, digest: artifact.digest };
            files.push((format!("artifacts/{}", artifact.file_name), local));
        }
        Ok(Self { texts, files })
    }

    fn write(self, writer: StdinWriter) -> Result<(), Fault> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(PIECE, writer));
        for folder in ["work", "artifacts", "tmp"] {
            add(&mut tar, folder, tar::EntryType::Directory, 0o755, 0, io::empty())?;
        }
        for (name, mode, text) in &self.texts {
            add(&mut tar, name, tar::EntryType::Regular, *mode, text.len() as u64, text.as_bytes())?;
        }
        for (name, local) in &self.files {
            local.add_to(&mut tar, name)?;
        }
        let writer = tar.into_inner().map_err(|_| Fault::Pipe)?;
        writer.into_inner().map(drop).map_err(|_| Fault::Pipe)
    }
}

impl LocalFile {
    fn add_to(&self, tar: &mut tar::Builder<impl Write>, name: &str) -> Result<(), Fault> {
        let unreadable = |source| Fault::File(UploadError::Read { path: self.path.clone(), source });
        let changed = |detail: String| Fault::File(UploadError::Changed { path: self.path.clone(), detail });
        let file = File::open(&self.path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.len() != self.bytes {
            return Err(changed(format!("{} bytes then, {} now", self.bytes, metadata.len())));
        }
        // A suite's file that can be run here can be run there.
        let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        let mut content = Hashing { inner: file, sha256: sha2::Sha256::new(), left: self.bytes, failure: None };
        let added = add(tar, name, tar::EntryType::Regular, mode, self.bytes, &mut content);
        if let Some(error) = content.failure {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => changed("it has become shorter meanwhile".to_owned()),
                _ => unreadable(error),
            });
        }
        added?;
        let digest = Digest::from_bytes(content.sha256.finalize().into());
        if digest != self.digest {
            return Err(changed(format!("{} then, {} now", self.digest.short(), digest.short())));
        }
        Ok(())
    }
}

fn add(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: u64,
    content: impl Read,
) -> Result<(), Fault> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    tar.append_data(&mut header, name, content).map_err(|_| Fault::Pipe)
}

/// A file of known length that is hashed while it is read, and that remembers whose fault it was.
struct Hashing {
    inner: File,
    sha256: sha2::Sha256,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for &mut Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.inner.read(&mut buffer[..room]) {
            Ok(0) if room > 0 => {
                self.failure = Some(io::ErrorKind::UnexpectedEof.into());
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(n) => {
                self.sha256.update(&buffer[..n]);
                self.left -= n as u64;
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// What the guard starts: the environment, the working directory, and the script by its own interpreter (`sh` if it names none).
fn start(script: &str, env: &IndexMap<String, String>) -> String {
    let mut start = "export TMPDIR=\"$root/tmp\"\ncd \"$root/work\" || exit\n".to_owned();
    for (name, value) in env {
        // Quoted as a whole: a name that is none is an error message of the shell, not a command.
        start += &format!("export {}\n", quote::word(&format!("{name}={value}")));
    }
    let interpreter = if script.starts_with("#!") { "" } else { "sh " };
    start += &format!("exec {interpreter}./{SCRIPT}\n");
    start
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, std::path::Component::Normal(_))) && path.components().next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_quoted_and_the_script_runs_by_its_own_interpreter() {
        let env = IndexMap::from([("GREETING".to_owned(), "it's\n$HOME".to_owned())]);
        insta::assert_snapshot!(start("echo hi\n", &env), @r#"
        export TMPDIR="$root/tmp"
        cd "$root/work" || exit
        export 'GREETING=it'\''s
        $HOME'
        exec sh ./.nestmatrix-suite
        "#);
        assert!(start("#!/usr/bin/perl\n", &env).ends_with("\nexec ./.nestmatrix-suite\n"));
    }

    #[test]
    fn files_stay_inside_the_working_directory() {
        for path in ["a", "a/b.txt", "./a"] {
            assert_eq!(is_inside(Path::new(path)), path != "./a", "{path}");
        }
        for path in ["", "/a", "../a", "a/../../b"] {
            assert!(!is_inside(Path::new(path)), "{path}");
        }
    }
}
