//! `images show`: everything that is known of one image.

use std::path::Path;

use images::{Entry, Origin, Published, Source};
use serde::Serialize;

use super::{
    super::{args::Format, pretty, table},
    Known, Outcome, entry, is_past, open, print, state, word,
};

/// What is shown, under the names that programs read.
#[derive(Serialize)]
struct Shown {
    name: String,
    title: String,
    arch: matrix::Arch,
    family: Option<matrix::PackageFamily>,
    end_of_life: Option<String>,
    past_end_of_life: bool,
    login_user: String,
    default_user: Option<String>,
    firmware: Option<matrix::Firmware>,
    source: &'static str,
    urls: Vec<String>,
    digest: Option<String>,
    checksums: Option<String>,
    /// `pinned` and the day, `not pinned`, or that there is no lock.
    lock: String,
    state: &'static str,
    store: Option<Stored>,
}

#[derive(Serialize)]
struct Stored {
    digest: String,
    disk: String,
    bytes: u64,
    packages: usize,
    built_at: String,
}

pub(super) fn show(known: &Known, name: &str, format: Format, root: &Path) -> Outcome {
    let entry = entry(&known.catalog, name)?;
    let present = open(root)?.look(entry);
    let (source, file, firmware) = origin(entry);
    let lock = match &known.pins {
        None => format!("there is no {}", known.lock.display()),
        Some(pins) => pins
            .get(&entry.name, entry.arch)
            .map_or_else(|| "not pinned".to_owned(), |pin| format!("pinned on {}", pin.resolved)),
    };
    let shown = Shown {
        name: entry.name.clone(),
        title: entry.title.clone(),
        arch: entry.arch,
        family: entry.family,
        end_of_life: entry.end_of_life.clone(),
        past_end_of_life: is_past(entry),
        login_user: entry.login_user.clone(),
        default_user: entry.upstream.default_user.clone(),
        firmware,
        source,
        urls: file.map(|file| urls(&file.origin)).unwrap_or_default(),
        digest: file.and_then(|file| file.digest).map(|digest| digest.to_string()),
        checksums: entry.upstream.checksums.as_ref().map(|list| list.url.clone()),
        lock,
        state: state(entry, present.as_ref()),
        store: present.map(|present| Stored {
            digest: present.digest.to_string(),
            disk: present.disk.display().to_string(),
            bytes: present.bytes,
            packages: present.packages,
            built_at: present.built_at.to_string(),
        }),
    };
    match format {
        Format::Json => print(&pretty(&shown)?),
        Format::Table => print(&text(shown)),
    }
}

fn origin(entry: &Entry) -> (&'static str, Option<&Published>, Option<matrix::Firmware>) {
    match &entry.source {
        Source::Bootstrap(_) => ("built here of packages", None, None),
        Source::Disk { file, firmware } => ("a published disk", Some(file), *firmware),
        Source::Rootfs(file) => ("a published root file system", Some(file), None),
    }
}

fn urls(origin: &Origin) -> Vec<String> {
    match origin {
        Origin::Urls(urls) => urls.clone(),
        Origin::Path(path) => vec![path.display().to_string()],
    }
}

fn text(shown: Shown) -> String {
    let end = shown.end_of_life.map(|end| if shown.past_end_of_life { format!("{end} (past)") } else { end });
    let mut rows = vec![
        ("name", Some(shown.name)),
        ("title", Some(shown.title)),
        ("architecture", Some(shown.arch.to_string())),
        ("packages are", shown.family.map(|family| word(Some(family)))),
        ("end of life", end),
        ("source", Some(shown.source.to_owned())),
    ];
    rows.extend(shown.urls.into_iter().map(|url| ("url", Some(url))));
    rows.extend([
        ("digest", shown.digest),
        ("digests are in", shown.checksums),
        ("firmware", shown.firmware.map(|firmware| firmware.to_string())),
        ("login as", Some(shown.login_user)),
        ("its own user", shown.default_user),
        ("images.lock", Some(shown.lock)),
        ("state", Some(shown.state.to_owned())),
    ]);
    if let Some(stored) = shown.store {
        rows.extend([
            ("disk", Some(stored.disk)),
            ("size", Some(format!("{} MiB", stored.bytes >> 20))),
            ("content", Some(stored.digest)),
            ("packages", (stored.packages > 0).then(|| stored.packages.to_string())),
            ("made", Some(stored.built_at)),
        ]);
    }
    table(rows.into_iter().filter_map(|(key, value)| Some(vec![key.to_owned(), value?])))
}
