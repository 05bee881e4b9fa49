//! `gce`: what nestmatrix has on Compute Engine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use reports::TroubleKind;

use super::{Failure, Outcome, args};
use crate::{
    gce::{ApiError, Client, Settings},
    run::RunFolder,
    runner::{Baked, Cloud, FoundInstance, Mark, Recipe, Whose, bake, census, delete_instance, note, owner},
    scratch::Scratch,
};

pub(super) async fn gce(verb: args::Gce) -> Outcome {
    match verb {
        args::Gce::List(of) => {
            let (cloud, found) = look(&of).await?;
            super::print(&table(&cloud.project, &found))?;
            Ok(0)
        }
        args::Gce::Bake(args) => bake_family(args).await,
        args::Gce::Cleanup { of, all } => cleanup(&of, all).await,
    }
}

async fn look(of: &args::GceProject) -> Result<(Cloud, Vec<FoundInstance>), Failure> {
    let (cloud, store) = cloud(of)?;
    let found = census(&cloud, &store, &owner_of(&store)?).await.map_err(failed)?;
    Ok((cloud, found))
}

fn cloud(of: &args::GceProject) -> Result<(Cloud, PathBuf), Failure> {
    let settings = Settings::read();
    let project = of.project.clone().or_else(|| settings.project.clone()).ok_or_else(|| {
        Failure::message(2, "no project: add `--project`, set CLOUDSDK_CORE_PROJECT, or `gcloud config set project`")
    })?;
    valid(matrix::gce_value::project(&project))?;
    let store = of.store.path()?;
    std::fs::create_dir_all(&store).map_err(|error| Failure::message(2, format!("{}: {error}", store.display())))?;
    let client = Client::new(&settings).map_err(failed)?;
    Ok((Cloud { client, settings, project }, store))
}

/// What comes from the environment goes into addresses, too.
fn valid<T>(value: Result<T, matrix::GceValueError>) -> Result<(), Failure> {
    value.map(drop).map_err(|error| Failure::message(2, error.to_string()))
}

fn owner_of(store: &Path) -> Result<String, Failure> {
    owner(store).map_err(|error| Failure::message(2, format!("{}: {error}", store.display())))
}

async fn bake_family(args: args::Bake) -> Outcome {
    let (cloud, store) = cloud(&args.of)?;
    let zone = args.zone.or_else(|| cloud.settings.zone.clone()).ok_or_else(|| {
        Failure::message(2, "no zone: add `--zone`, set CLOUDSDK_COMPUTE_ZONE, or `gcloud config set compute/zone`")
    })?;
    valid(matrix::gce_value::zone(&zone))?;
    let owner = owner_of(&store)?;
    let recipe = Recipe {
        zone,
        family: args.family,
        from: args.from,
        network: args.network,
        subnet: args.subnet,
        external_ip: args.external_ip,
    };
    let stop = crate::run::interruption().map_err(|error| Failure::message(2, format!("signals: {error}")))?;
    let run = format!("bake-{}", RunFolder::new_name());
    let _alive = Scratch::create(&store, &run).map_err(|error| Failure::message(2, error))?;
    note(&store, &run).map_err(|error| Failure::message(2, format!("{}: {error}", store.display())))?;
    let mark = Mark { owner: &owner, run: &run, number: 1 };
    let progress = |message: String| say!("{message}");
    let Baked { image, left } = bake(&Arc::new(cloud), &recipe, mark, &stop, &progress).await;
    if let Some(left) = &left {
        say!("{left}");
    }
    match image {
        Ok(name) => {
            super::print(&format!(
                "made the image {name}; L1s boot from it with `image = \"{family}\"` in `[runner]`, or `--gce-image {family}`",
                family = recipe.family
            ))?;
            Ok(if left.is_some() { 3 } else { 0 })
        }
        Err(trouble) if trouble.kind == TroubleKind::Interrupted => Ok(130),
        Err(trouble) => Err(match trouble.help {
            Some(help) => Failure { report: miette::miette!(help = help, "{}", trouble.reason), code: 3 },
            None => Failure::message(3, trouble.reason),
        }),
    }
}

fn failed(error: ApiError) -> Failure {
    let text = error.to_string();
    match error.help {
        Some(help) => Failure { report: miette::miette!(help = help, "{text}"), code: 3 },
        None => Failure::message(3, text),
    }
}

async fn cleanup(of: &args::GceProject, all: bool) -> Outcome {
    let (cloud, found) = look(of).await?;
    let goes = |found: &&FoundInstance| match found.whose {
        Whose::Dead => true,
        Whose::Elsewhere => all,
        Whose::Alive => false,
    };
    let (mut text, mut left) = (String::new(), false);
    for found in found.iter().filter(goes) {
        let (name, zone) = (&found.instance.name, found.instance.zone());
        say!("deleting {name} in {zone}");
        match delete_instance(&cloud, found).await {
            Ok(()) => text += &format!("deleted {name} in {zone}\n"),
            Err(why) => {
                left = true;
                text += &format!("{name} in {zone} was not deleted: {why}\n");
            }
        }
    }
    let others = found.iter().filter(|found| found.whose == Whose::Elsewhere && !all).count();
    if text.is_empty() {
        text = format!("no dead run of this machine has left an instance in the project {}\n", cloud.project);
    }
    if others > 0 {
        text += &format!(
            "{others} of other machines or stores are there, and their runs may live: `nestmatrix gce list` shows them, `--all` deletes them\n"
        );
    }
    super::print(&text)?;
    Ok(if left { 3 } else { 0 })
}

/// `1h 20m`; what is no time is shown as it is.
fn age(since: &str) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return since.to_owned() };
    let seconds = jiff::Timestamp::now().duration_since(since).as_secs().max(0);
    // Whole minutes are enough.
    let shown = if seconds < 60 { seconds } else { seconds / 60 * 60 };
    format!("{:#}", jiff::SignedDuration::from_secs(shown))
}

fn table(project: &str, found: &[FoundInstance]) -> String {
    if found.is_empty() {
        return format!("nestmatrix has no instance in the project {project}\n");
    }
    let heads = ["INSTANCE", "ZONE", "TYPE", "STATUS", "AGE", "RUN"].map(str::to_owned).to_vec();
    let rows = found.iter().map(|found| {
        let instance = &found.instance;
        let run = match found.whose {
            Whose::Alive => "runs on this machine",
            Whose::Dead => "dead: `nestmatrix gce cleanup` deletes it",
            Whose::Elsewhere => "of another machine or store",
        };
        let cells = [
            &instance.name,
            instance.zone(),
            instance.machine_type(),
            &instance.status,
            &age(&instance.creation_timestamp),
            run,
        ];
        cells.map(reports::clean::line).to_vec()
    });
    super::table(std::iter::once(heads).chain(rows))
}
