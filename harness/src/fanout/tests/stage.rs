//! One attempt in a world without a machine: what is written down before, and what came of it.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use matrix::Plan;
use reports::{Event, EventKind};
use tokio::sync::{mpsc::unbounded_channel, watch};
use tokio_util::sync::CancellationToken;

use super::fake::{Does, Fake, FakeTemplate, LOGIN, Story};
use crate::{
    events::Events,
    fanout::{
        attempt::{Attempt, AttemptOutcome},
        budget::Admission,
        context::{BootImages, Keep, Purpose, RunContext},
        template_cache::TemplateCache,
    },
    guest::{Accelerator, Spawner},
    host::Qemu,
};

/// What is asked for before an attempt.
pub(super) struct Stage {
    /// Lines of the suite.
    suite: &'static str,
    forks: bool,
    story: Story,
    folder: tempfile::TempDir,
}

impl Stage {
    /// A suite with these lines in its table, which installs a package; its guest is forked.
    pub(super) fn forked(suite: &'static str) -> Self {
        let story = Story {
            does: Mutex::default(),
            serves: true.into(),
            qemu: true.into(),
            asked: Mutex::default(),
            went_down: Mutex::default(),
            end: watch::Sender::new(None),
            kill: CancellationToken::new(),
            make_room: CancellationToken::new(),
            template: Arc::default(),
            short: false,
            reaches: false,
        };
        Self { suite, forks: true, story, folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn booted(suite: &'static str) -> Self {
        Self { forks: false, ..Self::forked(suite) }
    }

    /// With this template in place of a new one.
    pub(super) fn of(mut self, template: &Arc<FakeTemplate>) -> Self {
        self.story.template = Arc::clone(template);
        self
    }

    /// What becomes of exchanges of this name, in turn.
    pub(super) fn with(self, what: &'static str, does: impl IntoIterator<Item = Does>) -> Self {
        self.story.does.lock().unwrap().entry(what).or_default().extend(does);
        self
    }

    /// No SSH server answers any more.
    pub(super) fn mute(self) -> Self {
        self.story.serves.store(false, Ordering::Relaxed);
        self
    }

    /// There is no room left for disks of guests.
    pub(super) fn short(mut self) -> Self {
        self.story.short = true;
        self
    }

    /// Its guest has a way to repositories.
    pub(super) fn reaching(mut self) -> Self {
        self.story.reaches = true;
        self
    }

    /// QEMU does not answer.
    pub(super) fn silent_qemu(self) -> Self {
        self.story.qemu.store(false, Ordering::Relaxed);
        self
    }

    pub(super) fn is_forked(&self) -> bool {
        self.forks
    }

    fn plan(&self) -> Plan {
        let file = self.folder.path().join("m.toml");
        std::fs::write(self.folder.path().join("a.deb"), "a").unwrap();
        let limits = "timeout = { boot = '60s', prepare = '50s', install = '40s', suite = '30s', collect = '20s' }";
        let package = "package = { name = 'p', artifacts = ['a.deb'] }";
        let suite = format!("[[suite]]\nname = 's'\ninline = 'true'\n{}\n", self.suite);
        std::fs::write(&file, format!("images = ['a']\n{limits}\n{package}\n{suite}")).unwrap();
        matrix::load(&file, &["a"]).unwrap().plan
    }

    pub(super) async fn play(self) -> Played {
        let plan = Arc::new(self.plan());
        let images = BootImages::of(&plan);
        let (events, mut received) = Events::channel();
        let context = RunContext {
            runner: 1,
            plan: Arc::clone(&plan),
            images: images.into(),
            spawner: Spawner::start().unwrap(),
            qemu: Qemu::unused(),
            accelerator: Accelerator::Tcg,
            emulations: Default::default(),
            terse: false,
            speed: 1.0,
            scratch: self.folder.path().join("scratch"),
            cells: self.folder.path().join("cells"),
            proxy: Err("none".to_owned()),
            locking: Arc::default(),
            template_cache: TemplateCache::new(Err("none".to_owned()), false, self.folder.path().join("none")),
            login: LOGIN.clone(),
            purpose: Purpose::Test,
            keep: Keep::Never,
            disk_full: CancellationToken::new(),
            events,
        };
        let (requests, _) = unbounded_channel();
        let mut admission = Admission::new(self.forks, requests);
        admission.make_room = self.story.make_room.clone();
        let (cell, kill) = (&plan.cells[0], self.story.kill.clone());
        let story = Arc::new(self.story);
        let world = Fake { story: Arc::clone(&story), forks: self.forks };
        let (context, admission, kill) = (&context, &admission, &kill);
        let attempt = Attempt { world, context, cell, number: 1, last: 1, again: false, admission, kill };
        let began = tokio::time::Instant::now();
        let AttemptOutcome { ending, kept } = attempt.run().await;
        assert!(!kept);
        let took = began.elapsed();
        let events = std::iter::from_fn(|| received.try_recv().ok());
        let events = events.map(|Event { kind, .. }| kind).collect();
        let asked = story.asked.lock().unwrap().clone();
        Played { ending, events, asked, took, disk_full: context.disk_full.is_cancelled() }
    }
}

/// What came of an attempt.
pub(super) struct Played {
    pub(super) ending: reports::Ending,
    pub(super) events: Vec<EventKind>,
    pub(super) asked: Vec<String>,
    pub(super) took: Duration,
    pub(super) disk_full: bool,
}

impl Played {
    /// `passed`, `failed(test) never: why`, `error(boot) again: why`.
    pub(super) fn told(&self) -> String {
        let verdict = self.ending.verdict();
        let phase = verdict.phase().map(|phase| format!("({phase})")).unwrap_or_default();
        let Some(trouble) = self.ending.trouble() else { return format!("{}{phase}", verdict.name()) };
        assert_eq!(trouble.evidence.is_empty(), !self.asked.contains(&"killed".to_owned()), "{trouble:?}");
        let again = if trouble.may_pass() { "again" } else { "never" };
        format!("{}{phase} {again} {:?}: {}", verdict.name(), trouble.kind, trouble.reason)
    }

    /// Its phases in order, each of which has ended.
    pub(super) fn phases(&self) -> String {
        let mut phases = Vec::new();
        let mut open = None;
        for event in &self.events {
            match event {
                EventKind::PhaseStarted { phase, .. } => {
                    assert_eq!(open.replace(*phase), None, "{:?}", self.events);
                    phases.push(phase.name());
                }
                EventKind::PhaseFinished { phase, .. } => assert_eq!(open.take(), Some(*phase)),
                _ => {}
            }
        }
        assert_eq!(open, None, "a phase that has not ended");
        phases.join(" ")
    }

    /// Its test cases: `s passed`, `s failed: why`.
    pub(super) fn cases(&self) -> String {
        let cases = self.events.iter().filter_map(|event| match event {
            EventKind::TestFinished { case, .. } => Some(match &case.verdict {
                reports::CaseVerdict::Passed => format!("{} passed", case.name),
                reports::CaseVerdict::Failed { message, .. } => format!("{} failed: {message}", case.name),
                reports::CaseVerdict::Skipped { reason } => format!("{} skipped: {reason}", case.name),
            }),
            _ => None,
        });
        cases.collect::<Vec<_>>().join("; ")
    }

    pub(super) fn warnings(&self) -> String {
        let warnings = self.events.iter().filter_map(|event| match event {
            EventKind::Warning { message, cell: Some(_) } => Some(message.as_str()),
            _ => None,
        });
        warnings.collect::<Vec<_>>().join("; ")
    }

    /// How often this was asked of the guest.
    pub(super) fn count(&self, what: &str) -> usize {
        self.asked.iter().filter(|asked| *asked == what).count()
    }
}
