//! Folds the events of templates.

use jiff::Timestamp;
use matrix::Digest;

use super::{MAX_ELAPSED_MS, MAX_LIST, clean_trouble};
use crate::{
    Boot, EventKind, NetworkRun, Phase, clean,
    run::{Run, TemplateRun, TemplateState},
};

impl Run {
    /// Folds an event about a template; the error is its contradiction to what is known.
    pub(super) fn fold_template(&mut self, at: Timestamp, event: &EventKind) -> Result<(), String> {
        match event {
            EventKind::TemplateStarted { runner, template, image } => {
                self.start_template(at, *runner, *template, image)
            }
            EventKind::TemplateRequested { runner, template, request } => {
                self.known_template(*runner, *template)?.network.record(Phase::Prepare, request);
                Ok(())
            }
            EventKind::TemplateReady { runner, template: digest, cached, elapsed_ms, cost } => {
                let template = self.known_template(*runner, *digest)?;
                match template.state {
                    TemplateState::Freezing => {}
                    TemplateState::Ready { .. } => return Err(format!("template {} is ready twice", digest.short())),
                    TemplateState::Failed { .. } => {
                        return Err(format!("template {} is ready after it failed", digest.short()));
                    }
                }
                template.ready = Some(at);
                let elapsed_ms = (*elapsed_ms).min(MAX_ELAPSED_MS);
                template.state = TemplateState::Ready { cached: *cached, elapsed_ms, cost: *cost };
                Ok(())
            }
            EventKind::TemplateFailed { runner, template: digest, trouble, elapsed_ms, .. } => {
                let template = self.known_template(*runner, *digest)?;
                if matches!(template.state, TemplateState::Failed { .. }) {
                    return Err(format!("template {} failed twice", digest.short()));
                }
                template.state = TemplateState::Failed {
                    trouble: clean_trouble(trouble),
                    elapsed_ms: (*elapsed_ms).min(MAX_ELAPSED_MS),
                };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A guest must be forked from a template that was ready on its runner. A later failure of the template is no contradiction:
    /// other guests may have found it in the meantime.
    pub(super) fn check_template(&self, event: &EventKind) -> Result<(), String> {
        let EventKind::GuestStarted { guest, .. } = event else { return Ok(()) };
        let Boot::Forked { template: digest } = guest.boot else { return Ok(()) };
        let was_ready =
            |known: &TemplateRun| (known.runner, known.template) == (guest.runner, digest) && known.ready.is_some();
        if self.templates.iter().any(was_ready) {
            return Ok(());
        }
        Err(format!("a guest was forked from template {}, never ready on runner {}", digest.short(), guest.runner))
    }

    /// A template that has ended may be started again on the same runner.
    fn start_template(&mut self, at: Timestamp, runner: u32, template: Digest, image: &str) -> Result<(), String> {
        if !self.runner(runner).is_some_and(|runner| runner.is_ready()) {
            return Err(format!("a template started on runner {runner}, which is not ready"));
        }
        if self.image(image).is_none() {
            return Err(format!("a template of image {}, which is not in the plan", clean::line(image)));
        }
        if self.template(runner, template).is_some_and(|known| known.state == TemplateState::Freezing) {
            return Err(format!("template {} started twice on runner {runner}", template.short()));
        }
        if self.templates.len() >= MAX_LIST {
            return Err("too many templates".to_owned());
        }
        let image = clean::line(image);
        self.templates.push(TemplateRun {
            template,
            image,
            runner,
            started: at,
            ready: None,
            network: NetworkRun::default(),
            state: TemplateState::Freezing,
        });
        Ok(())
    }

    fn known_template(&mut self, runner: u32, template: Digest) -> Result<&mut TemplateRun, String> {
        let mut templates = self.templates.iter_mut().rev();
        templates.find(|known| (known.runner, known.template) == (runner, template)).ok_or_else(|| {
            format!("an event about template {} on runner {runner}, which has not started", template.short())
        })
    }
}
