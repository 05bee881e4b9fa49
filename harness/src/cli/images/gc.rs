//! `images gc`: a store without what is too much.

use std::{path::Path, time::Duration};

use images::gc::{Garbage, Keep};

use super::{super::Failure, Known, Outcome, open, print};

pub(super) fn gc(known: &Known, keep_days: u16, templates: bool, dry: bool, root: &Path) -> Outcome {
    let store = open(root)?;
    let entries = known.plain.entries().iter().chain(known.catalog.entries()).cloned().collect();
    let unused = Duration::from_secs(u64::from(keep_days) * 24 * 60 * 60);
    let keep = Keep { entries, unused, templates: !templates };
    let collected = store.gc(&keep, dry).map_err(|error| Failure::message(3, error))?;
    let line =
        |garbage: &Garbage| format!("{}, {} MiB: {}\n", garbage.what, garbage.bytes >> 20, garbage.path.display());
    let mut text: String = collected.garbage.iter().map(line).collect();
    for garbage in &collected.in_use {
        text += &format!("in use, stays: {}", line(garbage));
    }
    let done = if dry { "would be freed" } else { "freed" };
    print(&format!("{text}{} bytes {done} in {}", collected.bytes(), root.display()))
}
