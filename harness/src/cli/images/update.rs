//! `images update`: what the publishers of a matrix's images mean today, written into `images.lock`.

use std::sync::atomic::AtomicBool;

use images::{
    Change, Control, Entry, Origin, Pin, Source,
    fetch::{Limits, fetch_text},
    update::{LONGEST_LIST, Resolved, Trust, resolve},
};
use matrix::ImageSource;

use super::{
    super::{args, catalog::with_help, matrix_file},
    Failure, Outcome, print,
};

pub(super) fn update(which: &args::Which, names: &[String], check: bool) -> Outcome {
    let matrix_file::Loaded { plan, known, .. } = matrix_file::load(which)?;
    let mut used: Vec<&str> = plan
        .images
        .iter()
        .filter(|image| image.source == ImageSource::Catalog)
        .map(|image| image.from.as_str())
        .collect();
    used.sort_unstable();
    used.dedup();
    if let Some(unknown) = names.iter().find(|name| !used.contains(&name.as_str())) {
        let help = format!("its images from the catalog are: {}", used.join(", "));
        return Err(with_help(&format!("{} uses no image `{unknown}`", plan.matrix.display()), &help));
    }
    used.retain(|name| names.is_empty() || names.iter().any(|wanted| wanted == name));

    let mut pins = known.pins.clone().unwrap_or_default();
    let (mut text, mut unchanged, mut changed, mut failed) = (String::new(), 0, false, false);
    for name in used {
        let Some(entry) = known.plain.get(name) else { continue };
        let Some(pin) = pin(entry, &mut failed) else { continue };
        let change = pins.update(pin);
        if change.is_suspicious() {
            say!(
                "WARNING: {name}: the file at the same address has changed: ask its publisher before you run anything on it. A new \
                 file usually has a new address."
            );
        }
        match line(name, &change) {
            Some(line) => {
                changed = true;
                text += &line;
            }
            None => unchanged += 1,
        }
    }
    if failed {
        return Err(Failure::message(3, "not every publisher could be asked: nothing was written"));
    }
    if unchanged > 0 {
        text += &format!("{unchanged} unchanged\n");
    }
    if changed && !check {
        pins.write(&known.lock).map_err(|error| Failure { code: 3, ..with_help(&error, &error.help) })?;
    }
    let done = match (changed, check) {
        (true, true) => "would change",
        (true, false) => "written",
        (false, _) => "nothing to change",
    };
    print(&format!("{text}{}: {done}", known.lock.display()))?;
    Ok(u8::from(changed && check))
}

/// What an entry is to be pinned to; `None`: it is built here, or it could not be found out.
fn pin(entry: &Entry, failed: &mut bool) -> Option<Pin> {
    let Source::Disk { file, .. } = &entry.source else { return None };
    let Origin::Urls(urls) = &file.origin else { return None };
    let name = format!("{} ({})", entry.name, entry.arch);
    let cancel = AtomicBool::new(false);
    let control = Control { refresh: false, cancel: &cancel, progress: &|line| say!("{name}: {line}") };
    let (limits, today) = (Limits::default(), jiff::Zoned::now().date());
    let pin = |url: String, digest, bytes| Pin {
        name: entry.name.clone(),
        arch: entry.arch,
        url,
        digest,
        bytes,
        resolved: today,
    };
    match resolve(entry, &|url| fetch_text(url, LONGEST_LIST, &limits, &control)) {
        Ok(Some(Resolved { url, digest, bytes, trust })) => {
            match trust {
                Trust::Verified => say!("{name}: signature verified"),
                Trust::NotChecked(why) => say!("{name}: signature not checked: {why}"),
            }
            Some(pin(url, digest, bytes))
        }
        // Nobody to ask: the catalog's word is what there is.
        Ok(None) => match file.digest {
            Some(digest) => {
                say!("{name}: no list of digests is known: pinned as the catalog has it");
                Some(pin(urls.first()?.clone(), digest, None))
            }
            None => {
                *failed = true;
                say!(
                    "{name}: neither a digest nor a list of digests is known\n{name}: help: add `digest` or `checksums` to its entry"
                );
                None
            }
        },
        Err(error) => {
            *failed = true;
            say!("{name}: {}\n{name}: help: {}", reports::clean::line(&error.kind.to_string()), error.kind.help());
            None
        }
    }
}

/// What changed, a line for each value; `None`: nothing.
fn line(name: &str, change: &Change) -> Option<String> {
    let size = |pin: &Pin| pin.bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
    match change {
        Change::Unchanged(_) => None,
        Change::Added(pin) => Some(format!("{name}: new\n    {}\n    {}\n", pin.url, pin.digest.short())),
        Change::Replaced { old, new } => {
            let mut text = format!("{name}: changed\n    digest {} -> {}\n", old.digest.short(), new.digest.short());
            if old.url != new.url {
                text += &format!("    url {} -> {}\n", old.url, new.url);
            }
            if old.bytes != new.bytes {
                text += &format!("    bytes {} -> {}\n", size(old), size(new));
            }
            Some(text)
        }
    }
}
