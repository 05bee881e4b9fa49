//! All cells on an L1, and on another one when that is lost, until every cell has reported.

use std::{collections::HashMap, path::Path, time::Duration};

use matrix::CellId;
use reports::{EventKind, RunnerFacts};

use super::{
    ledger::{Ledger, Loss},
    proof::Proofs,
    qemu::{Blueprint, L1, OpenError, TAIL, broken, died},
};
use crate::{
    agent::{
        Received,
        protocol::{CellWork, FromAgent, Ready, ToAgent, Work},
    },
    events::Events,
    fanout::Stop,
    guest::{Accelerator, Spawner},
};

/// How long an agent that was told to end everything may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How long a lost connection waits for QEMU's word on why.
const EXPLANATION: Duration = Duration::from_secs(2);

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
    /// What earlier L1s of this kind have proved.
    pub(crate) proofs: Proofs,
    /// How many virtual machines this machine lies in.
    pub(crate) depth: u32,
}

/// How a stay on one L1 ended.
enum End {
    /// Everything was reported, or we were told to stop.
    Done,
    /// It is gone; another one may do better.
    Lost(Loss),
    /// No L1 will do.
    Unfit(Loss),
}

impl Campaign<'_> {
    /// Runs every open cell of the ledger; afterwards all have reported. `first` is the number of the first L1.
    pub(crate) async fn run(&self, first: u32, ledger: &mut Ledger) {
        let mut fruitless = 0;
        for number in first.. {
            if ledger.todo().is_empty() {
                return;
            }
            if self.stop.drain.is_cancelled() {
                return self.say(ledger.abandon("interrupted before it started"));
            }
            let (kind, reason) = ("qemu".to_owned(), self.reason.to_owned());
            self.events.send(EventKind::RunnerStarted { runner: number, kind, reason });
            let reported = ledger.finished();
            let (end, ran) = self.on_a_fresh_l1(number, ledger).await;
            let loss = match end {
                End::Done if self.stop.drain.is_cancelled() => {
                    return self.say(ledger.abandon("interrupted before it was finished"));
                }
                // A cell the agent says nothing of is a defect of ours, and red.
                End::Done => return self.say(ledger.abandon("the agent did not report it: a defect of nestmatrix")),
                End::Unfit(loss) => {
                    self.lost(number, &loss);
                    return self.say(ledger.refuse(&loss));
                }
                End::Lost(loss) => loss,
            };
            // It may have been good luck.
            self.proofs.forget();
            self.lost(number, &loss);
            self.say(ledger.lost(&loss));
            // A cell that was tried has used up one of its attempts; a machine that did nothing at all must not be replaced for ever.
            fruitless = if ran || ledger.finished() > reported { 0 } else { fruitless + 1 };
            if fruitless > self.blueprint.plan.runner.retries {
                return self.say(ledger.refuse(&loss));
            }
        }
    }

    fn say(&self, events: Vec<EventKind>) {
        for event in events {
            self.events.send(event);
        }
    }

    fn lost(&self, runner: u32, loss: &Loss) {
        let Loss { reason, help, console_tail } = loss.clone();
        self.events.send(EventKind::RunnerLost { runner, reason, console_tail, help });
    }

    /// How it ended, and whether any attempt was made on it.
    async fn on_a_fresh_l1(&self, number: u32, ledger: &mut Ledger) -> (End, bool) {
        let scratch = self.scratch.join(format!("l1-{number}"));
        let logs = self.run.join("runners").join(number.to_string());
        let progress = |message: String| self.events.send(EventKind::RunnerProgress { runner: number, message });
        let opened = self.blueprint.open(self.spawner, &scratch, &logs, &progress, &self.stop.drain).await;
        let result = match opened {
            Ok(L1 { guest, link, facts, steps }) => {
                let mut stay = Stay { campaign: self, number, ledger, received: HashMap::new(), ran: false };
                let end = stay.until_the_end(&guest, link, facts, steps).await;
                let ran = stay.ran;
                guest.kill().await;
                (end, ran)
            }
            Err(OpenError { cancelled: true, .. }) => (End::Done, false),
            Err(OpenError { reason, help, console_tail, .. }) => {
                (End::Lost(Loss { reason, help, console_tail }), false)
            }
        };
        // Its disks may be large, and the next L1 needs the room.
        let _ = tokio::fs::remove_dir_all(&scratch).await;
        result
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
    ran: bool,
}

impl Stay<'_> {
    async fn until_the_end(
        &mut self,
        guest: &crate::guest::Guest,
        mut link: crate::agent::Link,
        facts: reports::L1Facts,
        steps: Vec<reports::StepTime>,
    ) -> End {
        let stop = self.campaign.stop;
        let known = self.campaign.proofs.known();
        let cells = self.ledger.todo();
        let cells = cells.into_iter().map(|todo| CellWork { id: todo.cell.id, next: todo.next, last: todo.last });
        link.say(&ToAgent::Run(Work {
            runner: self.number,
            cpus: self.campaign.blueprint.size.guest_cpus,
            jobs: self.campaign.jobs,
            known: known.clone(),
            cells: cells.collect(),
        }));
        let mut machine = Some((facts, steps));
        let (mut drained, mut killed) = (false, None);
        loop {
            let message = tokio::select! {
                biased;
                message = link.next() => message,
                ended = guest.ended() => return End::Lost(self.gone(guest, died(&ended))),
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
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    // A machine that goes down closes its connections first.
                    let error = match tokio::time::timeout(EXPLANATION, guest.ended()).await {
                        Ok(ended) => died(&ended),
                        Err(_) => OpenError::new(broken(&error), None),
                    };
                    return End::Lost(self.gone(guest, error));
                }
            };
            match message {
                FromAgent::Done => return End::Done,
                FromAgent::Lost { reason, help } => {
                    let error = OpenError::new(format!("the L1 was lost: {reason}"), Some(&help));
                    return End::Lost(self.gone(guest, error));
                }
                FromAgent::Unfit { reason, help } => {
                    return End::Unfit(self.gone(guest, OpenError::new(reason, Some(&help))));
                }
                FromAgent::Progress { message } => {
                    self.campaign.events.send(EventKind::RunnerProgress { runner: self.number, message });
                }
                FromAgent::Ready(ready) => {
                    if let Some((facts, steps)) = machine.take() {
                        if known.is_none() {
                            self.campaign.proofs.remember(&ready.proof);
                        }
                        let runner = self.campaign.facts(self.number, ready, facts, steps);
                        self.campaign.events.send(EventKind::RunnerReady { runner });
                    }
                }
                FromAgent::Event { event } => self.event(event),
                FromAgent::File { cell, attempt, path, piece } => self.file(cell, attempt, &path, &piece),
                FromAgent::Hello(_) | FromAgent::Heartbeat => {}
            }
        }
    }

    fn gone(&self, guest: &crate::guest::Guest, error: OpenError) -> Loss {
        Loss { reason: error.reason, help: error.help, console_tail: guest.console().tail(TAIL) }
    }

    fn event(&mut self, event: EventKind) {
        if !self.ledger.see(&event) {
            let message = "the agent reported something that does not fit what it had reported before".to_owned();
            return self.campaign.events.send(EventKind::Warning { cell: None, message });
        }
        match &event {
            EventKind::AttemptStarted { .. } => self.ran = true,
            EventKind::AttemptFinished { cell, attempt, .. } => {
                self.received.remove(&(cell.clone(), *attempt));
            }
            _ => {}
        }
        self.campaign.events.send(event);
    }

    fn file(&mut self, cell: CellId, attempt: u32, path: &str, piece: &str) {
        if !self.ledger.runs(&cell, attempt) {
            return;
        }
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
