//! A world without a machine: what becomes of each exchange with the guest is written down before.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use matrix::{ByteSize, Digest, HostPattern, Network, PackageFamily, Repository};
use reports::{GuestFacts, Phase, SystemFacts, Trouble, TroubleKind};
use tokio::{net::UnixStream, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    fanout::outbound::Outbound,
    fanout::world::{Login, Machine, Origin, Outcome, RunningGuest, Source, Talk, World},
    guest::{Ended, Seed},
    payload::{
        AfterBoot, CollectError, Collection, FirstBootError, Install, InstallError, Installed, ResultFiles, Suite,
        SuiteOutcome, SuiteRun, Upload, UploadError,
    },
    ssh::{End, Exec, Exit, Keys, SshError},
};

/// What becomes of an exchange.
#[derive(Clone, Debug)]
pub(super) enum Does {
    Well,
    /// The script ends like this, after so long.
    Ends(SuiteOutcome, Duration),
    /// The guest says that it is about to go down, and then does this.
    GoesDown(Ended),
    /// It has no end, and no limit of its own.
    Hangs,
    /// Its own time limit is reached.
    TimesOut,
    /// The session is lost, and after so long the guest ends like this, if it does.
    Loses(Option<(Ended, Duration)>),
    /// The guest ends like this at once.
    Dies(Ended),
    Breaks,
    Freezes,
    /// Everything is to end.
    IsCancelled,
    /// Its memory is wanted.
    IsReclaimed,
    /// It fails in another way.
    Fails,
    /// A package is missing.
    Lacks,
    /// The suite has left this file of results, or none.
    Finds(Option<&'static str>),
}

/// The parts of a story.
pub(super) struct Story {
    /// What becomes of an exchange of this name; when none is left it goes well.
    pub(super) does: Mutex<HashMap<&'static str, VecDeque<Does>>>,
    /// Whether an SSH server answers where nothing is written down of that.
    pub(super) serves: AtomicBool,
    /// Whether QEMU answers.
    pub(super) qemu: AtomicBool,
    /// What was asked of the guest, in order.
    pub(super) asked: Mutex<Vec<String>>,
    /// The last run of the suite had no end.
    pub(super) went_down: Mutex<bool>,
    pub(super) end: watch::Sender<Option<Ended>>,
    pub(super) kill: CancellationToken,
    pub(super) make_room: CancellationToken,
    pub(super) template: Arc<FakeTemplate>,
    /// There is no room left for disks of guests.
    pub(super) short: bool,
    /// The guest has a way to repositories.
    pub(super) reaches: bool,
}

/// What guests are forked from.
#[derive(Default)]
pub(super) struct FakeTemplate {
    worked: AtomicU32,
    failed: AtomicU32,
}

impl Origin for FakeTemplate {
    fn system(&self) -> Option<&SystemFacts> {
        None
    }

    fn worked(&self) {
        self.worked.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self) -> bool {
        self.failed.fetch_add(1, Ordering::Relaxed) + 1 >= 3 && self.worked.load(Ordering::Relaxed) == 0
    }
}

impl Story {
    fn next(&self, what: &'static str) -> Does {
        self.asked.lock().unwrap().push(what.to_owned());
        self.does.lock().unwrap().get_mut(what).and_then(VecDeque::pop_front).unwrap_or(Does::Well)
    }

    /// Plays what becomes of it.
    async fn act(&self, what: &'static str, deadline: Instant) -> Result<Does, SshError> {
        let does = self.next(what);
        match &does {
            Does::Well | Does::Ends(..) | Does::GoesDown(_) | Does::Fails | Does::Lacks | Does::Finds(_) => {
                return Ok(does);
            }
            Does::Hangs => std::future::pending().await,
            Does::TimesOut => {
                tokio::time::sleep_until(deadline.into()).await;
                return Err(SshError::Timeout { doing: "running a command" });
            }
            Does::Loses(end) => {
                if let Some((ended, after)) = end.clone() {
                    let sender = self.end.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        sender.send_replace(Some(ended));
                    });
                }
                return Err(SshError::Lost { doing: "running a command", reason: "end of file".to_owned() });
            }
            Does::Breaks => {
                return Err(SshError::Broken { doing: "running a command", reason: "no SSH".to_owned() });
            }
            Does::Freezes => {
                let silence = Duration::from_secs(60);
                return Err(SshError::Frozen { doing: "running a command", silence });
            }
            Does::Dies(ended) => drop(self.end.send_replace(Some(ended.clone()))),
            Does::IsCancelled => self.kill.cancel(),
            Does::IsReclaimed => self.make_room.cancel(),
        }
        // What ends the phase is noticed beside it.
        std::future::pending().await
    }
}

/// Host keys of a guest as it was told at power-on, and of those that are made for it later nobody knows.
pub(super) static TOLD: LazyLock<Keys> = LazyLock::new(|| Keys::generate("told").unwrap());
pub(super) static LOGIN: LazyLock<Keys> = LazyLock::new(|| Keys::generate("login").unwrap());

/// The world of one attempt.
pub(super) struct Fake {
    pub(super) story: Arc<Story>,
    pub(super) forks: bool,
}

impl World for Fake {
    type Guest = FakeGuest;
    type Template = FakeTemplate;

    fn source(&self) -> Outcome<Source<FakeTemplate>> {
        Ok(match self.forks {
            true => Source::Fork(Arc::clone(&self.story.template)),
            false => Source::Boot { prepared: None, reason: None },
        })
    }

    async fn fork(
        &self,
        template: &Arc<FakeTemplate>,
        _: &Path,
        _: &Path,
    ) -> Outcome<(RunningGuest<Self>, GuestFacts)> {
        let trouble = |kind| Err(Trouble::new(kind, Phase::Runner, "no fork"));
        match self.story.next("fork") {
            Does::Fails => return trouble(TroubleKind::Host),
            Does::Breaks => return trouble(TroubleKind::TemplateBroken),
            Does::Loses(_) => return trouble(TroubleKind::ForkFailed),
            Does::Hangs => std::future::pending().await,
            _ => {}
        }
        let boot = reports::Boot::Forked { template: Digest::of(b"t") };
        Ok(self.up(boot, Some(Arc::clone(template))))
    }

    async fn boot(
        &self,
        _: Option<&FakeTemplate>,
        reason: Option<String>,
        _: &Path,
        _: &Path,
    ) -> Outcome<(RunningGuest<Self>, GuestFacts)> {
        match self.story.next("boot") {
            Does::Fails => Err(Trouble::new(TroubleKind::Host, Phase::Runner, "no disk")),
            _ => Ok(self.up(reports::Boot::Cold { reason }, None)),
        }
    }

    fn give_up(&self, _: &FakeTemplate, _: &Trouble) {
        self.story.asked.lock().unwrap().push("template given up".to_owned());
    }

    fn shortage(&self) -> Option<ByteSize> {
        self.story.short.then_some(ByteSize::from_mib(1))
    }
}

impl Fake {
    fn up(&self, boot: reports::Boot, fork_of: Option<Arc<FakeTemplate>>) -> (RunningGuest<Self>, GuestFacts) {
        let is_fork = fork_of.is_some();
        let running = RunningGuest {
            guest: FakeGuest(Arc::clone(&self.story)),
            login: LOGIN.clone(),
            host_keys: TOLD.clone(),
            connection: is_fork.then_some(()),
            fork_of,
            by_port: is_fork,
            of_template: is_fork,
            own: None,
            outbound: self.story.reaches.then(outbound),
        };
        let facts = GuestFacts {
            runner: 1,
            image: Digest::of(b"a"),
            accelerator: "tcg".into(),
            machine: "none".into(),
            pid: 0,
            boot,
        };
        (running, facts)
    }
}

pub(super) struct FakeGuest(Arc<Story>);

impl Machine for FakeGuest {
    type Connection = ();
    type Session = FakeSession;

    fn pid(&self) -> u32 {
        0
    }

    fn reboots(&self) -> u32 {
        3
    }

    fn seed(&self) -> Option<Seed> {
        Some(Seed::Firmware)
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(([127, 0, 0, 1], 22).into())
    }

    fn tail(&self, _: usize) -> Vec<String> {
        vec!["last words".to_owned()]
    }

    fn has_ended(&self) -> Option<Ended> {
        self.0.end.borrow().clone()
    }

    async fn ended(&self) -> Ended {
        self.0.end.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn answers(&self) -> bool {
        self.0.qemu.load(Ordering::Relaxed)
    }

    async fn served(&self, deadline: Instant, _: &CancellationToken) -> Result<(), String> {
        let is_silent = || !self.0.serves.load(Ordering::Relaxed);
        match self.0.act("served", deadline).await {
            Ok(Does::Well) if is_silent() => tokio::time::sleep_until(deadline.into()).await,
            Ok(_) => return Ok(()),
            Err(_) => {}
        }
        Err("no SSH server answered in time".to_owned())
    }

    async fn open(&self, (): (), login: Login<'_>) -> Result<FakeSession, SshError> {
        let pinned = if login.host_keys.public() == TOLD.public() { "told" } else { "own" };
        self.0.asked.lock().unwrap().push(format!("pinned {pinned}"));
        self.0.act("open", login.deadline).await?;
        Ok(FakeSession(Arc::clone(&self.0)))
    }

    async fn boot_again(&self) -> Result<(), String> {
        match self.0.next("boot-again") {
            Does::Fails => Err("QEMU says no".to_owned()),
            _ => {
                self.0.end.send_replace(None);
                Ok(())
            }
        }
    }

    async fn picture(&self, _: &Path) {}

    async fn kill(self) {
        self.0.asked.lock().unwrap().push("killed".to_owned());
    }

    async fn release(self) {}
}

pub(super) struct FakeSession(Arc<Story>);

impl FakeSession {
    async fn act(&self, what: &'static str, deadline: Instant) -> Result<Does, SshError> {
        self.0.act(what, deadline).await
    }
}

impl FakeSession {
    /// The guest ends like this, in a moment.
    fn goes_down(&self, ended: Ended) {
        let sender = self.0.end.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            sender.send_replace(Some(ended));
        });
    }
}

impl Talk for FakeSession {
    type Survey = ();

    async fn exec(&self, exec: Exec) -> Result<Exit, SshError> {
        let end = match self.act("unique", exec.deadline).await? {
            Does::Fails => End::Exited(1),
            _ => End::Exited(0),
        };
        let (at, stdout_tail, stderr_tail) = (Instant::now(), Vec::new(), b"no room".to_vec());
        Ok(Exit { end, at, stdout_tail, stderr_tail, stdout_bytes: 0, stderr_bytes: 0, warnings: Vec::new() })
    }

    async fn first_boot(&self, deadline: Instant) -> Result<(), FirstBootError> {
        self.act("first-boot", deadline).await.map(drop).map_err(FirstBootError::from)
    }

    async fn boot_over(&self, _: f64) -> Result<AfterBoot, SshError> {
        let deadline = tokio::time::Instant::now().into_std() + Duration::from_secs(90);
        let Does::GoesDown(ended) = self.act("boot-over", deadline).await? else { return Ok(AfterBoot::Up) };
        self.goes_down(ended);
        Ok(AfterBoot::Down)
    }

    async fn reboot(&self, deadline: Instant) -> Result<Option<String>, SshError> {
        let does = self.act("reboot", deadline).await?;
        Ok(matches!(does, Does::Fails).then(|| "reboot: not found".to_owned()))
    }

    async fn announced(&self, deadline: Instant) -> Result<bool, SshError> {
        Ok(match self.act("announced", deadline).await? {
            Does::GoesDown(ended) => {
                self.goes_down(ended);
                *self.0.went_down.lock().unwrap() = true;
                true
            }
            Does::Fails => false,
            Does::Ends(..) => true,
            // A guest that went down with its session had announced it.
            _ => *self.0.went_down.lock().unwrap(),
        })
    }

    async fn family(&self, deadline: Instant) -> Result<Option<PackageFamily>, SshError> {
        self.act("family", deadline).await.map(|does| matches!(does, Does::Well).then_some(PackageFamily::Deb))
    }

    async fn upload(&self, _: &Upload<'_>, deadline: Instant) -> Result<Option<SystemFacts>, UploadError> {
        match self.act("upload", deadline).await? {
            Does::Fails => Err(UploadError::Unpack { words: "no room".to_owned() }),
            _ => Ok(None),
        }
    }

    async fn survives(&self, _: Network, deadline: Instant) -> Result<bool, SshError> {
        self.act("survives", deadline).await.map(|does| !matches!(does, Does::Fails))
    }

    async fn survey(&self, _: PackageFamily, deadline: Instant) -> Result<(), InstallError> {
        self.act("survey", deadline).await.map(drop).map_err(InstallError::from)
    }

    async fn add_repository(&self, _: PackageFamily, _: &Repository, deadline: Instant) -> Result<(), InstallError> {
        self.act("add-repository", deadline).await.map(drop).map_err(InstallError::from)
    }

    async fn repositories(&self, _: bool, deadline: Instant) -> Result<Vec<HostPattern>, SshError> {
        self.act("repositories", deadline).await.map(|_| Vec::new())
    }

    async fn serve_artifacts(&self, install: &Install<'_>, (): &()) -> Result<(), InstallError> {
        match self.act("serve", install.deadline).await? {
            Does::Fails => Err(InstallError::NotServed { words: vec!["E: no room".to_owned()] }),
            _ => Ok(()),
        }
    }

    async fn get_dependencies(&self, install: &Install<'_>) -> Result<(), InstallError> {
        match self.act("get-dependencies", install.deadline).await? {
            Does::Fails => Err(InstallError::Repositories { words: vec!["E: the list has expired".to_owned()] }),
            Does::Lacks => Err(lacks()),
            _ => Ok(()),
        }
    }

    async fn install(&self, install: &Install<'_>, (): ()) -> Result<Installed, InstallError> {
        match self.act("install", install.deadline).await? {
            Does::Fails => Err(InstallError::Unknown { why: "nothing is known".to_owned() }),
            Does::Lacks => Err(lacks()),
            _ => Ok(Installed::default()),
        }
    }

    async fn run(&self, suite: &Suite<'_>) -> Result<SuiteRun, SshError> {
        let reboots = suite.reboots.map_or("-".to_owned(), |reboots| reboots.to_string());
        self.0.asked.lock().unwrap().push(format!("NESTMATRIX_REBOOT={reboots}"));
        *self.0.went_down.lock().unwrap() = true;
        let (mut outcome, mut elapsed) = match self.act("run", suite.deadline).await? {
            Does::Ends(outcome, elapsed) => (outcome, elapsed),
            _ => (SuiteOutcome::Exited(0), Duration::from_secs(1)),
        };
        *self.0.went_down.lock().unwrap() = false;
        let left = suite.deadline.saturating_duration_since(tokio::time::Instant::now().into_std());
        if elapsed > left {
            (outcome, elapsed) = (SuiteOutcome::TimedOut { leftovers: false }, left);
        }
        tokio::time::sleep(elapsed).await;
        Ok(SuiteRun {
            outcome,
            elapsed,
            stdout_tail: Vec::new(),
            stderr_tail: Vec::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            warnings: Vec::new(),
        })
    }

    async fn remove_results(&self, _: &str, deadline: Instant) -> Result<Result<Vec<String>, String>, CollectError> {
        Ok(match self.act("remove-results", deadline).await? {
            Does::Fails => Err("/tmp/a.xml".to_owned()),
            _ => Ok(Vec::new()),
        })
    }

    async fn results(&self, _: &str, deadline: Instant) -> Result<ResultFiles, CollectError> {
        Ok(match self.act("results", deadline).await? {
            Does::Fails => ResultFiles { missing: Some("a.xml is too large".to_owned()), ..Default::default() },
            Does::Finds(None) => ResultFiles::default(),
            Does::Finds(Some(xml)) => found(xml),
            _ => found(GREEN),
        })
    }

    async fn artifacts(&self, _: &[String], _: &Path, deadline: Instant) -> Result<Collection, CollectError> {
        let cut_off = self.act("artifacts", deadline).await.err();
        Ok(Collection { cut_off, ..Default::default() })
    }
}

fn lacks() -> InstallError {
    let words = vec!["p : Depends: q but it is not installable".to_owned()];
    InstallError::Refused { words, is_of_dependencies: true, lacks_packages: true }
}

/// A way to repositories that nobody uses.
fn outbound() -> Outbound {
    let folder = tempfile::tempdir().unwrap();
    let settings = egress::Settings { cache: folder.path(), limit: 1, through: None, offline: true };
    let [from_guest, passed_on, to_guest] = std::array::from_fn(|_| UnixStream::pair().unwrap().0);
    let card = egress::Card { from_guest, passed_on, to_guest };
    let cell = matrix::CellId::try_from("a.s".to_owned()).unwrap();
    Outbound::open(&egress::Proxy::open(settings).unwrap(), card, None, Events::channel().0, (cell, 1))
}

const GREEN: &str = "<testsuite name='x'><testcase name='good'/></testsuite>";

fn found(xml: &str) -> ResultFiles {
    ResultFiles { files: vec![("/tmp/a.xml".to_owned(), xml.into())], ..Default::default() }
}
