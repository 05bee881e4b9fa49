//! `images prepare`: images are there before a run needs them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use images::{Catalog, Entry};
use reports::EventKind;

use super::{
    super::{args, matrix_file},
    Failure, Outcome, entry, open,
};
use crate::{
    events::Events,
    fanout::Stop,
    run::{self, FetchPolicy},
};

/// The entries of these names.
pub(super) fn named(catalog: &Catalog, names: Vec<String>) -> Result<Vec<(String, Entry)>, Failure> {
    names.into_iter().map(|name| entry(catalog, &name).cloned().map(|entry| (name, entry))).collect()
}

/// The images of a matrix, each once.
pub(super) fn of_matrix(
    matrix: PathBuf,
    own: &args::CatalogFile,
    store: &args::StoreRoot,
) -> Result<Vec<(String, Entry)>, Failure> {
    let which = args::Which { matrix, cells: Vec::new(), catalog: own.clone(), store: store.clone() };
    let matrix_file::Loaded { plan, known, .. } = matrix_file::load(&which)?;
    let mut entries: Vec<(String, Entry)> = Vec::new();
    for image in &plan.images {
        let entry = Entry::of_matrix(&image.name, &image.source).or_else(|| known.catalog.get(&image.from).cloned());
        let entry = entry.ok_or_else(|| Failure::message(2, format!("there is no image `{}`", image.from)))?;
        if !entries.iter().any(|(name, _)| *name == image.from) {
            entries.push((image.from.clone(), entry));
        }
    }
    Ok(entries)
}

pub(super) fn way(refresh: bool, offline: bool) -> FetchPolicy {
    match (refresh, offline) {
        (_, true) => FetchPolicy::Offline,
        (true, false) => FetchPolicy::Refresh,
        (false, false) => FetchPolicy::Usual,
    }
}

pub(super) async fn prepare(entries: Vec<(String, Entry)>, way: FetchPolicy, root: &Path) -> Outcome {
    let store = Arc::new(open(root)?);
    let (events, mut received) = Events::channel();
    let stop = Stop::default();
    run::listen(stop.clone(), events.clone()).map_err(|error| Failure::message(2, error))?;
    let shown = tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            if show(&event.kind) {
                break;
            }
        }
    });
    let prepared = run::Preparing::start(&store, &entries, 1, way, &events, &stop.drain).all().await;
    events.send(EventKind::RunFinished { elapsed_ms: 0 });
    let _ = shown.await;
    for (name, missing) in prepared.iter().filter_map(|(name, image)| Some((name, image.as_ref().err()?))) {
        if let Some(help) = &missing.help {
            say!("{name}: help: {help}");
        }
    }
    let missing = prepared.values().filter(|image| image.is_err()).count();
    Ok(match (stop.drain.is_cancelled(), missing) {
        (true, _) => 130,
        (false, 0) => 0,
        (false, _) => 3,
    })
}

/// One line for each event; true at the end.
fn show(event: &EventKind) -> bool {
    match event {
        EventKind::ImageProgress { image, message } => say!("{image}: {}", reports::clean::line(message)),
        EventKind::ImageReady { image, digest, cached, elapsed_ms } => {
            let how = if *cached { "in the store" } else { "ready" };
            say!("{image}: {how}, its content is {digest} ({:.1} s)", *elapsed_ms as f64 / 1000.0);
        }
        EventKind::ImageFailed { image, trouble } => {
            say!("{image}: failed: {}", reports::clean::line(&trouble.reason));
            for line in &trouble.evidence {
                say!("    {}", reports::clean::line(line));
            }
        }
        EventKind::RunFinished { .. } => return true,
        _ => {}
    }
    false
}
