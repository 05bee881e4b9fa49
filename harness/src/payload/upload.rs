//! The payload's way into the guest: one tar stream, or file by file into a guest without tar.
//!
//! What arrives, below the payload's folder in the guest (`$NESTMATRIX_ROOT` of the login, or `/var/tmp/nestmatrix`): `guard` (see
//! `guard.sh`), `install` (the family's script), `network` (what tells its resolver what it may reach), `facts` (what asks the system what it is), `start` (the environment, then the suite's script), `work/` (the suite's working directory: its script and its files), `artifacts/` (the package) and `tmp/`. Where `/var/tmp` is mounted noexec, that
//! is a symbolic link to a folder from which programs can be run.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use indexmap::IndexMap;
use matrix::{Arch, Artifact, Digest, Network, PackageFamily, UploadFile};
use reports::SystemFacts;
use sha2::Digest as _;

use super::{facts, family, install, interpreter, network, quote, repositories, words};
use crate::ssh::{End, Exec, Exit, Session, SshError, Stdin, StdinWriter};

/// Name of the suite's script in its working directory.
pub(super) const SCRIPT: &str = ".nestmatrix-suite";
/// Makes the folder and unpacks the stream.
pub(super) const UNPACK: &str = include_str!("upload.sh");
/// `upload.sh` exits with this where there is no tar ...
pub(super) const NO_TAR: i32 = 91;
/// ... and with this where no folder can hold programs.
pub(super) const NOEXEC: i32 = 92;
/// Puts standard input into the file $1 of the payload, with the mode $2.
pub(super) const PUT: &str = "cd \"${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}\" && cat >\"$1\" && chmod \"$2\" \"$1\"";
/// Looks whether the payload is still there, and says again what the guest may reach, for its files may have been written anew.
const AGAIN: &str = "cd \"${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}\" 2>/dev/null && [ -s guard ] && [ -s start ] && [ -s work/.nestmatrix-suite ] || exit 1";
/// Makes folders of the payload.
const FOLDERS: &str = "umask 022; cd \"${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}\" && mkdir -p \"$@\"";
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
    /// Not all of it went out, or not all of it was taken.
    #[error("the payload did not arrive: {reason}")]
    Unsent {
        /// What is known.
        reason: String,
    },
    /// Files of the suite are to be run, and the guest forbids that wherever they could lie.
    #[error(
        "executable files of the suite cannot run in this guest: /var/tmp, /var/lib, /opt, /usr/local, /run and / are read-only or mounted \
         noexec; remount one of them with exec in `prepare`"
    )]
    Noexec,
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
    let parcel = blocking(move || parcel.look()).await??;
    // In the same round trip, when all that counts is done.
    let tell = upload.network.map_or("", network::command);
    let ask = if upload.facts { facts::ASK } else { "exit 0" };
    let then = format!("{tell}\n{ask}");
    let programs = if parcel.programs { "programs" } else { "" };
    let command = quote::script_with(&format!("{UNPACK}{then}"), &[programs]);
    let sent = send(session, command, deadline, move |writer| {
        let sent = parcel.write(writer);
        (parcel, sent)
    });
    let (exit, (parcel, sent)) = sent.await?;
    let exit = match exit.end {
        End::Exited(NO_TAR) => put(session, parcel, &then, deadline).await?,
        End::Exited(NOEXEC) => return Err(UploadError::Noexec),
        _ => arrived(exit, sent)?,
    };
    Ok(upload.facts.then(|| facts::read(&exit.stdout_tail)).filter(|facts| !facts.is_empty()))
}

/// Whether a payload that was sent with this network is still in the guest, which has rebooted since.
pub async fn survives(session: &Session, network: Network, deadline: Instant) -> Result<bool, SshError> {
    let command = format!("{AGAIN}\n{}\nexit 0", network::command(network));
    Ok(session.exec(Exec::new(command, Stdin::None, deadline)).await?.success())
}

/// Sends file by file: a command for each, which needs nothing but `cat`.
async fn put(session: &Session, parcel: Parcel, then: &str, deadline: Instant) -> Result<Exit, UploadError> {
    let folders: Vec<&str> =
        FIXED.into_iter().chain(parcel.files.iter().filter_map(|file| folder_of(&file.name))).collect();
    for folders in folders.chunks(100) {
        let command = quote::script_with(FOLDERS, folders);
        arrived(session.exec(Exec::new(command, Stdin::None, deadline)).await?, Ok(()))?;
    }
    for file in parcel.files {
        let mode = format!("{:o}", file.mode);
        let command = quote::script_with(PUT, &[&file.name, &mode]);
        let (exit, sent) = send(session, command, deadline, move |mut writer| {
            file.read(|_, content| io::copy(content, &mut writer).map(drop))
        })
        .await?;
        arrived(exit, sent)?;
    }
    let then = format!("cd \"${{NESTMATRIX_ROOT:-/var/tmp/nestmatrix}}\" || exit\n{then}");
    arrived(session.exec(Exec::new(then, Stdin::None, deadline)).await?, Ok(()))
}

fn folder_of(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(folder, _)| folder)
}

/// Runs a command that reads what `write` writes.
async fn send<T: Send + 'static>(
    session: &Session,
    command: String,
    deadline: Instant,
    write: impl FnOnce(StdinWriter) -> T + Send + 'static,
) -> Result<(Exit, T), UploadError> {
    let (writer, stdin) = session.stdin_stream();
    let sending = tokio::task::spawn_blocking(move || write(writer));
    let exit = session.exec(Exec::new(command, stdin, deadline)).await;
    // The command is over and its input closed, so the sender is over too or about to be.
    let sent = sending.await.map_err(|_| unsent("the payload was not sent to its end"))?;
    Ok((exit?, sent))
}

/// The command, if all of it was sent and taken.
fn arrived(exit: Exit, sent: Result<(), Fault>) -> Result<Exit, UploadError> {
    match sent {
        Err(Fault::File(error)) => Err(error),
        _ if !exit.success() => Err(UploadError::Unpack { words: words::last_lines(&exit.stderr_tail, 3).join("; ") }),
        Err(Fault::Pipe) => Err(unsent("the guest did not read all of the payload")),
        Ok(()) => Ok(exit),
    }
}

/// Does what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| unsent("the payload was not read to its end"))
}

fn unsent(reason: &str) -> UploadError {
    UploadError::Unsent { reason: reason.to_owned() }
}

/// Why a parcel was not written to its end.
enum Fault {
    /// A file's fault.
    File(UploadError),
    /// The guest reads no more; it says itself why.
    Pipe,
}

/// Folders every payload has.
const FIXED: [&str; 3] = ["work", "artifacts", "tmp"];

/// Everything to be sent.
struct Parcel {
    files: Vec<PayloadFile>,
    /// A file of the suite is to be run as a program.
    programs: bool,
}

/// One file of the payload.
struct PayloadFile {
    /// Where it lies in the payload.
    name: String,
    mode: u32,
    content: Content,
}

enum Content {
    /// Of ours.
    Text(String),
    /// A file of this machine, as it was when the plan was made.
    Local { path: PathBuf, bytes: u64, digest: Digest },
}

impl Parcel {
    fn new(upload: &Upload<'_>) -> Result<Self, UploadError> {
        let text = |name: &str, text: &str| PayloadFile {
            name: name.to_owned(),
            mode: 0o755,
            content: Content::Text(text.to_owned()),
        };
        let local = |name: String, path: &Path, bytes: u64, digest: Digest| PayloadFile {
            name,
            mode: 0o644,
            content: Content::Local { path: path.to_owned(), bytes, digest },
        };
        let mut files = vec![
            text("guard", include_str!("guard.sh")),
            text("start", &start(upload.script, upload.env)),
            text(&format!("work/{SCRIPT}"), upload.script),
        ];
        if let Some(family) = upload.family {
            // What the package's scripts ask for there is on record, as what the suite asks for.
            let environment =
                if upload.network == Some(Network::Repositories) { repositories::exports() } else { String::new() };
            files.push(text("install", &format!("{environment}{}", family::of(family).install())));
            files.push(text(install::DEPENDENCIES, &family::of(family).get_dependencies(&repositories::exports())));
        }
        if upload.network.is_some() {
            files.push(text(network::NAME, network::SCRIPT));
        }
        if upload.facts {
            files.push(text("facts", &facts::script()));
        }
        for file in upload.files {
            let name = |reason: &str| UploadError::Name { name: file.relative.clone(), reason: reason.to_owned() };
            if file.relative == SCRIPT {
                return Err(name("the suite's script is called so"));
            }
            if !is_inside(Path::new(&file.relative)) {
                return Err(name("it leads out of the working directory"));
            }
            files.push(local(format!("work/{}", file.relative), &file.path, file.bytes, file.digest));
        }
        let takes = |name: &str| upload.family.is_some_and(|family| family::accepts(family, upload.arch, name));
        for artifact in upload.artifacts.iter().filter(|artifact| takes(&artifact.file_name)) {
            let name = format!("artifacts/{}", artifact.file_name);
            files.push(local(name, &artifact.path, artifact.bytes, artifact.digest));
        }
        Ok(Self { files, programs: false })
    }

    /// A suite's file that can be run here can be run there.
    fn look(mut self) -> Result<Self, UploadError> {
        for file in &mut self.files {
            let Content::Local { path, .. } = &file.content else { continue };
            let metadata = fs::metadata(path).map_err(|source| UploadError::Read { path: path.clone(), source })?;
            if file.name.starts_with("work/") && metadata.permissions().mode() & 0o111 != 0 {
                file.mode = 0o755;
                self.programs = true;
            }
        }
        Ok(self)
    }

    fn write(&self, writer: StdinWriter) -> Result<(), Fault> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(PIECE, writer));
        let mut add = |name: &str, kind, mode, bytes, content: &mut dyn Read| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(bytes);
            tar.append_data(&mut header, name, content)
        };
        for folder in FIXED {
            add(folder, tar::EntryType::Directory, 0o755, 0, &mut io::empty()).map_err(|_| Fault::Pipe)?;
        }
        for file in &self.files {
            file.read(|bytes, content| add(&file.name, tar::EntryType::Regular, file.mode, bytes, content))?;
        }
        let writer = tar.into_inner().map_err(|_| Fault::Pipe)?;
        writer.into_inner().map(drop).map_err(|_| Fault::Pipe)
    }
}

impl PayloadFile {
    /// Gives its size and content to `to`. It is what it was when the plan was made, or that is an error.
    fn read(&self, to: impl FnOnce(u64, &mut dyn Read) -> io::Result<()>) -> Result<(), Fault> {
        let (path, planned, digest) = match &self.content {
            Content::Text(text) => return to(text.len() as u64, &mut text.as_bytes()).map_err(|_| Fault::Pipe),
            Content::Local { path, bytes, digest } => (path, *bytes, *digest),
        };
        let unreadable = |source| Fault::File(UploadError::Read { path: path.clone(), source });
        let changed = |detail: String| Fault::File(UploadError::Changed { path: path.clone(), detail });
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes != planned {
            return Err(changed(format!("{planned} bytes then, {bytes} now")));
        }
        let mut content = Hashing { inner: file, sha256: sha2::Sha256::new(), left: planned, failure: None };
        let sent = to(planned, &mut &mut content);
        if let Some(error) = content.failure {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => changed("it has become shorter meanwhile".to_owned()),
                _ => unreadable(error),
            });
        }
        sent.map_err(|_| Fault::Pipe)?;
        let now = Digest::from_bytes(content.sha256.finalize().into());
        if now != digest {
            return Err(changed(format!("{} then, {} now", digest.short(), now.short())));
        }
        Ok(())
    }
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
    start += &interpreter::become_script(script, SCRIPT);
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
        assert!(start("#!/usr/bin/perl\n", &env).ends_with("\nexec '/usr/bin/perl' ./.nestmatrix-suite\n"));
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
