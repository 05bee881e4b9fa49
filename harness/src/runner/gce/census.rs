//! Instances of nestmatrix that a project has, and whose they are: what dead runs left is found by its labels, and deleted.

use std::path::Path;

use reports::Trouble;

use super::{
    check::failed,
    held::{Cloud, Created, DELETE, deleted},
    owner::{Whose, whose},
};
use crate::gce::{ApiError, ApiErrorKind, InZone, Instance, OURS, OWNER_LABEL, RUN_LABEL};

/// An instance of ours.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) instance: Instance,
    pub(crate) whose: Whose,
}

impl Found {
    /// Name of its run.
    pub(crate) fn run(&self) -> &str {
        self.instance.labels.get(RUN_LABEL).map_or("", String::as_str)
    }
}

/// All of them. `store` is that of `owner`.
pub(crate) async fn census(cloud: &Cloud, store: &Path, owner: &str) -> Result<Vec<Found>, ApiError> {
    let instances = cloud.compute().instances(OURS).await?;
    let there = instances.into_iter().filter(|instance| instance.labels.contains_key(OWNER_LABEL));
    let found = there.map(|instance| {
        let is_ours = instance.labels.get(OWNER_LABEL).is_some_and(|label| label == owner);
        let run = instance.labels.get(RUN_LABEL).map_or("", String::as_str);
        Found { whose: if is_ours { whose(store, run) } else { Whose::Elsewhere }, instance }
    });
    Ok(found.collect())
}

/// Deletes one of them and waits until it is gone; else why not.
pub(crate) async fn delete(cloud: &Cloud, found: &Found) -> Result<(), String> {
    let at = InZone { zone: found.instance.zone(), name: &found.instance.name };
    let late = |_| Err(format!("timeout: it was not deleted within {} s", DELETE.as_secs()));
    tokio::time::timeout(DELETE, deleted(cloud, at, &Created::Yes)).await.unwrap_or_else(late)
}

/// Deletes the instances that dead runs of this store left; `say` receives a line before and after each. The error: Compute Engine does not
/// answer, does not accept our credentials, or has no such project.
pub(crate) async fn sweep(cloud: &Cloud, store: &Path, owner: &str, say: impl Fn(String)) -> Result<(), Trouble> {
    let found = match census(cloud, store, owner).await {
        Ok(found) => found,
        Err(error)
            if matches!(
                error.kind,
                ApiErrorKind::Unreachable | ApiErrorKind::Unauthenticated | ApiErrorKind::NotFound
            ) =>
        {
            return Err(failed(error));
        }
        Err(error) => {
            say(format!("could not look for instances that dead runs left on Compute Engine: {error}"));
            return Ok(());
        }
    };
    for dead in found.iter().filter(|found| found.whose == Whose::Dead) {
        let (name, zone) = (&dead.instance.name, dead.instance.zone());
        say(format!("the dead run {} has left the instance {name} in {zone}: deleting it", dead.run()));
        say(match delete(cloud, dead).await {
            Ok(()) => format!("deleted the instance {name} in {zone}"),
            Err(why) => format!("the instance {name} in {zone} was not deleted: {why}"),
        });
    }
    Ok(())
}
