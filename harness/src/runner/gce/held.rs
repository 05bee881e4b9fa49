//! An instance that costs money, and its end: it is deleted when it is given back, when it is dropped in whatever way, and by Compute
//! Engine itself after its longest time.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::Digest;
use reports::EventKind;

use crate::{
    events::Events,
    gce::{ApiErrorKind, Calls, Client, Compute, InZone, Settings},
};

/// How long deleting may take: an operating system has up to 120 s to shut down.
pub(super) const DELETE: Duration = Duration::from_secs(240);
/// The same where nobody is left who could wait.
const LAST_DELETE: Duration = Duration::from_secs(30);
/// An instance whose insert may still be on its way is looked for so often ...
const UNSURE: u32 = 4;
/// ... with this between.
const UNSURE_PAUSE: Duration = Duration::from_secs(3);

/// A project of Compute Engine, and how it is spoken with.
pub(crate) struct Cloud {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) project: String,
}

impl Cloud {
    pub(crate) fn calls(&self) -> Calls<'_> {
        Calls { endpoints: &self.settings.endpoints, project: &self.project }
    }

    pub(crate) fn compute(&self) -> Compute<'_> {
        Compute { client: &self.client, calls: self.calls() }
    }
}

/// An instance of ours.
pub(super) struct Held {
    pub(super) cloud: Arc<Cloud>,
    pub(super) zone: String,
    pub(super) name: String,
    /// When it was asked for.
    pub(super) since: Instant,
    /// How long it lives at the most.
    pub(super) longest: Duration,
    /// Whom to tell of its end, and the number of its runner: once its beginning was told.
    pub(super) told: Option<(Events, u32)>,
    /// It is not known whether it was created.
    pub(super) unsure: bool,
    /// It is gone.
    pub(super) gone: bool,
}

impl Held {
    pub(super) fn at(&self) -> InZone<'_> {
        InZone { zone: &self.zone, name: &self.name }
    }

    /// Deletes it and waits until it is gone. Returns what may be left, for people.
    pub(super) async fn delete(&mut self) -> Option<String> {
        self.delete_within(DELETE).await
    }

    async fn delete_within(&mut self, limit: Duration) -> Option<String> {
        let deleted = tokio::time::timeout(limit, deleted(&self.cloud, self.at(), self.unsure)).await;
        let why = match deleted {
            Ok(Ok(())) => {
                self.gone = true;
                if let Some((events, runner)) = &self.told {
                    let held_ms = self.since.elapsed().as_millis() as u64;
                    events.send(EventKind::MachineDeleted { runner: *runner, held_ms });
                }
                return None;
            }
            Ok(Err(why)) => why,
            Err(_) => format!("timeout: it was not deleted within {} s", limit.as_secs()),
        };
        // Tried once, and told: what is dropped later says the same.
        self.gone = true;
        let minutes = self.longest.saturating_sub(self.since.elapsed()).as_secs().div_ceil(60);
        Some(format!(
            "the instance {} in {} may still be there: {why}; `nestmatrix gce cleanup --project {}` deletes it, and Compute Engine does in {minutes} min",
            self.name, self.zone, self.cloud.project
        ))
    }
}

/// Deletes an instance and waits until it is gone.
pub(super) async fn deleted(cloud: &Cloud, at: InZone<'_>, unsure: bool) -> Result<(), String> {
    let compute = cloud.compute();
    let mut tries = if unsure { UNSURE } else { 1 };
    let operation = loop {
        match compute.delete(at, &request_id()).await {
            Ok(operation) => break operation,
            Err(error) if error.kind != ApiErrorKind::NotFound => return Err(error.to_string()),
            Err(_) if tries <= 1 => return Ok(()),
            Err(_) => {
                tries -= 1;
                tokio::time::sleep(UNSURE_PAUSE).await;
            }
        }
    };
    let what = format!("delete the instance {} in {}", at.name, at.zone);
    match compute.done(&what, Some(at.zone), operation).await {
        Err(error) if error.kind != ApiErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

impl Drop for Held {
    /// A panic, or a run that was dropped: nobody can wait, and still it must not stay.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let (project, settings) = (self.cloud.project.clone(), self.cloud.settings.clone());
        let (zone, name) = (self.zone.clone(), self.name.clone());
        let last = move || {
            // Connections and tokens belong to the runtime that made them.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            let client = Client::new(&settings).map_err(|error| error.to_string())?;
            let cloud = Cloud { client, settings, project };
            runtime.block_on(async {
                let at = InZone { zone: &zone, name: &name };
                // It need not be gone, only be going.
                tokio::time::timeout(LAST_DELETE, cloud.compute().delete(at, &request_id()))
                    .await
                    .map_err(|error| error.to_string())?
                    .map(drop)
                    .map_err(|error| error.to_string())
            })
        };
        let ended = std::thread::Builder::new().name("delete".into()).spawn(last).map(std::thread::JoinHandle::join);
        if !matches!(ended, Ok(Ok(Ok(())))) {
            say!("the instance {} in {} may still be there: `nestmatrix gce cleanup` deletes it", self.name, self.zone);
        }
    }
}

/// An id by which the service knows a request again (RFC 9562, version 4).
pub(super) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// What the instances of a store's runs are labelled with. A store that was copied to another machine is another owner there: else that
/// one would take the runs of this one for dead.
pub(crate) fn owner(store: &Path) -> io::Result<String> {
    let file = store.join("gce-owner");
    let id = match std::fs::read_to_string(&file) {
        Ok(id) if !id.trim().is_empty() => id,
        _ => {
            let new = tempfile::NamedTempFile::new_in(store)?;
            std::fs::write(new.path(), request_id())?;
            // Another run may have made one meanwhile: both use that.
            match new.persist_noclobber(&file) {
                Ok(_) => {}
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.error),
            }
            std::fs::read_to_string(&file)?
        }
    };
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let host = rustix::system::uname();
    let all = format!("{}|{}|{}", id.trim(), machine.trim(), host.nodename().to_string_lossy());
    Ok(Digest::of(all.as_bytes()).hex()[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_one_owner_and_another_store_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = owner(one.path()).unwrap();
        assert_eq!(owner(one.path()).unwrap(), name);
        assert_ne!(owner(two.path()).unwrap(), name);
        assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    }
}
