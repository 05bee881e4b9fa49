//! What a run's guests got from repositories, into `repositories.lock`.

use std::path::Path;

use egress::{Policy, Snapshot};
use images::committed::LockError;
use matrix::Plan;

use super::resolved::{Resolved, Seen};
use crate::package_lock::{LockFile, changes, is_allowed, is_release, snapshots};

/// Most hosts that are named.
const NAMED: usize = 5;

/// Largest Release file that is read, in bytes; Debian's have 250 KiB.
const LARGEST_RELEASE: u64 = 4 << 20;

/// What became of the file.
#[derive(Debug)]
pub(crate) struct Renewed {
    /// To be said, one line each.
    pub(crate) lines: Vec<String>,
    /// Everything that the run's guests got is pinned now.
    pub(crate) is_complete: bool,
}

/// Pins what the run in this folder got for its images; what is pinned for others stays. `cache`: what this machine's guests got is there;
/// of those on other machines it is not known who has their repositories as they were.
///
/// # Errors
///
/// The file cannot be read or written.
pub(crate) fn renew_lock(plan: &Plan, policy: &Policy, run: &Path, cache: &Path) -> Result<Renewed, LockError> {
    let file = LockFile::beside(&plan.matrix);
    let mut seen = Seen::new(plan);
    let damage = match reports::journal::for_each(run, |event| seen.see(event.kind)) {
        Ok(damage) => damage.first().map(ToString::to_string),
        Err(error) => Some(format!("{error}: {}", error.kind)),
    };
    let resolved = match damage {
        Some(damage) => Err(format!("the event log is damaged: {damage}")),
        None => seen.resolved(),
    };
    let images = match resolved {
        Ok(images) => images,
        Err(why) => {
            let lines = vec![format!("{} is not written: {why}", file.display())];
            return Ok(Renewed { lines, is_complete: false });
        }
    };
    let old = LockFile::read(&file)?;
    let mut lock = old.clone().unwrap_or_default();
    let (mut said, mut lines, mut is_complete) = (Vec::new(), Vec::new(), true);
    for (image, resolved) in images {
        match resolved {
            Ok(Resolved { mut locked, unseen }) => {
                let releases = locked.pins.metadata.iter().filter(|(url, _)| is_release(url));
                let texts = releases.filter_map(|(url, digest)| {
                    let text = egress::cached(cache, *digest, LARGEST_RELEASE)?;
                    Some((url.clone(), String::from_utf8_lossy(&text).into_owned()))
                });
                let (allowed, others) = snapshots(texts).into_iter().partition(|found| is_allowed(found, policy));
                locked.pins.snapshots = allowed;
                lines.extend(others.into_iter().map(|Snapshot { of, at, .. }| {
                    format!("{image}: {of} names {at} as what has it as it was; it is used if `network.allow` names its host")
                }));
                said.push(changes(&image, lock.get(&image), &locked));
                if !unseen.is_empty() {
                    let hosts: Vec<_> = unseen.into_iter().take(NAMED).collect();
                    lines.push(format!(
                        "{image}: what came over https is not seen and not pinned ({})",
                        hosts.join(", ")
                    ));
                }
                lock.set(image, locked);
            }
            Err(why) => {
                is_complete = false;
                lines.push(format!("{image} is not written to {}: {why}", file.display()));
            }
        }
    }
    if !said.is_empty() && old.as_ref() != Some(&lock) {
        lock.write(&file)?;
    }
    for words in said.into_iter().rev() {
        lines.insert(0, format!("{}: {words}", file.display()));
    }
    if lines.is_empty() {
        lines.push(format!("{} is not written: no guest of this matrix uses repositories", file.display()));
    }
    Ok(Renewed { lines, is_complete })
}
