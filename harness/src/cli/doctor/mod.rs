//! `doctor`: is this machine fit, and if not, what to do.
//!
//! First everything is read ([`facts`]), then judged ([`basics`], [`virtualization`]: plain functions, with no machine below
//! them), then printed ([`finding`]).

mod basics;
mod facts;
mod finding;
mod remedy;
mod virtualization;

use images::Store;

use self::{facts::Facts, finding::State};
use super::{Failure, Outcome, args, print};

pub(super) async fn doctor(args: &args::Doctor) -> Outcome {
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
