//! `images list`: what there is, and what of it is in the store.

use std::path::Path;

use matrix::Arch;

use super::{super::table, Known, Outcome, is_past, open, print, state, word};

pub(super) fn list(known: &Known, all: bool, root: &Path) -> Outcome {
    let store = open(root)?;
    let header = ["NAME", "ARCH", "FAMILY", "END OF LIFE", "STATE", "SIZE", "DIGEST"].map(str::to_owned).to_vec();
    let entries = known.catalog.entries().iter().filter(|entry| all || entry.arch == Arch::here());
    let rows = entries.map(|entry| {
        let present = store.look(entry);
        let end = match (&entry.end_of_life, is_past(entry)) {
            (Some(end), true) => format!("{end} (past)"),
            (end, _) => end.clone().unwrap_or_else(|| "-".to_owned()),
        };
        let size = present.as_ref().map_or_else(|| "-".to_owned(), |present| format!("{} MiB", present.bytes >> 20));
        let digest = present.as_ref().map_or_else(|| "-".to_owned(), |present| present.digest.short());
        let state = state(entry, present.as_ref()).to_owned();
        vec![entry.name.clone(), entry.arch.to_string(), word(entry.family), end, state, size, digest]
    });
    let text = table(std::iter::once(header).chain(rows));
    let templates = store.templates(matrix::ByteSize::from_bytes(u64::MAX)).map(|all| (all.count(), all.bytes()));
    let templates = templates.map_or_else(
        |error| error.to_string(),
        |(count, bytes)| {
            format!("{count} in templates/, {} MiB; they are made again when they are needed", bytes >> 20)
        },
    );
    print(&format!("{text}\nstore: {}\nfrozen guests: {templates}", root.display()))
}
