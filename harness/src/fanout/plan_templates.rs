//! Which template a cell's guest is forked from: its key, and how it is obtained.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use matrix::{Boot, ByteSize, Cell, Digest, Network, Plan, Repository};
use reports::{EventKind, Trouble};
use tokio_util::sync::CancellationToken;

use super::{context::RunContext, differences::Differences, image, machine, outbound};
use crate::template::{self, Preparation, Template, TemplateBuilder, TemplateProgress, TemplateSpec, Work};

/// What a guest writes to its disk while it boots ...
const BOOTED: ByteSize = ByteSize::from_mib(256);
/// ... and while it is prepared: a compiler and more.
const PREPARED: ByteSize = ByteSize::from_mib(1024);

impl RunContext {
    /// No fork of it works: none is made of it any more, here or elsewhere. Its disk serves until this run ends.
    pub(super) fn give_up(&self, template: &Template, trouble: &Trouble) {
        // Forks that started together fail together; it is said once.
        if template.give_up(&trouble.reason) {
            // What to look at for the fork that failed last is no help with the template.
            let (runner, template) = (self.runner, template.key());
            let trouble = Trouble { help: None, ..trouble.clone() };
            self.events.send(EventKind::TemplateFailed { runner, template, trouble, elapsed_ms: 0, bootable: true });
        }
    }

    /// The cell's guest is to be forked, if it can be.
    pub(super) fn forks(&self, cell: &Cell) -> bool {
        cell.options.boot == Boot::Warm && !self.template_cache.cold && self.is_booted(cell).is_none()
    }

    /// Why guests of the cell are booted, whatever it says; `None`: they can be forked.
    pub(super) fn is_booted(&self, cell: &Cell) -> Option<&'static str> {
        machine::spec(self, cell, self.image(cell)?, self.terse).can_be_frozen().err()
    }

    /// No guest of the cell's image may run that was not prepared.
    pub(super) fn prepares(&self, cell: &Cell) -> bool {
        prepare(&self.plan, cell).is_some()
    }

    /// The key of the template that the cell's guest is forked from, or whose disk it is booted from; `None`: it needs none.
    pub(super) fn template_key(&self, cell: &Cell) -> Option<Digest> {
        let prepare = prepare(&self.plan, cell);
        let wanted = self.forks(cell) || prepare.is_some();
        let (_, own) = self.template_cache.templates.as_ref().ok()?;
        let host_fingerprint = self.emulation(cell).map_or(own, |emulation| &emulation.host_fingerprint);
        let image = self.image(cell).filter(|_| wanted)?;
        let spec = machine::spec(self, cell, image, self.terse);
        // The program that a frozen guest has in its flash memory.
        let firmware = image::uefi(&spec).ok().and_then(|uefi| template::file_stamp(&uefi.code).ok());
        // What it was prepared with; nothing else of a template depends on packages.
        let locking = outbound::is_prepared_with_repositories(&self.plan, &cell.image)
            .then(|| self.locking.key(&cell.image))
            .flatten();
        let parts = [
            ("firmware", firmware.unwrap_or_default()),
            ("image", image.facts.digest.to_string()),
            // The template's disk lies above it.
            ("disk", image.disk.file.display().to_string()),
            ("name", machine::hostname(&cell.image)),
            ("login", image.facts.login_user.clone()),
            ("preparation", prepare.map_or("none".to_owned(), |prepare| prepare.digest().to_string())),
            ("repositories", self.added(cell).iter().map(|added| format!("{added:?}\n")).collect()),
        ];
        let parts: Vec<_> = parts.into_iter().chain(locking.map(|locking| ("locking", locking))).collect();
        Some(template::key(host_fingerprint, &spec, &parts))
    }

    /// The repositories that its guest is prepared with.
    fn added(&self, cell: &Cell) -> Vec<&Repository> {
        match outbound::is_prepared_with_repositories(&self.plan, &cell.image) {
            true => outbound::added(&self.plan, &cell.image),
            false => Vec::new(),
        }
    }

    /// Makes the template of this cell's guest, or finds it, and says so. Afterwards it is [`TemplateCache::known`].
    pub(super) async fn obtain(&self, key: Digest, cell: &Cell, cancel: &CancellationToken) {
        let Ok((templates, _)) = &self.template_cache.templates else { return };
        let Some(image) = self.image(cell) else { return };
        let (runner, template) = (self.runner, key);
        self.events.send(EventKind::TemplateStarted { runner, template, image: cell.image.clone() });
        let started = Instant::now();
        let builder = TemplateBuilder {
            templates,
            qemu: self.qemu(cell),
            spawner: &self.spawner,
            speed: self.speed(cell),
            scratch: &self.scratch,
            logs: &self.template_cache.logs.join(key.short()),
            cancel,
        };
        let prepare = prepare(&self.plan, cell);
        let launch = machine::launch(self, cell, image, self.terse);
        let given = BTreeMap::new();
        let pins = self.locking.pins(&cell.image);
        let differs = pins.is_some().then(|| Arc::new(Mutex::new(Differences::default())));
        let first_difference = || differs.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).first().cloned();
        let serve = |socket| {
            let recorder = outbound::template_recorder(self, key, &cell.image, differs.clone());
            Ok(self.proxy.clone()?.serve(socket, pins.clone(), recorder))
        };
        let policy = |repositories| outbound::policy(&self.plan, repositories);
        let reaches = prepare.is_some_and(|prepare| prepare.network == Network::Repositories);
        let wanted = |launch| TemplateSpec {
            outbound: reaches.then_some(template::Outbound {
                serve: &serve,
                policy: &policy,
                is_pinned: pins.is_some(),
                differs: &first_difference,
            }),
            key,
            launch,
            image: &image.disk,
            given: &given,
            written: BTreeMap::new(),
            family: image.facts.family,
            login_user: &image.facts.login_user,
            hostname: machine::hostname(&cell.image),
            boot: self.scaled(cell, cell.timeouts.boot),
            network: prepare.map_or(Network::Isolated, |prepare| prepare.network),
            room: if prepare.is_some() { PREPARED } else { BOOTED }.min(cell.guest.disk),
            work: Work::Preparation(prepare.map(|prepare| Preparation {
                script: prepare.script.and_then(|script| self.plan.scripts.get(&script)).map(String::as_str),
                repositories: self.added(cell),
                packages: &prepare.packages,
                limit: self.scaled(cell, prepare.timeout),
            })),
        };
        let tell = |news: TemplateProgress| {
            let message = match news {
                TemplateProgress::Damaged(reason) => format!("the template of {} is replaced: {reason}", cell.image),
                TemplateProgress::Room(what) => format!("the template of {}: {what}", cell.image),
                TemplateProgress::Waiting(reason) => format!("the template of {}: {reason}", cell.image),
                TemplateProgress::Step(_) => return,
            };
            self.events.send(EventKind::Warning { cell: None, message });
        };
        let obtained = match launch {
            Ok(launch) => template::obtain(&builder, &wanted(launch), &tell).await,
            Err(error) => Err(template::no_template(error.to_string())),
        };
        let elapsed_ms = started.elapsed().as_millis() as u64;
        let obtained = obtained.map(|(found, cached)| (Arc::new(found), cached));
        let said = match &obtained {
            Ok((found, cached)) => match found.unfrozen() {
                None => EventKind::TemplateReady {
                    runner,
                    template,
                    cached: *cached,
                    elapsed_ms,
                    cost: found.cost().bytes(),
                },
                Some(reason) => {
                    let help = self
                        .is_booted(cell)
                        .is_none()
                        .then(|| format!("to try to freeze it again, remove {}", found.folder().display()));
                    let reason = format!("it is not frozen, guests are booted from its prepared disk: {reason}");
                    let trouble = Trouble { help, ..template::no_template(reason) };
                    EventKind::TemplateFailed { runner, template, trouble, elapsed_ms, bootable: true }
                }
            },
            Err(trouble) => {
                let (trouble, bootable) = (trouble.clone(), prepare.is_none());
                EventKind::TemplateFailed { runner, template, trouble, elapsed_ms, bootable }
            }
        };
        self.events.send(said);
        self.template_cache.learn(key, obtained.map(|(found, _)| found));
    }
}

fn prepare<'a>(plan: &'a Plan, cell: &Cell) -> Option<&'a matrix::Prepare> {
    plan.image(cell)?.prepare.as_ref()
}
