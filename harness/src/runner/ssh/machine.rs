//! A machine with the agent's program: what it is sent, and how the other end answers.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use images::Kernel;
use matrix::{ByteSize, Plan, SshHost};
use reports::{Phase, Trouble, TroubleKind};
use tokio::task::JoinHandle;

use super::{
    super::qemu::unsendable,
    client::{Connection, End, Output, Running},
};
use crate::{
    agent::{
        coming::Reply,
        fetch::{self, Wanted},
        job_bundle::{self, BundleError},
        send_image,
    },
    fanout::{BootImage, FetchSource},
};

/// How long what a run left may take to be removed.
const ENDING: Duration = Duration::from_secs(20);
/// Room that an image leaves to guests.
const SPARE: u64 = 256 << 20;
/// How often an upload is told of.
const TOLD: Duration = Duration::from_secs(10);
/// How long the other end may say nothing when it has nothing to wait for: it reads a whole image in that time, from a slow disk.
const SILENCE: Duration = Duration::from_secs(600);
/// How long the other end may say nothing while it fetches an image.
const FETCH_SILENCE: Duration = Duration::from_secs(60);
/// How long an image may take to be fetched by another run, and then by this one. The other end keeps to that by itself.
const LONGEST_FETCH: Duration = fetch::LONGEST.saturating_mul(2).saturating_add(FETCH_SILENCE);
/// Receives the program of the digest `$2` below `$1`: nothing has its name before it was checked, and the oldest others go.
const UPLOAD: &str = include_str!("upload.sh");
const ROOM: &str = "make room on that machine's disk, below ~/.cache/nestmatrix";

/// Such a machine.
pub(super) struct Machine {
    pub(super) connection: Connection,
    pub(super) host: SshHost,
    /// The agent's program there.
    pub(super) program: String,
    /// The folder for all that runs share.
    pub(super) root: String,
}

impl Machine {
    /// Runs a script with the program, the shared folder and this word.
    pub(super) async fn run(&self, script: &str, word: &str) -> Result<Running, Trouble> {
        self.connection.run(script, &[&self.program, &self.root, word]).await
    }

    /// Ends a run on the machine and removes what it left there.
    pub(super) async fn end(&self, run: &str) -> Result<(), Trouble> {
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
        tokio::time::timeout(ENDING, ending).await.unwrap_or_else(late)
    }

    /// Sends this program, the agent there.
    pub(super) async fn send_program(
        &self,
        (programs, digest): (&str, &str),
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<(), Trouble> {
        let failed = format!("{}: the agent was not uploaded", self.host);
        let Running { mut stdin, mut output, mut end } =
            self.connection.run(&UPLOAD.replace('\n', " "), &[programs, digest]).await?;
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
            return Err(silent(&self.host, "the agent was not uploaded"));
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

    /// Sends the plan.
    pub(super) async fn send_plan(&self, plan: &Plan, run: &str) -> Result<(), Trouble> {
        let mut plan = plan.clone();
        plan.runner.identity = None;
        let script = "exec \"$1\" receive bundle \"$2\" \"$3\"";
        let Running { stdin, mut output, mut end } = self.run(script, run).await?;
        let sending = tokio::task::spawn_blocking(move || {
            let unwritable = |source| BundleError::Write { path: "the runner".into(), source };
            let mut tar = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, stdin));
            job_bundle::write_plan(&mut tar, &plan, &BTreeMap::new())?;
            let buffer = tar.into_inner().map_err(unwritable)?;
            buffer.into_inner().map(drop).map_err(|error| unwritable(error.into_error()))
        });
        let what = "the plan was not sent";
        let said = answer(&mut output, &AtomicU64::new(0), &|_| {}).await;
        let Some(said) = said else { return Err(silent(&self.host, what)) };
        match sending.await {
            // Writing is reading, on the other end: that one says what is wrong with it.
            Ok(Ok(()) | Err(BundleError::Write { .. })) => {}
            Ok(Err(error)) => return Err(unsendable(&error)),
            Err(error) => return Err(local("the plan", &error)),
        }
        outcome(&self.host, what, said.as_deref(), &mut end).await
    }

    /// Has the machine fetch an image from its publisher, unless it is there; else why that did not succeed.
    pub(super) async fn fetch_image(
        &self,
        (name, image): (&str, &BootImage),
        source: &FetchSource,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<(), String> {
        let what = format!("{name} was not fetched");
        let timeout = |why: String| format!("{}: {what}: timeout: {why}", self.host);
        let script = "exec \"$1\" receive fetch \"$2\" \"$3\"";
        let fetching = async {
            let running = self.run(script, &image.facts.digest.hex()).await.map_err(|trouble| trouble.reason)?;
            let Running { mut stdin, mut output, mut end } = running;
            let wanted = Wanted { facts: image.facts.clone(), source: source.clone() };
            // Whether it arrives, the other end says.
            drop(tokio::task::spawn_blocking(move || {
                let line = serde_json::to_string(&wanted)?;
                writeln!(stdin, "{line}")
            }));
            let (mut waiting, mut fetching) = (Rarely::default(), Rarely::default());
            loop {
                let said = tokio::time::timeout(FETCH_SILENCE, output.line()).await;
                let said = said.map_err(|_| timeout(format!("no message for {} s", FETCH_SILENCE.as_secs())))?;
                match reply(said.as_deref()) {
                    Some(Reply::Waiting) => waiting.tell(&|| progress(waits_for(name, &self.host))),
                    Some(Reply::Fetching(bytes)) => fetching.tell(&|| {
                        let mib = ByteSize::from_bytes(bytes).mib();
                        progress(format!("fetching {name} on {}: {mib} MiB", self.host.name()));
                    }),
                    _ => {
                        let outcome = outcome(&self.host, &what, said.as_deref(), &mut end).await;
                        return outcome.map_err(|trouble| trouble.reason);
                    }
                }
            }
        };
        let late = |_| Err(timeout(format!("longer than {} s", LONGEST_FETCH.as_secs())));
        tokio::time::timeout(LONGEST_FETCH, fetching).await.unwrap_or_else(late)
    }

    /// Sends an image, or what is missing of it there.
    pub(super) async fn send_image(
        &self,
        (name, image): (&str, &BootImage),
        folder: &str,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<(), Trouble> {
        let failed = format!("the image {name} was not uploaded");
        let script = "exec \"$1\" receive image \"$2\" \"$3\"";
        let Running { stdin, mut output, mut end } = self.run(script, folder).await?;
        let mut waiting = Rarely::default();
        let there = loop {
            let line =
                answer(&mut output, &AtomicU64::new(0), &|_| {}).await.ok_or_else(|| silent(&self.host, &failed))?;
            match reply(line.as_deref()) {
                Some(Reply::Waiting) => waiting.tell(&|| progress(waits_for(name, &self.host))),
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

/// What is said again and again is told now and then.
#[derive(Default)]
struct Rarely(Option<Instant>);

impl Rarely {
    fn tell(&mut self, tell: &(dyn Fn() + Sync)) {
        if self.0.is_none_or(|told| told.elapsed() >= TOLD) {
            tell();
            self.0 = Some(Instant::now());
        }
    }
}

fn waits_for(name: &str, host: &SshHost) -> String {
    format!("waiting for another run that brings {name} to {host}")
}

pub(super) async fn finished<T>(task: JoinHandle<io::Result<T>>) -> io::Result<T> {
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
async fn outcome(host: &SshHost, what: &str, said: Option<&str>, end: &mut End) -> Result<(), Trouble> {
    let what = format!("{host}: {what}");
    match reply(said) {
        Some(Reply::Done) => Ok(()),
        Some(Reply::Full(why)) => Err(disk_full(&what, &why)),
        Some(Reply::Failed(why)) => Err(refused(&what, &why)),
        Some(Reply::Waiting | Reply::Fetching(_) | Reply::There(_)) => {
            Err(refused(&what, "it answered something else"))
        }
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
pub(super) fn local(what: &str, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(TroubleKind::Host, Phase::Runner, format!("{what}: {error}"))
}
