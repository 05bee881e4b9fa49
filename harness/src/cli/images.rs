//! `images`: the catalog and the store.

use std::{path::PathBuf, sync::Arc};

use images::{Catalog, Store};
use reports::EventKind;

use super::{Failure, Outcome, args, print, table};
use crate::{events::Events, fanout::Stop, run};

pub(super) async fn images(verb: args::Images) -> Outcome {
    match verb {
        args::Images::List { store } => list(store.path()?),
        args::Images::Prepare { names, refresh, store } => prepare(names, refresh, store.path()?).await,
    }
}

fn open(root: &std::path::Path) -> Result<Store, Failure> {
    Store::open(root).map_err(|error| Failure::message(2, error))
}

fn list(root: PathBuf) -> Outcome {
    let store = open(&root)?;
    let header = ["IMAGE", "TITLE", "STATE", "SIZE", "PACKAGES", "DIGEST", "BUILT"].map(str::to_owned).to_vec();
    let rows = store.list().into_iter().map(|status| {
        let none = || "-".to_owned();
        match status.present {
            Some(present) => vec![
                status.name,
                status.title,
                "in the store".to_owned(),
                format!("{} MiB", present.bytes >> 20),
                present.packages.to_string(),
                present.digest.short(),
                present.built_at.strftime("%Y-%m-%d").to_string(),
            ],
            None => vec![status.name, status.title, "not built".to_owned(), none(), none(), none(), none()],
        }
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

/// Refuses names that the catalog does not have.
pub(super) fn check(names: &[String]) -> Result<(), Failure> {
    let Some(unknown) = names.iter().find(|name| Catalog::shipped().get(name).is_none()) else { return Ok(()) };
    let known = Catalog::shipped().names().join("`, `");
    let report = miette::miette!(help = format!("the catalog has `{known}`"), "there is no image `{unknown}`");
    Err(Failure::usage(report))
}

async fn prepare(names: Vec<String>, refresh: bool, root: PathBuf) -> Outcome {
    check(&names)?;
    let store = Arc::new(open(&root)?);
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
    let known = |name: String| Some((name.clone(), Catalog::shipped().get(&name)?.clone()));
    let entries: Vec<_> = names.into_iter().filter_map(known).collect();
    let prepared = run::prepare_all(&store, &entries, 1, refresh, &events, &stop.drain).await;
    events.send(EventKind::RunFinished { elapsed_ms: 0 });
    let _ = shown.await;
    for (name, missing) in prepared.iter().filter_map(|(name, image)| Some((name, image.as_ref().err()?))) {
        if let Some(help) = &missing.help {
            eprintln!("{name}: help: {help}");
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
        EventKind::ImageProgress { image, message } => eprintln!("{image}: {}", reports::clean::line(message)),
        EventKind::ImageReady { image, digest, cached, elapsed_ms } => {
            let how = if *cached { "in the store" } else { "built" };
            eprintln!("{image}: {how}, {digest} ({:.1} s)", *elapsed_ms as f64 / 1000.0);
        }
        EventKind::ImageFailed { image, reason, tail } => {
            eprintln!("{image}: failed: {}", reports::clean::line(reason));
            for line in tail {
                eprintln!("    {}", reports::clean::line(line));
            }
        }
        EventKind::RunFinished { .. } => return true,
        _ => {}
    }
    false
}
