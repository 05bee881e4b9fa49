//! One template that guests were forked from, on the page.

use serde::Serialize;

use super::network::NetworkView;
use crate::{TemplateRun, Trouble, human, run::TemplateState};

/// Maximum number of templates.
pub(super) const MAX_TEMPLATES: usize = 200;

/// The template's data of a template for guests.
#[derive(Debug, Serialize)]
pub(super) struct TemplateView<'a> {
    image: &'a str,
    runner: u32,
    state: String,
    /// Memory of one fork.
    cost: String,
    help: Option<&'a str>,
    digest: String,
    digest_short: String,
    duration: String,
    network: Option<NetworkView>,
}

impl<'a> TemplateView<'a> {
    /// `requests`: bytes for its requests.
    pub(super) fn new(template: &'a TemplateRun, requests: usize) -> Self {
        let (state, elapsed_ms) = match &template.state {
            TemplateState::Freezing => ("was being made".to_owned(), None),
            TemplateState::Ready { cached: true, elapsed_ms, .. } => ("from the store".to_owned(), Some(*elapsed_ms)),
            TemplateState::Ready { elapsed_ms, .. } => ("frozen for this run".to_owned(), Some(*elapsed_ms)),
            TemplateState::Failed { trouble: Trouble { reason, .. }, elapsed_ms } if template.ready.is_some() => {
                (format!("given up: {reason}"), Some(*elapsed_ms))
            }
            TemplateState::Failed { trouble: Trouble { reason, .. }, elapsed_ms } => {
                (format!("could not be made: {reason}"), Some(*elapsed_ms))
            }
        };
        Self {
            image: &template.image,
            runner: template.runner,
            state,
            cost: match &template.state {
                TemplateState::Ready { cost, .. } => format!("{} of memory for each fork", human::bytes(*cost)),
                TemplateState::Freezing | TemplateState::Failed { .. } => String::new(),
            },
            help: match &template.state {
                TemplateState::Failed { trouble, .. } => trouble.help.as_deref(),
                TemplateState::Freezing | TemplateState::Ready { .. } => None,
            },
            digest: template.template.to_string(),
            digest_short: template.template.short(),
            duration: elapsed_ms.map(human::duration).unwrap_or_default(),
            network: NetworkView::new(&template.network, requests),
        }
    }
}
