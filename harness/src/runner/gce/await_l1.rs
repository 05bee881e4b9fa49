//! From an instance that was created to a machine that can be logged in to: watched on its serial port and by its guest attributes.

use std::time::{Duration, Instant};

use reports::{Phase, Trouble, TroubleKind};

use super::{
    check::{failed, unusable},
    host_key::{self, Said},
};
use crate::gce::{Compute, InZone, Instance};

/// How long a machine may take until it is ready: a stock image installs QEMU first.
const READY: Duration = Duration::from_secs(900);
/// How often it is looked at. Guest attributes may be asked for ten times a minute (Google's page on them: limits).
const INTERVAL: Duration = Duration::from_secs(7);
/// Lines of its serial output that go with a failure.
const TAIL: usize = 30;
/// Most bytes that are kept for that.
const LONGEST_TAIL: usize = 16 << 10;

/// An L1 that can be logged in to.
pub(super) struct Reachable {
    /// Its address.
    pub(super) address: String,
    /// Its host keys.
    pub(super) keys: Vec<String>,
}

/// Waits until the machine can be logged in to. Must be given up from outside when the run is stopped.
pub(super) async fn reachable(
    compute: &Compute<'_>,
    at: InZone<'_>,
    progress: &(dyn Fn(String) + Sync),
) -> Result<Reachable, Trouble> {
    let (instance, said) = ready(compute, at, progress).await?;
    let keys = compute.guest_attributes(at, "hostkeys").await.map(|items| host_key::of_attributes(&items));
    let keys = keys.ok().filter(|keys| !keys.is_empty()).unwrap_or_else(|| said.keys().to_vec());
    if keys.is_empty() {
        let help = "guest attributes and the serial port are both closed by a policy: nestmatrix accepts no host key that it cannot check";
        return Err(unusable(format!("{} does not say its SSH host keys", at.name)).with_help(help));
    }
    let address = instance.address().ok_or_else(|| unusable(format!("{} has no address", at.name)))?.to_owned();
    Ok(Reachable { address, keys })
}

/// Waits until the start-up script says that it is done.
pub(super) async fn ready(
    compute: &Compute<'_>,
    at: InZone<'_>,
    progress: &(dyn Fn(String) + Sync),
) -> Result<(Instance, Said), Trouble> {
    let (began, mut said, mut told) = (Instant::now(), Said::default(), None);
    let (mut from, mut tail, mut serial_is_readable) = ("0".to_owned(), String::new(), true);
    loop {
        let instance = compute.instance(at).await.map_err(failed)?;
        check(&instance)?;
        if serial_is_readable {
            match compute.serial(at, &from).await {
                Ok(piece) => {
                    from = piece.next;
                    said.hear(&piece.contents);
                    keep(&mut tail, &piece.contents);
                }
                Err(error) if error.is_silence() => return Err(failed(error)),
                // Forbidden, or not there: then there are the guest attributes alone.
                Err(_) => serial_is_readable = false,
            }
        }
        let attributes = compute.guest_attributes(at, "nestmatrix").await.unwrap_or_default();
        let attribute =
            attributes.into_iter().find(|item| item.key == "state").map(|item| reports::clean::line(&item.value));
        // What is over is over, whichever of the two says it.
        let state = match (&said.state, attribute) {
            (Some(state), _) if is_over(state) => Some(state.clone()),
            (_, Some(state)) => Some(state),
            (state, None) => state.clone(),
        };
        match state.as_deref() {
            Some("ready") => {
                // The attribute may be faster than what the serial port has said before it.
                if serial_is_readable
                    && !said.state.as_deref().is_some_and(is_over)
                    && let Ok(piece) = compute.serial(at, &from).await
                {
                    said.hear(&piece.contents);
                }
                return Ok((instance, said));
            }
            Some(state) if state.starts_with("failed: ") => {
                let reason = format!("the start-up script of {} {state}", at.name);
                let help = "the machine must reach Debian's package mirrors (an external address, or Cloud NAT), or boot from an image that has QEMU (`nestmatrix gce bake`)";
                return Err(unusable(reason).with_help(help).with_evidence(lines(&tail)));
            }
            _ => {}
        }
        if began.elapsed() > READY {
            let reason = format!("timeout: {} was not ready within {} s", at.name, READY.as_secs());
            let help =
                "does its image run start-up scripts (Google's guest environment)? See the lines of its serial port";
            return Err(Trouble::new(TroubleKind::Timeout, Phase::Runner, reason)
                .with_help(help)
                .with_evidence(lines(&tail)));
        }
        if state.is_some() && state != told {
            progress(format!("{}: {}", at.name, state.as_deref().unwrap_or_default()));
            told = state;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn is_over(state: &str) -> bool {
    state == "ready" || state.starts_with("failed: ")
}

/// It is on its way, and can be logged in to with the keys of its metadata.
fn check(instance: &Instance) -> Result<(), Trouble> {
    if instance.resource_status.effective_instance_metadata.enable_oslogin_metadata_value {
        let reason = "OS Login is forced on the instance, so it does not accept the keys of its metadata";
        let help = "an organization policy (constraints/compute.requireOsLogin) does that: ask for an exception for this project, or name another project";
        return Err(unusable(reason).with_help(help));
    }
    if instance.is_ending() {
        let reason = format!("the instance {} is {} before it was ready", instance.name, instance.status);
        return Err(Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason));
    }
    Ok(())
}

fn keep(tail: &mut String, piece: &str) {
    tail.push_str(piece);
    if tail.len() > LONGEST_TAIL {
        let at = tail.len() - LONGEST_TAIL;
        let at = (at..tail.len()).find(|&at| tail.is_char_boundary(at)).unwrap_or(tail.len());
        tail.drain(..at);
    }
}

fn lines(tail: &str) -> Vec<String> {
    let lines: Vec<_> = tail.lines().map(reports::clean::line).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_forces_os_login_or_ends_is_told_apart_from_one_on_its_way() {
        let on_its_way = Instance { status: "STAGING".into(), ..Instance::default() };
        assert!(check(&on_its_way).is_ok());
        let ended = Instance { status: "STOPPING".into(), ..Instance::default() };
        assert_eq!(check(&ended).unwrap_err().kind, TroubleKind::RunnerLost);
        let mut forced = on_its_way;
        forced.resource_status.effective_instance_metadata.enable_oslogin_metadata_value = true;
        assert_eq!(check(&forced).unwrap_err().kind, TroubleKind::RunnerUnusable);
    }

    #[test]
    fn of_the_serial_output_the_end_is_kept() {
        let mut tail = String::new();
        for number in 0..10_000 {
            keep(&mut tail, &format!("line {number} ü\n"));
        }
        assert!(tail.len() <= LONGEST_TAIL);
        assert_eq!(lines(&tail).last().map(String::as_str), Some("line 9999 ü"));
        assert_eq!(lines(&tail).len(), TAIL);
    }
}
