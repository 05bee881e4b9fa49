//! `images verify`: every byte of what is in the store.

use std::path::Path;

use images::{Catalog, Entry, PrepareErrorKind, Verified};

use super::{Outcome, entry, open};

pub(super) fn verify(catalog: &Catalog, names: &[String], root: &Path) -> Outcome {
    let entries: Vec<&Entry> = names.iter().map(|name| entry(catalog, name)).collect::<Result<_, _>>()?;
    let store = open(root)?;
    let verified = if names.is_empty() {
        let verified = store.verify_all(&show_one_of_all);
        if verified.is_empty() {
            say!("no image is in the store {}", root.display());
        }
        verified
    } else {
        let verify = |entry: &&Entry| {
            let verified = Verified { name: format!("{} ({})", entry.name, entry.arch), found: store.verify(entry) };
            show(&verified);
            verified
        };
        entries.iter().map(verify).collect()
    };
    let kinds = || verified.iter().filter_map(|verified| verified.found.as_ref().err()).map(|error| &error.kind);
    Ok(match () {
        () if kinds().any(|kind| !matches!(kind, PrepareErrorKind::Absent)) => 1,
        () if kinds().next().is_some() && !names.is_empty() => 3,
        () => 0,
    })
}

/// What nobody asked for by name need not be there.
fn show_one_of_all(verified: &Verified) {
    match &verified.found {
        Err(error) if matches!(error.kind, PrepareErrorKind::Absent) => {
            let name = &verified.name;
            say!("{name}: its file has changed where it lies, or is gone; it is read again on next use");
        }
        _ => show(verified),
    }
}

fn show(Verified { name, found }: &Verified) {
    match found {
        Ok(digest) => say!("{name}: intact, content {}", digest.short()),
        Err(error) => {
            let help = error.help.as_ref().map(|help| format!("\n{name}: help: {help}")).unwrap_or_default();
            say!("{name}: {}{help}", error.kind);
        }
    }
}
