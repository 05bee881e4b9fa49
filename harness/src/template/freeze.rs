//! Making a template: found in the store, or booted, prepared, left alone until it is idle, frozen, and tried.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use images::{Begun, Templates, Unfinished};
use indexmap::IndexMap;
use matrix::{ByteSize, Digest, Network};
use tokio_util::sync::CancellationToken;

use super::{
    DISK, Frozen, LOGIN, Note, NotedDisk, RAM, STATE, Template,
    fork::{self, With},
    idle, memory, waker,
};
use crate::{
    guest::{self, Command, Disk, DiskFormat, Guest, Port, Ram, Spawner},
    host::Qemu,
    payload::{self, PackageFamily, Suite, SuiteOutcome, Upload},
    ssh::{self, BannerStream, Exec, Exit, Keypair, Open, Session, SshError, Stdin},
};

/// Time limits of the steps, before scaling.
const CONNECT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(60);
/// Between TERM and KILL, when a preparation takes too long.
const GRACE: Duration = Duration::from_secs(3);
/// A guest's files besides its memory: what it writes to its disk while it boots, mostly.
const DISK_ROOM: u64 = 256 << 20;
/// What a fork may take above what the first one took: that one did nothing.
const MARGIN: u64 = 32 << 20;

/// Puts the waker to work; `$1` is its port. It has no name in the guest's file system any more when it runs.
pub(super) const LIE_IN_WAIT: &str = include_str!("lie-in-wait.sh");
/// Nothing may be on its way when the guest is frozen.
pub(super) const SETTLE: &str = include_str!("settle.sh");

/// What templates are made with.
pub struct Forge<'a> {
    /// Where they are kept.
    pub templates: &'a Templates,
    /// QEMU.
    pub qemu: &'a Qemu,
    /// Starts guests.
    pub spawner: &'a Spawner,
    /// What time limits are multiplied by.
    pub speed: f64,
    /// A folder for what does not stay.
    pub scratch: &'a Path,
    /// A folder for the logs of the guest that is frozen.
    pub logs: &'a Path,
    /// Ends it at once.
    pub cancel: &'a CancellationToken,
}

/// What a template is to be.
pub struct Mould<'a> {
    /// Its key, see [`super::key`].
    pub key: Digest,
    /// The guest, without a disk.
    pub command: Command,
    /// The disk of its image, and how that is stored.
    pub image: (&'a Path, DiskFormat),
    /// Who logs in.
    pub login_user: &'a str,
    /// Size of its disk.
    pub disk: ByteSize,
    /// What it is called.
    pub hostname: String,
    /// Time limit of its boot, scaled.
    pub boot: Duration,
    /// Disks that are made with it, in front of those of `command`.
    pub disks: Vec<OwnDisk>,
    /// What it may reach until it is frozen.
    pub network: Network,
    /// What is done in it.
    pub work: Work<'a>,
}

/// A disk that is made with a template, raw.
pub struct OwnDisk {
    /// What the guest finds it by.
    pub serial: String,
    /// What is in it at first.
    pub content: Content,
}

/// What a disk is made with.
pub enum Content {
    /// Nothing, of this size; the guest may write to it.
    Empty(ByteSize),
    /// What this writes; the guest only reads it.
    Written(Arc<Writer>),
}

/// Writes the content of a disk into a file.
pub type Writer = dyn Fn(&Path) -> Result<(), NoTemplate> + Send + Sync;

/// What is done in a guest before it is frozen.
pub enum Work<'a> {
    /// What the matrix asks for, if it does.
    Preparation(Option<Preparation<'a>>),
    /// What whoever wants it does himself.
    Own(&'a OwnWork<'a>),
}

/// Is given a session with the guest.
pub type OwnWork<'a> =
    dyn Fn(Arc<Session>) -> Pin<Box<dyn Future<Output = Result<(), NoTemplate>> + Send + 'a>> + Send + Sync + 'a;

/// What a matrix asks for.
pub struct Preparation<'a> {
    /// The script.
    pub script: Option<&'a str>,
    /// Names for its package manager.
    pub packages: &'a [String],
    /// How long it may take, scaled.
    pub limit: Duration,
}

/// What is told while a template is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What is done now.
    Step(String),
    /// Whom it waits for.
    Waiting(String),
    /// What was in the store is of no use, and why: it is made anew.
    Damaged(String),
}

/// There is no template, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTemplate {
    /// One line.
    pub reason: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl NoTemplate {
    /// For this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: None }
    }
}

fn because<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> NoTemplate {
    move |error| NoTemplate::new(format!("{what}: {error}"))
}

/// The template: from the store, where it was found unharmed, or made now. The flag: it was there.
///
/// `tell` is told what is going on.
pub async fn obtain(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    tell: &(dyn Fn(News) + Sync),
) -> Result<(Template, bool), NoTemplate> {
    let key = mould.key;
    let templates = forge.templates.clone();
    match blocking(move || templates.find::<Note>(key)).await? {
        Ok(Some(kept)) => return Template::new(key, kept).map(|template| (template, true)).map_err(NoTemplate::new),
        Ok(None) => {}
        Err(reason) => tell(News::Damaged(reason)),
    }
    let (templates, given_up) = (forge.templates.clone(), Arc::new(AtomicBool::new(false)));
    let (room, flag) = (mould.command.memory_mib * (1 << 20) + DISK_ROOM, Arc::clone(&given_up));
    let (waits, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let begin = blocking(move || {
        templates.begin::<Note>(key, room, &flag, &move |holder| {
            let _ = waits.send(holder);
        })
    });
    let _give_up = GiveUp(given_up);
    let mut begin = std::pin::pin!(begin);
    let begun = loop {
        tokio::select! {
            biased;
            () = forge.cancel.cancelled() => return Err(NoTemplate::new("interrupted")),
            Some(holder) = waiting.recv() => {
                let holder = holder.map_or("another process".to_owned(), |process| format!("process {process}"));
                tell(News::Waiting(format!("waiting for {holder}, which makes it")));
            }
            begun = &mut begin => break begun?.map_err(because("it cannot be kept"))?,
        }
    };
    let unfinished = match begun {
        Begun::Found(kept) => {
            return Template::new(key, kept).map(|template| (template, true)).map_err(NoTemplate::new);
        }
        Begun::Cancelled => return Err(NoTemplate::new("interrupted")),
        Begun::Free(unfinished) => unfinished,
    };
    let template = tokio::select! {
        biased;
        () = forge.cancel.cancelled() => return Err(NoTemplate::new("interrupted")),
        template = make(forge, mould, unfinished, tell) => template?,
    };
    Ok((template, false))
}

/// Whoever waits for a lock on a thread of its own is told when nobody waits for him any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NoTemplate> {
    tokio::task::spawn_blocking(work).await.map_err(because("a defect of nestmatrix"))
}

async fn make(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    unfinished: Unfinished,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Template, NoTemplate> {
    let folder = unfinished.folder();
    let keys = (keypair("login")?, keypair("host key")?);
    keys.0.write_private(&folder.join(LOGIN)).map_err(because("its key cannot be written"))?;
    let firmware = guest::identity(&folder, keys.0.public(), keys.1.private(), &mould.hostname)
        .map_err(because("its identity cannot be written"))?;
    let disks = make_disks(mould, &folder)?;
    let guest = boot(forge, mould, &folder, firmware.clone(), &disks).await?;
    ready_and_frozen(forge, mould, guest, &folder, &keys, tell).await?;

    // Before anybody can find it: what is in the store works.
    tell(News::Step("trying a fork of it".to_owned()));
    let frozen = Frozen { folder: folder.clone(), firmware, disks };
    let cost = tried(forge, mould, &frozen, &keys).await? + MARGIN;
    let firmware = frozen
        .firmware
        .iter()
        .map(|item| (item.name.to_owned(), item.file.file_name().unwrap_or_default().to_string_lossy().into_owned()));
    let note = Note { cost, firmware: firmware.collect(), disks: frozen.disks.clone() };
    let (templates, key) = (forge.templates.clone(), mould.key);
    let kept = blocking(move || templates.publish(unfinished, note)).await?.map_err(because("it cannot be kept"))?;
    Template::new(key, kept).map_err(NoTemplate::new)
}

fn keypair(what: &str) -> Result<Keypair, NoTemplate> {
    Keypair::generate(&format!("nestmatrix template {what}")).map_err(because("no key could be made"))
}

/// Sparse: what is never written takes no room.
fn make_disks(mould: &Mould<'_>, folder: &Path) -> Result<Vec<NotedDisk>, NoTemplate> {
    let made = mould.disks.iter().map(|OwnDisk { serial, content }| {
        let (file, writable) = (format!("{serial}.raw"), matches!(content, Content::Empty(_)));
        let path = folder.join(&file);
        match content {
            Content::Empty(size) => std::fs::File::create(&path)
                .and_then(|made| made.set_len(size.bytes()))
                .map_err(because("a disk of it cannot be made"))?,
            Content::Written(write) => write(&path)?,
        }
        Ok(NotedDisk { serial: serial.clone(), file, writable })
    });
    made.collect()
}

async fn boot(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    folder: &Path,
    firmware: Vec<guest::Firmware>,
    disks: &[NotedDisk],
) -> Result<Guest, NoTemplate> {
    let disk = folder.join(DISK);
    guest::create_overlay(&forge.qemu.img, mould.image, Some(mould.disk), &disk).await.map_err(because("its disk"))?;
    let own = disks.iter().map(|NotedDisk { serial, file, writable }| Disk {
        file: folder.join(file),
        format: DiskFormat::Raw,
        serial: serial.clone(),
        writable: *writable,
    });
    let command = Command {
        more_disks: own.chain(mould.command.more_disks.iter().cloned()).collect(),
        name: format!("template-{}", mould.key.short()),
        ram: Ram::Kept(folder.join(RAM)),
        disk: Some(disk),
        firmware,
        network: Some(mould.network),
        port: Port::Open,
        ..mould.command.clone()
    };
    std::fs::create_dir_all(forge.logs).map_err(because("its logs cannot be written"))?;
    Guest::start(forge.spawner, command, true, forge.logs).await.map_err(because("it cannot be started"))
}

/// Everything between power-on and the frozen state. The guest is gone afterwards, whatever came of it.
async fn ready_and_frozen(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    mut guest: Guest,
    folder: &Path,
    keys: &(Keypair, Keypair),
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), NoTemplate> {
    let port = fork::port(&mut guest).map_err(because("its port"));
    let result = match port {
        Ok(mut port) => tokio::select! {
            biased;
            done = steps(forge, mould, &guest, &mut port, keys, tell) => done,
            ended = guest.ended() => Err(NoTemplate::new(ended.to_string())),
        },
        Err(error) => Err(error),
    };
    let frozen = match result {
        Ok(()) => guest.freeze(&folder.join(STATE)).await.map_err(because("it cannot be frozen")),
        Err(error) => Err(error),
    };
    guest.kill().await;
    frozen
}

async fn steps(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    guest: &Guest,
    port: &mut tokio::net::UnixStream,
    (login, host_key): &(Keypair, Keypair),
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), NoTemplate> {
    let scaled = |limit: Duration| limit.mul_f64(forge.speed);
    tell(News::Step("booting it".to_owned()));
    let address = guest.ssh().ok_or_else(|| NoTemplate::new("it has no network"))?;
    let stream =
        ssh::banner(address, Instant::now() + mould.boot, forge.cancel).await.map_err(because("it did not boot"))?;
    let session = connect(forge, mould, stream, (login, host_key)).await.map_err(because("no SSH session with it"))?;

    let session = Arc::new(session);
    match &mould.work {
        Work::Preparation(preparation) => prepare(forge, preparation.as_ref(), &session, tell).await?,
        Work::Own(work) => work(Arc::clone(&session)).await?,
    }

    tell(News::Step("waiting until it is at rest".to_owned()));
    let place = sh(&session, LIE_IN_WAIT, &[Command::PORT], waker::PROGRAM.to_vec(), scaled(STEP));
    expect(place.await, "nothing can lie in wait in it")?;
    waker::ready(port, scaled(STEP)).await.map_err(because("nothing lies in wait in it"))?;
    expect(sh(&session, SETTLE, &[], Vec::new(), scaled(STEP)).await, "it cannot be brought to rest")?;
    drop(session);
    idle::until_idle(guest.pid(), scaled(IDLE)).await.map_err(|part| {
        NoTemplate::new(format!(
            "it never came to rest: after {:.0} s it still takes {:.0} % of a CPU",
            scaled(IDLE).as_secs_f64(),
            part * 100.0
        ))
    })
}

async fn connect(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    stream: BannerStream,
    (login, host_key): (&Keypair, &Keypair),
) -> Result<Session, SshError> {
    Session::open(Open {
        stream,
        user: mould.login_user,
        login,
        host_key: host_key.public(),
        deadline: Instant::now() + CONNECT.mul_f64(forge.speed),
        silence: Session::SILENCE.mul_f64(forge.speed),
        cancel: forge.cancel.child_token(),
    })
    .await
}

/// Does what the matrix asks for. Where it asks for nothing, a rehearsal: forks then find in their memory what every payload needs of
/// the guest's disk.
async fn prepare(
    forge: &Forge<'_>,
    preparation: Option<&Preparation<'_>>,
    session: &Session,
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), NoTemplate> {
    run(forge, session, "rehearsal", payload::rehearsal(PackageFamily::Deb), STEP.mul_f64(forge.speed)).await?;
    let Some(Preparation { script, packages, limit }) = preparation else { return Ok(()) };
    let unprepared =
        |error: NoTemplate| NoTemplate { help: Some(format!("what it said is in {}", forge.logs.display())), ..error };
    let until = Instant::now() + *limit;
    let left = || until.saturating_duration_since(Instant::now());
    if !packages.is_empty() {
        tell(News::Step(format!("installing {} in it", packages.join(" "))));
        let script = payload::install_by_name(PackageFamily::Deb, packages);
        run(forge, session, "packages", &script, left()).await.map_err(unprepared)?;
    }
    if let Some(script) = script {
        tell(News::Step("preparing it".to_owned()));
        run(forge, session, "prepare", script, left()).await.map_err(unprepared)?;
    }
    Ok(())
}

/// Runs one script in it, as suites are run; its output goes to files of the name `what`.
async fn run(
    forge: &Forge<'_>,
    session: &Session,
    what: &str,
    script: &str,
    limit: Duration,
) -> Result<(), NoTemplate> {
    let env = IndexMap::new();
    let upload = Upload { script, env: &env, files: &[], artifacts: &[], family: PackageFamily::Deb };
    let sent = payload::upload(session, &upload, Instant::now() + STEP.mul_f64(forge.speed)).await;
    sent.map_err(because("nothing can be sent into it"))?;
    let (stdout, stderr) =
        (forge.logs.join(format!("{what}.stdout.log")), forge.logs.join(format!("{what}.stderr.log")));
    let grace = GRACE.mul_f64(forge.speed);
    let suite = Suite { stdout: &stdout, stderr: &stderr, deadline: Instant::now() + limit, grace };
    let ran = payload::run(session, &suite).await.map_err(because("nothing can be run in it"))?;
    let how = match ran.outcome {
        SuiteOutcome::Exited(0) => return Ok(()),
        SuiteOutcome::Exited(code) => format!("exit code {code}"),
        SuiteOutcome::Skipped { .. } => "exit code 77".to_owned(),
        SuiteOutcome::Signal(name) => format!("killed by SIG{name}"),
        SuiteOutcome::TimedOut { .. } => format!("not done within {:.0} s", limit.as_secs_f64()),
    };
    let said = [ran.stderr_tail, ran.stdout_tail];
    let last = said.iter().find_map(|tail| {
        let text = String::from_utf8_lossy(tail);
        text.lines().rev().map(reports::clean::line).find(|line| !line.trim().is_empty())
    });
    let last = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    Err(NoTemplate::new(format!("the {what} failed: {how}{last}")))
}

/// Runs a script of ours in it.
async fn sh(session: &Session, script: &str, args: &[&str], stdin: Vec<u8>, limit: Duration) -> Result<Exit, SshError> {
    let command = payload::script(script, args);
    session.exec(Exec::new(command, Stdin::Bytes(stdin), Instant::now() + limit)).await
}

fn expect(exit: Result<Exit, SshError>, what: &'static str) -> Result<(), NoTemplate> {
    let exit = exit.map_err(because(what))?;
    if exit.success() {
        return Ok(());
    }
    Err(NoTemplate::new(format!("{what}: {}", reports::clean::line(&String::from_utf8_lossy(&exit.stderr_tail)))))
}

/// Makes a fork of what was frozen and runs `true` in it. The memory it took for itself, in bytes.
async fn tried(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    frozen: &Frozen,
    (login, host_key): &(Keypair, Keypair),
) -> Result<u64, NoTemplate> {
    let place = tempfile::Builder::new().prefix("trial").tempdir_in(forge.scratch);
    let place = place.map_err(because("a fork of it cannot be tried"))?;
    let command = Command { name: format!("trial-{}", mould.key.short()), ..mould.command.clone() };
    let with = With { qemu: forge.qemu, spawner: forge.spawner, speed: forge.speed, dies_with_us: true };
    let forked = fork::fork(frozen, &with, &command, mould.disk, (place.path(), place.path())).await;
    let forked = forked.map_err(because("a fork of it does not work"))?;
    let session = connect(forge, mould, forked.connection, (login, host_key)).await;
    let taken = memory::own_memory(forked.guest.pid());
    forked.guest.kill().await;
    session.map_err(because("no SSH session with a fork of it"))?;
    taken.ok_or_else(|| NoTemplate::new("the memory of a fork cannot be measured"))
}
