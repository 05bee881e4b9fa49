//! A machine that one can log in to: looked at, given the agent's program and what the run needs, and left as it was but for what the next
//! run can use.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
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
    client::{Access, Connection, Running},
    probe::Found,
    words,
};
use crate::{
    agent::{
        Broken, Link,
        job_bundle::{self, BundleError, PROGRAM, StoredImage},
        protocol::{ToAgent, Work},
        receive::{Outcome, There},
        send_image,
        shared::{IMAGES, PROGRAMS},
    },
    fanout::BootImage,
    guest::Spawner,
};

/// How long the agent may take to greet.
const GREETING: Duration = Duration::from_secs(60);
/// How long what a run left may take to be removed.
const ENDING: Duration = Duration::from_secs(20);
/// How long a lost connection may take to be known as such.
const EXPLANATION: Duration = Duration::from_secs(2);
/// Room that an image leaves to guests.
const SPARE: u64 = 256 << 20;
/// How often an upload is told of.
const TOLD: Duration = Duration::from_secs(10);
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
}

/// Such a machine at work.
pub(crate) struct SshEngine {
    connection: Connection,
    host: SshHost,
    there: Folders,
    run: String,
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
        let reason = format!("it was asked for: {host}");
        Self { plan, host, reason, spawner, jobs, cold, templates, depth: AtomicU32::new(1) }
    }

    async fn start(&self, opening: &Opening<'_>, steps: &mut Steps) -> Result<(SshEngine, Link), Trouble> {
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
            self.upload_program(&connection, &programs, &digest).await?;
            steps.done("upload the agent");
        }
        let of_run = scratch.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let run = format!("{of_run}-{number}");
        let engine = SshEngine { connection, host: self.host.clone(), there, run };
        let Folders { root, program } = &engine.there;
        let script = "exec \"$1\" agent --shared \"$2\" \"$3\"";
        let agent = engine.connection.run(script, &[program, root, &engine.run]).await?;
        let wire = agent.into_wire().map_err(|error| local("a thread", &error))?;
        // How slow it is shows only later.
        let mut link = match Link::remote(wire, GREETING, 1.0).await {
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
        let bundle = self.send_brief(&engine);
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
            runner: number,
            emulated: false,
            cpus: self.plan.runner.cpus.unwrap_or(u32::MAX),
            jobs: self.jobs,
            cold: self.cold,
            freeze: false,
            checked: false,
            templates: self.templates,
            known: None,
        }));
        Ok((engine, link))
    }

    async fn upload_program(&self, connection: &Connection, programs: &str, digest: &str) -> Result<(), Trouble> {
        let Running { mut stdin, mut output, mut end } =
            connection.run(&UPLOAD.replace('\n', " "), &[programs, digest]).await?;
        let sending = tokio::task::spawn_blocking(move || {
            io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut stdin)?;
            stdin.flush()
        });
        let said = output.line().await;
        let sent = finished(sending).await;
        if said.as_deref() == Some("done\n") {
            return Ok(());
        }
        let words = match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => error.to_string(),
            _ => end.last_words().await,
        };
        Err(refused(&format!("{}: the agent was not uploaded", self.host), &words))
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
        let said = output.line().await;
        match sending.await {
            // Writing is reading, on the other end: that one says what is wrong with it.
            Ok(Ok(()) | Err(BundleError::Write { .. })) => {}
            Ok(Err(error)) => return Err(unsendable(&error)),
            Err(error) => return Err(local("the plan", &error)),
        }
        outcome(&engine.host, "the plan was not sent", said.as_deref(), &mut end).await
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
        let (engine, link) = tokio::select! {
            biased;
            () = opening.cancel.cancelled() => return Err(interrupted()),
            started = self.start(&opening, &mut steps) => started?,
        };
        Ok(Opened { engine, link, l1: None, steps: steps.0, give_up: None })
    }
}

impl SshEngine {
    /// Runs a script with the program, the shared folder and this word.
    async fn run(&self, script: &str, word: &str) -> Result<Running, Trouble> {
        self.connection.run(script, &[&self.there.program, &self.there.root, word]).await
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
        let there = output.line().await;
        let Some(there) = there.as_deref().and_then(|line| serde_json::from_str::<There>(line).ok()) else {
            return outcome(&self.host, &failed, there.as_deref(), &mut end).await;
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
        let missing = all.saturating_sub(there.bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes)));
        let mib = |bytes: u64| ByteSize::from_bytes(bytes).mib();
        if missing.saturating_add(SPARE) > there.free {
            let reason = format!(
                "{}: disk full: the image {name} needs {} MiB more there and guests {} MiB, and {} MiB are free",
                self.host,
                mib(missing),
                mib(SPARE),
                mib(there.free)
            );
            return Err(Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason).with_help(ROOM));
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
        let mut ticks = tokio::time::interval(TOLD);
        ticks.tick().await;
        let said = loop {
            tokio::select! {
                said = output.line() => break said,
                _ = ticks.tick() => {
                    progress(format!("uploading {name} to {}: {} of {} MiB", self.host, mib(sent.load(Ordering::Relaxed)), mib(all)));
                }
            }
        };
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
    async fn close(self) {
        let ending = async {
            if let Ok(mut running) = self.run("exec \"$1\" receive end \"$2\" \"$3\"", &self.run).await {
                running.output.line().await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(ENDING, ending) => {}
            _ = self.connection.ended() => {}
        }
        self.connection.close().await;
    }
}

/// Digest of this program.
async fn own_digest() -> Result<String, Trouble> {
    let digest = tokio::task::spawn_blocking(|| Digest::of_file(Path::new("/proc/self/exe")));
    Ok(finished(digest).await.map_err(|error| local("this program", &error))?.hex())
}

async fn finished<T>(task: JoinHandle<io::Result<T>>) -> io::Result<T> {
    task.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// What the other end says of what it received.
async fn outcome(host: &SshHost, what: &str, said: Option<&str>, end: &mut super::client::End) -> Result<(), Trouble> {
    let what = format!("{host}: {what}");
    match said.and_then(|line| serde_json::from_str(line).ok()) {
        Some(Outcome::Done) => Ok(()),
        Some(Outcome::Full(why)) => {
            Err(Trouble::new(TroubleKind::HostDiskFull, Phase::Runner, format!("{what}: disk full: {why}"))
                .with_help(ROOM))
        }
        Some(Outcome::Failed(why)) => Err(refused(&what, &why)),
        None => Err(refused(&what, &end.last_words().await)),
    }
}

/// The other machine did not do what it should.
fn refused(what: &str, words: &str) -> Trouble {
    let words = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    let words = reports::clean::line(words);
    if words.contains("No space left on device") || words.contains("Disk quota exceeded") {
        return Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, format!("{what}: disk full: {words}"))
            .with_help(ROOM);
    }
    Trouble::new(TroubleKind::Unexpected, Phase::Runner, format!("{what}: {words}"))
}

/// This machine failed to do its part.
fn local(what: &str, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(TroubleKind::Host, Phase::Runner, format!("{what}: {error}"))
}
