//! Freezing a guest into files, and going on from them: QEMU's migration to a file without the memory, which lies in a file
//! of its own already (QEMU docs: system/vm-templating).

use std::{path::Path, time::Duration};

use super::{
    qmp::{
        QmpError,
        commands::{
            Cont, Migrate, MigrateIncoming, MigrationCapability, MigrationCapabilityStatus, MigrationStatus,
            QueryMigrate, QueryStatus, RunState, SetMigrationCapabilities, Stop,
        },
    },
    vm::Guest,
};

/// The state of the devices is half a megabyte; a disk that needs longer than this for it is broken.
const LIMIT: Duration = Duration::from_secs(60);
/// How often QEMU is asked how far it is.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(2);

/// A guest could not be frozen, or not be thawed.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// QEMU cannot, or is gone.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// It tried.
    #[error("QEMU could not {what}: {words}")]
    Failed {
        /// `save the state of the devices` or `load` it.
        what: &'static str,
        /// In its words.
        words: String,
    },
    /// It came to no end.
    #[error("QEMU did not {what} within {} s", LIMIT.as_secs())]
    Endless {
        /// The same.
        what: &'static str,
    },
}

const SAVE: &str = "save the state of the devices";
const LOAD: &str = "load the state of the devices";

impl Guest {
    /// Stops the guest and writes the state of its devices to `state`. It cannot go on afterwards; its memory's file is complete when
    /// its QEMU has ended ([`Guest::kill`]).
    pub async fn freeze(&self, state: &Path) -> Result<(), MigrationError> {
        self.qmp().execute(Stop {}).await?;
        self.leave_memory_where_it_is().await?;
        let uri = format!("file:{}", state.display());
        self.qmp().execute(Migrate { uri }).await?;
        let saving = async {
            while !self.has_saved().await? {
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
            Ok(())
        };
        tokio::time::timeout(LIMIT, saving).await.unwrap_or(Err(MigrationError::Endless { what: SAVE }))
    }

    /// Loads the state of the devices from `state` and lets the guest run. It was started with [`super::Ram::Forked`].
    pub async fn thaw(&self, state: &Path) -> Result<(), MigrationError> {
        self.leave_memory_where_it_is().await?;
        let uri = format!("file:{}", state.display());
        // A state that cannot be loaded ends QEMU, which says why.
        self.qmp().execute(MigrateIncoming { uri }).await?;
        let loading = async {
            while self.qmp().execute(QueryStatus {}).await?.status == RunState::Inmigrate {
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
            Ok::<_, MigrationError>(())
        };
        tokio::time::timeout(LIMIT, loading).await.unwrap_or(Err(MigrationError::Endless { what: LOAD }))?;
        self.qmp().execute(Cont {}).await?;
        Ok(())
    }

    async fn has_saved(&self) -> Result<bool, MigrationError> {
        let info = self.qmp().execute(QueryMigrate {}).await?;
        match info.status {
            Some(MigrationStatus::Completed) => Ok(true),
            Some(MigrationStatus::Failed | MigrationStatus::Cancelled) => {
                let words = info.error_desc.unwrap_or_else(|| "no reason given".to_owned());
                Err(MigrationError::Failed { what: SAVE, words })
            }
            _ => Ok(false),
        }
    }

    async fn leave_memory_where_it_is(&self) -> Result<(), QmpError> {
        let capability = MigrationCapabilityStatus { capability: MigrationCapability::XIgnoreShared, state: true };
        self.qmp().execute(SetMigrationCapabilities { capabilities: vec![capability] }).await?;
        Ok(())
    }
}
