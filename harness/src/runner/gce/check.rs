//! What is looked at before anything is created: policy, machine type, zone. The first thing that is wrong is said, with what helps.

use std::{process::Stdio, time::Duration};

use reports::{Phase, Trouble, TroubleKind};

use crate::{
    gce::{ApiError, ApiErrorKind, Compute, Enforced, InZone, MachineType, Series, Suitability, series},
    host::find,
};

/// How long `gcloud` may think.
const GCLOUD: Duration = Duration::from_secs(30);

/// What a machine is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) machine_type: &'a str,
    /// Memory that it needs, in MiB.
    pub(super) memory_mib: u64,
    /// What needs so much.
    pub(super) memory_for: &'a str,
}

/// Why a zone is of no use.
pub(super) enum Unfit {
    /// Another zone may do.
    Zone(String),
    /// There is nothing of this name: it may be mistyped.
    Missing(String),
    /// No other zone will.
    All(Trouble),
}

/// A trouble of this machine kind that trying again does not help.
pub(super) fn unusable(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason)
}

/// A call that failed, as what happened to the runner.
pub(super) fn failed(error: ApiError) -> Trouble {
    let kind = match error.kind {
        ApiErrorKind::Unavailable | ApiErrorKind::Unreachable => TroubleKind::RunnerLost,
        _ => TroubleKind::RunnerUnusable,
    };
    let trouble = Trouble::new(kind, Phase::Runner, error.to_string());
    match error.help {
        Some(help) => trouble.with_help(help),
        None => trouble,
    }
}

/// Whether the tunnel to a machine without an external address can be had: that is found out before the machine costs anything.
pub(super) async fn tunnel() -> Result<(), Trouble> {
    let gcloud = find("gcloud").ok_or_else(|| {
        let help = "install the Google Cloud CLI, or name another way (`runner.proxy_command`, `--gce-proxy-command`)";
        unusable("without an external address the connection goes through an IAP tunnel, which needs `gcloud`: it is not installed").with_help(help)
    })?;
    let mut command = tokio::process::Command::new(gcloud);
    command.args(["auth", "list", "--filter=status:ACTIVE", "--format=value(account)"]).kill_on_drop(true);
    let account = tokio::time::timeout(GCLOUD, command.stdin(Stdio::null()).output()).await;
    // What it does not say is left to the tunnel itself.
    match account {
        Ok(Ok(output)) if output.status.success() && output.stdout.trim_ascii().is_empty() => {
            let reason =
                "without an external address the connection goes through an IAP tunnel: `gcloud` is not logged in";
            Err(unusable(reason)
                .with_help("`gcloud auth login`; the credentials of nestmatrix are not those of `gcloud`"))
        }
        _ => Ok(()),
    }
}

/// Whether a policy is against it; what cannot be told is a warning.
pub(super) fn policy(enforced: Enforced, project: &str) -> Result<Option<String>, Trouble> {
    match enforced {
        Enforced::No => Ok(None),
        Enforced::Yes => {
            let reason = format!(
                "nested virtualization is forbidden in the project {project} by the organization policy constraints/compute.disableNestedVirtualization"
            );
            let help = "ask whoever administers the organization for an exception for this project, or name another project (`runner.project`, `--gce-project`)";
            Err(unusable(reason).with_help(help))
        }
        Enforced::Unknown(why) => Ok(Some(format!(
            "whether an organization policy forbids nested virtualization (constraints/compute.disableNestedVirtualization) cannot be told: {why}"
        ))),
    }
}

/// Whether machines of this type nest, as far as the rules say; what they do not know is a warning.
pub(super) fn rules(machine_type: &str) -> Result<Option<String>, Trouble> {
    match Suitability::of(machine_type) {
        Suitability::Nests => Ok(None),
        Suitability::Not(why) => {
            let help = "name a type of an Intel series that nests, such as `n2-standard-4` (`runner.machine_type`, `--gce-machine-type`), or none";
            Err(unusable(format!("the machine type {machine_type} cannot be an L1: {why}")).with_help(help))
        }
        Suitability::Unknown => Ok(Some(format!(
            "it is not known whether machines of type {machine_type} nest: that is proved when one is up"
        ))),
    }
}

/// Whether such a machine is to be had in a zone; then its size.
pub(super) async fn zone(compute: &Compute<'_>, zone: &str, wanted: Wanted<'_>) -> Result<MachineType, Unfit> {
    let Wanted { machine_type, memory_mib, memory_for } = wanted;
    let there = compute.zone(zone).await.map_err(|error| match error.kind {
        // The project would be missing for every other call, too.
        ApiErrorKind::NotFound => Unfit::Missing(format!("there is no such zone ({})", error.message)),
        _ => Unfit::All(failed(error)),
    })?;
    if there.status == "DOWN" {
        return Err(Unfit::Zone("the zone is down".to_owned()));
    }
    if let Some(why) = lacks_platform(series(machine_type), &there.available_cpu_platforms) {
        return Err(Unfit::Zone(why));
    }
    let shape = compute.machine_type(InZone { zone, name: machine_type }).await.map_err(|error| match error.kind {
        ApiErrorKind::NotFound | ApiErrorKind::Invalid => {
            Unfit::Missing(format!("there is no machine type {machine_type} ({})", error.message))
        }
        _ => Unfit::All(failed(error)),
    })?;
    if !shape.architecture.is_empty() && shape.architecture != "X86_64" {
        let reason = format!("the machine type {machine_type} has another kind of CPU ({})", shape.architecture);
        return Err(Unfit::All(unusable(reason).with_help("name a type of an Intel series that nests")));
    }
    if u64::from(shape.memory_mb) < memory_mib {
        let reason = format!(
            "the machine type {machine_type} has {} MiB of memory, but {memory_for} needs {memory_mib} MiB",
            shape.memory_mb
        );
        let help = "name a larger type (`runner.machine_type`, `--gce-machine-type`), or none: then one that is large enough is chosen";
        return Err(Unfit::All(unusable(reason).with_help(help)));
    }
    Ok(shape)
}

/// Why a zone with these CPU platforms has no machine of a series. Zones that name none are believed to have all.
fn lacks_platform(series: Option<&Series>, there: &[String]) -> Option<String> {
    let series = series?;
    let has = there.is_empty() || series.platforms.iter().any(|platform| there.contains(platform));
    (!has).then(|| {
        format!(
            "it has no CPU platform of the series {} ({}): it has {}",
            series.title,
            series.platforms.join(", "),
            there.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_forbids_and_one_that_cannot_be_read_is_a_warning() {
        assert_eq!(policy(Enforced::No, "p").unwrap(), None);
        assert!(policy(Enforced::Unknown("HTTP 403".into()), "p").unwrap().unwrap().contains("HTTP 403"));
        let trouble = policy(Enforced::Yes, "p").unwrap_err();
        assert_eq!(trouble.kind, TroubleKind::RunnerUnusable);
        assert!(trouble.reason.contains("disableNestedVirtualization") && trouble.help.is_some());
    }

    #[test]
    fn a_type_that_cannot_nest_is_refused_and_an_unknown_one_is_tried() {
        assert_eq!(rules("n2-standard-4").unwrap(), None);
        assert!(rules("q9-standard-4").unwrap().unwrap().contains("proved"));
        for machine_type in ["e2-standard-4", "n2d-standard-4", "c4a-standard-4", "m3-ultramem-32", "a3-highgpu-8g"] {
            assert!(rules(machine_type).unwrap_err().reason.contains(machine_type));
        }
    }

    #[test]
    fn a_zone_without_the_processor_of_a_series_has_no_such_machine() {
        let has = |platforms: &[&str]| platforms.iter().map(|&platform| platform.to_owned()).collect::<Vec<_>>();
        assert_eq!(lacks_platform(series("n2-standard-4"), &has(&["Intel Ice Lake"])), None);
        assert_eq!(lacks_platform(series("n2-standard-4"), &[]), None);
        let why = lacks_platform(series("n2-standard-4"), &has(&["AMD Rome", "Intel Skylake"])).unwrap();
        assert!(why.contains("Cascade Lake") && why.contains("AMD Rome"), "{why}");
        assert_eq!(lacks_platform(None, &has(&["AMD Rome"])), None);
    }
}
