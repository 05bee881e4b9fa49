//! All cells on an L1, and on another one when that is lost, until every cell has reported.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use images::Templates;
use matrix::CellId;
use reports::{Again, EventKind, Phase, RunnerFacts, Trouble, TroubleKind};

use super::{
    conduct::{Conduct, Worth},
    frozen::Freezer,
    ledger::Ledger,
    proof::Proofs,
    qemu::{Blueprint, L1, Steps, TAIL, died, explained},
};
use crate::{
    agent::{
        Received,
        protocol::{CellWork, FromAgent, KvmProof, Ready, ToAgent, Work},
    },
    blocking::blocking,
    events::Events,
    fanout::Stop,
    guest::{Accelerator, Spawner},
    template::{self, Birthplace, Template},
};

/// How long an agent that was told to end everything may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How long an agent may take to prove that guests run.
const UNTIL_READY: Duration = Duration::from_secs(300);
/// What ending a phase takes at the most beyond its limit, before scaling.
const ENDING: Duration = Duration::from_secs(120);
/// Most bytes of events taken from one L1: what they say is kept in a journal, and in memory when that is read.
const MOST_SAID: u64 = 512 << 20;
/// What a line of the journal has around its words.
const ENVELOPE: u64 = 100;

/// One run's cells, on as many L1s as it takes.
pub(crate) struct Campaign<'a> {
    pub(crate) blueprint: Blueprint<'a>,
    /// Why guests run in an L1.
    pub(crate) reason: &'a str,
    pub(crate) spawner: &'a Spawner,
    pub(crate) events: &'a Events,
    pub(crate) stop: &'a Stop,
    /// The run's own scratch folder.
    pub(crate) scratch: &'a Path,
    /// The run's folder.
    pub(crate) run: &'a Path,
    /// At most so many guests at once.
    pub(crate) jobs: Option<usize>,
    /// Every guest is booted, none forked.
    pub(crate) cold: bool,
    /// Where frozen L1s are kept; else why there are none.
    pub(crate) freezing: Freezing,
    /// What earlier L1s of this kind have proved.
    pub(crate) proofs: Proofs,
    /// How many virtual machines this machine lies in.
    pub(crate) depth: u32,
}

/// Templates and the birthplace of what is frozen here.
pub(crate) type Freezing = Result<(Templates, Birthplace), String>;

/// How a stay on one L1 ended.
enum End {
    /// Everything was reported, or we were told to stop.
    Done,
    /// It is gone, or of no use.
    Gone(Trouble),
}

impl Campaign<'_> {
    /// Runs every open cell of the ledger; afterwards all have reported. `first` is the number of the first L1.
    ///
    /// If KVM turns out not to work in such an L1 and this is not the `last_resort`, nothing has run, and the number of the next L1 is
    /// returned: one of another kind may do.
    pub(crate) async fn run(&self, first: u32, last_resort: bool, ledger: &mut Ledger) -> Option<u32> {
        let mut fruitless = 0;
        let mut number = first;
        while !ledger.todo().is_empty() {
            if self.stop.drain.is_cancelled() {
                self.say(ledger.abandon("interrupted before it started"));
                break;
            }
            let (kind, reason) = ("qemu".to_owned(), self.reason.to_owned());
            self.events.send(EventKind::RunnerStarted { runner: number, kind, reason });
            let reported = ledger.finished();
            // One that is booted says more about what went wrong than the fork that was lost.
            let end = self.on_a_fresh_l1(number, number == first, ledger).await;
            let trouble = match end {
                End::Done if self.stop.drain.is_cancelled() => {
                    self.say(ledger.abandon("interrupted before it was finished"));
                    break;
                }
                // A cell the agent says nothing of is a defect of ours, and red.
                End::Done => {
                    self.say(ledger.abandon("the agent did not report it: a defect of nestmatrix"));
                    break;
                }
                End::Gone(trouble) => trouble,
            };
            match trouble.fate().again {
                Again::Afresh => {}
                Again::OtherRunner if !last_resort => return Some(number + 1),
                Again::OtherRunner | Again::Never => {
                    self.say(ledger.refuse(&trouble));
                    break;
                }
            }
            // It may have been good luck.
            self.proofs.forget();
            self.say(ledger.lost(&trouble));
            // One cell may take its L1 along as often as it has attempts; more losses in a row say that L1s do not live here.
            fruitless = if ledger.finished() > reported { 0 } else { fruitless + 1 };
            if fruitless > self.blueprint.plan.runner.retries + 1 {
                self.say(ledger.refuse(&trouble));
            }
            number += 1;
        }
        None
    }

    fn say(&self, events: Vec<EventKind>) {
        for event in events {
            self.events.send(event);
        }
    }

    /// An L1 with an agent in it: a fork of a frozen one, or booted.
    async fn open(
        &self,
        number: u32,
        fork: bool,
        scratch: &Path,
        logs: &Path,
        progress: &(dyn Fn(String) + Sync),
    ) -> Result<(L1, Option<Template>), Trouble> {
        let blueprint = &self.blueprint;
        let why_not = match &self.freezing {
            _ if self.cold => None,
            _ if !fork => Some("the one before it was lost".to_owned()),
            Err(reason) => Some(reason.clone()),
            Ok((templates, birthplace)) => {
                let freezer = Freezer {
                    templates,
                    birthplace,
                    spawner: self.spawner,
                    jobs: self.jobs,
                    known: self.proofs.known(),
                    cancel: &self.stop.drain,
                };
                let mut steps = Steps::start();
                match blueprint.frozen(&freezer, scratch, &logs.join("template"), progress).await {
                    Ok((template, was_there)) => {
                        steps.done(if was_there { "find a frozen L1" } else { "freeze an L1" });
                        progress("forking a frozen L1".to_owned());
                        let at = (scratch, logs);
                        match blueprint.fork(&template, self.spawner, at, steps, &self.stop.drain).await {
                            Ok(l1) => return Ok((l1, Some(template))),
                            Err(trouble) if !trouble.may_pass() => return Err(trouble),
                            Err(trouble) => {
                                if trouble.kind == TroubleKind::TemplateBroken {
                                    template.give_up(&trouble.reason);
                                }
                                Some(trouble.reason)
                            }
                        }
                    }
                    Err(Trouble { reason, help, .. }) => {
                        Some(help.map_or(reason.clone(), |help| format!("{reason} ({help})")))
                    }
                }
            }
        };
        if let Some(reason) = why_not.filter(|_| !self.stop.drain.is_cancelled()) {
            let message = format!("L1 {number} is booted, not forked from a frozen one: {reason}");
            self.events.send(EventKind::Warning { cell: None, message });
        }
        blueprint.open(self.spawner, scratch, logs, progress, &self.stop.drain).await.map(|l1| (l1, None))
    }

    async fn on_a_fresh_l1(&self, number: u32, fork: bool, ledger: &mut Ledger) -> End {
        let scratch = self.scratch.join(format!("l1-{number}"));
        let logs = self.run.join("runners").join(number.to_string());
        let progress = |message: String| self.events.send(EventKind::RunnerProgress { runner: number, message });
        let opened = self.open(number, fork, &scratch, &logs, &progress).await;
        let (end, guest) = match opened {
            Ok((L1 { guest, link, facts, steps, checked }, template)) => {
                let reported = ledger.finished();
                let mut stay = Stay { checked, ..Stay::new(self, number, ledger) };
                let end = stay.until_the_end(&guest, link, facts, steps).await;
                stay.judge_proof(&end);
                // Whether it was to blame nobody knows; making another costs less than losing each fork of it.
                if let (Some(template), End::Gone(trouble)) = (&template, &end)
                    && trouble.may_pass()
                    && ledger.finished() == reported
                {
                    template.give_up(&trouble.reason);
                }
                (end, Some(guest))
            }
            Err(trouble) if trouble.kind == TroubleKind::Interrupted => (End::Done, None),
            Err(trouble) => (End::Gone(trouble), None),
        };
        // Said before anything is cleaned up, which takes its time.
        if let End::Gone(trouble) = &end {
            self.events.send(EventKind::RunnerLost { runner: number, trouble: trouble.clone() });
        }
        if let Some(guest) = guest {
            guest.kill().await;
        }
        // Its disks may be large, and the next L1 needs the room.
        let _ = tokio::fs::remove_dir_all(&scratch).await;
        end
    }

    fn facts(&self, number: u32, ready: Ready, l1: reports::L1Facts, mut steps: Vec<reports::StepTime>) -> RunnerFacts {
        steps.extend(ready.steps);
        RunnerFacts {
            number,
            kind: "qemu".to_owned(),
            reason: self.reason.to_owned(),
            accelerator: Accelerator::Kvm.to_string(),
            accelerator_reason: ready.proof.reason,
            qemu: ready.qemu,
            kernel: ready.kernel,
            speed: ready.proof.speed,
            memory: ready.memory,
            cpus: self.blueprint.size.guest_cpus,
            depth: self.depth + 2,
            l1: Some(l1),
            steps,
        }
    }
}

/// The time on one L1.
struct Stay<'a> {
    campaign: &'a Campaign<'a>,
    number: u32,
    ledger: &'a mut Ledger,
    /// Files of the attempts that run, as they come.
    received: HashMap<(CellId, u32), Result<Received, ()>>,
    /// What was known of KVM in such an L1 before.
    known: Option<KvmProof>,
    /// What this one has proved.
    proof: Option<KvmProof>,
    /// Every byte of its disks was checked.
    checked: bool,
    /// A guest did not come up.
    doubt: bool,
    /// Bytes of messages so far, as the journal would hold them.
    said: u64,
    /// What it says, judged.
    conduct: Conduct,
    /// When it last said something that takes its work on.
    progress: Instant,
    /// The longest time limit of any phase of the cells, before scaling.
    longest: Duration,
}

impl<'a> Stay<'a> {
    fn new(campaign: &'a Campaign<'a>, number: u32, ledger: &'a mut Ledger) -> Self {
        let limits = ledger.todo().into_iter().flat_map(|todo| {
            let limits = todo.cell.timeouts;
            [limits.boot, limits.prepare, limits.install, limits.suite, limits.collect]
        });
        let prepares = campaign.blueprint.plan.images.iter().filter_map(|image| image.prepare.as_ref());
        // Nothing is said while a template is made.
        let boot = ledger.todo().into_iter().map(|todo| todo.cell.timeouts.boot).max().unwrap_or_default();
        let template = boot + prepares.map(|prepare| prepare.timeout).max().unwrap_or_default() + template::LONGEST;
        let limits = limits.chain((!campaign.cold).then_some(template));
        Self {
            longest: limits.max().unwrap_or_default(),
            campaign,
            number,
            ledger,
            received: HashMap::new(),
            known: campaign.proofs.known(),
            proof: None,
            checked: false,
            doubt: false,
            said: 0,
            conduct: Conduct::default(),
            progress: Instant::now(),
        }
    }

    /// Remembers what was proved where guests then really ran, and forgets what one that did not come up casts doubt on.
    fn judge_proof(&self, end: &End) {
        if self.doubt {
            self.campaign.proofs.forget();
        } else if let (End::Done, None, Some(proof)) = (end, &self.known, &self.proof)
            && self.ledger.finished() > 0
        {
            self.campaign.proofs.remember(proof);
        }
    }

    /// How long an agent may say nothing but that it is there: the longest phase there is, and what ending it takes.
    fn longest_silence(&self) -> Duration {
        self.proof.as_ref().map_or(UNTIL_READY, |proof| (self.longest + ENDING).mul_f64(proof.speed))
    }

    async fn until_the_end(
        &mut self,
        guest: &crate::guest::Guest,
        mut link: crate::agent::Link,
        facts: reports::L1Facts,
        steps: Vec<reports::StepTime>,
    ) -> End {
        let stop = self.campaign.stop;
        let cells = self.ledger.todo();
        let cells = cells.into_iter().map(|todo| CellWork { id: todo.cell.id, next: todo.next, last: todo.last });
        link.say(&ToAgent::Run(Work {
            runner: self.number,
            emulated: self.campaign.blueprint.is_emulated(),
            freeze: false,
            checked: self.checked,
            cpus: self.campaign.blueprint.size.guest_cpus,
            jobs: self.campaign.jobs,
            cold: self.campaign.cold,
            known: self.known.clone(),
            cells: cells.collect(),
        }));
        let mut machine = Some((facts, steps));
        let (mut drained, mut killed) = (false, None);
        loop {
            let message = tokio::select! {
                biased;
                // What we are told comes first, whatever the agent has to say: one that never stops talking does not hold it up.
                () = stop.kill.cancelled(), if killed.is_none() => {
                    killed = Some(tokio::time::Instant::now() + LAST_WORDS);
                    link.say(&ToAgent::Stop { kill: true });
                    continue;
                }
                () = stop.drain.cancelled(), if !drained => {
                    drained = true;
                    link.say(&ToAgent::Stop { kill: false });
                    continue;
                }
                () = async { tokio::time::sleep_until(killed.unwrap_or_else(tokio::time::Instant::now)).await }, if killed.is_some() => {
                    return End::Done;
                }
                () = tokio::time::sleep_until((self.progress + self.longest_silence()).into()) => {
                    let limit = self.longest_silence().as_secs_f64();
                    let reason = format!("timeout: the L1's agent made no progress for {limit:.0} s");
                    let trouble = Trouble::new(TroubleKind::Timeout, Phase::Runner, reason)
                        .with_help("see console.log in the runner's folder: is the L1 overloaded, or stuck?");
                    return gone(guest, trouble);
                }
                message = link.next() => message,
                ended = guest.ended() => return gone(guest, died(&ended)),
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => return gone(guest, explained(guest, &error).await),
            };
            if self.said > MOST_SAID {
                return gone(guest, odd(format!("the L1's agent sent more than {} MiB of events", MOST_SAID >> 20)));
            }
            let fits = self.fits(&message);
            if self.conduct.judge(&message, fits) == Worth::Progress {
                self.progress = Instant::now();
            } else if self.conduct.is_bad() {
                let reason = "the L1's agent goes on sending messages that belong to nothing it was asked to do";
                let help = "a package may have broken out of its guest; the L1 and all in it are ended";
                return gone(guest, odd(reason).with_help(help));
            }
            match message {
                FromAgent::Done => return End::Done,
                FromAgent::Failed { trouble } => return gone(guest, told(trouble)),
                FromAgent::Progress { message } => {
                    self.said += message.len() as u64 + ENVELOPE;
                    self.campaign.events.send(EventKind::RunnerProgress { runner: self.number, message });
                }
                FromAgent::Ready(ready) => {
                    if !(1.0..=100.0).contains(&ready.proof.speed) {
                        return gone(guest, odd("the L1's agent measured a speed that no machine has"));
                    }
                    if let Some((facts, steps)) = machine.take() {
                        self.proof = Some(ready.proof.clone());
                        let runner = self.campaign.facts(self.number, ready, facts, steps);
                        self.campaign.events.send(EventKind::RunnerReady { runner });
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

    /// Whether a message belongs to what is known of the cells; events are entered there.
    fn fits(&mut self, message: &FromAgent) -> bool {
        match message {
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
            | EventKind::TemplateReady { runner, .. }
            | EventKind::TemplateFailed { runner, .. } => *runner != self.number,
            _ => false,
        }
    }

    fn event(&mut self, event: EventKind, fits: bool) {
        self.said += ENVELOPE + serde_json::to_vec(&event).map_or(0, |text| text.len() as u64);
        if !fits {
            let message = "the agent reported something that does not fit what it had reported before".to_owned();
            return self.campaign.events.send(EventKind::Warning { cell: None, message });
        }
        if let EventKind::AttemptFinished { cell, attempt, ending, .. } = &event {
            self.doubt |= ending.trouble().is_some_and(|trouble| matches!(trouble.phase, Phase::Boot | Phase::Connect));
            self.received.remove(&(cell.clone(), *attempt));
        }
        self.campaign.events.send(event);
    }

    fn file(&mut self, cell: CellId, attempt: u32, path: &str, piece: &str) {
        let folder = self.campaign.run.join(reports::attempt_folder(&cell, attempt));
        let received = self.received.entry((cell.clone(), attempt)).or_insert_with(|| Ok(Received::new(folder)));
        if let Ok(files) = received
            && let Err(why) = files.take(path, piece)
        {
            // Said once; what follows of this attempt is passed over.
            *received = Err(());
            let message = format!("not all files of attempt {attempt} came from the L1: {why}");
            self.campaign.events.send(EventKind::Warning { cell: Some(cell), message });
        }
    }
}

/// The L1 is lost for this reason, with its last words.
fn gone(guest: &crate::guest::Guest, trouble: Trouble) -> End {
    End::Gone(trouble.with_evidence(guest.console().tail(TAIL)))
}

/// The agent does what no agent does.
fn odd(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason)
}

/// What an agent says of its machine. It is not trusted: it has a say in these kinds only.
fn told(trouble: Trouble) -> Trouble {
    let (kind, evidence) = (trouble.kind, Vec::new());
    match kind {
        TroubleKind::KvmUnusable | TroubleKind::RunnerUnusable => Trouble { phase: Phase::Runner, evidence, ..trouble },
        TroubleKind::HostDiskFull => Trouble { phase: Phase::Runner, evidence, ..trouble }.within("the L1 was lost"),
        _ => Trouble { kind: TroubleKind::RunnerLost, phase: Phase::Runner, evidence, ..trouble }
            .within("the L1 was lost"),
    }
}
