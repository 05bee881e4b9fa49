//! `images verify`: every byte of what is in the store.

use std::path::Path;

use images::{Catalog, Entry, PrepareErrorKind, Store};
use rayon::prelude::*;

use super::{Outcome, entry, open};

pub(super) fn verify(catalog: &Catalog, names: &[String], root: &Path) -> Outcome {
    let named: Vec<&Entry> = names.iter().map(|name| entry(catalog, name)).collect::<Result<_, _>>()?;
    let store = open(root)?;
    let entries = match names.is_empty() {
        true => catalog.entries().iter().filter(|entry| store.look(entry).is_some()).collect(),
        false => named,
    };
    if entries.is_empty() {
        eprintln!("no image of the catalog is in the store {}", root.display());
    }
    // Each is told as soon as it is read.
    let found: Vec<Found> = entries.par_iter().map(|entry| read(&store, entry)).collect();
    Ok(match () {
        () if found.contains(&Found::Damaged) => 1,
        () if found.contains(&Found::Absent) => 3,
        () => 0,
    })
}

#[derive(PartialEq, Eq)]
enum Found {
    Intact,
    Damaged,
    Absent,
}

fn read(store: &Store, entry: &Entry) -> Found {
    let name = format!("{} ({})", entry.name, entry.arch);
    match store.verify(entry) {
        Ok(digest) => {
            eprintln!("{name}: intact, {}", digest.short());
            Found::Intact
        }
        Err(error) => {
            let help = error.help.map(|help| format!("\n{name}: help: {help}")).unwrap_or_default();
            eprintln!("{name}: {}{help}", error.kind);
            if matches!(error.kind, PrepareErrorKind::Absent) { Found::Absent } else { Found::Damaged }
        }
    }
}
