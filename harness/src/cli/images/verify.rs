//! `images verify`: every byte of what is in the store.

use std::path::Path;

use images::{Catalog, Entry, PrepareErrorKind};

use super::{Outcome, entry, open};

pub(super) fn verify(catalog: &Catalog, names: &[String], root: &Path) -> Outcome {
    let named: Vec<&Entry> = names.iter().map(|name| entry(catalog, name)).collect::<Result<_, _>>()?;
    let store = open(root)?;
    let entries = match names.is_empty() {
        true => catalog.entries().iter().filter(|entry| store.look(entry).is_some()).collect(),
        false => named,
    };
    let (mut damaged, mut absent) = (false, false);
    // Each is read by as many threads as it has files, and disks are what it takes time to read.
    for entry in &entries {
        let name = format!("{} ({})", entry.name, entry.arch);
        match store.verify(entry) {
            Ok(digest) => eprintln!("{name}: intact, {}", digest.short()),
            Err(error) => {
                eprintln!("{name}: {}", error.kind);
                error.help.iter().for_each(|help| eprintln!("{name}: help: {help}"));
                match error.kind {
                    PrepareErrorKind::Absent => absent = true,
                    _ => damaged = true,
                }
            }
        }
    }
    if entries.is_empty() {
        eprintln!("no image of the catalog is in the store {}", root.display());
    }
    Ok(if damaged {
        1
    } else if absent {
        3
    } else {
        0
    })
}
