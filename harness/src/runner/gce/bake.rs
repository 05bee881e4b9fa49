//! An image family for L1s: a stock image with QEMU in it, so that a run's machine is ready when it is up.
//!
//! It is made where it is used: a machine is created, installs QEMU with the same start-up script as an L1, is stopped, and its disk becomes
//! the image. Nothing is uploaded, no bucket is needed, and Google's guest environment stays as its publisher made it. An image needs no licence
//! for nesting: that is a flag of each instance (Google's page on enabling nested virtualization).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use reports::Trouble;
use serde_json::json;

use super::{
    await_l1,
    check::failed,
    held::{Cloud, Held, request_id},
    intended::{Mark, STARTUP},
};
use crate::gce::{InstanceSpec, OWNER_LABEL, RUN_LABEL};

/// What is baked.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) zone: String,
    /// The family that the image joins.
    pub(crate) family: String,
    /// What it is made from.
    pub(crate) from: matrix::GceImage,
    pub(crate) network: Option<String>,
    pub(crate) subnet: Option<String>,
    pub(crate) external_ip: bool,
}

const MACHINE_TYPE: &str = "n2-standard-2";
const DISK_GIB: u64 = 10;
/// The machine goes after so long, whatever happens here.
const LONGEST: Duration = Duration::from_secs(3600);

/// Bakes it; the name of the image. Must be raced with nothing: it deletes its machine when `stop` is done. The run of `mark` must live: else
/// another run of the store takes the machine for a dead run's.
pub(crate) async fn bake(
    cloud: &Arc<Cloud>,
    recipe: &Recipe,
    mark: Mark<'_>,
    stop: impl Future<Output = ()>,
    progress: &(dyn Fn(String) + Sync),
) -> Result<String, Trouble> {
    let name = format!("{}-{}", recipe.family, jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"));
    let mut held = Held {
        cloud: Arc::clone(cloud),
        zone: recipe.zone.clone(),
        name: mark.name(),
        since: Instant::now(),
        longest: LONGEST,
        told: None,
        unsure: true,
        gone: false,
    };
    let baked = tokio::select! {
        baked = baked(cloud, recipe, mark, (&held, &name), progress) => baked,
        () = stop => Err(super::super::qemu::interrupted()),
    };
    progress(format!("deleting the instance {}", held.name));
    held.delete().await.into_iter().for_each(progress);
    baked.map(|()| name)
}

async fn baked(
    cloud: &Cloud,
    recipe: &Recipe,
    mark: Mark<'_>,
    (held, name): (&Held, &str),
    progress: &(dyn Fn(String) + Sync),
) -> Result<(), Trouble> {
    let (compute, at) = (cloud.compute(), held.at());
    let labels =
        [(OWNER_LABEL, mark.owner), (RUN_LABEL, mark.run)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let labels = BTreeMap::from(labels);
    let project = recipe.from.project.as_deref().unwrap_or(&cloud.project);
    let body = InstanceSpec {
        name: &held.name,
        project: &cloud.project,
        zone: &recipe.zone,
        machine_type: MACHINE_TYPE,
        image: &format!("projects/{project}/global/images/family/{}", recipe.from.family),
        disk_gib: DISK_GIB,
        cache_disk: None,
        spot: false,
        network: recipe.network.as_deref(),
        subnet: recipe.subnet.as_deref(),
        external_ip: recipe.external_ip,
        labels: &labels,
        max_seconds: LONGEST.as_secs(),
        user: "nobody",
        keys: &[],
        startup: &STARTUP.replacen("purpose=run", "purpose=bake", 1),
    }
    .body();
    progress(format!("creating the instance {} in {}", held.name, recipe.zone));
    let operation = compute.insert(at, body, &request_id()).await.map_err(failed)?;
    let what = format!("create the instance {}", held.name);
    compute.done(&what, Some(&recipe.zone), operation).await.map_err(failed)?;
    await_l1::ready(&compute, at, progress).await?;
    progress(format!("stopping the instance {}", held.name));
    compute.stop(at, &request_id()).await.map_err(failed)?;
    progress(format!("making the image {name}"));
    let body = json!({
        "name": name,
        "family": recipe.family,
        "description": format!("L1s of nestmatrix: {} with QEMU", recipe.from),
        "labels": { "nestmatrix": "l1" },
        // The boot disk has the instance's name.
        "sourceDisk": format!("projects/{}/zones/{}/disks/{}", cloud.project, recipe.zone, held.name),
    });
    compute.insert_image(name, body, &request_id()).await.map_err(failed)
}
