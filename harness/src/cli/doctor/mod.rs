//! `doctor`: is this machine fit, and if not, what to do.
//!
//! Another machine is asked over SSH ([`elsewhere`]). Of this one, first everything is read ([`facts`]), then judged ([`basics`], [`virtualization`]: plain functions, with no machine below
//! them), then printed ([`finding`]).

mod basics;
mod elsewhere;
mod facts;
mod finding;
mod remedy;
mod virtualization;

use images::Store;

use self::{facts::Facts, finding::State};
use super::{Failure, Outcome, args, print};
use crate::guest::Spawner;

pub(super) async fn doctor(args: &args::Doctor) -> Outcome {
    match &args.runner {
        Some(args::Runner::Ssh(host)) => return another(host, args.identity.as_deref()).await,
        Some(args::Runner::Here(_) | args::Runner::Gce) => {
            return Err(Failure::message(
                2,
                "`doctor` looks at this machine, or with `--runner ssh:user@host:port` at another",
            ));
        }
        None => {}
    }
    let root = match &args.store.store {
        Some(folder) => folder.clone(),
        None => Store::default_root().map_err(|error| Failure::message(2, error))?,
    };
    let facts = Facts::read(&root, args.fresh).await.map_err(|error| Failure::message(3, error))?;
    let mut findings = basics::findings(&facts.basics);
    findings.extend(virtualization::findings(&facts.virtualization));
    print(&finding::render(&findings))?;
    Ok(if findings.iter().any(|finding| finding.state == State::Bad) { 3 } else { 0 })
}

async fn another(host: &matrix::SshHost, identity: Option<&std::path::Path>) -> Outcome {
    let way = crate::runner::Way::Users { identity: identity.map(std::path::Path::to_owned) };
    let spawner = Spawner::start().map_err(|error| Failure::message(2, error))?;
    let found = crate::runner::look(host, &way, &spawner).await.map_err(|trouble| Failure {
        report: match trouble.help {
            Some(help) => miette::miette!(help = help, "{}", trouble.reason),
            None => miette::miette!("{}", trouble.reason),
        },
        code: 3,
    })?;
    let findings = elsewhere::findings(&found);
    print(&finding::render(&findings))?;
    Ok(if findings.iter().any(|finding| finding.state == State::Bad) { 3 } else { 0 })
}
