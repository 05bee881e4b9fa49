//! A private OpenSSH server on loopback: one `sshd -i` per connection, so no port is guessed and none stays open.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nestmatrix::ssh::{self, BannerStream, Keys, Open, Session, SshError};
use tokio_util::sync::CancellationToken;

const SSHD: &str = "/usr/sbin/sshd";

/// What the shell of a login finds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tools {
    /// The tools of this machine.
    Own,
    /// Those of busybox and nothing else.
    #[allow(dead_code, reason = "not every test file needs it")]
    Busybox,
    /// A shell and what little the root file system of a container has: no tar, no find, no grep.
    #[allow(dead_code, reason = "not every test file needs it")]
    Few,
}

/// What there is always.
const FEW: [&str; 6] = ["cat", "chmod", "ls", "mkdir", "rm", "sh"];

impl Tools {
    /// The folder with nothing but the tools; `None`: those of this machine are to be found.
    fn path(self, dir: &Path) -> Option<PathBuf> {
        if matches!(self, Self::Own) {
            return None;
        }
        let path = dir.join("tools");
        std::fs::create_dir(&path).unwrap();
        // What the login's own start-up files may want: the shell of a login is this machine's.
        std::os::unix::fs::symlink("/bin/bash", path.join("bash")).unwrap();
        if matches!(self, Self::Few) {
            for tool in FEW {
                std::os::unix::fs::symlink(Path::new("/bin").join(tool), path.join(tool)).unwrap();
            }
            return Some(path);
        }
        let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap().stdout;
        let busybox = String::from_utf8(busybox).unwrap();
        let busybox = Path::new(busybox.trim());
        assert!(
            busybox.is_absolute(),
            "busybox is missing: some guests have nothing else (Debian: apt-get install busybox)"
        );
        let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines() {
            std::os::unix::fs::symlink(busybox, path.join(applet)).unwrap();
        }
        Some(path)
    }
}

/// What is said in the server's settings besides what every one of them has.
#[derive(Clone, Debug, Default)]
struct Options {
    tools: Option<PathBuf>,
    more: String,
}

/// A server that takes login keys of both kinds and has host keys of both. Dropping it kills every sshd it started.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) login: Keys,
    pub(crate) host: Keys,
    pub(crate) dir: tempfile::TempDir,
    options: Options,
    children: Arc<Mutex<Vec<Child>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) async fn start() -> Self {
        Self::start_with(Tools::Own).await
    }

    pub(crate) async fn start_with(tools: Tools) -> Self {
        Self::start_configured(tools, "").await
    }

    /// A server whose login shell is this command line; the command it is to run is in `$SSH_ORIGINAL_COMMAND`.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) async fn start_with_login(login: &str) -> Self {
        Self::start_configured(Tools::Own, &format!("ForceCommand {login}\n")).await
    }

    /// A server with more lines of settings.
    pub(crate) async fn start_configured(tools: Tools, more: &str) -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is missing: these tests talk to a real SSH server (Debian: apt-get install openssh-server)"
        );
        // sshd of Debian wants its privilege separation directory when run by root, even though it is not a service here.
        let _ = std::fs::create_dir("/run/sshd");
        let (login, host) = (Keys::generate("login").unwrap(), Keys::generate("host").unwrap());
        let dir = tempfile::tempdir().unwrap();
        host.write_private(dir.path(), ["host_ecdsa", "host_ed25519"]).unwrap();
        std::fs::write(dir.path().join("authorized_keys"), login.public().join("\n")).unwrap();
        let options = Options { tools: tools.path(dir.path()), more: more.to_owned() };
        configure(dir.path(), &dir.path().join("guest"), &options);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let children = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn({
            let (children, dir) = (Arc::clone(&children), dir.path().to_owned());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let stream = stream.into_std().unwrap();
                    stream.set_nonblocking(false).unwrap();
                    let input = std::os::fd::OwnedFd::from(stream);
                    let child = Command::new(SSHD)
                        .args(["-i", "-e", "-f"])
                        .arg(dir.join("sshd_config"))
                        .stdin(Stdio::from(input.try_clone().unwrap()))
                        .stdout(Stdio::from(input))
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap();
                    children.lock().unwrap().push(child);
                }
            }
        });
        Self { addr, login, host, dir, options, children, accepting }
    }

    /// Where the payload goes in the guest, from the next connection on.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) fn set_root(&self, root: &str) {
        configure(self.dir.path(), Path::new(root), &self.options);
    }

    pub(crate) async fn banner(&self) -> BannerStream {
        ssh::banner(self.addr, within(20), &CancellationToken::new()).await.unwrap()
    }

    pub(crate) async fn try_open(&self, host_keys: &Keys, cancel: &CancellationToken) -> Result<Session, SshError> {
        self.open(host_keys, Session::SILENCE, cancel).await
    }

    /// A session that takes the server for lost after such a silence.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) async fn try_open_silent(&self, silence: Duration) -> Result<Session, SshError> {
        self.open(&self.host, silence, &CancellationToken::new()).await
    }

    async fn open(&self, host_keys: &Keys, silence: Duration, cancel: &CancellationToken) -> Result<Session, SshError> {
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        Session::open(Open {
            sudo: false,
            stream: self.banner().await,
            user: &user,
            login: &self.login,
            host_keys: host_keys.public(),
            deadline: within(20),
            silence,
            cancel: cancel.clone(),
        })
        .await
    }

    pub(crate) async fn session(&self) -> Session {
        self.try_open(&self.host, &CancellationToken::new()).await.unwrap()
    }

    /// Process ids of the servers of all connections so far.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.lock().unwrap().iter().map(Child::id).collect()
    }

    /// Stops every server: all connections stand, and nobody answers.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) fn freeze(&self) {
        for pid in self.pids() {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        }
    }

    /// Every server has ended by itself.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(crate) fn have_exited(&self) -> bool {
        self.children.lock().unwrap().iter_mut().all(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Kills every server: all connections break in the middle of whatever they do.
    pub(crate) fn kill(&self) {
        for child in self.children.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.kill();
    }
}

fn configure(dir: &Path, root: &Path, Options { tools, more }: &Options) {
    let (dir_name, root) = (dir.display(), root.display());
    let tools = tools.as_ref().map(|path| format!(" PATH={}", path.display())).unwrap_or_default();
    let config = format!(
        "HostKey {dir_name}/host_ecdsa\nHostKey {dir_name}/host_ed25519\nAuthorizedKeysFile {dir_name}/authorized_keys\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nSetEnv NESTMATRIX_ROOT={root} XDG_CACHE_HOME={dir_name}/cache{tools}\n{more}"
    );
    std::fs::write(dir.join("sshd_config"), config).unwrap();
}

/// So many seconds from now.
pub(crate) fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}
