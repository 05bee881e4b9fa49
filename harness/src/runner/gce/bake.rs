//! An image family for L1s: a stock image with QEMU in it, so that a run's machine is ready when it is up.
//!
//! It is made where it is used: a machine is created, installs QEMU with the same start-up script as an L1, writes everything to its disk,
//! and that becomes the image. Nothing is uploaded, no bucket is needed, and Google's guest environment stays as its publisher made it. An
//! image needs no licence for nesting: that is a flag of each instance (Google's page on enabling nested virtualization).
//!
//! The machine is not stopped for it: one that is stopped has no longest time any more, and would stay if nobody were there to delete it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reports::Trouble;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    super::qemu::interrupted,
    await_l1,
    check::failed,
    held::{Cloud, Held, Uncreated, request_id},
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

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Baked {
    /// The image's name; or why there is none.
    pub(crate) image: Result<String, Trouble>,
    /// What may be left, for people.
    pub(crate) left: Option<String>,
}

/// Bakes it. Must be raced with nothing: it deletes its machine when it is stopped. The run of `mark` must live, and be noted: else
/// another run of the store takes the machine for a dead run's, or nobody does.
pub(crate) async fn bake(
    cloud: &Arc<Cloud>,
    recipe: &Recipe,
    mark: Mark<'_>,
    stop: &CancellationToken,
    progress: &(dyn Fn(String) + Sync),
) -> Baked {
    let name = format!("{}-{}", recipe.family, jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"));
    let mut held = Held::new(cloud, &recipe.zone, mark.name(), LONGEST);
    progress(format!("creating the instance {} in {}", held.name, recipe.zone));
    let image = match held.create(body(cloud, recipe, mark, &held.name), stop).await {
        Err(Uncreated::Stopped) => Err(interrupted()),
        Err(Uncreated::Failed(error)) => Err(failed(error)),
        Ok(()) => make(cloud, recipe, (&held, &name), stop, progress).await,
    };
    progress(format!("deleting the instance {}", held.name));
    let left = held.delete().await;
    Baked { image: image.map(|()| name), left }
}

/// What creates its machine.
fn body(cloud: &Cloud, recipe: &Recipe, mark: Mark<'_>, name: &str) -> serde_json::Value {
    let labels =
        [(OWNER_LABEL, mark.owner), (RUN_LABEL, mark.run)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let project = recipe.from.project.as_deref().unwrap_or(&cloud.project);
    InstanceSpec {
        name,
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
        labels: &BTreeMap::from(labels),
        max_seconds: LONGEST.as_secs(),
        user: "nobody",
        keys: &[],
        startup: &STARTUP.replacen("purpose=run", "purpose=bake", 1),
    }
    .body()
}

async fn make(
    cloud: &Cloud,
    recipe: &Recipe,
    (held, name): (&Held, &str),
    stop: &CancellationToken,
    progress: &(dyn Fn(String) + Sync),
) -> Result<(), Trouble> {
    let compute = cloud.compute();
    tokio::select! {
        biased;
        () = stop.cancelled() => return Err(interrupted()),
        ready = await_l1::ready(&compute, held.at(), progress) => drop(ready?),
    }
    // From here on it is made: half an image, or one that nobody knows of, would be the newest of its family.
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
