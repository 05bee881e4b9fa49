//! Freezing a guest: booted, prepared, left alone until it is idle, frozen, and tried.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use matrix::{Arch, Network, PackageFamily};
use reports::{SystemFacts, Trouble};

use super::{
    RAM, STATE,
    fork::{self, With},
    idle, memory,
    mould::{Forge, Mould, News, Preparation, Work, because, no_template},
    waker,
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

/// Puts the waker to work; `$1` is its port. It has no name in the guest's file system any more when it runs.
pub(super) const LIE_IN_WAIT: &str = include_str!("lie-in-wait.sh");
/// Nothing may be on its way when the guest is frozen.
pub(super) const SETTLE: &str = include_str!("settle.sh");
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
pub(super) struct Short {
    pub(super) none: Trouble,
    /// What the matrix wants to be prepared is on its disk, all of it.
    pub(super) prepared: bool,
}

/// Freezes such a guest, and makes a fork of it.
///
/// `whole`: else it is only prepared, and why.
pub(super) async fn freeze(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    files: &Files,
    whole: Result<(), String>,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Made, Short> {
    let mut so_far = SoFar::default();
    let tried = async {
        let guest = boot(forge, mould, &files.folder, whole.is_ok()).await?;
        ready_and_frozen(forge, mould, guest, files, whole, &mut so_far, tell).await?;
        // Before anybody can find it: what is in the store works.
        tell(News::Step("trying a fork of it".to_owned()));
        tried(forge, mould, files).await
    };
    let tried = tried.await;
    let SoFar { prepared, system } = so_far;
    tried.map(|taken| Made { taken, system }).map_err(|none| Short { none, prepared })
}

/// What was done and learned, however it ends.
#[derive(Default)]
struct SoFar {
    /// What the matrix wants to be prepared is on its disk, all of it.
    prepared: bool,
    /// What the system in it said it is.
    system: Option<SystemFacts>,
}

async fn boot(forge: &Forge<'_>, mould: &Mould<'_>, folder: &Path, whole: bool) -> Result<Guest, Trouble> {
    let below = Below { root: mould.image, others: None, given: mould.given };
    let disks = guest::make_disks(&forge.qemu.img, &mould.launch.spec, &below, folder).await;
    let launch = Launch {
        name: format!("template-{}", mould.key.short()),
        ram: if whole { Ram::Kept(folder.join(RAM)) } else { Ram::Anonymous },
        disks: disks.map_err(because("its disks"))?,
        folder: folder.to_owned(),
        network: mould.network,
        port: true,
        ..mould.launch.clone()
    };
    std::fs::create_dir_all(forge.logs).map_err(because("its logs cannot be written"))?;
    Guest::start(forge.spawner, launch, true, forge.logs).await.map_err(because("it cannot be started"))
}

/// Everything between power-on and the frozen state. The guest is gone afterwards, whatever came of it.
async fn ready_and_frozen(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    mut guest: Guest,
    files: &Files,
    whole: Result<(), String>,
    so_far: &mut SoFar,
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), Trouble> {
    let port = fork::port(&mut guest).map_err(because("its port"));
    let result = match port {
        Ok(mut port) => {
            let done = async {
                let session = arrive(forge, mould, &guest, files, tell).await?;
                let session = prepare(forge, mould, (&guest, session), files, so_far, tell).await?;
                alive(forge, &guest, steps(forge, mould, (&guest, session, &mut port), whole, so_far, tell)).await
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

/// Boots it to a session; reboots of its own are survived, and what is frozen has them behind it.
async fn arrive(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    guest: &Guest,
    files: &Files,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Session, Trouble> {
    tell(News::Step("booting it".to_owned()));
    let arrived = async {
        let mut reboots = Reboots::at_most(guest.spec().reboots);
        loop {
            match alive(forge, guest, booted(forge, mould, guest, files)).await {
                Ok(session) => return Ok(session),
                Err(none) => {
                    let who = "before its boot was over the guest rebooted itself";
                    boot_again(guest, &mut reboots, who, none, tell).await?;
                }
            }
        }
    };
    // However often it reboots meanwhile.
    let limit = (mould.boot + payload::STARTING) * 2;
    let late = |_| no_template(format!("timeout: its boot was not over within {:.0} s", limit.as_secs_f64()));
    tokio::time::timeout(limit, arrived).await.map_err(late).flatten()
}

/// Does what the matrix asks for; a script that reboots the guest is run again, and what is frozen has that behind it. A session with the
/// guest.
async fn prepare(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    (guest, mut session): (&Guest, Session),
    files: &Files,
    so_far: &mut SoFar,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Session, Trouble> {
    let Work::Preparation(preparation) = &mould.work else { return Ok(session) };
    let family = alive(forge, guest, rehearse(forge, mould, &session)).await?;
    let Some(preparation) = preparation else { return Ok(session) };
    let began = Instant::now();
    alive(forge, guest, install(forge, mould, &session, preparation, family, tell)).await?;
    let mut left = preparation.limit.saturating_sub(began.elapsed());
    let mut reboots = Reboots::at_most(guest.spec().reboots);
    if let Some(script) = preparation.script {
        tell(News::Step("preparing it".to_owned()));
        loop {
            let began = Instant::now();
            let running = run(forge, mould, &session, "prepare", script, left, Some(reboots.count()));
            let Err(none) = alive(forge, guest, running).await else { break };
            left = left.saturating_sub(began.elapsed());
            let none = unprepared(forge, "prepare", "", none);
            boot_again(guest, &mut reboots, "the prepare script rebooted its guest", none, tell).await?;
            session = arrive(forge, mould, guest, files, tell).await?;
        }
    }
    let stored = sh(&session, STORE, &[], Vec::new(), STEP.mul_f64(forge.speed));
    alive(forge, guest, async { expect(stored.await, "what was prepared cannot be kept") }).await?;
    so_far.prepared = true;
    Ok(session)
}

/// Does this while the guest runs. If that fails because the guest has ended, its end is the reason.
async fn alive<T>(
    forge: &Forge<'_>,
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
    Err(match tokio::time::timeout(EXPLANATION.mul_f64(forge.speed), guest.ended()).await {
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
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), Trouble> {
    match guest.has_ended().map_or(Next::Ended, |ended| reboots.next(&ended)) {
        Next::Boots => {
            guest.boot_again().await.map_err(because("it cannot be rebooted"))?;
            tell(News::Step(format!("it rebooted itself, {} of at most {} times", reboots.count(), reboots.most())));
            Ok(())
        }
        Next::TooMany => Err(no_template(reboots.too_many(who))),
        Next::Ended => Err(none),
    }
}

/// A session with a guest whose boot is over.
async fn booted(forge: &Forge<'_>, mould: &Mould<'_>, guest: &Guest, files: &Files) -> Result<Session, Trouble> {
    let address = guest.ssh().ok_or_else(|| no_template("it has no network"))?;
    let stream =
        ssh::banner(address, Instant::now() + mould.boot, forge.cancel).await.map_err(because("it did not boot"))?;
    let session = connect(forge, mould, stream, files).await.map_err(because("no SSH session with it"))?;
    if guest.spec().seed == Some(Seed::CloudInit) {
        payload::first_boot(&session, Instant::now() + mould.boot).await.map_err(because("its first boot"))?;
    }
    let going = match payload::boot_over(&session, forge.speed).await.map_err(because("the end of its boot"))? {
        AfterBoot::Up | AfterBoot::Slow => return Ok(session),
        AfterBoot::Down => Duration::ZERO,
        AfterBoot::Soon(soon) if soon > mould.boot => {
            return Err(goes_down_later(soon));
        }
        AfterBoot::Soon(soon) => soon,
    };
    Err(goes_down(going + mould.boot).await)
}

/// Whatever is frozen now goes down one day, in each fork.
fn goes_down_later(soon: Duration) -> Trouble {
    let seconds = soon.as_secs_f64();
    no_template(format!("the guest is to reboot or to power off in {seconds:.0} s: no fork would live for longer"))
}

/// The guest is about to go down: its end is news that our caller waits for.
async fn goes_down(limit: Duration) -> Trouble {
    tokio::time::sleep(limit).await;
    no_template("timeout: the guest was about to go down, and did not")
}

async fn steps(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    (guest, session, port): (&Guest, Session, &mut tokio::net::UnixStream),
    whole: Result<(), String>,
    so_far: &mut SoFar,
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), Trouble> {
    let scaled = |limit: Duration| limit.mul_f64(forge.speed);
    let session = Arc::new(session);
    match &mould.work {
        Work::Preparation(_) => {
            // Forks are not asked again. If it does not say, they are.
            let said = sh(&session, payload::FACTS, &[], Vec::new(), scaled(STEP)).await;
            let said = said.ok().map(|exit| payload::read_facts(&exit.stdout_tail));
            so_far.system = said.filter(|facts| !facts.is_empty());
        }
        Work::Own(work, _) => work(Arc::clone(&session)).await?,
    }
    whole.map_err(no_template)?;

    tell(News::Step("waiting until it is at rest".to_owned()));
    let place = sh(&session, LIE_IN_WAIT, &[Launch::PORT], waker::PROGRAM.to_vec(), scaled(STEP));
    expect(place.await, "what wakes forks cannot be started in it")?;
    waker::ready(port, scaled(STEP)).await.map_err(because("what wakes forks did not start in it"))?;
    expect(sh(&session, SETTLE, &[], Vec::new(), scaled(STEP)).await, "it cannot be brought to rest")?;
    drop(session);
    idle::until_idle(guest.pid(), scaled(IDLE)).await.map_err(because("it never came to rest"))
}

async fn connect(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    stream: BannerStream,
    files: &Files,
) -> Result<Session, SshError> {
    Session::open(Open {
        stream,
        user: mould.login_user,
        sudo: mould.login_user != "root",
        login: &files.login,
        host_keys: files.host_keys.public(),
        deadline: Instant::now() + CONNECT.mul_f64(forge.speed),
        silence: Session::SILENCE.mul_f64(forge.speed),
        cancel: forge.cancel.child_token(),
    })
    .await
}

/// A rehearsal: forks then find in their memory what every payload needs of the guest's disk. The guest's package manager.
async fn rehearse(forge: &Forge<'_>, mould: &Mould<'_>, session: &Session) -> Result<Option<PackageFamily>, Trouble> {
    let family = match mould.family {
        None => payload::detect_family(session, Instant::now() + STEP.mul_f64(forge.speed))
            .await
            .map_err(because("it cannot be asked for its package manager"))?,
        known => known,
    };
    if let Some(family) = family {
        run(forge, mould, session, "rehearsal", payload::rehearsal(family), STEP.mul_f64(forge.speed), None).await?;
    }
    Ok(family)
}

/// Installs the packages that the matrix asks for.
async fn install(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    session: &Session,
    Preparation { packages, limit, .. }: &Preparation<'_>,
    family: Option<PackageFamily>,
    tell: &(dyn Fn(News) + Sync),
) -> Result<(), Trouble> {
    if packages.is_empty() {
        return Ok(());
    }
    tell(News::Step(format!("installing {} in it", packages.join(" "))));
    let Some(family) = family else {
        return Err(no_template(format!("{}: `prepare.packages` cannot be installed", payload::UNKNOWN_FAMILY)));
    };
    let script = payload::install_by_name(family, packages);
    let also = match mould.network {
        Network::Isolated => "the guest was isolated: add `network = \"open\"` to `prepare`; ",
        Network::Open => "",
    };
    let ran = run(forge, mould, session, "packages", &script, *limit, None).await;
    ran.map_err(|trouble| unprepared(forge, "packages", also, trouble))?;
    for stream in ["stdout", "stderr"] {
        let log = forge.logs.join(format!("packages.{stream}.log"));
        let failed = payload::failed_script(family, &log).await;
        if let Some(line) = failed.map_err(because("what its package manager said cannot be read"))? {
            let failed = no_template(format!("a script of the packages failed: {}", reports::clean::line(&line)));
            return Err(unprepared(forge, "packages", "", failed));
        }
    }
    Ok(())
}

fn unprepared(forge: &Forge<'_>, what: &str, also: &str, trouble: Trouble) -> Trouble {
    let log = forge.logs.join(format!("{what}.stderr.log"));
    trouble.with_help(format!("{also}what it said is in {}", log.display()))
}

/// Runs one script in it, as suites are run; its output goes to files of the name `what`. `reboots`: as for a suite.
async fn run(
    forge: &Forge<'_>,
    mould: &Mould<'_>,
    session: &Session,
    what: &str,
    script: &str,
    limit: Duration,
    reboots: Option<u32>,
) -> Result<(), Trouble> {
    let env = IndexMap::new();
    let (family, arch, network) = (None, Arch::here(), Some(mould.network));
    let upload = Upload { script, env: &env, files: &[], artifacts: &[], family, arch, network, facts: false };
    let sent = payload::upload(session, &upload, Instant::now() + STEP.mul_f64(forge.speed)).await;
    sent.map_err(because("nothing can be sent into it"))?;
    let (stdout, stderr) =
        (forge.logs.join(format!("{what}.stdout.log")), forge.logs.join(format!("{what}.stderr.log")));
    let grace = GRACE.mul_f64(forge.speed);
    let suite = Suite { stdout: &stdout, stderr: &stderr, deadline: Instant::now() + limit, grace, reboots };
    let running = async {
        let ran = payload::run(session, &suite).await?;
        // What reboots its guest need not wait for it.
        let asks = reboots.is_some() && ran.outcome.may_be_a_reboot();
        let then = match asks {
            true if payload::announced(session, Instant::now() + STEP.mul_f64(forge.speed)).await? => AfterBoot::Down,
            true => payload::boot_over(session, forge.speed).await?,
            false => AfterBoot::Up,
        };
        Ok::<_, SshError>((ran, then))
    };
    let ran = match running.await {
        Ok((_, AfterBoot::Down)) => return Err(goes_down(mould.boot).await),
        Ok((_, AfterBoot::Soon(soon))) => return Err(goes_down_later(soon)),
        Ok((ran, AfterBoot::Up | AfterBoot::Slow)) => ran,
        Err(error) => {
            // Its end is news that our caller waits for.
            if reboots.is_some() && error.is_connection_lost() {
                tokio::time::sleep(mould.boot).await;
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
async fn tried(forge: &Forge<'_>, mould: &Mould<'_>, files: &Files) -> Result<u64, Trouble> {
    let place = tempfile::Builder::new().prefix("trial").tempdir_in(forge.scratch);
    let place = place.map_err(because("a fork of it cannot be tried"))?;
    let logs = forge.logs.join("trial");
    std::fs::create_dir_all(&logs).map_err(because("a fork of it cannot be tried"))?;
    let launch = Launch { name: format!("trial-{}", mould.key.short()), ..mould.launch.clone() };
    let with = With { qemu: forge.qemu, spawner: forge.spawner, speed: forge.speed, dies_with_us: true };
    let forked = fork::of_frozen(&files.folder, &with, launch, mould.given, (place.path(), &logs)).await;
    let forked = forked.map_err(because("a fork of it does not work"))?;
    let session = connect(forge, mould, forked.connection, files).await;
    let taken = memory::own_memory(forked.guest.pid());
    forked.guest.kill().await;
    session.map_err(because("no SSH session with a fork of it"))?;
    taken.ok_or_else(|| no_template("the memory of a fork cannot be measured"))
}
