//! The time with one machine's agent: cells go out as their images come in, events come back, and in the end it is known why it ended.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::Duration,
};

use matrix::{CellId, Plan};
use reports::{Blame, EventKind, L1Facts, Phase, RunnerFacts, StepTime, Trouble, TroubleKind};

use super::{
    conduct::{Conduct, Worth, told},
    ledger::Ledger,
    place::{Engine, Feed, Place},
};
use crate::{
    agent::{
        Link, Received,
        protocol::{CellWork, FromAgent, GuestProof, Ready, ToAgent},
    },
    blocking::blocking,
    events::Events,
    fanout::Stop,
    template,
};

/// How long an agent that was told to end everything may take to say so.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an agent may take to prove that guests run.
const UNTIL_READY: Duration = Duration::from_secs(300);
/// What ending a phase takes at the most beyond its limit, before scaling.
const ENDING: Duration = Duration::from_secs(120);
/// Most bytes of events taken from one machine: what they say is kept in a journal, and in memory when that is read.
const MOST_SAID: u64 = if cfg!(test) { 1 << 20 } else { 512 << 20 };
/// What a line of the journal has around its words.
const ENVELOPE: u64 = 100;

/// How the time with an agent ended.
#[derive(Debug)]
pub(super) enum End {
    /// Everything was reported, or we were told to stop.
    Done,
    /// The machine is gone, or of no use.
    Gone(Trouble),
}

/// The longest time, before scaling, in which an agent that works on this plan has nothing to say but that it is there.
pub(crate) fn longest_silence(plan: &Plan, cold: bool) -> Duration {
    let limits = plan.cells.iter().flat_map(|cell| {
        let limits = &cell.timeouts;
        [limits.boot, limits.prepare, limits.install, limits.suite, limits.collect]
    });
    // Nothing is said while a template is made.
    let boot = plan.cells.iter().map(|cell| cell.timeouts.boot).max().unwrap_or_default();
    let prepares = plan.images.iter().filter_map(|image| image.prepare.as_ref());
    let template = boot + prepares.map(|prepare| prepare.timeout).max().unwrap_or_default() + template::LONGEST;
    limits.chain((!cold).then_some(template)).max().unwrap_or_default() + ENDING
}

/// Where a session takes place.
pub(super) struct Desk<'a, P> {
    pub(super) place: &'a P,
    /// Number of the machine.
    pub(super) number: u32,
    pub(super) events: &'a Events,
    pub(super) stop: &'a Stop,
    /// The run's folder.
    pub(super) run: &'a Path,
    /// See [`longest_silence`].
    pub(super) longest_silence: Duration,
}

/// The time with one agent.
pub(super) struct AgentSession<'a, P> {
    desk: Desk<'a, P>,
    ledger: &'a mut Ledger,
    /// Cells that the agent was given.
    handed_out: HashSet<CellId>,
    /// Those of them that have not reported.
    open: HashSet<CellId>,
    /// Images that the machine was given.
    brought: HashSet<String>,
    /// Files of the attempts that run, as they come.
    received: HashMap<(CellId, u32), Result<Received, ()>>,
    /// What was known of such a machine before.
    known: Option<GuestProof>,
    /// What this one has proved.
    proof: Option<GuestProof>,
    /// A guest did not come up.
    doubt: bool,
    /// Bytes of messages so far, as the journal would hold them.
    said: u64,
    /// What it says, judged.
    conduct: Conduct,
    /// When it last said something that takes its work on.
    progress: tokio::time::Instant,
}

impl<'a, P: Place> AgentSession<'a, P> {
    pub(super) fn new(desk: Desk<'a, P>, ledger: &'a mut Ledger) -> Self {
        Self {
            known: desk.place.about().proofs.and_then(|proofs| proofs.known()),
            desk,
            ledger,
            handed_out: HashSet::new(),
            open: HashSet::new(),
            brought: HashSet::new(),
            received: HashMap::new(),
            proof: None,
            doubt: false,
            said: 0,
            conduct: Conduct::default(),
            progress: tokio::time::Instant::now(),
        }
    }

    /// Remembers what was proved where guests then really ran, and forgets what one that did not come up casts doubt on.
    pub(super) fn judge_proof(&self, end: &End) {
        let Some(proofs) = self.desk.place.about().proofs else { return };
        if self.doubt {
            proofs.forget();
        } else if let (End::Done, None, Some(proof)) = (end, &self.known, &self.proof)
            && self.ledger.finished() > 0
        {
            proofs.remember(proof);
        }
    }

    /// How long the agent may say nothing but that it is there: the longest phase there is, and what ending it takes.
    fn patience(&self) -> Duration {
        self.proof.as_ref().map_or(UNTIL_READY, |proof| self.desk.longest_silence.mul_f64(proof.speed))
    }

    /// Has all cells run that can be; what the agent says is entered in the ledger and passed on.
    pub(super) async fn until_the_end<E: Engine, F: Feed>(
        &mut self,
        engine: &E,
        mut link: Link,
        feed: &mut F,
        (l1, steps): (Option<L1Facts>, Vec<StepTime>),
    ) -> End {
        let stop = self.desk.stop;
        let mut machine = Some((l1, steps));
        // An agent that is a task of this process hears of a stop by itself, and its silence is ours.
        let is_remote = !link.is_ours();
        let (mut drained, mut killed) = (false, None);
        let mut all_are_in = false;
        let number = self.desk.number;
        let events = self.desk.events;
        let progress: &(dyn Fn(String) + Sync) =
            &|message| events.send(EventKind::RunnerProgress { runner: number, message });
        // One after the other, while the agent is listened to: an image may take minutes on its way.
        let mut bringing = None;
        // Something has come in since the cells were last looked at.
        let mut news = true;
        let mut was_due = false;
        feed.settle(self.ledger);
        loop {
            if bringing.is_none() && !drained && std::mem::take(&mut news) {
                self.hand_out(&link, feed);
                match feed.images().into_iter().find(|(name, _)| !self.brought.contains(name)) {
                    Some((name, image)) => {
                        bringing = Some(Box::pin(async move {
                            let told = engine.bring(&name, &image, progress).await;
                            (name, told)
                        }));
                    }
                    None if all_are_in => link.say(ToAgent::Complete),
                    None => {}
                }
            }
            let patience = self.patience();
            // An agent that waits for us, for an image or for more cells, owes nothing.
            let has_all = all_are_in && bringing.is_none();
            let owes = is_remote && (has_all || self.proof.is_some() && !self.open.is_empty());
            if owes && !was_due {
                self.progress = tokio::time::Instant::now();
            }
            was_due = owes;
            let message = tokio::select! {
                biased;
                // The user's stop comes first: an agent that never stops talking does not delay it.
                () = stop.kill.cancelled(), if killed.is_none() => {
                    killed = Some(tokio::time::Instant::now() + KILL_TIMEOUT);
                    link.say(ToAgent::Stop { kill: true });
                    continue;
                }
                () = stop.drain.cancelled(), if !drained => {
                    (drained, all_are_in, bringing) = (true, true, None);
                    link.say(ToAgent::Stop { kill: false });
                    link.say(ToAgent::Complete);
                    continue;
                }
                () = async { tokio::time::sleep_until(killed.unwrap_or_else(tokio::time::Instant::now)).await }, if killed.is_some() && is_remote => {
                    return End::Done;
                }
                () = tokio::time::sleep_until(self.progress + patience), if owes => {
                    let reason = format!("timeout: the agent made no progress for {:.0} s", patience.as_secs_f64());
                    let trouble = Trouble::new(TroubleKind::Timeout, Phase::Runner, reason)
                        .with_help("see console.log in the runner's folder: is the machine overloaded, or stuck?");
                    return gone(engine, trouble);
                }
                more = feed.next(), if !all_are_in => {
                    (all_are_in, news) = (!more, true);
                    feed.settle(self.ledger);
                    continue;
                }
                (name, told) = async {
                    match &mut bringing {
                        Some(bringing) => bringing.await,
                        None => std::future::pending().await,
                    }
                } => {
                    (bringing, news) = (None, true);
                    match told {
                        Ok(told) => told.into_iter().for_each(|told| link.say(told)),
                        Err(trouble) => return gone(engine, trouble),
                    }
                    self.brought.insert(name);
                    self.progress = tokio::time::Instant::now();
                    continue;
                }
                message = link.next() => message,
                trouble = engine.ended() => return gone(engine, trouble),
            };
            let message = match message {
                Ok(message) => message,
                Err(broken) => {
                    let trouble = engine.explained(&broken).await;
                    return gone(engine, trouble);
                }
            };
            // Before anything is entered: what is not passed on did not happen.
            if is_remote && self.said > MOST_SAID {
                let limit = MOST_SAID >> 20;
                return gone(engine, odd(format!("the agent sent more events than the limit of {limit} MiB")));
            }
            let fits = self.fits(&message, is_remote);
            if is_remote && let Err(trouble) = self.judge(&message, fits) {
                return gone(engine, trouble);
            }
            match message {
                FromAgent::Done => return End::Done,
                FromAgent::Failed { trouble } if is_remote => {
                    let trouble = told(trouble, self.proof.is_some());
                    // What was found out is the better evidence.
                    let evidence = engine.evidence();
                    return End::Gone(engine.examined(trouble.with_evidence(evidence)).await);
                }
                FromAgent::Failed { trouble } => return gone(engine, trouble),
                FromAgent::Progress { message } => {
                    self.said += message.len() as u64 + ENVELOPE;
                    self.desk.events.send(EventKind::RunnerProgress { runner: self.desk.number, message });
                }
                FromAgent::Ready(ready) => {
                    if !(1.0..=100.0).contains(&ready.proof.speed) {
                        return gone(engine, odd("the agent measured a speed that no machine has"));
                    }
                    if let Some((l1, steps)) = machine.take() {
                        self.proof = Some(ready.proof.clone());
                        let runner = self.facts(ready, l1, steps);
                        self.desk.events.send(EventKind::RunnerReady { runner });
                    }
                }
                FromAgent::Event { event } => self.event(event, fits),
                FromAgent::File { .. } if !fits => {}
                FromAgent::File { cell, attempt, path, piece } => {
                    // It writes to the disk.
                    blocking(|| self.file(cell, attempt, &path, &piece));
                }
                FromAgent::Hello(_) | FromAgent::Heartbeat => {}
            }
        }
    }

    /// Hands out the cells whose images are there.
    fn hand_out<F: Feed>(&mut self, link: &Link, feed: &F) {
        let mut todo = self.ledger.todo();
        todo.retain(|todo| feed.is_in(&todo.cell, &self.brought) && self.handed_out.insert(todo.cell.id.clone()));
        self.open.extend(todo.iter().map(|todo| todo.cell.id.clone()));
        let cells: Vec<_> =
            todo.into_iter().map(|todo| CellWork { id: todo.cell.id, next: todo.next, last: todo.last }).collect();
        if !cells.is_empty() {
            link.say(ToAgent::Cells { cells });
        }
    }

    /// Whether an agent that is not trusted may go on after this message.
    fn judge(&mut self, message: &FromAgent, fits: bool) -> Result<(), Trouble> {
        if self.conduct.judge(message, fits) == Worth::Progress {
            self.progress = tokio::time::Instant::now();
        } else if self.conduct.is_bad() {
            let reason = "the agent goes on sending messages that belong to nothing it was asked to do";
            let help = "a package may have broken out of its guest; the machine and all on it are ended";
            return Err(odd(reason).with_help(help));
        }
        Ok(())
    }

    /// Whether a message belongs to what is known of the cells; events are entered there.
    fn fits(&mut self, message: &FromAgent, is_remote: bool) -> bool {
        match message {
            // A guest on another machine goes when that goes.
            FromAgent::Event { event: EventKind::GuestKept { cell, attempt, .. } } => {
                !is_remote && self.ledger.runs(cell, *attempt)
            }
            FromAgent::Event { event } => !self.is_elsewhere(event) && self.ledger.see(event),
            FromAgent::File { cell, attempt, .. } => {
                let given_up = matches!(self.received.get(&(cell.clone(), *attempt)), Some(Err(())));
                self.ledger.runs(cell, *attempt) && !given_up
            }
            _ => true,
        }
    }

    /// It tells of another runner.
    fn is_elsewhere(&self, event: &EventKind) -> bool {
        match event {
            EventKind::TemplateStarted { runner, .. }
            | EventKind::TemplateRequested { runner, .. }
            | EventKind::TemplateReady { runner, .. }
            | EventKind::TemplateFailed { runner, .. } => *runner != self.desk.number,
            EventKind::GuestStarted { guest, .. } => guest.runner != self.desk.number,
            _ => false,
        }
    }

    fn event(&mut self, event: EventKind, fits: bool) {
        self.said += ENVELOPE + serde_json::to_vec(&event).map_or(0, |text| text.len() as u64);
        if !fits {
            let message = "the agent reported something that does not fit what it had reported before".to_owned();
            return self.desk.events.send(EventKind::Warning { cell: None, message });
        }
        if let EventKind::AttemptFinished { cell, attempt, ending, .. } = &event {
            // One that was interrupted says nothing of the machine.
            self.doubt |= ending.trouble().is_some_and(|trouble| {
                matches!(trouble.phase, Phase::Boot | Phase::Connect) && trouble.fate().blame != Blame::Nobody
            });
            self.received.remove(&(cell.clone(), *attempt));
        }
        if let EventKind::CellFinished { cell, .. } = &event {
            self.open.remove(cell);
        }
        self.desk.events.send(event);
    }

    fn file(&mut self, cell: CellId, attempt: u32, path: &str, piece: &str) {
        let folder = self.desk.run.join(reports::attempt_folder(&cell, attempt));
        let received = self.received.entry((cell.clone(), attempt)).or_insert_with(|| Ok(Received::new(folder)));
        if let Ok(files) = received
            && let Err(why) = files.take(path, piece)
        {
            // Said once; what follows of this attempt is passed over.
            *received = Err(());
            let message = format!("not all files of attempt {attempt} came from the L1: {why}");
            self.desk.events.send(EventKind::Warning { cell: Some(cell), message });
        }
    }

    fn facts(&self, ready: Ready, l1: Option<L1Facts>, mut steps: Vec<StepTime>) -> RunnerFacts {
        let about = self.desk.place.about();
        steps.extend(ready.steps);
        RunnerFacts {
            number: self.desk.number,
            kind: about.kind.to_owned(),
            reason: about.reason.to_owned(),
            accelerator: ready.accelerator.to_string(),
            accelerator_reason: ready.proof.reason,
            qemu: ready.qemu,
            kernel: ready.kernel,
            speed: ready.proof.speed,
            memory: ready.memory,
            cpus: ready.cpus,
            depth: about.depth,
            l1,
            steps,
        }
    }
}

/// The machine is lost for this reason; with its last words.
fn gone(engine: &impl Engine, trouble: Trouble) -> End {
    End::Gone(trouble.with_evidence(engine.evidence()))
}

/// The agent does what no agent does.
fn odd(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason)
}
