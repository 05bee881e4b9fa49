//! Machines on Compute Engine: checked, created, reached, and deleted.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::{ByteSize, SshHost};
use reports::{CloudFacts, EventKind, Phase, StepTime, Trouble, TroubleKind};
use tokio::sync::{OnceCell, watch};

use super::{
    super::{
        place::{About, Engine, Opened, Opening, Place},
        qemu::{Steps, interrupted},
        ssh::{Pinned, SshEngine, SshPlace, Way},
    },
    await_l1::{self, Reachable},
    check::{self, Unfit, Wanted, failed, unusable},
    findings,
    held::{Cloud, Held, Uncreated},
    host_key,
    intended::{CacheDisk, Intended, Mark, USER},
};
use crate::{
    agent::{Broken, protocol::ToAgent},
    events::Events,
    fanout::BootImage,
    gce::{ApiErrorKind, InZone, MachineType, Priced, is_cache, series},
    guest::Spawner,
    package_lock::Locking,
    ssh::{Keys, LOGIN_FILES},
};

/// How often it is asked whether the instance is still there: a machine whose connection stands still may be gone.
const WATCH: Duration = Duration::from_secs(20);
/// How long the reason of a loss is looked for.
const EXPLANATION: Duration = Duration::from_secs(20);
/// An instance that is gone so shortly before its longest time, or later, was ended by that.
const NEARLY: Duration = Duration::from_secs(60);
/// How often, and in what interval, a machine that says it is ready is logged in to.
const LOGINS: u32 = 5;
const LOGIN_PAUSE: Duration = Duration::from_secs(3);
const RECORD: &str = "requests.jsonl";

/// Machines on Compute Engine.
pub(crate) struct GcePlace<'a> {
    pub(crate) intended: Intended<'a>,
    pub(crate) cloud: Arc<Cloud>,
    /// See [`super::owner`].
    pub(crate) owner: String,
    pub(crate) run: String,
    /// The store's folder: prices are remembered there.
    pub(crate) store: PathBuf,
    pub(crate) spawner: &'a Spawner,
    pub(crate) events: Events,
    /// At most so many guests at once.
    pub(crate) jobs: Option<usize>,
    /// Every guest is booted, none forked.
    pub(crate) cold: bool,
    /// What templates may take there.
    pub(crate) templates: ByteSize,
    /// Guests' repositories are answered for from the cache alone.
    pub(crate) offline: bool,
    /// Which packages guests may get.
    pub(crate) locking: &'a Locking,
    pub(crate) reason: String,
    /// What holds for every machine of the run was looked at.
    pub(crate) checked: OnceCell<()>,
}

/// Such a machine at work.
pub(crate) struct GceEngine {
    ssh: SshEngine,
    held: Held,
    spot: bool,
    /// What is on it stays.
    keeps_cache: bool,
    /// Says why it is gone.
    fate: watch::Receiver<Option<Trouble>>,
    watching: tokio::task::JoinHandle<()>,
    events: Events,
    number: u32,
}

impl GcePlace<'_> {
    /// What holds for every zone: said once.
    async fn check(&self, opening: &Opening<'_>) -> Result<(), Trouble> {
        let checks = async || {
            (opening.progress)(format!("checking what the project {} allows", self.intended.project));
            let enforced = self.cloud.compute().nesting_is_forbidden().await;
            check::policy(enforced, &self.intended.project)?.into_iter().for_each(opening.warn);
            check::rules(&self.intended.machine_type)?.into_iter().for_each(opening.warn);
            if !self.intended.gce.external_ip && self.intended.gce.proxy_command.is_none() {
                check::tunnel().await?;
            }
            Ok(())
        };
        self.checked.get_or_try_init(checks).await.map(drop)
    }

    /// Creates an instance in the first zone that has one.
    async fn create(&self, opening: &Opening<'_>, keys: &[String]) -> Result<Held, Trouble> {
        let (mut refused, mut is_missing) = (Vec::new(), true);
        for zone in &self.intended.zones {
            let why = match self.create_in(zone, opening, keys).await {
                Ok(held) => return Ok(held),
                Err(Unfit::All(trouble)) => return Err(trouble),
                Err(Unfit::Missing(why)) => why,
                Err(Unfit::Zone(why)) => {
                    is_missing = false;
                    why
                }
            };
            (opening.progress)(format!("no instance in {zone}: {why}"));
            refused.push(format!("{zone}: {why}"));
        }
        let reason =
            format!("no zone has an instance of type {} for us: {}", self.intended.machine_type, refused.join("; "));
        let help = match is_missing {
            true => "check the names: `gcloud compute zones list`, `gcloud compute machine-types list --zones ZONE`",
            false => "name more zones (`runner.zones`, `--gce-zone`), another machine type, or ask for more quota",
        };
        Err(unusable(reason).with_help(help))
    }

    async fn create_in(&self, zone: &str, opening: &Opening<'_>, keys: &[String]) -> Result<Held, Unfit> {
        let (intended, compute) = (&self.intended, self.cloud.compute());
        let Intended { machine_type, memory_mib, memory_for, .. } = intended;
        let wanted = Wanted { machine_type, memory_mib: *memory_mib, memory_for };
        let look = async {
            let shape = check::zone(&compute, zone, wanted).await?;
            Ok((shape, self.cache_disk(zone, opening).await.map_err(Unfit::All)?))
        };
        let (shape, cache) = or_interrupted(opening, look, || Unfit::All(interrupted())).await?;
        let price = self.price(zone, &shape);
        let mark = Mark { owner: &self.owner, run: &self.run, number: opening.number };
        (opening.progress)(format!("creating {} in {zone}: {machine_type}, {}", mark.name(), intended.why));
        let mut held = match self.ask(zone, mark, cache, opening, keys).await {
            // Another run was faster with the disk.
            Err(Uncreated::Failed(error))
                if cache != CacheDisk::None && error.is_taken() && !opening.cancel.is_cancelled() =>
            {
                (opening.warn)(format!("another run has taken the cache disk: this run goes without it ({error})"));
                self.ask(zone, mark, CacheDisk::None, opening, keys).await
            }
            held => held,
        }
        .map_err(|why| match why {
            Uncreated::Stopped => Unfit::All(interrupted()),
            Uncreated::Failed(error) if error.is_of_zone() => Unfit::Zone(error.message),
            Uncreated::Failed(error) => Unfit::All(failed(error)),
        })?;
        self.tell(&mut held, opening.number, price).await;
        Ok(held)
    }

    /// Creates the instance. If that fails, deletes what may have been created.
    async fn ask(
        &self,
        zone: &str,
        mark: Mark<'_>,
        cache: CacheDisk,
        opening: &Opening<'_>,
        keys: &[String],
    ) -> Result<Held, Uncreated> {
        let mut held = Held::new(&self.cloud, zone, mark.name(), self.intended.gce.max_duration);
        match held.create(self.intended.body(zone, mark, cache, keys), opening.cancel).await {
            Ok(()) => Ok(held),
            Err(why) => {
                held.delete().await.into_iter().for_each(opening.warn);
                Err(why)
            }
        }
    }

    /// The disk that stays, if there is to be one and nobody has it.
    async fn cache_disk(&self, zone: &str, opening: &Opening<'_>) -> Result<CacheDisk, Trouble> {
        let Some(name) = &self.intended.gce.cache_disk else { return Ok(CacheDisk::None) };
        match self.cloud.compute().disk(InZone { zone, name }).await {
            Ok(disk) if disk.users.is_empty() && is_cache(&disk.labels) => Ok(CacheDisk::Ours),
            Ok(disk) if disk.users.is_empty() => Ok(CacheDisk::Foreign),
            Ok(_) => {
                let message = format!(
                    "the cache disk {name} in {zone} is attached to another instance: this run goes without it"
                );
                (opening.warn)(message);
                Ok(CacheDisk::None)
            }
            Err(error) if error.kind == ApiErrorKind::NotFound => Ok(CacheDisk::New),
            Err(error) => Err(failed(error)),
        }
    }

    /// Looks up what such a machine costs an hour, while others wait for it.
    fn price(&self, zone: &str, shape: &MachineType) -> tokio::task::JoinHandle<Option<f64>> {
        let (cloud, store) = (Arc::clone(&self.cloud), self.store.clone());
        let (cpus, memory) = (shape.guest_cpus, u64::from(shape.memory_mb));
        let priced = series(&self.intended.machine_type).and_then(|series| series.priced_as());
        let priced = priced.map(|title| Priced::new(title, zone, self.intended.gce.spot));
        tokio::spawn(async move {
            let rate = priced?.rate(&cloud.client, &cloud.settings, &store).await?;
            Some(rate.of(cpus, memory))
        })
    }

    /// Reports that it exists.
    async fn tell(&self, held: &mut Held, runner: u32, price: tokio::task::JoinHandle<Option<f64>>) {
        let creating_ms = held.since.elapsed().as_millis() as u64;
        // The run does not wait for it; the next one finds it in the store.
        let usd_per_hour = if price.is_finished() { price.await.ok().flatten() } else { None };
        let instance = tokio::time::timeout(EXPLANATION, self.cloud.compute().instance(held.at())).await;
        let instance = instance.ok().and_then(Result::ok).unwrap_or_default();
        let machine = CloudFacts {
            provider: "Compute Engine".to_owned(),
            project: self.intended.project.clone(),
            zone: held.zone.clone(),
            machine_type: self.intended.machine_type.clone(),
            name: held.name.clone(),
            image: self.intended.image(),
            cpu_platform: Some(instance.cpu_platform).filter(|platform| !platform.is_empty()),
            spot: self.intended.gce.spot,
            max_seconds: held.longest.as_secs(),
            usd_per_hour,
            creating_ms,
        };
        self.events.send(EventKind::MachineCreated { runner, machine });
        held.told = Some((self.events.clone(), runner));
    }

    /// Waits until it can be logged in to, and starts the agent.
    async fn enter(
        &self,
        opening: &Opening<'_>,
        held: &Held,
        identities: Vec<PathBuf>,
        steps: &mut Steps,
    ) -> Result<Opened<SshEngine>, Trouble> {
        let compute = self.cloud.compute();
        let ready = await_l1::reachable(&compute, held.at(), opening.progress);
        let Reachable { address, keys } = or_interrupted(opening, ready, interrupted).await?;
        steps.done("boot and set up");
        let known_hosts = opening.scratch.join("known_hosts");
        std::fs::write(&known_hosts, host_key::known_hosts(&held.name, &keys))
            .map_err(|error| local(&known_hosts, &error))?;
        let gce = self.intended.gce;
        let proxy_command = match (&gce.proxy_command, gce.external_ip) {
            (Some(command), _) => Some(command.clone()),
            (None, true) => None,
            (None, false) => Some(format!(
                "gcloud compute start-iap-tunnel %n %p --listen-on-stdin --project={} --zone={} --verbosity=error",
                self.intended.project, held.zone
            )),
        };
        let host: SshHost =
            format!("{USER}@{}", held.name).parse().map_err(|error| unusable(format!("{}: {error}", held.name)))?;
        let way = Way::Pinned(Pinned { address, known_hosts, identities, proxy_command });
        let mut tries = LOGINS;
        loop {
            let place = SshPlace::new(
                self.intended.plan,
                &host,
                self.spawner,
                self.jobs,
                self.cold,
                self.templates,
                (self.offline, self.locking),
            );
            match place.of_this_run(way.clone()).open(opening.again()).await {
                Ok(opened) => return Ok(opened),
                Err(trouble) if trouble.kind == TroubleKind::Interrupted => return Err(trouble),
                // Its SSH server may be a moment behind.
                Err(trouble) if tries > 1 && is_not_reached(&trouble) => {
                    tries -= 1;
                    let pause = async {
                        tokio::time::sleep(LOGIN_PAUSE).await;
                        Ok(())
                    };
                    or_interrupted(opening, pause, interrupted).await?;
                }
                Err(trouble) if is_not_reached(&trouble) => return Err(self.not_reached(trouble)),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    fn not_reached(&self, trouble: Trouble) -> Trouble {
        let network = self.intended.gce.network.as_deref().unwrap_or("default");
        let help = match (self.intended.gce.external_ip, &self.intended.gce.proxy_command) {
            (_, Some(command)) => format!("try the proxy command by itself: {command}"),
            (true, None) => format!(
                "a firewall rule of the network {network} must let port 22 in from here (`gcloud compute firewall-rules create allow-ssh --network {network} --allow tcp:22`); or leave out the external address (`external_ip = false`): then the connection goes through an IAP tunnel"
            ),
            (false, None) => format!(
                "the tunnel needs `gcloud` here, logged in (`gcloud auth login`), the role roles/iap.tunnelResourceAccessor, and a firewall rule of the network {network} that lets port 22 in from 35.235.240.0/20"
            ),
        };
        trouble.with_help(help)
    }
}

/// The machine was not logged in to.
fn is_not_reached(trouble: &Trouble) -> bool {
    matches!(trouble.kind, TroubleKind::RunnerUnusable | TroubleKind::RunnerLost | TroubleKind::Timeout)
        && ["the connection was refused", "timeout while connecting", "the connection failed", "the login was refused"]
            .iter()
            .any(|words| trouble.reason.contains(words))
}

/// What `doing` comes to, unless the run is stopped before.
async fn or_interrupted<T, E>(
    opening: &Opening<'_>,
    doing: impl Future<Output = Result<T, E>>,
    stopped: impl Fn() -> E,
) -> Result<T, E> {
    tokio::select! {
        biased;
        () = opening.cancel.cancelled() => Err(stopped()),
        done = doing => done,
    }
}

fn local(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::new(TroubleKind::Host, Phase::Runner, format!("could not write {}: {error}", path.display()))
}

impl Place for GcePlace<'_> {
    type Engine = GceEngine;

    fn about(&self) -> About<'_> {
        // The machine below it, it, and the guest.
        About {
            kind: "gce",
            reason: &self.reason,
            depth: 2,
            needs_all_images: false,
            is_one_machine: false,
            proofs: None,
        }
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<GceEngine>, Trouble> {
        let mut steps = Steps::start();
        for folder in [opening.scratch, opening.logs] {
            std::fs::create_dir_all(folder).map_err(|error| local(folder, &error))?;
        }
        self.cloud.client.record_in(&opening.logs.join(RECORD));
        or_interrupted(&opening, self.check(&opening), interrupted).await?;
        steps.done("check policy and rules");
        let keys =
            Keys::generate("nestmatrix").map_err(|error| unusable(format!("could not make a login key: {error}")))?;
        let identities =
            keys.write_private(opening.scratch, LOGIN_FILES).map_err(|error| local(opening.scratch, &error))?;
        let mut held = self.create(&opening, &keys.public().map(str::to_owned)).await?;
        steps.done("create the instance");
        let opened = self.enter(&opening, &held, identities.to_vec(), &mut steps).await;
        match opened {
            Ok(Opened { engine: ssh, link, steps: more, .. }) => {
                let (said, fate) = watch::channel(None);
                let (spot, number) = (self.intended.gce.spot, opening.number);
                let watching = tokio::spawn(watch_instance(Watched::of(&held, spot), said));
                let (events, keeps_cache) = (self.events.clone(), self.intended.gce.cache_disk.is_some());
                let engine = GceEngine { ssh, held, spot, keeps_cache, fate, watching, events, number };
                let steps: Vec<StepTime> = steps.0.into_iter().chain(more).collect();
                Ok(Opened { engine, link, l1: None, steps, give_up: None })
            }
            Err(trouble) => {
                // The words for a machine that went away are those of whatever was being done with it.
                let trouble = match trouble.kind {
                    TroubleKind::Interrupted => trouble,
                    _ => Watched::of(&held, self.intended.gce.spot).fate_now().await.unwrap_or(trouble),
                };
                held.delete().await.into_iter().for_each(opening.warn);
                Err(trouble)
            }
        }
    }
}

/// An instance that is looked at now and then.
struct Watched {
    cloud: Arc<Cloud>,
    zone: String,
    name: String,
    since: Instant,
    longest: Duration,
    spot: bool,
}

impl Watched {
    fn of(held: &Held, spot: bool) -> Self {
        Self {
            cloud: Arc::clone(&held.cloud),
            zone: held.zone.clone(),
            name: held.name.clone(),
            since: held.since,
            longest: held.longest,
            spot,
        }
    }

    /// Why it is gone, if it is; not knowing is not being gone.
    async fn fate(&self) -> Option<Trouble> {
        let at = InZone { zone: &self.zone, name: &self.name };
        let compute = self.cloud.compute();
        let state = match compute.instance(at).await {
            Ok(instance) if instance.is_ending() => instance.status,
            Err(error) if error.kind == ApiErrorKind::NotFound => "gone".to_owned(),
            _ => return None,
        };
        let lost = |reason: String, help: &str| {
            Some(Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason).with_help(help))
        };
        let Self { name, zone, .. } = self;
        if self.spot && compute.was_preempted(at).await.unwrap_or(false) {
            let help = "that is what Spot machines are cheap for: leave out `spot` if it happens too often";
            return lost(format!("Compute Engine took back the Spot instance {name} in {zone}"), help);
        }
        if self.since.elapsed() + NEARLY >= self.longest {
            let reason = format!(
                "the instance {name} has reached its longest time of {} s (`max_duration`)",
                self.longest.as_secs()
            );
            // Another one would be held for as long again.
            let trouble = Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason);
            return Some(trouble.with_help("raise `runner.max_duration` (`--gce-max-duration`)"));
        }
        let help = "was it stopped or deleted by somebody? See the activity log of the project";
        lost(format!("the instance {name} in {zone} is {state}"), help)
    }

    async fn fate_now(&self) -> Option<Trouble> {
        tokio::time::timeout(EXPLANATION, self.fate()).await.ok().flatten()
    }
}

async fn watch_instance(watched: Watched, said: watch::Sender<Option<Trouble>>) {
    loop {
        tokio::time::sleep(WATCH).await;
        if let Some(trouble) = watched.fate().await {
            let _ = said.send(Some(trouble));
            return;
        }
    }
}

impl GceEngine {
    async fn why(&self) -> Option<Trouble> {
        if let Some(trouble) = self.fate.borrow().clone() {
            return Some(trouble);
        }
        Watched::of(&self.held, self.spot).fate_now().await
    }
}

impl Engine for GceEngine {
    async fn ended(&self) -> Trouble {
        let mut fate = self.fate.clone();
        tokio::select! {
            trouble = self.ssh.ended() => self.why().await.unwrap_or(trouble),
            Ok(trouble) = async { fate.wait_for(Option::is_some).await.map(|trouble| trouble.clone()) } => match trouble {
                Some(trouble) => trouble,
                None => std::future::pending().await,
            },
        }
    }

    async fn explained(&self, broken: &Broken) -> Trouble {
        match self.why().await {
            Some(trouble) => trouble,
            None => self.ssh.explained(broken).await,
        }
    }

    async fn examined(&self, trouble: Trouble) -> Trouble {
        if trouble.kind != TroubleKind::KvmUnusable {
            return trouble;
        }
        (self.events).send(EventKind::RunnerProgress {
            runner: self.number,
            message: "finding out why guests do not run under KVM".to_owned(),
        });
        findings::explain(trouble, &self.held, &self.ssh).await
    }

    fn evidence(&self) -> Vec<String> {
        self.ssh.evidence()
    }

    async fn bring(
        &self,
        name: &str,
        image: &BootImage,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<Option<ToAgent>, Trouble> {
        self.ssh.fetch_or_bring(name, image, progress).await
    }

    async fn close(mut self) -> Option<String> {
        self.watching.abort();
        if self.keeps_cache {
            // What it has begun to write is to be whole.
            self.ssh.close().await;
        } else {
            drop(self.ssh);
        }
        let message = format!("deleting the instance {} in {}", self.held.name, self.held.zone);
        self.events.send(EventKind::RunnerProgress { runner: self.number, message });
        self.held.delete().await
    }
}
