//! A machine that one can log in to: looked at, given the agent's program and what the run needs, and left as it was but for what the next
//! run can use.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use matrix::{ByteSize, Digest, Plan, SshHost};
use reports::{Phase, Trouble, TroubleKind};

use super::{
    super::{
        place::{About, Engine, Opened, Opening, Place},
        qemu::{Steps, interrupted},
    },
    client::{Access, Way},
    machine::{Machine, finished, local},
    probe::Found,
    words,
};
use crate::{
    agent::{
        Broken, Link,
        job_bundle::{PROGRAM, StoredImage},
        protocol::{ToAgent, Work},
        shared::{IMAGES, PROGRAMS},
    },
    fanout::BootImage,
    guest::Spawner,
    package_lock::Locking,
};

/// How long the agent may take to greet.
const GREETING: Duration = Duration::from_secs(60);
/// An agent from which nothing has come for so long is given up: longer than a connection that was cut takes to be known as such, and
/// long enough for a slow machine that is fully loaded.
const AGENT_SILENCE: Duration = Duration::from_secs(60);
/// Longest answer to a question.
const LONGEST_REPLY: usize = 64 << 10;
/// How long a lost connection may take to be known as such.
const EXPLANATION: Duration = Duration::from_secs(2);

/// Machines that one can log in to; there is one.
pub(crate) struct SshPlace<'a> {
    plan: &'a Plan,
    host: &'a SshHost,
    way: Way,
    reason: String,
    spawner: &'a Spawner,
    /// At most so many guests at once.
    jobs: Option<usize>,
    /// Every guest is booted, none forked.
    cold: bool,
    /// What templates may take there.
    templates: ByteSize,
    /// Guests' repositories are answered for from the cache alone.
    offline: bool,
    /// Which packages guests may get.
    locking: &'a Locking,
    /// Guests run under KVM there, or not at all.
    kvm: bool,
    /// How many virtual machines its guests lie in: known when it was asked.
    depth: AtomicU32,
    /// It was connected to in this run.
    reached: AtomicBool,
    /// Names of the runs whose agent was started there and is not known to have ended.
    begun: Names,
}

type Names = Arc<Mutex<Vec<String>>>;

/// Such a machine at work.
pub(crate) struct SshEngine {
    machine: Machine,
    run: String,
    /// See [`SshPlace`].
    begun: Names,
}

/// Looks at a machine, and at nothing else.
pub(crate) async fn look(host: &SshHost, way: &Way, spawner: &Spawner) -> Result<Found, Trouble> {
    let folder = tempfile::tempdir().map_err(|error| local("a folder", &error))?;
    let digest = own_digest().await?;
    let (connection, found) = Access { spawner, host, way }.connect(folder.path(), &digest).await?;
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
        (offline, locking): (bool, &'a Locking),
    ) -> Self {
        let way = Way::Users { identity: plan.runner.identity.clone() };
        let (reason, depth) = (format!("it was asked for: {host}"), AtomicU32::new(1));
        Self {
            plan,
            host,
            way,
            reason,
            spawner,
            jobs,
            cold,
            templates,
            offline,
            locking,
            kvm: false,
            depth,
            reached: AtomicBool::new(false),
            begun: Names::default(),
        }
    }

    /// The same where the machine was made for this run: how it is reached is known, and guests that are emulated are not what it was made
    /// for.
    pub(crate) fn of_this_run(self, way: Way) -> Self {
        Self { way, kvm: true, ..self }
    }

    /// Connects, looks at the machine and sends it the agent's program.
    async fn connect(&self, opening: &Opening<'_>, steps: &mut Steps) -> Result<SshEngine, Trouble> {
        let &Opening { scratch, logs, progress, number, .. } = opening;
        for folder in [scratch, logs] {
            std::fs::create_dir_all(folder).map_err(|error| local(&folder.display().to_string(), &error))?;
        }
        let access = Access { spawner: self.spawner, host: self.host, way: &self.way };
        let digest = own_digest().await?;
        progress(format!("connecting to {}", self.host));
        let connected = access.connect(scratch, &digest).await;
        if connected.is_ok() {
            self.reached.store(true, Ordering::Relaxed);
        }
        let (connection, found) = connected.map_err(|trouble| self.not_reached(trouble))?;
        found.check().map_err(|trouble| trouble.within(&self.host.to_string()))?;
        self.depth.store(1 + u32::from(found.is_virtual), Ordering::Relaxed);
        steps.done("connect");
        let programs = format!("{}/{PROGRAMS}", found.root);
        let program = format!("{programs}/{digest}/{PROGRAM}");
        let machine = Machine { connection, host: self.host.clone(), program, root: found.root };
        if !found.has_program {
            progress(format!("uploading the agent to {}", self.host));
            machine.send_program((&programs, &digest), progress).await?;
            steps.done("upload the agent");
        }
        let of_run = scratch.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let run = format!("{of_run}-{number}");
        Ok(SshEngine { machine, run, begun: Arc::clone(&self.begun) })
    }

    /// A machine that was never reached is not lost: its name or port is wrong, or it is down, and waiting does not help.
    fn not_reached(&self, trouble: Trouble) -> Trouble {
        let may_pass = matches!(trouble.kind, TroubleKind::RunnerLost | TroubleKind::Timeout);
        match may_pass && !self.reached.load(Ordering::Relaxed) {
            true => Trouble { kind: TroubleKind::RunnerUnusable, ..trouble },
            false => trouble,
        }
    }

    /// Starts the agent and tells it what to do.
    async fn start(&self, engine: &SshEngine, opening: &Opening<'_>, steps: &mut Steps) -> Result<Link, Trouble> {
        let before = names(&self.begun).clone();
        for run in &before {
            // Its guests take memory, and it may not know yet that nobody listens.
            (opening.progress)(format!("ending what a lost connection left on {}", self.host));
            engine.machine.end(run).await?;
            names(&self.begun).retain(|begun| begun != run);
        }
        if !before.is_empty() {
            steps.done("end the lost agent");
        }
        names(&self.begun).push(engine.run.clone());
        let agent = engine.machine.run("exec \"$1\" agent --shared \"$2\" \"$3\"", &engine.run).await?;
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
                names(&self.begun).retain(|run| *run != engine.run);
                let reason = format!("the agent does not start on {}: {broken}", self.host);
                let help =
                    "is that user's ~/.cache mounted noexec, or its disk full? XDG_CACHE_HOME names another folder";
                return Err(Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason).with_help(help));
            }
        };
        steps.done("agent");
        let bundle = engine.machine.send_plan(self.plan, &engine.run);
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
            proxy: None,
            offline: self.offline,
            locking: self.locking.clone(),
            runner: opening.number,
            emulated: false,
            cpus: self.plan.runner.cpus.unwrap_or(u32::MAX),
            jobs: self.jobs,
            cold: self.cold,
            freeze: false,
            checked: false,
            kvm: self.kvm,
            templates: self.templates,
            known: None,
        }));
        Ok(link)
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

impl Engine for SshEngine {
    async fn ended(&self) -> Trouble {
        self.machine.connection.ended().await
    }

    async fn explained(&self, broken: &Broken) -> Trouble {
        if !matches!(broken, Broken::Garbage(_) | Broken::Version(_))
            && let Ok(ended) = tokio::time::timeout(EXPLANATION, self.machine.connection.ended()).await
        {
            return ended;
        }
        let help = "was the agent killed there, or is the machine overloaded?";
        let reason = format!("the agent on {} was lost: {broken}", self.machine.host);
        Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason).with_help(help)
    }

    fn evidence(&self) -> Vec<String> {
        words::trouble(&self.machine.host, &self.machine.connection.said(), true).evidence
    }

    async fn bring(
        &self,
        name: &str,
        image: &BootImage,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        let folder = image.facts.digest.hex();
        if let Err(trouble) = self.machine.send_image((name, image), &folder, progress).await {
            return Err(self.broken().await.unwrap_or(trouble));
        }
        let folder = format!("{}/{IMAGES}/{folder}", self.machine.root).into();
        let stored = StoredImage { facts: image.facts.clone(), folder, format: image.disk.format };
        Ok(Some(ToAgent::Image { name: name.to_owned(), image: stored }))
    }

    /// When this returns, nothing of the run is there any more, unless the connection was lost: then the agent sees to that by itself.
    async fn close(self) -> Option<String> {
        if !names(&self.begun).contains(&self.run) {
            self.machine.connection.close().await;
            return None;
        }
        let ended = tokio::select! {
            ended = self.machine.end(&self.run) => ended.inspect(|()| names(&self.begun).retain(|run| *run != self.run)),
            _ = self.machine.connection.ended() => Ok(()),
        };
        self.machine.connection.close().await;
        ended.err().map(|trouble| trouble.reason)
    }
}

impl SshEngine {
    /// The same over a network that is ours to use: the machine fetches the image from its publisher, if it has one.
    pub(crate) async fn fetch_or_bring(
        &self,
        name: &str,
        image: &BootImage,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        if let Some(source) = &image.source {
            let fetched = self.machine.fetch_image((name, image), source, progress).await;
            if let Some(why) = not_fetched(fetched, self.broken()).await? {
                progress(format!("{why}; uploading it"));
            }
        }
        // What is there now is not uploaded.
        self.bring(name, image, progress).await
    }

    /// Whatever was being done when the connection broke, that is what happened.
    async fn broken(&self) -> Option<Trouble> {
        tokio::time::timeout(EXPLANATION, self.machine.connection.ended()).await.ok()
    }

    /// What a script of one line prints there, within a limit; `None`: nothing that is whole.
    pub(crate) async fn ask(&self, script: &str, limit: Duration) -> Option<String> {
        let asking = async {
            let mut running = self.machine.connection.run(script, &[]).await.ok()?;
            let mut text = String::new();
            while let Some(line) = running.output.line().await {
                text += &line;
                if text.len() > LONGEST_REPLY {
                    return None;
                }
            }
            Some(text)
        };
        tokio::time::timeout(limit, asking).await.ok().flatten()
    }
}

/// Why an image is to be uploaded that could have been fetched, unless the connection is broken.
async fn not_fetched(
    fetched: Result<(), String>,
    broken: impl Future<Output = Option<Trouble>>,
) -> Result<Option<String>, Trouble> {
    let Err(why) = fetched else { return Ok(None) };
    match broken.await {
        Some(trouble) => Err(trouble),
        None => Ok(Some(why)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_fetched_is_uploaded_unless_the_connection_broke() {
        let failed = || Err("a: b was not fetched: 404".to_owned());
        let lost = || Trouble::new(TroubleKind::RunnerLost, Phase::Runner, "the connection was lost");
        assert_eq!(not_fetched(Ok(()), async { Some(lost()) }).await.unwrap(), None);
        let why = not_fetched(failed(), async { None }).await.unwrap();
        assert_eq!(why.as_deref(), Some("a: b was not fetched: 404"));
        let trouble = not_fetched(failed(), async { Some(lost()) }).await.unwrap_err();
        assert_eq!(trouble.reason, "the connection was lost");
    }
}
