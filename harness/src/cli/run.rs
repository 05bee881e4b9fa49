//! `run`: a matrix from plan to exit code.

use matrix::Plan;

use super::{Failure, Outcome, args, catalog, matrix_file};
use crate::{
    fanout::Purpose,
    guest::Spawner,
    run::{Options, RunError, Start, locate},
};

pub(super) async fn run(args: args::Run) -> Outcome {
    let (start, known, notes) = match args.resume {
        Some(run) => {
            // Of a folder without a plan, the run itself says what is wrong.
            let plan = locate(&run).and_then(|folder| Plan::read(&folder.join("plan.json")).ok());
            let known = catalog::read(&args.which.catalog, plan.as_ref().map(|plan| plan.matrix.as_path()))?;
            (Start::Resume(run), known, Vec::new())
        }
        None => {
            let matrix_file::Loaded { plan, known } = matrix_file::load_to_run(&args.which)?;
            let notes = known.unpinned(&plan).into_iter().collect();
            let plan = match args.runner {
                Some(args::Runner::Here(kind)) => plan.on(kind),
                Some(args::Runner::Ssh(host)) => plan.on_host(host, args.identity),
                None => plan,
            };
            (Start::Plan(Box::new(plan)), known, notes)
        }
    };
    let templates = args.limit.templates;
    let store = args.which.store.path()?;
    let options = Options {
        cold: args.cold,
        catalog: known.catalog,
        notes,
        offline: args.offline,
        templates,
        out: args.out,
        store,
        jobs: args.jobs.map(usize::from),
        keep: args.keep,
        purpose: Purpose::Test,
        format: args.message_format,
    };
    let spawner = Spawner::start().map_err(|error| Failure::message(2, error))?;
    let finished = crate::run::run(start, &spawner, &options).await.map_err(failure)?;
    Ok(finished.run.exit_code())
}

/// A run that could not be started or recorded.
pub(super) fn failure(error: RunError) -> Failure {
    let code = error.exit_code();
    Failure::caused(code, error)
}
