//! An L1 on this machine: a virtual machine that can run virtual machines, with the agent in it.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::{Network, Plan};
use reports::{L1Facts, Phase, StepTime, Trouble, TroubleKind};
use tokio_util::sync::CancellationToken;

use super::{
    place::{About, Engine, Opened, Opening, Place},
    proof::Proofs,
    size::Size,
};
use crate::{
    agent::{
        Broken, Link, Wire,
        job_bundle::{self, BundleError},
        protocol::{ToAgent, Work},
    },
    fanout::{self, BootImage},
    guest::{self, Accelerator, Below, Cpu, Disk, DiskFile, Ended, Guest, GuestIdentity, Launch, MachineSpec, Spawner},
    host::{NoPart, Qemu},
    package_lock::Locking,
    ssh::{self, Exec, Keys, Open, Session, Stdin},
    template::Freezing,
};

const SETUP: &str = include_str!("l1.sh");
/// What an L1 is called.
pub(super) const NAME: &str = "nestmatrix-l1";
/// Serial numbers of the disks that are its own (see `l1.sh`).
pub(super) const SCRATCH: &str = "scratch";
pub(super) const BUNDLE: &str = "bundle";
/// Time limits of an L1's way up, before scaling.
const BOOT: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);
const UNPACK: Duration = Duration::from_secs(120);
const GREETING: Duration = Duration::from_secs(20);
/// An agent from which nothing has come for so long is given up: several heartbeats, for a machine that is fully loaded misses some ...
const SILENCE: Duration = Duration::from_secs(15);
/// ... and two or three of them as a slow machine sends them: this is scaled. The longer of both holds.
const SLOW_SILENCE: Duration = Duration::from_secs(5);
/// How long a lost connection waits for QEMU's word on why.
const EXPLANATION: Duration = Duration::from_secs(2);
/// Console lines that go with a loss.
pub(super) const TAIL: usize = 30;

/// What an L1 is made of.
pub(crate) struct L1Spec<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) size: &'a Size,
    /// What the L1 itself is booted from.
    pub(crate) image: &'a BootImage,
    /// Catalog name of that.
    pub(crate) image_name: &'a str,
    /// The plan's images.
    pub(crate) images: &'a BTreeMap<String, BootImage>,
    pub(crate) qemu: &'a Qemu,
    /// What time limits of its way up are multiplied by.
    pub(crate) speed: f64,
    pub(crate) nesting: &'a str,
    pub(crate) accelerator: Accelerator,
    pub(crate) host_kernel: &'a str,
}

/// L1s on this machine.
pub(crate) struct QemuPlace<'a> {
    pub(crate) spec: L1Spec<'a>,
    /// Why guests run in an L1.
    pub(crate) reason: &'a str,
    pub(crate) spawner: &'a Spawner,
    /// At most so many guests at once.
    pub(crate) jobs: Option<usize>,
    /// Every guest is booted, none forked.
    pub(crate) cold: bool,
    /// Where frozen L1s are kept; else why there are none.
    pub(crate) freezing: Freezing,
    /// How an L1 gets to its guests' repositories; else why not.
    pub(crate) proxy: Result<egress::Proxy, String>,
    /// Which packages guests may get: its agent sees to that, the proxy here to what is fetched at all.
    pub(crate) locking: &'a Locking,
    /// What earlier L1s of this kind have proved.
    pub(crate) proofs: Proofs,
    /// How many virtual machines this machine lies in.
    pub(crate) depth: u32,
}

/// A running L1.
pub(crate) struct L1 {
    guest: Guest,
    /// Its way to repositories, for its guests.
    _outbound: Option<egress::Guest>,
}

impl Place for QemuPlace<'_> {
    type Engine = L1;

    fn about(&self) -> About<'_> {
        let (reason, proofs) = (self.reason, Some(&self.proofs));
        // The images are its disks.
        About { kind: "qemu", reason, depth: self.depth + 2, needs_all_images: true, is_one_machine: false, proofs }
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<L1>, Trouble> {
        let (guest, outbound, link, facts, steps) = self.spec.open(self, &opening).await?;
        Ok(self.at_work(opening.number, (guest, outbound), (link, facts, steps), false))
    }
}

impl QemuPlace<'_> {
    /// Sends the agent its `Work`. `checked`: every byte of its disks was checked before it was started.
    pub(super) fn at_work(
        &self,
        number: u32,
        (guest, outbound): (Guest, Option<egress::Guest>),
        (link, facts, steps): (Link, L1Facts, Vec<StepTime>),
        checked: bool,
    ) -> Opened<L1> {
        link.say(ToAgent::Work(Work { checked, cold: self.cold, ..self.work(number) }));
        Opened { engine: L1 { guest, _outbound: outbound }, link, l1: Some(facts), steps, give_up: None }
    }

    /// How an agent works in such an L1.
    pub(super) fn work(&self, runner: u32) -> Work {
        Work {
            runner,
            emulated: self.spec.is_emulated(),
            cpus: self.spec.size.guest_cpus,
            jobs: self.jobs,
            cold: false,
            freeze: false,
            checked: false,
            kvm: true,
            // What there is room for is looked at each time one is made; and what was made there ends with it.
            templates: matrix::ByteSize::from_bytes(u64::MAX),
            proxy: self.spec.reaches_repositories().then(egress::url),
            // Its cache is new: the proxy here, which it goes through, has what there is.
            offline: false,
            locking: self.locking.clone(),
            known: self.proofs.known(),
        }
    }

    /// Lets an L1 that was just started get to what its guests may reach: a proxy of its own tells that apart.
    pub(super) fn outbound(&self, guest: &mut Guest) -> Result<Option<egress::Guest>, String> {
        guest.take_egress().map(|card| self.serve(card)).transpose()
    }

    pub(super) fn serve(&self, card: egress::Card) -> Result<egress::Guest, String> {
        let guest = self.proxy.clone()?.serve(card, None, Box::new(|_| {}));
        guest.allow(Some(fanout::policy_of_l1(self.spec.plan)));
        Ok(guest)
    }
}

impl Engine for L1 {
    async fn ended(&self) -> Trouble {
        died(&self.guest.ended().await)
    }

    /// A machine that goes down closes its connections first; one that stands still does not.
    async fn explained(&self, error: &Broken) -> Trouble {
        if !matches!(error, Broken::Silent(_))
            && let Ok(ended) = tokio::time::timeout(EXPLANATION, self.guest.ended()).await
        {
            return died(&ended);
        }
        broken(error)
    }

    fn evidence(&self) -> Vec<String> {
        self.guest.console().tail(TAIL)
    }

    /// All of them are its disks.
    async fn bring(
        &self,
        _name: &str,
        _image: &BootImage,
        _progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        Ok(None)
    }

    async fn close(self) -> Option<String> {
        self.guest.kill().await;
        None
    }
}

/// This machine failed to do its part.
fn host(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::Host, Phase::Runner, reason)
}

/// The L1 does not do what it should.
pub(super) fn unexpected(what: &str, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(TroubleKind::Unexpected, Phase::Runner, format!("{what}: {error}"))
}

/// We were told to stop.
pub(super) fn interrupted() -> Trouble {
    Trouble::new(TroubleKind::Interrupted, Phase::Runner, "interrupted")
}

/// A file that belongs into the bundle is not as it was.
pub(super) fn unsendable(error: &BundleError) -> Trouble {
    let help = "restore the file, or start a new run: this one was planned with the file as it was";
    Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, error.to_string()).with_help(help)
}

/// Measures steps.
pub(crate) struct Steps(pub(super) Vec<StepTime>, Instant);

impl Steps {
    pub(super) fn start() -> Self {
        Self(Vec::new(), Instant::now())
    }

    pub(super) fn done(&mut self, step: &str) {
        let now = Instant::now();
        self.0.push(StepTime { step: step.to_owned(), elapsed_ms: (now - self.1).as_millis() as u64 });
        self.1 = now;
    }
}

impl L1Spec<'_> {
    /// Boots the L1 and starts its agent.
    async fn open(
        &self,
        place: &QemuPlace<'_>,
        &Opening { scratch, logs, progress, cancel, .. }: &Opening<'_>,
    ) -> Result<(Guest, Option<egress::Guest>, Link, L1Facts, Vec<StepTime>), Trouble> {
        let mut steps = Steps::start();
        for folder in [scratch, logs] {
            std::fs::create_dir_all(folder)
                .map_err(|error| host(format!("could not create {}: {error}", folder.display())))?;
        }
        let keys = |what: &str| {
            Keys::generate(&format!("nestmatrix L1 {what}"))
                .map_err(|error| host(format!("could not make a {what}: {error}")))
        };
        let (login, host_keys) = (keys("login")?, keys("host key")?);
        let keys = login
            .write_private(scratch, ssh::LOGIN_FILES)
            .map_err(|error| host(format!("could not write keys to {}: {error}", scratch.display())))?;
        let launch = self.prepared(scratch, &login, &host_keys).await?;
        steps.done("disks and bundle");

        progress(format!("booting the L1 with {} CPU and {}, {}", self.size.cpus, self.size.memory, self.nesting));
        // It dies with us, whatever happens: nothing in it can be kept.
        let mut guest = Guest::start(place.spawner, launch, true, logs)
            .await
            .map_err(|error| host(error.to_string()).with_help(format!("see {}", logs.join("qemu.log").display())))?;
        let outbound = place.outbound(&mut guest).map_err(host)?;
        self.leave_a_way_in(&guest, scratch, logs, &keys, &host_keys);
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(interrupted()),
            opened = self.start_agent(&guest, &login, &host_keys, &mut steps, progress, cancel) => opened,
            ended = guest.ended() => Err(died(&ended)),
        };
        let link = match opened {
            Ok(link) => link,
            Err(mut trouble) => {
                // A machine that goes down closes its connections first.
                if trouble.kind != TroubleKind::Interrupted
                    && let Ok(ended) = tokio::time::timeout(EXPLANATION, guest.ended()).await
                {
                    trouble = died(&ended);
                }
                trouble.evidence = guest.console().tail(TAIL);
                guest.kill().await;
                return Err(trouble);
            }
        };
        let facts = self.facts(&guest).await;
        Ok((guest, outbound, link, facts, steps.0))
    }

    pub(super) async fn facts(&self, guest: &Guest) -> L1Facts {
        L1Facts {
            image: self.image_name.to_owned(),
            digest: self.image.facts.digest,
            accelerator: match guest.accelerator().await {
                Ok(accelerator) => accelerator.to_string(),
                Err(_) => self.accelerator.to_string(),
            },
            nesting: self.nesting.to_owned(),
            machine: self.qemu.machine(),
            qemu: self.qemu.words.clone(),
            host_kernel: self.host_kernel.to_owned(),
            memory: self.size.memory.bytes(),
            cpus: self.size.cpus,
            pid: guest.pid(),
        }
    }

    /// Leaves the script that a person enters the L1 with for as long as it runs; not worth failing for.
    pub(super) fn leave_a_way_in(
        &self,
        guest: &Guest,
        scratch: &Path,
        logs: &Path,
        login: &[PathBuf; 2],
        host_keys: &Keys,
    ) {
        let port = guest.ssh().map_or(0, |address| address.port());
        let known_hosts = scratch.join("known_hosts");
        let command = ssh::command_to_enter(login, &known_hosts, &self.image.facts.login_user, port);
        let _ = std::fs::write(&known_hosts, host_keys.known_hosts(port));
        let script = logs.join("enter");
        let _ = std::fs::write(&script, format!("#!/bin/sh\nexec {command} \"$@\"\n"))
            .and_then(|()| std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)));
    }

    /// Writes everything the L1 is started with, and says how.
    async fn prepared(&self, scratch: &Path, login: &Keys, host_keys: &Keys) -> Result<Launch, Trouble> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            host(format!("{what}: {error}")).with_help(format!("make room below {}", scratch.display()))
        };
        let launch = self.launch().map_err(|error| host(error.to_string()))?;
        let most = MachineSpec::MOST_DISKS;
        if launch.spec.disks.len() - 1 > most {
            let help = "split the matrix: `--cell` chooses a part of it";
            let reason = format!("too many images for an L1: {}, at most {}", self.given().len(), most - 2);
            return Err(Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason).with_help(help));
        }
        let (write, to) = (self.write_brief(), guest::raw_disk(scratch, BUNDLE).file);
        tokio::task::spawn_blocking(move || write(&to)).await.map_err(|error| failed("the bundle", &error))?.map_err(
            |error| match error {
                BundleError::Write { .. } => failed("the bundle", &error),
                error => unsendable(&error),
            },
        )?;
        let below = Below { root: &self.image.disk, others: None, given: &self.given() };
        let disks = guest::make_disks(&self.qemu.img, &launch.spec, &below, scratch).await;
        let disks = disks.map_err(|error| failed("the L1's disks", &error))?;
        let who = GuestIdentity {
            login: login.public(),
            host_private: host_keys.private(),
            host_public: host_keys.public(),
            hostname: NAME,
        };
        guest::identity(scratch, &who, launch.spec.seed).map_err(|error| failed("the L1's identity", &error))?;
        Ok(Launch { disks, folder: scratch.to_owned(), network: self.network(true), ..launch })
    }

    /// The virtual machine. Pure.
    pub(super) fn machine(&self) -> MachineSpec {
        let words = self.plan.runner.kernel_args.iter().map(String::as_str);
        let root = matrix::ByteSize::from_bytes(images::DISK_BYTES);
        let mut spec = self.image.machine(self.qemu, self.accelerator, root, words);
        let own = [Disk::empty(SCRATCH, self.size.scratch), Disk::read_only(BUNDLE)];
        spec.disks.extend(own.into_iter().chain(self.given().keys().map(|serial| Disk::read_only(serial))));
        MachineSpec { cpus: self.size.cpus, cpu: Cpu::Nesting, memory: self.size.memory, ..spec }
    }

    /// A launch of it that has neither disks nor an identity yet.
    pub(super) fn launch(&self) -> Result<Launch, NoPart> {
        let launch = self.image.launch(self.machine(), self.qemu)?;
        let egress = self.reaches_repositories();
        Ok(Launch { name: NAME.to_owned(), network: self.network(false), egress, ..launch })
    }

    /// The disks of its guests' images, by serial number. One image may have several names.
    pub(super) fn given(&self) -> BTreeMap<String, DiskFile> {
        self.images.values().map(|image| (job_bundle::serial(image.facts.digest), image.disk.clone())).collect()
    }

    /// A guest that may reach out does so through the L1, so then that one may too; every other guest stays isolated in it.
    /// `prepares`: guests are prepared in it as well, and not only forked.
    pub(super) fn network(&self, prepares: bool) -> Network {
        let cells = self.plan.cells.iter().map(|cell| cell.guest.network);
        let images = self.plan.images.iter().filter_map(|image| image.prepare.as_ref());
        let prepares = images.filter(|_| prepares).map(|prepare| prepare.network);
        if cells.chain(prepares).any(|network| network == Network::Open) { Network::Open } else { Network::Isolated }
    }

    /// One of its guests may get to repositories.
    pub(super) fn reaches_repositories(&self) -> bool {
        fanout::reaches_repositories(self.plan)
    }

    /// Its own CPU is emulated.
    pub(super) fn is_emulated(&self) -> bool {
        self.accelerator == Accelerator::Tcg
    }

    /// What writes the bundle into a file.
    fn write_brief(&self) -> impl Fn(&Path) -> Result<(), BundleError> + Send + Sync + 'static {
        self.write_brief_of(self.plan.clone())
    }

    /// The same with nothing in it that belongs to one run: it stays for as long as what is frozen with it.
    pub(super) fn write_brief_of_no_run(&self) -> impl Fn(&Path) -> Result<(), BundleError> + Send + Sync + 'static {
        let mut plan = self.plan.clone();
        plan.package = None;
        for cell in &mut plan.cells {
            cell.files.clear();
            cell.env.clear();
        }
        let prepares = plan.images.iter().filter_map(|image| image.prepare.as_ref());
        let needed: Vec<_> = prepares.filter_map(|prepare| prepare.script).collect();
        plan.scripts.retain(|digest, _| needed.contains(digest));
        self.write_brief_of(plan)
    }

    fn write_brief_of(&self, plan: Plan) -> impl Fn(&Path) -> Result<(), BundleError> + Send + Sync + 'static {
        let images = self.images.clone();
        move |archive| job_bundle::write(archive, Path::new("/proc/self/exe"), &plan, &images)
    }

    async fn start_agent(
        &self,
        guest: &Guest,
        login: &Keys,
        host_keys: &Keys,
        steps: &mut Steps,
        progress: &(dyn Fn(String) + Sync),
        cancel: &CancellationToken,
    ) -> Result<Link, Trouble> {
        let scaled = |limit: Duration| limit.mul_f64(self.speed);
        let deadline = |limit: Duration| Instant::now() + scaled(limit);
        let address = guest.ssh().ok_or_else(|| host("the L1 has no network"))?;
        let stream = ssh::banner(address, deadline(BOOT), cancel).await.map_err(|error| {
            let help = "its console and screen say how far it came; does `runner.image` have an SSH server?";
            unexpected("the L1 did not boot", &error).with_help(help)
        })?;
        steps.done("boot");
        let session = Session::open(Open {
            sudo: false,
            stream,
            user: &self.image.facts.login_user,
            login,
            host_keys: host_keys.public(),
            deadline: deadline(CONNECT),
            silence: scaled(Session::SILENCE),
            // The agent receives the stop and reports what it ends; this wait ends with our caller.
            cancel: CancellationToken::new(),
        })
        .await
        .map_err(|error| unexpected("no SSH session with the L1", &error))?;
        steps.done("connect");
        progress("unpacking the plan in it".to_owned());
        self.set_up(&session).await?;
        steps.done("unpack");
        self.agent(Arc::new(session)).await
    }

    /// Makes a booted L1 one that an agent can work in.
    pub(super) async fn set_up(&self, session: &Session) -> Result<(), Trouble> {
        let deadline = Instant::now() + UNPACK.mul_f64(self.speed);
        let setup = Exec::new("exec sh -s", Stdin::Bytes(SETUP.as_bytes().to_vec()), deadline);
        let exit = session.exec(setup).await.map_err(|error| unexpected("the L1 could not be set up", &error))?;
        if !exit.success() {
            let said = reports::clean::line(&String::from_utf8_lossy(&exit.stderr_tail));
            let help = "is `runner.disk` too small, or does `runner.image` lack what a Debian system has?";
            return Err(unexpected("the L1 could not be set up", &said).with_help(help));
        }
        Ok(())
    }

    /// Starts the agent in it.
    pub(super) async fn agent(&self, session: Arc<Session>) -> Result<Link, Trouble> {
        let program = job_bundle::PROGRAM;
        let command = format!("exec /scratch/bundle/{program} agent /scratch/bundle");
        let wire =
            Wire::over_session(session, command).map_err(|error| host(format!("no thread for the L1: {error}")))?;
        Link::remote(wire, GREETING.mul_f64(self.speed), silence(self.speed)).await.map_err(|error| broken(&error))
    }
}

/// A connection to an agent broke.
fn broken(error: &Broken) -> Trouble {
    Trouble::new(TroubleKind::RunnerLost, Phase::Runner, format!("the L1's agent was lost: {error}"))
}

pub(super) fn died(ended: &Ended) -> Trouble {
    let help = match ended {
        Ended::HostDisk { full: true } => "make room for the store: the L1's disks grow there",
        Ended::QemuGone { .. } => "see qemu.log in the runner's folder; was it killed, or out of memory?",
        _ => "its last words are in console.log in the runner's folder",
    };
    Trouble::new(ended.kind(), Phase::Runner, format!("the L1 was lost: {}", ended.of("it"))).with_help(help)
}
/// How long an agent may be silent on a machine whose time limits are multiplied by `speed`.
fn silence(speed: f64) -> Duration {
    SILENCE.max(SLOW_SILENCE.mul_f64(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_may_be_silent_for_longer_than_a_fast_one() {
        for (speed, seconds) in [(1.0, 15), (2.5, 15), (10.0, 50)] {
            assert_eq!(silence(speed), Duration::from_secs(seconds));
        }
    }
}
