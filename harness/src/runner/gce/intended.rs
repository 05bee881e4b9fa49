//! What is to be created, from the plan and from what the Google Cloud CLI is set to. Pure.

use matrix::{GceRunner, Plan};
use reports::Trouble;

use super::{
    super::size,
    check::{self, unusable},
};
use crate::gce::{InstanceSpec, OWNER_LABEL, RUN_LABEL, Settings, choose};

/// Who logs in to it.
pub(super) const USER: &str = "nestmatrix";
/// Most CPUs that are chosen where the matrix names neither them nor a machine type: more of them cost more and idle longer.
const CPUS: u32 = 8;
const LEAST_CPUS: u32 = 2;
/// Size of a boot disk, in GiB: images, templates and the guests' overlays.
const DISK_GIB: u64 = 64;
/// The same of a disk that is made to stay.
const CACHE_GIB: u64 = 128;
pub(super) const STARTUP: &str = include_str!("startup.sh");

/// An L1 that could be created in one of these zones.
#[derive(Clone, Debug)]
pub(crate) struct Intended<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) gce: &'a GceRunner,
    pub(crate) project: String,
    /// Tried in this order.
    pub(crate) zones: Vec<String>,
    pub(crate) machine_type: String,
    /// Why that one.
    pub(crate) why: String,
    /// Memory that it must have, in MiB.
    pub(super) memory_mib: u64,
    /// What needs so much.
    pub(super) memory_for: String,
}

/// Resolves what the plan leaves open. The error is a mistake of the user's: nothing was asked of anybody.
pub(crate) fn intend<'a>(plan: &'a Plan, jobs: Option<usize>, settings: &Settings) -> Result<Intended<'a>, Trouble> {
    let gce =
        plan.runner.gce.as_ref().ok_or_else(|| unusable("the runner `gce` has no settings: a defect of nestmatrix"))?;
    let project = gce.project.clone().or_else(|| settings.project.clone()).ok_or_else(|| {
        let help =
            "add `project` to `[runner]` or `--gce-project`, set CLOUDSDK_CORE_PROJECT, or `gcloud config set project`";
        unusable("the runner `gce` has no project").with_help(help)
    })?;
    let zones = match (gce.zones.is_empty(), &settings.zone) {
        (false, _) => gce.zones.clone(),
        (true, Some(zone)) => vec![zone.clone()],
        (true, None) => {
            let help = "add `zones` to `[runner]` or `--gce-zone`, set CLOUDSDK_COMPUTE_ZONE, or `gcloud config set compute/zone`";
            return Err(unusable("the runner `gce` has no zone").with_help(help));
        }
    };
    // What comes from the environment goes into addresses, too.
    let wrong = |error: matrix::GceValueError| unusable(error.to_string());
    matrix::gce_value::project(&project).map_err(wrong)?;
    for zone in &zones {
        matrix::gce_value::zone(zone).map_err(wrong)?;
    }
    let (least, cell) = size::least_memory(plan).ok_or_else(|| unusable("the plan has no cells"))?;
    let (machine_type, why) = match &gce.machine_type {
        Some(machine_type) => (machine_type.clone(), "it was asked for".to_owned()),
        None => chosen(plan, jobs)?,
    };
    check::rules(&machine_type)?;
    let (memory, memory_for) = match plan.runner.memory {
        Some(asked) => {
            (size::memory(plan, 1, jobs), format!("`runner.memory` of {asked} with what the L1 needs itself"))
        }
        None => (least, format!("cell {cell} in an L1")),
    };
    Ok(Intended { plan, gce, project, zones, machine_type, why, memory_mib: memory.mib(), memory_for })
}

/// The cheapest type for the plan, and why.
fn chosen(plan: &Plan, jobs: Option<usize>) -> Result<(String, String), Trouble> {
    let guests = jobs.unwrap_or(usize::MAX).min(plan.cells.len());
    let mut wanted: Vec<u32> = plan.cells.iter().map(|cell| cell.guest.cpus).collect();
    wanted.sort_unstable_by(|one, other| other.cmp(one));
    let most = wanted.iter().take(guests).fold(0_u32, |sum, cpus| sum.saturating_add(*cpus));
    let largest = wanted.first().copied().unwrap_or(1);
    let cpus = plan.runner.cpus.unwrap_or_else(|| most.clamp(LEAST_CPUS, CPUS).max(largest));
    let memory = size::memory(plan, cpus, jobs);
    let shape = choose(cpus, memory.mib()).ok_or_else(|| {
        let reason = format!("no machine type of the series N2 has {cpus} CPUs and {} MiB of memory", memory.mib());
        let help = "name one (`runner.machine_type`, `--gce-machine-type`), or lower `runner.cpus` or `runner.memory`";
        unusable(reason).with_help(help)
    })?;
    let why = format!(
        "the cheapest Intel type with {cpus} CPUs and {} MiB, which the plan's guests can use at once: {} CPUs, {} MiB",
        memory.mib(),
        shape.cpus,
        shape.memory_mib
    );
    Ok((shape.name, why))
}

/// What makes an instance one of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'a> {
    /// See [`super::owner`].
    pub(crate) owner: &'a str,
    /// The run's name.
    pub(crate) run: &'a str,
    /// Counts the run's runners.
    pub(crate) number: u32,
}

impl Mark<'_> {
    /// The instance's name: at most 63 characters (RFC 1035).
    pub(crate) fn name(&self) -> String {
        format!("nestmatrix-{}-{}", self.run, self.number)
    }
}

/// A disk that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheDisk {
    /// The matrix names none, or another instance uses it.
    None,
    /// It exists, without our label.
    Foreign,
    /// It exists, with our label.
    Ours,
    /// It is created together with the instance.
    New,
}

impl Intended<'_> {
    /// The body that creates it in a zone.
    pub(crate) fn body(&self, zone: &str, mark: Mark<'_>, cache: CacheDisk, keys: &[String]) -> serde_json::Value {
        let mut labels = self.gce.labels.clone();
        labels.insert(OWNER_LABEL.to_owned(), mark.owner.to_owned());
        labels.insert(RUN_LABEL.to_owned(), mark.run.to_owned());
        let disk = self.gce.disk.map_or(DISK_GIB, |disk| disk.mib().div_ceil(1024));
        InstanceSpec {
            name: &mark.name(),
            project: &self.project,
            zone,
            machine_type: &self.machine_type,
            image: &self.image(),
            disk_gib: disk,
            cache_disk: match (cache, self.gce.cache_disk.as_deref()) {
                (CacheDisk::Foreign | CacheDisk::Ours, Some(name)) => Some((name, None)),
                (CacheDisk::New, Some(name)) => Some((name, Some(CACHE_GIB))),
                _ => None,
            },
            spot: self.gce.spot,
            network: self.gce.network.as_deref(),
            subnet: self.gce.subnet.as_deref(),
            external_ip: self.gce.external_ip,
            labels: &labels,
            max_seconds: self.gce.max_duration.as_secs(),
            user: USER,
            keys,
            startup: &match cache {
                CacheDisk::New | CacheDisk::Ours => STARTUP.replacen("format=no", "format=yes", 1),
                CacheDisk::None | CacheDisk::Foreign => STARTUP.to_owned(),
            },
        }
        .body()
    }

    /// What it boots from.
    pub(crate) fn image(&self) -> String {
        let image = &self.gce.image;
        format!("projects/{}/global/images/family/{}", image.project.as_deref().unwrap_or(&self.project), image.family)
    }
}
