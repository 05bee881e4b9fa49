//! The system's OpenSSH client: its configuration, agents, jump hosts, certificates and hashed known_hosts work as the user knows them.
//!
//! One connection is opened for a machine, and every command runs over it (ssh_config: ControlMaster). It asks nobody anything, and
//! accepts no host key that is not in known_hosts. Every process of it dies with this one.

use std::{
    ffi::OsStr,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use matrix::SshHost;
use reports::{Phase, Trouble, TroubleKind};
use tokio::sync::{mpsc, oneshot};

use super::{
    probe::{self, Found},
    words,
};
use crate::{
    agent::{Broken, PIECES, Wire},
    guest::{Process, Spawner},
    payload::word,
};

const PROGRAM: &str = "ssh";
/// How the client's own failures end.
const FAILED: &str = ": 255";
/// How long connecting, logging in and asking may take together.
const CONNECT: Duration = Duration::from_secs(60);
/// Longest path of the connection's socket: a socket's path has at most 107 bytes, and OpenSSH first makes it under a name that is 17
/// longer (mux.c).
const LONGEST_SOCKET: usize = 90;
/// What is kept of a standard error.
const TAIL: usize = 8 << 10;
/// How long the last words of a process that has ended may take.
const STDERR_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a command may take to end that did not answer as it should.
const ENDING: Duration = Duration::from_secs(10);
/// Printed before a command's own output: what start files of a shell print comes before it.
const BEGIN: &str = "\nnestmatrix-begin\n";
/// Most that they may print.
const LONGEST_NOISE: usize = 256 << 10;

/// How a machine is reached, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the user's own configuration and known_hosts say.
    Users {
        /// The file with the private key; `None`: what `ssh` finds by itself.
        identity: Option<PathBuf>,
    },
    /// As is said here, whatever the user's configuration is: the machine was made for this run.
    Pinned(Pinned),
}

/// Where a machine is, and the keys on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// An address.
    pub(crate) address: String,
    /// The file with its host keys, under the name of the host.
    pub(crate) known_hosts: PathBuf,
    /// The files with the private keys that it takes.
    pub(crate) identities: Vec<PathBuf>,
    /// What connects to it (ssh_config: ProxyCommand; `%n` is its name, `%h` its address, `%p` the port).
    pub(crate) proxy_command: Option<String>,
}

/// A machine and how it is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access<'a> {
    pub(super) spawner: &'a Spawner,
    pub(super) host: &'a SshHost,
    pub(super) way: &'a Way,
}

/// A connection that stands.
pub(super) struct Connection {
    spawner: Spawner,
    host: SshHost,
    way: Way,
    socket: PathBuf,
    /// The folder of the socket where the run's own has too long a path.
    _folder: Option<tempfile::TempDir>,
    master: End,
    /// What holds the connection on the other machine reads from here.
    stdin: Option<ChildStdin>,
}

/// A command that runs on the other machine.
pub(super) struct Running {
    pub(super) stdin: ChildStdin,
    pub(super) output: Output,
    pub(super) end: End,
}

/// What it prints.
pub(super) struct Output {
    pieces: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

/// How it ends. Dropping it ends the process.
pub(super) struct End {
    process: Process,
    said: Arc<Mutex<Vec<u8>>>,
    quiet: Option<oneshot::Receiver<()>>,
}

impl Pinned {
    fn add_to(&self, command: &mut Command, name: &str) {
        // Nothing of the user's is asked, and nothing of ours left there.
        command.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
        for (option, value) in [
            ("GlobalKnownHostsFile", "none".to_owned()),
            ("UserKnownHostsFile", quoted(&self.known_hosts)),
            ("HostName", self.address.clone()),
            ("HostKeyAlias", name.to_owned()),
            // Its address is somebody else's tomorrow.
            ("CheckHostIP", "no".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        for identity in &self.identities {
            command.arg("-i").arg(escaped(identity));
        }
        if let Some(proxy) = &self.proxy_command {
            command.arg("-o").arg(format!("ProxyCommand={proxy}"));
        }
    }
}

impl Access<'_> {
    /// The client with all that is the same for each of its processes.
    fn client(&self, socket: &Path) -> Command {
        let mut command = Command::new(PROGRAM);
        // Its words are looked at.
        command.env("LC_ALL", "C").env("SSH_ASKPASS_REQUIRE", "never").arg("-T").arg("-S").arg(escaped(socket));
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "UpdateHostKeys=no",
            // A connection that was cut is known after 25 s: before the agent at its end is given up for its silence.
            "ServerAliveInterval=5",
            "ServerAliveCountMax=4",
            "ConnectTimeout=20",
            "ControlPersist=no",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "VerifyHostKeyDNS=no",
            "NoHostAuthenticationForLocalhost=no",
            "Tunnel=no",
            "GSSAPIDelegateCredentials=no",
            // OpenSSH before 8.7 does not know these.
            "IgnoreUnknown=ForkAfterAuthentication,StdinNull,SessionType",
            "ForkAfterAuthentication=no",
            "StdinNull=no",
            "SessionType=default",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        match self.way {
            Way::Users { identity: None } => {}
            Way::Users { identity: Some(identity) } => {
                command.args(["-o", "IdentitiesOnly=yes"]).arg("-i").arg(identity);
            }
            Way::Pinned(pinned) => pinned.add_to(&mut command, self.host.name()),
        }
        if let Some(user) = self.host.user() {
            command.args(["-l", user]);
        }
        if let Some(port) = self.host.port() {
            command.args(["-p", &port.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Connects and asks the machine what it is; `digest` names the program that is to be there.
    pub(super) async fn connect(self, scratch: &Path, digest: &str) -> Result<(Connection, Found), Trouble> {
        let Self { spawner, host, way } = self;
        let unusable = |reason: String| Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason);
        if let Way::Users { identity: Some(identity) } = way
            && let Err(error) = std::fs::File::open(identity)
        {
            let reason = format!("the key file {} cannot be read: {error}", identity.display());
            return Err(unusable(reason).with_help("correct `runner.identity` or `--identity`, or leave it out"));
        }
        let (socket, folder) = socket(scratch).map_err(|error| {
            Trouble::new(TroubleKind::Host, Phase::Runner, format!("no folder for the connection's socket: {error}"))
        })?;
        let mut command = self.client(&socket);
        command.args(["-o", "ControlMaster=yes", host.name(), &format!("exec sh -s {}", word(digest))]);
        let Running { mut stdin, mut output, mut end } = start(spawner, command, false).await?;
        // A thread need not wait: a pipe holds all of it.
        let _ = stdin.write_all(probe::SCRIPT.as_bytes()).and_then(|()| stdin.flush());
        let answer = async {
            let mut text = String::new();
            while !probe::is_whole(&text) && text.len() < probe::LONGEST {
                match output.pieces.recv().await {
                    Some(piece) => text += &String::from_utf8_lossy(&piece),
                    None => break,
                }
            }
            text
        };
        let Ok(text) = tokio::time::timeout(CONNECT, answer).await else {
            let said = end.said();
            let trouble = words::trouble(host, &format!("{said}\ntimed out after {} s", CONNECT.as_secs()), false);
            return Err(trouble);
        };
        if !probe::is_whole(&text) {
            let (how, said) = end.wait().await;
            // Every other status is that of what was run there (ssh(1): EXIT STATUS).
            if text.trim().is_empty() && how.ends_with(FAILED) {
                return Err(words::trouble(host, &said, false));
            }
            let why = match probe::read(&text).err() {
                Some(why) if !text.trim().is_empty() => why,
                _ => format!("{how}; {}", reports::clean::line(&said)),
            };
            return Err(unusable(format!("{host}: no POSIX shell answers there: {why}"))
                .with_help("give that user an ordinary login shell"));
        }
        let found = probe::read(&text).map_err(|why| unusable(format!("{host}: {why}")))?;
        let connection = Connection {
            spawner: spawner.clone(),
            host: host.clone(),
            way: way.clone(),
            socket,
            _folder: folder,
            master: end,
            stdin: Some(stdin),
        };
        Ok((connection, found))
    }
}

impl Connection {
    /// Runs a script of one line, with arguments, on the other machine.
    pub(super) async fn run(&self, script: &str, arguments: &[&str]) -> Result<Running, Trouble> {
        let access = Access { spawner: &self.spawner, host: &self.host, way: &self.way };
        let mut command = access.client(&self.socket);
        let script = format!("echo; echo {}; {script}", BEGIN.trim());
        let words: String = arguments.iter().map(|argument| format!(" {}", word(argument))).collect();
        command.args(["-o", "ControlMaster=no", self.host.name(), &format!("exec sh -c {} sh{words}", word(&script))]);
        start(&self.spawner, command, true).await
    }

    /// Waits until the connection ends, and says why.
    pub(super) async fn ended(&self) -> Trouble {
        self.master.process.gone().await;
        // Its last words may come a moment later.
        tokio::time::sleep(STDERR_TIMEOUT).await;
        words::trouble(&self.host, &self.master.said(), true)
    }

    /// What its client has said.
    pub(super) fn said(&self) -> String {
        self.master.said()
    }

    /// Ends it.
    pub(super) async fn close(mut self) {
        self.stdin = None;
        let _ = tokio::time::timeout(STDERR_TIMEOUT * 4, self.master.process.gone()).await;
    }
}

impl Output {
    /// The next line; `None`: there is none, or none that is not too long.
    pub(super) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let rest = self.rest.split_off(end + 1);
                return String::from_utf8(std::mem::replace(&mut self.rest, rest)).ok();
            }
            if self.rest.len() > TAIL {
                return None;
            }
            self.rest.extend(self.pieces.recv().await?);
        }
    }
}

impl End {
    /// How it ended, and what it said on its standard error.
    pub(super) async fn wait(&mut self) -> (String, String) {
        let how = self.process.gone().await;
        if let Some(quiet) = self.quiet.take() {
            let _ = tokio::time::timeout(STDERR_TIMEOUT, quiet).await;
        }
        (how.to_string(), self.said())
    }

    /// Why it did not do what it was started for, in its own words where it has some.
    pub(super) async fn last_words(&mut self) -> String {
        match tokio::time::timeout(ENDING, self.wait()).await {
            Ok((how, words)) if words.trim().is_empty() => how,
            Ok((_, words)) => words,
            Err(_) => format!("it neither answered nor ended within {} s", ENDING.as_secs()),
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Running {
    /// As what an agent is spoken to over.
    pub(super) fn into_wire(self) -> io::Result<Wire> {
        let Self { stdin, output, mut end } = self;
        let over = tokio::spawn(async move {
            let (how, said) = end.wait().await;
            Broken::ended(&how, said.as_bytes())
        });
        Ok(Wire { send: Wire::sending(stdin)?, pieces: output.pieces, over })
    }
}

/// Starts a process of the client. `framed`: what comes before [`BEGIN`] is no part of its output.
async fn start(spawner: &Spawner, command: Command, framed: bool) -> Result<Running, Trouble> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, "`ssh` is not installed on this machine")
                .with_help("install the package `openssh-client`");
        }
        Trouble::new(TroubleKind::Host, Phase::Runner, format!("`ssh` could not be started: {error}"))
    };
    let mut process = spawner.spawn(command, Vec::new(), true).await.map_err(failed)?;
    let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(failed(io::Error::other("it has no pipes")));
    };
    let (sender, pieces) = mpsc::channel(PIECES);
    let said = Arc::new(Mutex::new(Vec::new()));
    let (done, quiet) = oneshot::channel::<()>();
    let kept = Arc::clone(&said);
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    thread("ssh output").spawn(move || pass_on(stdout, &sender, framed)).map_err(failed)?;
    thread("ssh words")
        .spawn(move || {
            keep(stderr, &kept);
            drop(done);
        })
        .map_err(failed)?;
    Ok(Running { stdin, output: Output { pieces, rest: Vec::new() }, end: End { process, said, quiet: Some(quiet) } })
}

fn pass_on(mut from: impl Read, to: &mpsc::Sender<Vec<u8>>, framed: bool) {
    let mut noise = framed.then(Vec::new);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut piece = bytes[..count].to_vec();
        if let Some(mut seen) = noise.take() {
            seen.append(&mut piece);
            match memchr::memmem::find(&seen, BEGIN.as_bytes()) {
                Some(begin) => piece = seen.split_off(begin + BEGIN.len()),
                // Whoever reads this will say that it is not what was expected.
                None if seen.len() > LONGEST_NOISE => piece = seen,
                None => noise = Some(seen),
            }
        }
        if !piece.is_empty() && to.blocking_send(piece).is_err() {
            return;
        }
    }
}

fn keep(mut from: impl Read, said: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&bytes[..count]);
        let excess = said.len().saturating_sub(TAIL);
        said.drain(..excess);
    }
}

/// Where the connection's socket lies.
fn socket(scratch: &Path) -> io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let inside = scratch.join("ssh");
    if inside.as_os_str().len() <= LONGEST_SOCKET {
        return Ok((inside, None));
    }
    let folder = tempfile::Builder::new().prefix("nestmatrix-").tempdir()?;
    Ok((folder.path().join("ssh"), Some(folder)))
}

/// A path as one word of an option's value.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", escaped(path))
}

/// Without characters that mean something in such a path (ssh_config: TOKENS).
fn escaped(path: &Path) -> String {
    AsRef::<OsStr>::as_ref(path).to_string_lossy().replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(framed: bool, input: &[&[u8]]) -> Vec<u8> {
        let (sender, mut pieces) = mpsc::channel(100);
        pass_on(io::Cursor::new(input.concat()), &sender, framed);
        drop(sender);
        let mut output = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            output.extend(piece);
        }
        output
    }

    #[test]
    fn what_the_start_files_of_a_shell_print_is_left_out() {
        assert_eq!(passed(true, &[b"Welcome!", b"\nnestmatrix-begin\n", b"{}\n"]), b"{}\n");
        assert_eq!(passed(true, &[b"\nnestmatrix-begin\n"]), b"");
        assert_eq!(passed(false, &[b"Welcome!\n"]), b"Welcome!\n");
        let endless = vec![b'x'; LONGEST_NOISE + (64 << 10)];
        assert!(passed(true, &[&endless]).len() > LONGEST_NOISE, "it is passed on to whoever complains");
    }

    #[test]
    fn a_socket_whose_path_is_too_long_lies_elsewhere() {
        let (short, folder) = socket(Path::new("/tmp/x")).unwrap();
        assert!(short.starts_with("/tmp/x") && folder.is_none());
        let (path, folder) = socket(Path::new(&format!("/{}", "x".repeat(90)))).unwrap();
        assert!(path.as_os_str().len() <= LONGEST_SOCKET && folder.is_some(), "{path:?}");
        assert_eq!(escaped(Path::new("/a%b")), "/a%%b");
    }

    #[test]
    fn the_client_asks_nobody_and_trusts_no_key_it_does_not_know() {
        let spawner = Spawner::start().unwrap();
        let host: SshHost = "me@lab:2222".parse().unwrap();
        let text = |way: &Way| {
            let command = Access { spawner: &spawner, host: &host, way }.client(Path::new("/run/x"));
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let pinned = Pinned {
            address: "192.0.2.7".into(),
            known_hosts: "/run/a b/known".into(),
            identities: vec!["/run/key".into()],
            proxy_command: Some("tunnel %n %p".into()),
        };
        let pinned = text(&Way::Pinned(pinned));
        for words in [
            "StrictHostKeyChecking=yes",
            "-F none",
            "HostName=192.0.2.7",
            "HostKeyAlias=lab",
            "UserKnownHostsFile=\"/run/a b/known\"",
            "-i /run/key",
            "ProxyCommand=tunnel %n %p",
        ] {
            assert!(pinned.contains(words), "`{words}` is missing in {pinned}");
        }
        let text = text(&Way::Users { identity: Some("/keys/lab".into()) });
        for words in ["BatchMode=yes", "StrictHostKeyChecking=yes", "-l me", "-p 2222", "-i /keys/lab", "-S /run/x"] {
            assert!(text.contains(words), "`{words}` is missing in {text}");
        }
    }
}
