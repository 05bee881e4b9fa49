//! Freezing a guest: booted, prepared, left alone until it is idle, frozen, and tried.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use matrix::{Arch, HostPattern, Network, PackageFamily};
use reports::{SystemFacts, Trouble};

use super::{
    RAM, STATE,
    fork::{self, With},
    idle, memory, resume_agent,
    spec::{Outbound, Preparation, TemplateBuilder, TemplateProgress, TemplateSpec, Work, because, no_template},
};
use crate::{
    guest::{self, Below, Guest, Launch, Next, Ram, Reboots, Seed},
    payload::{self, AfterBoot, Suite, SuiteOutcome, Upload},
    ssh::{self, BannerStream, Exec, Exit, Keys, Open, Session, SshError, Stdin},
};

/// Time limits of the steps, before scaling.
const CONNECT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(60);
/// All of it but boot and work, before scaling: two connections, some eight steps, idleness, and what QEMU needs by itself.
pub const LONGEST: Duration = Duration::from_secs(10 * 60);
/// How long a failure waits for QEMU's word on why, before scaling.
const EXPLANATION: Duration = Duration::from_secs(2);
/// Between TERM and KILL, when a preparation takes too long.
const GRACE: Duration = Duration::from_secs(3);

/// Puts the resume_agent to work; `$1` is its port. It has no name in the guest's file system any more when it runs.
pub(super) const RESUME_AGENT: &str = include_str!("resume-agent.sh");
/// Nothing may be on its way when the guest is frozen.
pub(super) const QUIESCE: &str = include_str!("quiesce.sh");
/// What was prepared is on the disk, whatever follows.
const STORE: &str = "d=${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}
if [ -L \"$d\" ]; then rm -rf \"$(readlink \"$d\")\"; fi
rm -rf \"$d\"
for d in /var/lib /root /opt /usr/local /home ''; do rm -f \"$d/nestmatrix-mark\"; done
sync";

/// What a template is made of, and what opens its guests.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) login: Keys,
    pub(super) host_keys: Keys,
}

/// It was frozen, and a fork of it works.
pub(super) struct Made {
    /// The memory that fork took for itself, in bytes.
    pub(super) taken: u64,
    /// What the system in it said it is.
    pub(super) system: Option<SystemFacts>,
}

/// It was not frozen.
pub(super) struct NotFrozen {
    pub(super) none: Trouble,
    /// What the matrix wants to be prepared is on its disk, all of it.
    pub(super) prepared: bool,
}

/// Freezes such a guest, and makes a fork of it.
///
/// `whole`: else it is only prepared, and why.
pub(super) async fn freeze(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    files: &Files,
    whole: Result<(), String>,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<Made, NotFrozen> {
    let mut so_far = SoFar::default();
    let tried = async {
        let guest = boot(builder, wanted, &files.folder, whole.is_ok()).await?;
        ready_and_frozen(builder, wanted, guest, files, whole, &mut so_far, tell).await?;
        // Before anybody can find it: what is in the store works.
        tell(TemplateProgress::Step("trying a fork of it".to_owned()));
        tried(builder, wanted, files).await
    };
    let tried = tried.await;
    let SoFar { prepared, system } = so_far;
    tried.map(|taken| Made { taken, system }).map_err(|none| NotFrozen { none, prepared })
}

/// What was done and learned, however it ends.
#[derive(Default)]
struct SoFar {
    /// What the matrix wants to be prepared is on its disk, all of it.
    prepared: bool,
    /// What the system in it said it is.
    system: Option<SystemFacts>,
}

async fn boot(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    folder: &Path,
    whole: bool,
) -> Result<Guest, Trouble> {
    let below = Below { root: wanted.image, others: None, given: wanted.given };
    let disks = guest::make_disks(&builder.qemu.img, &wanted.launch.spec, &below, folder).await;
    let launch = Launch {
        name: format!("template-{}", wanted.key.short()),
        ram: if whole { Ram::Kept(folder.join(RAM)) } else { Ram::Anonymous },
        disks: disks.map_err(because("its disks"))?,
        folder: folder.to_owned(),
        network: wanted.network,
        egress: wanted.outbound.is_some(),
        port: true,
        ..wanted.launch.clone()
    };
    std::fs::create_dir_all(builder.logs).map_err(because("its logs cannot be written"))?;
    Guest::start(builder.spawner, launch, true, builder.logs).await.map_err(because("it cannot be started"))
}

/// Everything between power-on and the frozen state. The guest is gone afterwards, whatever came of it.
async fn ready_and_frozen(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    mut guest: Guest,
    files: &Files,
    whole: Result<(), String>,
    so_far: &mut SoFar,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<(), Trouble> {
    let port = fork::port(&mut guest).map_err(because("its port"));
    let socket = guest.take_egress();
    let result = match port {
        Ok(mut port) => {
            let done = async {
                // Its network card is ours to read until it is frozen.
                let outbound = match (socket, wanted.outbound) {
                    (Some(socket), Some(way)) => Some((way.serve)(socket).map_err(no_template)?),
                    _ => None,
                };
                let session = arrive(builder, wanted, &guest, files, tell).await?;
                if let (Some(outbound), Some(way)) = (&outbound, wanted.outbound) {
                    outbound.allow(Some((way.policy)(repositories(builder, wanted, way, &session).await?)));
                }
                let session = prepare(builder, wanted, (&guest, session), files, so_far, tell).await?;
                if let Some(what) = wanted.outbound.and_then(|way| (way.differs)()) {
                    return Err(no_template(format!("the repositories offer other packages than are pinned: {what}")));
                }
                alive(builder, &guest, steps(builder, wanted, (&guest, session, &mut port), whole, so_far, tell)).await
            };
            done.await
        }
        Err(error) => Err(error),
    };
    let frozen = match result {
        Ok(()) => guest.freeze(&files.folder.join(STATE)).await.map_err(because("it cannot be frozen")),
        Err(error) => Err(error),
    };
    guest.kill().await;
    frozen
}

/// Where the repositories of its system are; an L1 asks for its guests.
async fn repositories(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    way: Outbound<'_>,
    session: &Session,
) -> Result<Vec<HostPattern>, Trouble> {
    if !wanted.prepares() {
        return Ok(Vec::new());
    }
    let asked = payload::repositories(session, way.is_pinned, Instant::now() + STEP.mul_f64(builder.speed)).await;
    asked.map_err(because("it cannot be asked for its repositories"))
}

/// Boots it to a session; reboots of its own are survived, and what is frozen has them behind it.
async fn arrive(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    guest: &Guest,
    files: &Files,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<Session, Trouble> {
    tell(TemplateProgress::Step("booting it".to_owned()));
    let arrived = async {
        let mut reboots = Reboots::at_most(guest.spec().reboots);
        loop {
            match alive(builder, guest, booted(builder, wanted, guest, files)).await {
                Ok(session) => return Ok(session),
                Err(none) => {
                    let who = "before its boot was over the guest rebooted itself";
                    boot_again(guest, &mut reboots, who, none, tell).await?;
                }
            }
        }
    };
    // However often it reboots meanwhile.
    let limit = (wanted.boot + payload::STARTING) * 2;
    let late = |_| no_template(format!("timeout: its boot was not over within {:.0} s", limit.as_secs_f64()));
    tokio::time::timeout(limit, arrived).await.map_err(late).flatten()
}

/// Does what the matrix asks for; a script that reboots the guest is run again, and what is frozen has that behind it. A session with the
/// guest.
async fn prepare(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    (guest, mut session): (&Guest, Session),
    files: &Files,
    so_far: &mut SoFar,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<Session, Trouble> {
    let Work::Preparation(preparation) = &wanted.work else { return Ok(session) };
    let family = alive(builder, guest, rehearse(builder, wanted, &session)).await?;
    let Some(preparation) = preparation else { return Ok(session) };
    let began = Instant::now();
    alive(builder, guest, install(builder, wanted, &session, preparation, family, tell)).await?;
    let mut left = preparation.limit.saturating_sub(began.elapsed());
    let mut reboots = Reboots::at_most(guest.spec().reboots);
    if let Some(script) = preparation.script {
        tell(TemplateProgress::Step("preparing it".to_owned()));
        loop {
            let began = Instant::now();
            let running = run(builder, wanted, &session, "prepare", script, left, Some(reboots.count()));
            let Err(none) = alive(builder, guest, running).await else { break };
            left = left.saturating_sub(began.elapsed());
            let none = unprepared(builder, "prepare", "", none);
            boot_again(guest, &mut reboots, "the prepare script rebooted its guest", none, tell).await?;
            session = arrive(builder, wanted, guest, files, tell).await?;
        }
    }
    let stored = sh(&session, STORE, &[], Vec::new(), STEP.mul_f64(builder.speed));
    alive(builder, guest, async { expect(stored.await, "what was prepared cannot be kept") }).await?;
    so_far.prepared = true;
    Ok(session)
}

/// Does this while the guest runs. If that fails because the guest has ended, its end is the reason.
async fn alive<T>(
    builder: &TemplateBuilder<'_>,
    guest: &Guest,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let done = tokio::select! {
        biased;
        done = work => done,
        ended = guest.ended() => return Err(no_template(ended.to_string())),
    };
    let none = match done {
        Ok(done) => return Ok(done),
        Err(none) => none,
    };
    // A guest that goes down closes its connections first: not what happened, only how it looked.
    Err(match tokio::time::timeout(EXPLANATION.mul_f64(builder.speed), guest.ended()).await {
        Ok(ended) => Trouble { help: none.help, ..no_template(ended.to_string()) },
        Err(_) => none,
    })
}

/// Something failed. If that is because the guest has rebooted itself, it boots again, as often as it may.
async fn boot_again(
    guest: &Guest,
    reboots: &mut Reboots,
    who: &str,
    none: Trouble,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<(), Trouble> {
    match guest.has_ended().map_or(Next::Ended, |ended| reboots.next(&ended)) {
        Next::Boots => {
            guest.boot_again().await.map_err(because("it cannot be rebooted"))?;
            tell(TemplateProgress::Step(format!(
                "it rebooted itself, {} of at most {} times",
                reboots.count(),
                reboots.most()
            )));
            Ok(())
        }
        Next::TooMany => Err(no_template(reboots.too_many(who))),
        Next::Ended => Err(none),
    }
}

/// A session with a guest whose boot is over.
async fn booted(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    guest: &Guest,
    files: &Files,
) -> Result<Session, Trouble> {
    let address = guest.ssh().ok_or_else(|| no_template("it has no network"))?;
    let stream =
        ssh::banner(address, Instant::now() + wanted.boot, builder.cancel).await.map_err(because("it did not boot"))?;
    let session = connect(builder, wanted, stream, files).await.map_err(because("no SSH session with it"))?;
    if guest.spec().seed == Some(Seed::CloudInit) {
        payload::first_boot(&session, Instant::now() + wanted.boot).await.map_err(because("its first boot"))?;
    }
    let going = match payload::boot_over(&session, builder.speed).await.map_err(because("the end of its boot"))? {
        AfterBoot::Up | AfterBoot::Slow => return Ok(session),
        AfterBoot::Down => Duration::ZERO,
        AfterBoot::Soon(soon) if soon > wanted.boot => {
            return Err(goes_down_later(soon));
        }
        AfterBoot::Soon(soon) => soon,
    };
    Err(goes_down(going + wanted.boot).await)
}

/// Whatever is frozen now goes down one day, in each fork.
fn goes_down_later(soon: Duration) -> Trouble {
    let seconds = soon.as_secs_f64();
    no_template(format!(
        "a reboot or a shutdown is scheduled in the guest in {seconds:.0} s: every fork would end then"
    ))
}

/// The guest is about to go down: its end is news that our caller waits for.
async fn goes_down(limit: Duration) -> Trouble {
    tokio::time::sleep(limit).await;
    no_template(format!("timeout: the guest was about to go down, and did not within {:.0} s", limit.as_secs_f64()))
}

async fn steps(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    (guest, session, port): (&Guest, Session, &mut tokio::net::UnixStream),
    whole: Result<(), String>,
    so_far: &mut SoFar,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<(), Trouble> {
    let scaled = |limit: Duration| limit.mul_f64(builder.speed);
    let session = Arc::new(session);
    match &wanted.work {
        Work::Preparation(_) => {
            // Forks are not asked again. If it does not say, they are.
            let said = sh(&session, &payload::facts_script(), &[], Vec::new(), scaled(STEP)).await;
            let said = said.ok().map(|exit| payload::read_facts(&exit.stdout_tail));
            so_far.system = said.filter(|facts| !facts.is_empty());
        }
        Work::Own(work, _) => work(Arc::clone(&session)).await?,
    }
    whole.map_err(no_template)?;

    tell(TemplateProgress::Step("waiting until it is at rest".to_owned()));
    let place = sh(&session, RESUME_AGENT, &[Launch::PORT], resume_agent::PROGRAM.to_vec(), scaled(STEP));
    expect(place.await, "what wakes forks cannot be started in it")?;
    resume_agent::ready(port, scaled(STEP)).await.map_err(because("what wakes forks did not start in it"))?;
    expect(sh(&session, QUIESCE, &[], Vec::new(), scaled(STEP)).await, "it cannot be brought to rest")?;
    drop(session);
    idle::until_idle(guest.pid(), scaled(IDLE)).await.map_err(because("it never came to rest"))
}

async fn connect(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    stream: BannerStream,
    files: &Files,
) -> Result<Session, SshError> {
    Session::open(Open {
        stream,
        user: wanted.login_user,
        sudo: wanted.login_user != "root",
        login: &files.login,
        host_keys: files.host_keys.public(),
        deadline: Instant::now() + CONNECT.mul_f64(builder.speed),
        silence: Session::SILENCE.mul_f64(builder.speed),
        cancel: builder.cancel.child_token(),
    })
    .await
}

/// A rehearsal: forks then find in their memory what every payload needs of the guest's disk. The guest's package manager.
async fn rehearse(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    session: &Session,
) -> Result<Option<PackageFamily>, Trouble> {
    let family = match wanted.family {
        None => payload::detect_family(session, Instant::now() + STEP.mul_f64(builder.speed))
            .await
            .map_err(because("it cannot be asked for its package manager"))?,
        known => known,
    };
    if let Some(family) = family {
        run(builder, wanted, session, "rehearsal", payload::rehearsal(family), STEP.mul_f64(builder.speed), None)
            .await?;
    }
    Ok(family)
}

/// Installs the packages that the matrix asks for.
async fn install(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    session: &Session,
    Preparation { repositories, packages, limit, .. }: &Preparation<'_>,
    family: Option<PackageFamily>,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<(), Trouble> {
    for added in repositories {
        let Some(family) = family else { break };
        let until = Instant::now() + STEP.mul_f64(builder.speed);
        payload::add_repository(session, family, added, until).await.map_err(because("a repository"))?;
    }
    if packages.is_empty() {
        return Ok(());
    }
    tell(TemplateProgress::Step(format!("installing {} in it", packages.join(" "))));
    let Some(family) = family else {
        return Err(no_template(format!("{}: `prepare.packages` cannot be installed", payload::UNKNOWN_FAMILY)));
    };
    let script = payload::install_by_name(family, packages);
    let also = match wanted.network {
        Network::Isolated => "the guest was isolated: leave out `prepare.network`, or write \"repositories\"; ",
        Network::Repositories | Network::Open => "",
    };
    let ran = run(builder, wanted, session, "packages", &script, *limit, None).await;
    ran.map_err(|trouble| unprepared(builder, "packages", also, trouble))?;
    for stream in ["stdout", "stderr"] {
        let log = builder.logs.join(format!("packages.{stream}.log"));
        let failed = payload::failed_script(family, &log).await;
        if let Some(line) = failed.map_err(because("what its package manager said cannot be read"))? {
            let failed = no_template(format!("a script of the packages failed: {}", reports::clean::line(&line)));
            return Err(unprepared(builder, "packages", "", failed));
        }
    }
    Ok(())
}

fn unprepared(builder: &TemplateBuilder<'_>, what: &str, also: &str, trouble: Trouble) -> Trouble {
    let log = builder.logs.join(format!("{what}.stderr.log"));
    trouble.with_help(format!("{also}its output is in {}", log.display()))
}

/// Runs one script in it, as suites are run; its output goes to files of the name `what`. `reboots`: as for a suite.
async fn run(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    session: &Session,
    what: &str,
    script: &str,
    limit: Duration,
    reboots: Option<u32>,
) -> Result<(), Trouble> {
    let mut env = IndexMap::new();
    if wanted.network == Network::Repositories {
        env.extend(payload::proxy_environment().map(|(name, value)| (name.to_owned(), value)));
    }
    let (family, arch, network) = (None, Arch::here(), Some(wanted.network));
    let upload = Upload { script, env: &env, files: &[], artifacts: &[], family, arch, network, facts: false };
    let sent = payload::upload(session, &upload, Instant::now() + STEP.mul_f64(builder.speed)).await;
    sent.map_err(because("nothing can be sent into it"))?;
    let (stdout, stderr) =
        (builder.logs.join(format!("{what}.stdout.log")), builder.logs.join(format!("{what}.stderr.log")));
    let grace = GRACE.mul_f64(builder.speed);
    let suite = Suite { reboots, ..Suite::new((&stdout, &stderr), Instant::now() + limit, grace) };
    let running = async {
        let ran = payload::run(session, &suite).await?;
        // What reboots its guest need not wait for it.
        let asks = reboots.is_some() && ran.outcome.may_be_a_reboot();
        let then = match asks {
            true if payload::announced(session, Instant::now() + STEP.mul_f64(builder.speed)).await? => AfterBoot::Down,
            true => payload::boot_over(session, builder.speed).await?,
            false => AfterBoot::Up,
        };
        Ok::<_, SshError>((ran, then))
    };
    let ran = match running.await {
        Ok((_, AfterBoot::Down)) => return Err(goes_down(wanted.boot).await.with_help(payload::NO_REBOOT)),
        Ok((_, AfterBoot::Soon(soon))) => return Err(goes_down_later(soon)),
        Ok((ran, AfterBoot::Up | AfterBoot::Slow)) => ran,
        Err(error) => {
            // Its end is news that our caller waits for.
            if reboots.is_some() && error.is_connection_lost() {
                tokio::time::sleep(wanted.boot).await;
            }
            return Err(because("nothing can be run in it")(error));
        }
    };
    let how = match ran.outcome {
        SuiteOutcome::Exited(0) => return Ok(()),
        SuiteOutcome::Exited(code) => format!("exit code {code}"),
        SuiteOutcome::Skipped { .. } => "exit code 77".to_owned(),
        SuiteOutcome::Signal(name) => format!("killed by SIG{name}"),
        SuiteOutcome::TimedOut { .. } => format!("not done within {:.0} s", limit.as_secs_f64()),
        SuiteOutcome::NotStarted { reason, .. } => reason,
    };
    let said = [ran.stderr_tail, ran.stdout_tail];
    let last = said.iter().find_map(|tail| {
        let text = String::from_utf8_lossy(tail);
        text.lines().rev().map(reports::clean::line).find(|line| !line.trim().is_empty())
    });
    let last = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    Err(no_template(format!("the {what} failed: {how}{last}")))
}

/// Runs a script of ours in it.
async fn sh(session: &Session, script: &str, args: &[&str], stdin: Vec<u8>, limit: Duration) -> Result<Exit, SshError> {
    let command = payload::script(script, args);
    session.exec(Exec::new(command, Stdin::Bytes(stdin), Instant::now() + limit)).await
}

fn expect(exit: Result<Exit, SshError>, what: &'static str) -> Result<(), Trouble> {
    let exit = exit.map_err(because(what))?;
    if exit.success() {
        return Ok(());
    }
    Err(no_template(format!("{what}: {}", reports::clean::line(&String::from_utf8_lossy(&exit.stderr_tail)))))
}

/// Makes a fork of what was frozen and runs `true` in it. The memory it took for itself, in bytes.
async fn tried(builder: &TemplateBuilder<'_>, wanted: &TemplateSpec<'_>, files: &Files) -> Result<u64, Trouble> {
    let place = tempfile::Builder::new().prefix("trial").tempdir_in(builder.scratch);
    let place = place.map_err(because("a fork of it cannot be tried"))?;
    let logs = builder.logs.join("trial");
    std::fs::create_dir_all(&logs).map_err(because("a fork of it cannot be tried"))?;
    // Nobody would read what comes from its side of a proxy.
    let launch = Launch { name: format!("trial-{}", wanted.key.short()), egress: false, ..wanted.launch.clone() };
    let with = With { qemu: builder.qemu, spawner: builder.spawner, speed: builder.speed, dies_with_us: true };
    let forked = fork::of_frozen(&files.folder, &with, launch, wanted.given, (place.path(), &logs)).await;
    let forked = forked.map_err(because("a fork of it does not work"))?;
    let session = connect(builder, wanted, forked.connection, files).await;
    let taken = memory::own_memory(forked.guest.pid());
    forked.guest.kill().await;
    session.map_err(because("no SSH session with a fork of it"))?;
    taken.ok_or_else(|| no_template("the memory of a fork cannot be measured"))
}
