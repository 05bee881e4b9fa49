//! `run`: a matrix from plan to exit code.

use super::{Failure, Outcome, args, matrix_file};
use crate::{
    fanout::Purpose,
    guest::Spawner,
    run::{Options, RunError, Start},
};

pub(super) async fn run(args: args::Run) -> Outcome {
    let start = match args.resume {
        Some(run) => Start::Resume(run),
        None => {
            let plan = matrix_file::load(&args.which)?;
            let plan = match args.runner {
                Some(runner) => plan.on(runner.into()),
                None => plan,
            };
            Start::Plan(Box::new(plan))
        }
    };
    let templates = args.store.templates;
    let store = args.store.path()?;
    let options = Options {
        cold: args.cold,
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
