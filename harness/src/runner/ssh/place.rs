//! A machine that one can log in to: looked at, given the agent's program and what the run needs, and left as it was but for what the next
//! run can use.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use images::Kernel;
use matrix::{ByteSize, Digest, Plan, SshHost};
use reports::{Phase, Trouble, TroubleKind};
use tokio::task::JoinHandle;

use super::{
    super::{
        place::{About, Engine, Opened, Opening, Place},
        qemu::{Steps, interrupted, unsendable},
    },
    client::{Access, Connection, Output, Running},
    probe::Found,
    words,
};
use crate::{
    agent::{
        Broken, Link,
        job_bundle::{self, BundleError, PROGRAM, StoredImage},
        protocol::{ToAgent, Work},
        receive::Reply,
        send_image,
        shared::{IMAGES, PROGRAMS},
    },
    fanout::BootImage,
    guest::Spawner,
};

/// How long the agent may take to greet.
const GREETING: Duration = Duration::from_secs(60);
/// An agent from which nothing has come for so long is given up: longer than a connection that was cut takes to be known as such, and
/// long enough for a slow machine that is fully loaded.
const AGENT_SILENCE: Duration = Duration::from_secs(60);
/// How long what a run left may take to be removed.
const ENDING: Duration = Duration::from_secs(20);
/// How long a lost connection may take to be known as such.
const EXPLANATION: Duration = Duration::from_secs(2);
/// Room that an image leaves to guests.
const SPARE: u64 = 256 << 20;
/// How often an upload is told of.
const TOLD: Duration = Duration::from_secs(10);
/// How long the other end may say nothing when it has nothing to wait for: it reads a whole image in that time, from a slow disk.
const SILENCE: Duration = Duration::from_secs(600);
/// Receives the program of the digest `$2` below `$1`: nothing has its name before it was checked, and the oldest others go.
const UPLOAD: &str = include_str!("upload.sh");
const ROOM: &str = "make room on that machine's disk, below ~/.cache/nestmatrix";

/// Machines that one can log in to; there is one.
pub(crate) struct SshPlace<'a> {
    plan: &'a Plan,
    host: &'a SshHost,
    reason: String,
    spawner: &'a Spawner,
    /// At most so many guests at once.
    jobs: Option<usize>,
    /// Every guest is booted, none forked.
    cold: bool,
    /// What templates may take there.
    templates: ByteSize,
    /// How many virtual machines its guests lie in: known when it was asked.
    depth: AtomicU32,
    /// Names of the runs whose agent was started there and is not known to have ended.
    begun: Names,
}

type Names = Arc<Mutex<Vec<String>>>;

/// Such a machine at work.
pub(crate) struct SshEngine {
    connection: Connection,
    host: SshHost,
    there: Folders,
    run: String,
    /// See [`SshPlace`].
    begun: Names,
}

/// What is where on the machine.
struct Folders {
    root: String,
    program: String,
}

/// Looks at a machine, and at nothing else.
pub(crate) async fn look(host: &SshHost, identity: Option<&Path>, spawner: &Spawner) -> Result<Found, Trouble> {
    let folder = tempfile::tempdir().map_err(|error| local("a folder", &error))?;
    let digest = own_digest().await?;
    let (connection, found) = Access { spawner, host, identity }.connect(folder.path(), &digest).await?;
    connection.close().await;
    Ok(found)
}

impl<'a> SshPlace<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        host: &'a SshHost,
        spawner: &'a Spawner,
        jobs: Option<usize>,
        cold: bool,
        templates: ByteSize,
    ) -> Self {
        let (reason, depth) = (format!("it was asked for: {host}"), AtomicU32::new(1));
        Self { plan, host, reason, spawner, jobs, cold, templates, depth, begun: Names::default() }
    }

    /// Connects, looks at the machine and sends it the agent's program.
    async fn connect(&self, opening: &Opening<'_>, steps: &mut Steps) -> Result<SshEngine, Trouble> {
        let &Opening { scratch, logs, progress, number, .. } = opening;
        for folder in [scratch, logs] {
            std::fs::create_dir_all(folder).map_err(|error| local(&folder.display().to_string(), &error))?;
        }
        let access = Access { spawner: self.spawner, host: self.host, identity: self.plan.runner.identity.as_deref() };
        let digest = own_digest().await?;
        progress(format!("connecting to {}", self.host));
        let (connection, found) = access.connect(scratch, &digest).await?;
        found.check().map_err(|trouble| trouble.within(&self.host.to_string()))?;
        self.depth.store(1 + u32::from(found.is_virtual), Ordering::Relaxed);
        steps.done("connect");
        let programs = format!("{}/{PROGRAMS}", found.root);
        let there = Folders { program: format!("{programs}/{digest}/{PROGRAM}"), root: found.root };
        if !found.has_program {
            progress(format!("uploading the agent to {}", self.host));
            self.upload_program(&connection, (&programs, &digest), progress).await?;
            steps.done("upload the agent");
        }
        let of_run = scratch.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let run = format!("{of_run}-{number}");
        Ok(SshEngine { connection, host: self.host.clone(), there, run, begun: Arc::clone(&self.begun) })
    }

    /// Starts the agent and tells it what to do.
    async fn start(&self, engine: &SshEngine, opening: &Opening<'_>, steps: &mut Steps) -> Result<Link, Trouble> {
        let before = names(&self.begun).clone();
        for run in &before {
            // Its guests take memory, and it may not know yet that nobody listens.
            (opening.progress)(format!("ending what a lost connection left on {}", self.host));
            engine.end(run).await?;
        }
        if !before.is_empty() {
            steps.done("end the lost agent");
        }
        names(&self.begun).push(engine.run.clone());
        let Folders { root, program } = &engine.there;
        let script = "exec \"$1\" agent --shared \"$2\" \"$3\"";
        let agent = engine.connection.run(script, &[program, root, &engine.run]).await?;
        let wire = agent.into_wire().map_err(|error| local("a thread", &error))?;
        let mut link = match Link::remote(wire, GREETING, AGENT_SILENCE).await {
            Ok(link) => link,
            Err(broken) => {
                let trouble = engine.explained(&broken).await;
                // The connection stands, and still: a fresh one does no better.
                let does_not_start = matches!(broken, Broken::Ended(_)) && trouble.kind == TroubleKind::RunnerLost;
                if !does_not_start || trouble.reason.contains(words::LOST) {
                    return Err(trouble);
                }
                let reason = format!("the agent does not start on {}: {broken}", self.host);
                let help =
                    "is that user's ~/.cache mounted noexec, or its disk full? XDG_CACHE_HOME names another folder";
                return Err(Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason).with_help(help));
            }
        };
        steps.done("agent");
        let bundle = self.send_brief(engine);
        tokio::select! {
            sent = bundle => sent?,
            // Listened to meanwhile, so that each knows that the other is there.
            said = link.next() => {
                let broken = match said {
                    Ok(message) => Broken::Garbage(format!("{message:?} before it had anything to do")),
                    Err(broken) => broken,
                };
                return Err(engine.explained(&broken).await);
            }
        }
        steps.done("plan");
        link.say(ToAgent::Work(Work {
            runner: opening.number,
            emulated: false,
            cpus: self.plan.runner.cpus.unwrap_or(u32::MAX),
            jobs: self.jobs,
            cold: self.cold,
            freeze: false,
            checked: false,
            templates: self.templates,
            known: None,
        }));
        Ok(link)
    }

    async fn upload_program(
        &self,
        connection: &Connection,
        (programs, digest): (&str, &str),
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<(), Trouble> {
        let failed = format!("{}: the agent was not uploaded", self.host);
        let Running { mut stdin, mut output, mut end } =
            connection.run(&UPLOAD.replace('\n', " "), &[programs, digest]).await?;
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let sending = tokio::task::spawn_blocking(move || {
            let mut program = std::fs::File::open("/proc/self/exe")?;
            let mut piece = vec![0; 256 << 10];
            loop {
                let read = program.read(&mut piece)?;
                if read == 0 {
                    return stdin.flush();
                }
                stdin.write_all(&piece[..read])?;
                count.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
        let tell =
            |sent| progress(format!("uploading the agent to {}: {} MiB", self.host, ByteSize::from_bytes(sent).mib()));
        let Some(said) = answer(&mut output, &sent, &tell).await else {
            return Err(silent(self.host, "the agent was not uploaded"));
        };
        let sent = finished(sending).await;
        if said.as_deref() == Some("done\n") {
            return Ok(());
        }
        let words = match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => error.to_string(),
            _ => end.last_words().await,
        };
        Err(refused(&failed, &words))
    }

    async fn send_brief(&self, engine: &SshEngine) -> Result<(), Trouble> {
        let mut plan = self.plan.clone();
        plan.runner.identity = None;
        let script = "exec \"$1\" receive bundle \"$2\" \"$3\"";
        let Running { stdin, mut output, mut end } = engine.run(script, &engine.run).await?;
        let sending = tokio::task::spawn_blocking(move || {
            let unwritable = |source| BundleError::Write { path: "the runner".into(), source };
            let mut tar = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, stdin));
            job_bundle::write_plan(&mut tar, &plan, &BTreeMap::new())?;
            let buffer = tar.into_inner().map_err(unwritable)?;
            buffer.into_inner().map(drop).map_err(|error| unwritable(error.into_error()))
        });
        let what = "the plan was not sent";
        let said = answer(&mut output, &AtomicU64::new(0), &|_| {}).await;
        let Some(said) = said else { return Err(silent(&engine.host, what)) };
        match sending.await {
            // Writing is reading, on the other end: that one says what is wrong with it.
            Ok(Ok(()) | Err(BundleError::Write { .. })) => {}
            Ok(Err(error)) => return Err(unsendable(&error)),
            Err(error) => return Err(local("the plan", &error)),
        }
        outcome(&engine.host, what, said.as_deref(), &mut end).await
    }
}

impl Place for SshPlace<'_> {
    type Engine = SshEngine;

    fn about(&self) -> About<'_> {
        let depth = self.depth.load(Ordering::Relaxed);
        About { kind: "ssh", reason: &self.reason, depth, needs_all_images: false, is_one_machine: true, proofs: None }
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<SshEngine>, Trouble> {
        let mut steps = Steps::start();
        let engine = tokio::select! {
            biased;
            () = opening.cancel.cancelled() => return Err(interrupted()),
            engine = self.connect(&opening, &mut steps) => engine?,
        };
        let started = tokio::select! {
            biased;
            () = opening.cancel.cancelled() => Err(interrupted()),
            started = self.start(&engine, &opening, &mut steps) => started,
        };
        match started {
            Ok(link) => Ok(Opened { engine, link, l1: None, steps: steps.0, give_up: None }),
            Err(trouble) => {
                engine.close().await.into_iter().for_each(opening.warn);
                Err(trouble)
            }
        }
    }
}

impl SshEngine {
    /// Runs a script with the program, the shared folder and this word.
    async fn run(&self, script: &str, word: &str) -> Result<Running, Trouble> {
        self.connection.run(script, &[&self.there.program, &self.there.root, word]).await
    }

    /// Ends a run on the machine and removes what it left there.
    async fn end(&self, run: &str) -> Result<(), Trouble> {
        let what = "what a run left was not removed";
        let ending = async {
            let mut running = self.run("exec \"$1\" receive end \"$2\" \"$3\"", run).await?;
            loop {
                let line = running.output.line().await;
                if reply(line.as_deref()) != Some(Reply::Waiting) {
                    return outcome(&self.host, what, line.as_deref(), &mut running.end).await;
                }
            }
        };
        let late = |_| {
            let reason = format!("{}: {what}: timeout: the run did not end within {} s", self.host, ENDING.as_secs());
            Err(Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason))
        };
        tokio::time::timeout(ENDING, ending).await.unwrap_or_else(late)?;
        names(&self.begun).retain(|begun| begun != run);
        Ok(())
    }

    async fn upload(
        &self,
        name: &str,
        image: &BootImage,
        folder: &str,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<(), Trouble> {
        let failed = format!("the image {name} was not uploaded");
        let script = "exec \"$1\" receive image \"$2\" \"$3\"";
        let Running { stdin, mut output, mut end } = self.run(script, folder).await?;
        let mut told = None;
        let there = loop {
            let line =
                answer(&mut output, &AtomicU64::new(0), &|_| {}).await.ok_or_else(|| silent(&self.host, &failed))?;
            match reply(line.as_deref()) {
                Some(Reply::Waiting) => {
                    if told.is_none_or(|told: Instant| told.elapsed() >= TOLD) {
                        progress(format!("waiting for another run that uploads {name} to {}", self.host));
                        told = Some(Instant::now());
                    }
                }
                Some(Reply::There(there)) => break there,
                _ => return outcome(&self.host, &failed, line.as_deref(), &mut end).await,
            }
        };
        if there.whole {
            return Ok(());
        }
        let (kernel, initrd) = match image.kernel.clone() {
            Some(Kernel { kernel, initrd }) => (Some(kernel), Some(initrd)),
            None => (None, None),
        };
        let files = [kernel, initrd, Some(image.disk.file.clone())];
        let size = |file: &Option<std::path::PathBuf>| {
            let metadata = file.as_ref().and_then(|file| std::fs::metadata(file).ok());
            metadata.map_or(0, |metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
        };
        let all: u64 = files.iter().map(size).sum();
        let missing = all.saturating_sub(there.allocated);
        let mib = |bytes: u64| ByteSize::from_bytes(bytes).mib();
        if missing.saturating_add(SPARE) > there.free {
            let why = format!(
                "{} MiB are needed there, {} MiB of them for guests, and {} MiB are free",
                mib(missing.saturating_add(SPARE)),
                mib(SPARE),
                mib(there.free)
            );
            return Err(disk_full(&format!("{}: {failed}", self.host), &why));
        }
        progress(format!("uploading {name} to {}: {} MiB", self.host, mib(missing)));
        let sent = Arc::new(AtomicU64::new(0));
        let sending = {
            let sent = Arc::clone(&sent);
            tokio::task::spawn_blocking(move || {
                let mut stdin = io::BufWriter::with_capacity(1 << 20, stdin);
                send_image(&mut stdin, &files, there, &|bytes| sent.store(bytes, Ordering::Relaxed))
            })
        };
        let tell = |sent| progress(format!("uploading {name} to {}: {} of {} MiB", self.host, mib(sent), mib(missing)));
        let Some(said) = answer(&mut output, &sent, &tell).await else { return Err(silent(&self.host, &failed)) };
        if let Err(error) = finished(sending).await
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(local(&failed, &error));
        }
        outcome(&self.host, &failed, said.as_deref(), &mut end).await
    }
}

impl Engine for SshEngine {
    async fn ended(&self) -> Trouble {
        self.connection.ended().await
    }

    async fn explained(&self, broken: &Broken) -> Trouble {
        if !matches!(broken, Broken::Garbage(_) | Broken::Version(_))
            && let Ok(ended) = tokio::time::timeout(EXPLANATION, self.connection.ended()).await
        {
            return ended;
        }
        let help = "was the agent killed there, or is the machine overloaded?";
        let reason = format!("the agent on {} was lost: {broken}", self.host);
        Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason).with_help(help)
    }

    fn evidence(&self) -> Vec<String> {
        words::trouble(&self.host, &self.connection.said(), true).evidence
    }

    async fn bring(
        &self,
        name: &str,
        image: &BootImage,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        let folder = image.facts.digest.hex();
        if let Err(trouble) = self.upload(name, image, &folder, progress).await {
            // Whatever was being done when the connection broke, that is what happened.
            return match tokio::time::timeout(EXPLANATION, self.connection.ended()).await {
                Ok(ended) => Err(ended),
                Err(_) => Err(trouble),
            };
        }
        let folder = format!("{}/{IMAGES}/{folder}", self.there.root).into();
        let stored = StoredImage { facts: image.facts.clone(), folder, format: image.disk.format };
        Ok(Some(ToAgent::Image { name: name.to_owned(), image: stored }))
    }

    /// When this returns, nothing of the run is there any more, unless the connection was lost: then the agent sees to that by itself.
    async fn close(self) -> Option<String> {
        let ended = tokio::select! {
            ended = self.end(&self.run) => ended,
            _ = self.connection.ended() => Ok(()),
        };
        self.connection.close().await;
        ended.err().map(|trouble| trouble.reason)
    }
}

fn names(names: &Names) -> std::sync::MutexGuard<'_, Vec<String>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Digest of this program.
async fn own_digest() -> Result<String, Trouble> {
    let digest = tokio::task::spawn_blocking(|| Digest::of_file(Path::new("/proc/self/exe")));
    Ok(finished(digest).await.map_err(|error| local("this program", &error))?.hex())
}

async fn finished<T>(task: JoinHandle<io::Result<T>>) -> io::Result<T> {
    task.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The other end's next line, `Some(None)` if it has ended; `None`: it neither says anything nor takes more of what is `sent`.
async fn answer(output: &mut Output, sent: &AtomicU64, tell: &(dyn Fn(u64) + Sync)) -> Option<Option<String>> {
    let mut ticks = tokio::time::interval(TOLD);
    ticks.tick().await;
    let (mut most, mut grown) = (0, Instant::now());
    loop {
        tokio::select! {
            said = output.line() => return Some(said),
            _ = ticks.tick() => {
                let sent = sent.load(Ordering::Relaxed);
                if sent != most {
                    (most, grown) = (sent, Instant::now());
                } else if grown.elapsed() >= SILENCE {
                    return None;
                }
                tell(sent);
            }
        }
    }
}

fn reply(line: Option<&str>) -> Option<Reply> {
    line.and_then(|line| serde_json::from_str(line).ok())
}

/// What the other end says of what it received.
async fn outcome(host: &SshHost, what: &str, said: Option<&str>, end: &mut super::client::End) -> Result<(), Trouble> {
    let what = format!("{host}: {what}");
    match reply(said) {
        Some(Reply::Done) => Ok(()),
        Some(Reply::Full(why)) => Err(disk_full(&what, &why)),
        Some(Reply::Failed(why)) => Err(refused(&what, &why)),
        Some(Reply::Waiting | Reply::There(_)) => Err(refused(&what, "it answered something else")),
        None => Err(refused(&what, &end.last_words().await)),
    }
}

/// The other machine did not do what it should.
fn refused(what: &str, words: &str) -> Trouble {
    let words = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    let words = reports::clean::line(words);
    if words.contains("No space left on device") || words.contains("Disk quota exceeded") {
        return disk_full(what, &words);
    }
    Trouble::new(TroubleKind::RunnerLost, Phase::Runner, format!("{what}: {words}"))
}

/// The other machine has no room. A fresh connection finds no more of it.
fn disk_full(what: &str, words: &str) -> Trouble {
    Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, format!("{what}: disk full: {words}")).with_help(ROOM)
}

/// The other machine says nothing although the connection stands.
fn silent(host: &SshHost, what: &str) -> Trouble {
    let reason = format!("{host}: {what}: timeout: no message and no progress for {} s", SILENCE.as_secs());
    Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason)
        .with_help("see whether that machine or its disk is overloaded")
}

/// This machine failed to do its part.
fn local(what: &str, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(TroubleKind::Host, Phase::Runner, format!("{what}: {error}"))
}
