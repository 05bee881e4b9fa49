//! Machines that are not booted: frozen once with the templates of a plan's guests in them, and forked by every run that wants the same.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::{ByteSize, Digest, Network};
use reports::{EventKind, Trouble, TroubleKind};
use tokio_util::sync::CancellationToken;

use super::{
    place::{About, Opened, Opening, Place},
    qemu::{BUNDLE, L1, L1Spec, NAME, QemuPlace, Steps, TAIL, died, interrupted, unexpected, unsendable},
};
use crate::{
    agent::{
        job_bundle::{self, BundleError},
        protocol::{CellWork, FromAgent, ToAgent, Work},
    },
    fanout,
    package_lock::Locking,
    ssh::{self, Exec, Open, Session, Stdin, StdinWriter},
    template::{
        self, HostFingerprint, Template, TemplateBuilder, TemplateProgress, TemplateSpec, With, Writer, no_template,
    },
};

/// Time limits, before scaling.
const BOOT: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);
const DELIVERY: Duration = Duration::from_secs(120);
/// What a guest, or the L1, writes to its disk until it is frozen.
const ROOM: ByteSize = ByteSize::from_mib(256);
/// Bytes a second that an L1 takes at least, before scaling.
const SLOWEST: u64 = 4 << 20;
/// What is sent at once.
const PIECE: usize = 64 << 10;

/// A place whose machines can be frozen.
pub(crate) trait Freezable: Place {
    /// A frozen machine.
    type Frozen: Frozen;

    /// One that is frozen: from the store, or made now. The flag: it was there.
    fn frozen(&self, opening: &Opening<'_>) -> impl Future<Output = Result<(Self::Frozen, bool), Trouble>>;

    /// Goes on from one. Its agent has greeted, and knows how it is to work.
    fn fork(
        &self,
        frozen: &Self::Frozen,
        opening: &Opening<'_>,
        steps: Steps,
    ) -> impl Future<Output = Result<Opened<Self::Engine>, Trouble>>;
}

/// A frozen machine.
pub(crate) trait Frozen: Send + Sync + 'static {
    /// It is of no use.
    fn give_up(&self, reason: &str);
}

/// A place whose machines are forked where they can be.
pub(crate) struct Forked<P>(pub(crate) P);

impl<P: Freezable> Place for Forked<P> {
    type Engine = P::Engine;

    fn about(&self) -> About<'_> {
        self.0.about()
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<P::Engine>, Trouble> {
        let why_not = match self.fork(&opening).await {
            Ok(opened) => return Ok(opened),
            // A booted one has the same files to be given.
            Err(trouble) if trouble.kind == TroubleKind::RunnerUnusable => return Err(trouble),
            Err(trouble) if trouble.kind == TroubleKind::Interrupted => return Err(trouble),
            Err(Trouble { reason, help: Some(help), .. }) => format!("{reason} ({help})"),
            Err(trouble) => trouble.reason,
        };
        if opening.cancel.is_cancelled() {
            return Err(interrupted());
        }
        (opening.warn)(format!("L1 {} is booted, not forked from a frozen one: {why_not}", opening.number));
        self.0.open(opening).await
    }
}

impl<P: Freezable> Forked<P> {
    async fn fork(&self, opening: &Opening<'_>) -> Result<Opened<P::Engine>, Trouble> {
        // One that is booted says more about what went wrong.
        if opening.after_loss {
            return Err(no_template("the one before it was lost"));
        }
        let mut steps = Steps::start();
        let (frozen, was_there) = self.0.frozen(opening).await?;
        steps.done(if was_there { "find a frozen L1" } else { "freeze an L1" });
        (opening.progress)("forking a frozen L1".to_owned());
        match self.0.fork(&frozen, opening, steps).await {
            Ok(opened) => Ok(Opened { give_up: Some(Box::new(move |reason: &str| frozen.give_up(reason))), ..opened }),
            Err(trouble) => {
                if trouble.kind == TroubleKind::TemplateBroken {
                    frozen.give_up(&trouble.reason);
                }
                Err(trouble)
            }
        }
    }
}

impl Frozen for Template {
    fn give_up(&self, reason: &str) {
        Self::give_up(self, reason);
    }
}

impl Freezable for QemuPlace<'_> {
    type Frozen = Template;

    async fn frozen(&self, opening: &Opening<'_>) -> Result<(Template, bool), Trouble> {
        let &Opening { scratch, logs, progress, cancel, .. } = opening;
        let (templates, host_fingerprint) = self.freezing.as_ref().map_err(|reason| no_template(reason.clone()))?;
        let (spec, logs) = (&self.spec, &logs.join("template"));
        for folder in [scratch, logs] {
            std::fs::create_dir_all(folder).map_err(|error| no_template(format!("{}: {error}", folder.display())))?;
        }
        let (qemu, spawner, speed) = (spec.qemu, self.spawner, spec.speed);
        let builder = TemplateBuilder { templates, qemu, spawner, speed, scratch, logs, cancel };
        let write = spec.write_brief_of_no_run();
        let write = move |archive: &Path| write(archive).map_err(|error| no_template(error.to_string()));
        let work = move |session: Arc<Session>| {
            let making: std::pin::Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send>> =
                Box::pin(self.fill(session, progress));
            making
        };
        let serve = |socket| self.serve(socket);
        let policy = |_| fanout::policy_of_l1(spec.plan);
        let outbound = spec.reaches_repositories().then_some(template::Outbound {
            serve: &serve,
            policy: &policy,
            is_pinned: false,
            differs: &|| None,
        });
        let wanted = TemplateSpec {
            key: spec.key(host_fingerprint)?,
            outbound,
            launch: spec.launch().map_err(|error| no_template(error.to_string()))?,
            image: &spec.image.disk,
            given: &spec.given(),
            written: BTreeMap::from([(BUNDLE, Arc::new(write) as Arc<Writer>)]),
            family: spec.image.facts.family,
            login_user: &spec.image.facts.login_user,
            hostname: NAME.to_owned(),
            boot: BOOT.mul_f64(spec.speed),
            network: spec.network(true),
            room: spec.room(),
            work: template::Work::Own(&work, spec.filling()),
        };
        let tell = |news: TemplateProgress| match news {
            TemplateProgress::Step(step) | TemplateProgress::Waiting(step) | TemplateProgress::Room(step) => {
                progress(format!("a frozen L1: {step}"))
            }
            TemplateProgress::Damaged(reason) => progress(format!("the frozen L1 is replaced: {reason}")),
        };
        template::obtain(&builder, &wanted, &tell).await
    }

    async fn fork(&self, template: &Template, opening: &Opening<'_>, mut steps: Steps) -> Result<Opened<L1>, Trouble> {
        let (spec, &Opening { scratch, logs, cancel, .. }) = (&self.spec, opening);
        let keys = template.login().write_private(scratch, ssh::LOGIN_FILES);
        let keys = keys.map_err(|error| unexpected("the L1's keys", &error))?;
        let (qemu, spawner, speed) = (spec.qemu, self.spawner, spec.speed);
        let with = With { qemu, spawner, speed, dies_with_us: true };
        let launch = spec.launch().map_err(|error| unexpected("the L1's firmware", &error))?;
        let forked = template::fork(template, &with, launch, &spec.given(), (scratch, logs)).await;
        let forked = forked.map_err(|error| Trouble::from(error).within("a frozen L1 does not go on"))?;
        let mut guest = forked.guest;
        let outbound = self.outbound(&mut guest).map_err(|error| unexpected("the L1's way to repositories", &error))?;
        steps.done("fork");
        spec.leave_a_way_in(&guest, scratch, logs, &keys, template.host_keys());
        let opened = async {
            let session = Session::open(Open {
                sudo: false,
                stream: forked.connection,
                user: &spec.image.facts.login_user,
                login: template.login(),
                host_keys: template.host_keys().public(),
                deadline: Instant::now() + CONNECT.mul_f64(speed),
                silence: Session::SILENCE.mul_f64(speed),
                cancel: CancellationToken::new(),
            });
            let session = Arc::new(session.await.map_err(|error| unexpected("no SSH session with the L1", &error))?);
            steps.done("connect");
            spec.deliver(&session).await?;
            steps.done("plan");
            spec.agent(session).await
        };
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(interrupted()),
            opened = opened => opened,
            ended = guest.ended() => Err(died(&ended)),
        };
        match opened {
            Ok(link) => {
                let facts = spec.facts(&guest).await;
                steps.done("agent");
                Ok(self.at_work(opening.number, (guest, outbound), (link, facts, steps.0), true))
            }
            Err(trouble) => {
                let evidence = guest.console().tail(TAIL);
                guest.kill().await;
                Err(trouble.with_evidence(evidence))
            }
        }
    }
}

impl QemuPlace<'_> {
    /// Makes the L1 ready for an agent, and has one make the templates of the plan's guests.
    async fn fill(&self, session: Arc<Session>, progress: &(dyn Fn(String) + Sync)) -> Result<(), Trouble> {
        let spec = &self.spec;
        // Whatever fails here: a booted machine may do without.
        let failed = |trouble: Trouble| Trouble { help: trouble.help, ..no_template(trouble.reason) };
        spec.set_up(&session).await.map_err(failed)?;
        let mut link = spec.agent(Arc::clone(&session)).await.map_err(failed)?;
        let cells = spec.plan.cells.iter().map(|cell| CellWork { id: cell.id.clone(), next: 1, last: 1 });
        let cells = cells.collect();
        // Guests that a run locks are prepared in its own fork of this, where what they get is on record.
        link.say(ToAgent::Work(Work { freeze: true, locking: Locking::Off, ..self.work(1) }));
        link.say(ToAgent::Cells { cells });
        link.say(ToAgent::Complete);
        let mut images = BTreeMap::new();
        let (most, each) = (spec.guests().len(), spec.each());
        let (mut heard, mut news) = (Instant::now(), 0);
        loop {
            let message = tokio::time::timeout_at((heard + each).into(), link.next()).await;
            let late = |_| no_template(format!("no guest was frozen in it for {:.0} s", each.as_secs_f64()));
            let message = message.map_err(late)?.map_err(|error| no_template(error.to_string()))?;
            let of_template = |event: &EventKind| {
                matches!(
                    event,
                    EventKind::TemplateStarted { .. }
                        | EventKind::TemplateReady { .. }
                        | EventKind::TemplateFailed { .. }
                )
            };
            if matches!(&message, FromAgent::Event { event } if of_template(event)) {
                (heard, news) = (Instant::now(), news + 1);
            }
            // Each is begun once, and is ready or fails once.
            if news > 2 * most {
                return Err(no_template("its agent freezes more guests than there are"));
            }
            match message {
                FromAgent::Done => break,
                FromAgent::Failed { trouble } => return Err(failed(trouble)),
                FromAgent::Event { event: EventKind::TemplateStarted { template, image, .. } } => {
                    progress(format!("a frozen L1: freezing {} in it", reports::clean::line(&image)));
                    images.insert(template, image);
                }
                FromAgent::Event { event: EventKind::TemplateFailed { template, trouble, bootable, .. } } => {
                    let image = images.get(&template).map_or("a guest", String::as_str);
                    let message = reports::clean::line(&format!("no template of {image} in it: {trouble}"));
                    // Its forks could not prepare it either: what that may reach, they may not.
                    if !bootable {
                        return Err(Trouble { help: trouble.help, ..no_template(message) });
                    }
                    progress(format!("a frozen L1: {message}"));
                }
                _ => {}
            }
        }
        drop(link);
        let clean = "rm -rf /scratch/cells /scratch/guests /scratch/templates";
        match run(&session, clean.to_owned(), Stdin::None, DELIVERY.mul_f64(spec.speed)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(no_template(error)),
        }
    }
}

impl L1Spec<'_> {
    /// How long making one template in there may take, scaled.
    fn each(&self) -> Duration {
        let prepares = self.plan.images.iter().filter_map(|image| image.prepare.as_ref());
        let longest = prepares.map(|prepare| prepare.timeout).max().unwrap_or_default();
        (template::LONGEST + longest).mul_f64(self.speed)
    }

    /// How long all of them may take: as if one were made after the other, each as slowly as may be.
    fn filling(&self) -> Duration {
        self.each() * u32::try_from(self.guests().len() + 1).unwrap_or(u32::MAX)
    }

    /// What it writes to its disks: its own boot, and the templates in it.
    fn room(&self) -> ByteSize {
        let memory: u64 = self.guests().values().map(|guest| guest.memory.bytes()).fold(0, u64::saturating_add);
        let guests = memory.saturating_add(ROOM.bytes() * self.guests().len() as u64).min(self.size.scratch.bytes());
        ByteSize::from_bytes(guests.saturating_add(ROOM.bytes()))
    }

    /// The guests that are frozen in it, by what decides each.
    fn guests(&self) -> BTreeMap<String, &matrix::Guest> {
        self.plan.cells.iter().map(|cell| (self.guest(cell), &cell.guest)).collect()
    }

    /// What decides it: the machine, the program in it, and the guests that are frozen in it.
    fn key(&self, host_fingerprint: &HostFingerprint) -> Result<Digest, Trouble> {
        let program = crate::blocking::blocking(|| Digest::of_file(Path::new("/proc/self/exe")))
            .map_err(|error| no_template(format!("this program cannot be read: {error}")))?;
        let guests: Vec<String> = self.guests().into_keys().collect();
        let parts = [
            ("image", self.image.facts.digest.to_string()),
            ("disk", self.image.disk.file.display().to_string()),
            ("program", program.to_string()),
            ("guests", guests.join("\n")),
        ];
        Ok(template::key(host_fingerprint, &self.machine(), &parts))
    }

    /// What decides the template of a cell's guest, as far as it is known from here.
    fn guest(&self, cell: &matrix::Cell) -> String {
        let image = self.plan.image(cell);
        let from = image.and_then(|image| self.images.get(&image.from)).map(|image| image.facts.digest);
        let prepare = image.and_then(|image| image.prepare.as_ref()).map(matrix::Prepare::digest);
        let words = image.map(|image| image.kernel_args.as_slice());
        // What they may reach is not frozen with them.
        let guest = matrix::Guest { network: Network::Isolated, ..cell.guest.clone() };
        format!("{from:?} {} {guest:?} {words:?} {prepare:?} {:?}", cell.image, cell.options.boot)
    }

    /// Sends the plan and its files into the bundle of an earlier run.
    async fn deliver(&self, session: &Session) -> Result<(), Trouble> {
        let (writer, stdin) = session.stdin_stream();
        let (plan, images) = (self.plan.clone(), self.images.clone());
        let sending = tokio::task::spawn_blocking(move || send(writer, &plan, &images));
        let command = "rm -rf /scratch/bundle/files && exec tar -x -m -f - -C /scratch/bundle";
        let files = self.plan.package.iter().flat_map(|package| &package.artifacts).map(|artifact| artifact.bytes);
        let bytes: u64 = files.chain(self.plan.cells.iter().flat_map(|cell| &cell.files).map(|file| file.bytes)).sum();
        let limit = (DELIVERY + Duration::from_secs(bytes / SLOWEST)).mul_f64(self.speed);
        let unpacked = run(session, command.to_owned(), stdin, limit).await;
        match sending.await {
            // Writing is reading, on the other end: that one says what is wrong with it.
            Ok(Err(BundleError::Write { .. })) | Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(unsendable(&error)),
            Err(error) => return Err(unexpected("the plan was not sent", &error)),
        }
        unpacked.map_err(|error| unexpected("the L1 did not take the plan", &error))
    }
}

fn send(
    writer: StdinWriter,
    plan: &matrix::Plan,
    images: &BTreeMap<String, crate::fanout::BootImage>,
) -> Result<(), BundleError> {
    let unwritable = |source| BundleError::Write { path: "the L1".into(), source };
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(PIECE, writer));
    job_bundle::write_plan(&mut tar, plan, images)?;
    let buffer = tar.into_inner().map_err(unwritable)?;
    buffer.into_inner().map_err(|error| unwritable(error.into_error()))?;
    Ok(())
}

async fn run(session: &Session, command: String, stdin: Stdin, limit: Duration) -> Result<(), String> {
    let exec = Exec::new(command, stdin, Instant::now() + limit);
    let exit = session.exec(exec).await.map_err(|error| error.to_string())?;
    if exit.success() {
        return Ok(());
    }
    Err(reports::clean::line(&String::from_utf8_lossy(&exit.stderr_tail)))
}
