//! Runs all cells on one machine after another until every cell has reported: a machine that is lost is replaced. The same for every place.

use std::{path::Path, time::Duration};

use reports::{EventKind, Retry, TroubleKind};

use super::{
    ledger::Ledger,
    place::{Engine as _, Feed, Opened, Opening, Place},
    session::{AgentSession, Desk, End},
};
use crate::{events::Events, fanout::Stop};

/// How long a machine that was lost has before it is tried again; three times as long each time after that.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The machines of one kind that a run's cells run on.
pub(crate) struct RunnerPool<'a, P> {
    pub(crate) place: P,
    pub(crate) events: &'a Events,
    pub(crate) stop: &'a Stop,
    /// The run's own scratch folder.
    pub(crate) scratch: &'a Path,
    /// The run's folder.
    pub(crate) run: &'a Path,
    /// How often what failed is tried again.
    pub(crate) retries: u32,
    /// See [`super::longest_silence`].
    pub(crate) longest_silence: Duration,
}

impl<P: Place> RunnerPool<'_, P> {
    /// Runs every open cell of the ledger; afterwards all have reported. `first` is the number of the first machine.
    ///
    /// If guests do not run on such a machine and this is not the `last_resort`, the number of the next machine is returned: one of another
    /// kind may do.
    pub(crate) async fn run<F: Feed>(
        &self,
        first: u32,
        last_resort: bool,
        ledger: &mut Ledger,
        feed: &mut F,
    ) -> Option<u32> {
        let about = self.place.about();
        let mut fruitless = 0;
        let mut number = first;
        if about.needs_all_images {
            while feed.next().await {}
        }
        feed.settle(ledger);
        while !ledger.todo().is_empty() {
            if self.stop.drain.is_cancelled() {
                self.say(ledger.interrupt());
                break;
            }
            let (kind, reason) = (about.kind.to_owned(), about.reason.to_owned());
            self.events.send(EventKind::RunnerStarted { runner: number, kind, reason });
            let reported = ledger.finished();
            let end = self.on_a_fresh_machine(number, number > first, ledger, feed).await;
            let trouble = match end {
                End::Done if self.stop.drain.is_cancelled() => {
                    self.say(ledger.interrupt());
                    break;
                }
                // A cell the agent says nothing of is a defect of ours, and red.
                End::Done => {
                    self.say(ledger.abandon("the agent did not report it: a defect of nestmatrix"));
                    break;
                }
                End::Gone(trouble) => trouble,
            };
            match trouble.fate().retry {
                Retry::Fresh => {}
                Retry::OtherRunner if !last_resort => {
                    self.say(ledger.lost(&trouble));
                    return Some(number + 1);
                }
                Retry::OtherRunner | Retry::Never => {
                    self.say(ledger.refuse(&trouble));
                    break;
                }
            }
            // It may have been good luck.
            about.proofs.inspect(|proofs| proofs.forget());
            self.say(ledger.lost(&trouble));
            // One cell may take its machine along as often as it has attempts; more losses in a row say that none lives here.
            fruitless = if ledger.finished() > reported { 0 } else { fruitless + 1 };
            if fruitless > self.retries + 1 {
                self.say(ledger.refuse(&trouble));
            } else if about.is_one_machine {
                tokio::select! {
                    () = self.stop.drain.cancelled() => {}
                    () = tokio::time::sleep(FIRST_PAUSE * 3_u32.pow(fruitless.min(3))) => {}
                }
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

    async fn on_a_fresh_machine<F: Feed>(
        &self,
        number: u32,
        after_loss: bool,
        ledger: &mut Ledger,
        feed: &mut F,
    ) -> End {
        let scratch = self.scratch.join(format!("runner-{number}"));
        let logs = self.run.join("runners").join(number.to_string());
        let progress = |message: String| self.events.send(EventKind::RunnerProgress { runner: number, message });
        let warn = |message: String| self.events.send(EventKind::Warning { cell: None, message });
        let opening = Opening {
            number,
            after_loss,
            scratch: &scratch,
            logs: &logs,
            progress: &progress,
            warn: &warn,
            cancel: &self.stop.drain,
        };
        let (end, engine) = match self.place.open(opening).await {
            Ok(Opened { engine, link, l1, steps, give_up }) => {
                let reported = ledger.finished();
                let Self { place, events, stop, run, longest_silence, .. } = self;
                let desk = Desk { place, number, events, stop, run, longest_silence: *longest_silence };
                let mut session = AgentSession::new(desk, ledger);
                let end = session.until_the_end(&engine, link, feed, (l1, steps)).await;
                session.judge_proof(&end);
                // Whether that was to blame nobody knows; making another costs less than losing each fork of it.
                if let (Some(give_up), End::Gone(trouble)) = (give_up, &end)
                    && trouble.may_pass()
                    && ledger.finished() == reported
                {
                    give_up(&trouble.reason);
                }
                (end, Some(engine))
            }
            Err(trouble) if trouble.kind == TroubleKind::Interrupted => (End::Done, None),
            Err(trouble) => (End::Gone(trouble), None),
        };
        // Said before anything is cleaned up, which takes its time.
        if let End::Gone(trouble) = &end {
            self.events.send(EventKind::RunnerLost { runner: number, trouble: trouble.clone() });
        }
        if let Some(engine) = engine {
            engine.close().await.into_iter().for_each(warn);
        }
        // Its disks may be large, and the next one needs the room.
        let _ = tokio::fs::remove_dir_all(&scratch).await;
        end
    }
}
