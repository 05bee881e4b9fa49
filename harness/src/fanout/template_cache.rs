//! Which templates there are.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use matrix::Digest;
use reports::Trouble;

use crate::template::{Freezing, Template};

/// What came of wanting a template.
type Obtained = Result<Arc<Template>, Trouble>;

/// Where templates of guests come from.
#[derive(Debug)]
pub struct TemplateCache {
    /// Where they are kept; else why there are none.
    pub templates: Freezing,
    /// Every guest is booted, whatever its suite says.
    pub cold: bool,
    /// A folder for the logs of guests that are frozen.
    pub logs: PathBuf,
    known: Mutex<HashMap<Digest, Obtained>>,
}

impl TemplateCache {
    /// Those of this store.
    pub fn new(templates: Freezing, cold: bool, logs: PathBuf) -> Self {
        Self { templates, cold, logs, known: Mutex::default() }
    }

    /// What is known of the template of this key; `None`: nobody has looked for it yet.
    pub(super) fn known(&self, key: Digest) -> Option<Obtained> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// What came of it.
    pub(super) fn learn(&self, key: Digest, what: Obtained) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, what);
    }
}
