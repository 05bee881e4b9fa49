//! `bench-nesting`: what nesting costs here.

use std::path::Path;

use super::{Failure, Outcome, args, images, pretty, print, table};
use crate::{
    bench::{self, Comparison, Request},
    guest::Spawner,
};

pub(super) async fn bench_nesting(args: args::BenchNesting) -> Outcome {
    images::check(std::slice::from_ref(&args.image))?;
    let request = Request { image: args.image, rounds: args.rounds, store: args.store.path()? };
    let spawner = Spawner::start().map_err(|error| Failure::message(2, error))?;
    let comparison = bench::compare(&request, &spawner).await;
    let comparison = comparison.map_err(|error| Failure::caused(error.exit_code(), error))?;
    match args.format {
        args::Format::Json => print(&pretty(&comparison)?),
        args::Format::Table => print(&text(&comparison)),
    }
}

fn text(comparison: &Comparison) -> String {
    let mut text = table(comparison.rows());
    for note in comparison.notes() {
        text += &format!("\n* {note}");
    }
    text
}

/// The work itself, in the current folder.
pub(super) fn bench_work(args: &args::BenchWork) -> Outcome {
    let times = bench::work(args.rounds, Path::new(".")).map_err(|error| Failure::message(3, error))?;
    // One line, so that a script can read it from a log.
    print(&serde_json::to_string(&times).map_err(|error| Failure::message(3, error))?)
}
