//! `images`: the catalog, the store, and what a matrix's images are pinned to.

mod gc;
mod list;
mod prepare;
mod show;
mod update;
mod verify;

use std::path::Path;

use images::{Catalog, Entry, PresentImage, Source, Store};

use super::{
    Failure, Outcome, args,
    catalog::{self, Known},
    print,
};

pub(super) async fn images(verb: args::Images, own: &args::CatalogFile) -> Outcome {
    let here = || catalog::read(own, None);
    match verb {
        args::Images::List { all, store } => list::list(&here()?, all, &store.path()?),
        args::Images::Show { name, format, store } => show::show(&here()?, &name, format, &store.path()?),
        args::Images::Prepare { names, matrix, refresh, offline, store } => {
            let entries = match matrix {
                Some(matrix) => prepare::of_matrix(matrix, own, &store)?,
                None => prepare::named(&here()?.catalog, names)?,
            };
            prepare::prepare(entries, prepare::way(refresh, offline), &store.path()?).await
        }
        args::Images::Verify { names, store } => verify::verify(&here()?.catalog, &names, &store.path()?),
        args::Images::Path { name, store } => path(&here()?, &name, &store.path()?),
        args::Images::Gc { keep_days, dry_run, frozen, store } => {
            gc::gc(&here()?, keep_days, frozen, dry_run, &store.path()?)
        }
        args::Images::Update { matrix, names, check, store } => {
            let which = args::Which { matrix, cells: Vec::new(), catalog: own.clone(), store };
            let updated = tokio::task::spawn_blocking(move || update::update(&which, &names, check));
            updated.await.unwrap_or_else(|error| Err(Failure::message(3, error)))
        }
    }
}

fn open(root: &Path) -> Result<Store, Failure> {
    Store::open(root).map_err(|error| Failure::message(2, error))
}

/// The entry of this name, or what names there are.
fn entry<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Entry, Failure> {
    catalog.get(name).ok_or_else(|| {
        let names: Vec<&str> = catalog.entries().iter().map(|entry| entry.name.as_str()).collect();
        let otherwise = "`nestmatrix images list --all` shows those of the catalog; those of a matrix are prepared with `--matrix FILE`";
        Failure::usage(miette::miette!(help = matrix::near_help(name, &names, otherwise), "there is no image `{name}`"))
    })
}

/// Refuses names that the shipped catalog does not have.
pub(super) fn check(names: &[String]) -> Result<(), Failure> {
    names.iter().try_for_each(|name| entry(Catalog::shipped(), name).map(drop))
}

fn path(known: &Known, name: &str, root: &Path) -> Outcome {
    let entry = entry(&known.catalog, name)?;
    match open(root)?.look(entry) {
        Some(PresentImage { disk, .. }) => print(&disk.display().to_string()),
        None => {
            let help = format!("`nestmatrix images prepare {name}` puts it there");
            Err(Failure { code: 3, report: miette::miette!(help = help, "`{name}` is not in the store") })
        }
    }
}

/// Whether it is past its end of life.
fn is_past(entry: &Entry) -> bool {
    let today = jiff::Zoned::now().date().to_string();
    entry.end_of_life.as_ref().is_some_and(|end| *end < today)
}

/// The name of a value as it is written, or what stands for none.
fn word(value: Option<impl serde::Serialize>) -> String {
    let written = value.and_then(|value| serde_json::to_value(value).ok());
    written.as_ref().and_then(|value| value.as_str()).unwrap_or("-").to_owned()
}

/// What has to be done before it can be used.
fn state(entry: &Entry, present: Option<&PresentImage>) -> &'static str {
    match (&entry.source, present) {
        (_, Some(_)) => "in the store",
        (Source::Bootstrap(_), None) => "not built",
        (Source::Disk { file, .. } | Source::Rootfs(file), None) if file.digest.is_none() => "not pinned",
        (_, None) => "not fetched",
    }
}
