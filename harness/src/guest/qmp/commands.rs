//! The commands of QMP that are used here, as the types of QEMU's schema (QEMU docs: interop/qemu-qmp-ref).
//!
//! The whole schema as generated types takes longer to compile than all of the harness; these are the few it needs. What an
//! answer has beyond the fields named here is passed over.

use qapi::{Command, Empty};
use serde::{Deserialize, Serialize};

/// Implements [`Command`]: name and answer.
macro_rules! commands {
    ($($command:ident = $name:literal -> $answer:ty;)*) => {$(
        impl Command for $command {
            type Ok = $answer;

            const NAME: &'static str = $name;
            const ALLOW_OOB: bool = false;
        }
    )*};
}

commands! {
    Capabilities = "qmp_capabilities" -> Empty;
    Stop = "stop" -> Empty;
    Cont = "cont" -> Empty;
    QueryStatus = "query-status" -> Status;
    SetAction = "set-action" -> Empty;
    ObjectDel = "object-del" -> Empty;
    SystemReset = "system_reset" -> Empty;
    QueryKvm = "query-kvm" -> Kvm;
    Screendump = "screendump" -> Empty;
    HumanMonitorCommand = "human-monitor-command" -> String;
    SetMigrationCapabilities = "migrate-set-capabilities" -> Empty;
    Migrate = "migrate" -> Empty;
    MigrateIncoming = "migrate-incoming" -> Empty;
    QueryMigrate = "query-migrate" -> Migration;
}

/// Ends the negotiation; no other command works before it.
#[derive(Debug, Serialize)]
pub(super) struct Capabilities {}

/// Stops the virtual CPUs.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct Stop {}

/// Lets the virtual CPUs go on.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct Cont {}

/// Asks whether the virtual machine runs.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct QueryStatus {}

/// Whether the virtual machine runs.
#[derive(Debug, Deserialize)]
pub(in crate::guest) struct Status {
    /// Why it runs or does not.
    pub(in crate::guest) status: RunState,
}

/// The states of a virtual machine that matter here.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::guest) enum RunState {
    /// It waits for a state to load, or loads it.
    Inmigrate,
    /// It has reset itself or powered off, and stands still.
    Shutdown,
    /// Any other.
    #[serde(other)]
    Other,
}

/// Says what follows when the guest reboots.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct SetAction {
    /// What.
    pub(in crate::guest) reboot: RebootAction,
}

/// Removes what was made with `-object`.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct ObjectDel {
    /// Which.
    pub(in crate::guest) id: String,
}

/// What a reboot does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::guest) enum RebootAction {
    /// It reboots.
    Reset,
    /// It ends, as far as the guest can.
    Shutdown,
}

/// Resets the machine; the answer comes before that is done.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct SystemReset {}

/// Asks what it is run with.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct QueryKvm {}

/// Whether KVM is used.
#[derive(Debug, Deserialize)]
pub(in crate::guest) struct Kvm {
    /// It runs the guest.
    pub(in crate::guest) enabled: bool,
}

/// Writes a picture of the screen.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct Screendump {
    /// A file of the host.
    pub(in crate::guest) filename: String,
    /// How it is written.
    pub(in crate::guest) format: ImageFormat,
}

/// Formats of pictures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::guest) enum ImageFormat {
    /// Portable Network Graphics.
    Png,
}

/// A command for people; the answer is what they would read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::guest) struct HumanMonitorCommand {
    /// As typed.
    pub(in crate::guest) command_line: String,
}

/// Switches abilities of the migration on or off.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct SetMigrationCapabilities {
    /// Those to switch.
    pub(in crate::guest) capabilities: Vec<MigrationCapabilityStatus>,
}

/// One ability of the migration.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct MigrationCapabilityStatus {
    /// Which.
    pub(in crate::guest) capability: MigrationCapability,
    /// On or off.
    pub(in crate::guest) state: bool,
}

/// Abilities of the migration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::guest) enum MigrationCapability {
    /// Memory that lies in a shared file stays there.
    XIgnoreShared,
}

/// Saves the state; the answer comes when that has begun.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct Migrate {
    /// Where to, for example `file:/path`.
    pub(in crate::guest) uri: String,
}

/// Loads a state; the answer comes when that has begun.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct MigrateIncoming {
    /// Where from, for example `file:/path`.
    pub(in crate::guest) uri: String,
}

/// Asks how far the migration is.
#[derive(Debug, Serialize)]
pub(in crate::guest) struct QueryMigrate {}

/// How far the migration is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::guest) struct Migration {
    /// None before the first one.
    pub(in crate::guest) status: Option<MigrationStatus>,
    /// Why it failed.
    pub(in crate::guest) error_desc: Option<String>,
}

/// The states of a migration that matter here.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::guest) enum MigrationStatus {
    /// All is saved.
    Completed,
    /// It has come to an end before its time.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Any other: it has not ended.
    #[serde(other)]
    Unfinished,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(command: impl Serialize) -> serde_json::Value {
        serde_json::to_value(command).unwrap()
    }

    #[test]
    fn arguments_are_named_and_spelled_as_in_the_schema() {
        assert_eq!(arguments(Stop {}), json!({}));
        assert_eq!(arguments(SetAction { reboot: RebootAction::Reset }), json!({ "reboot": "reset" }));
        assert_eq!(
            arguments(HumanMonitorCommand { command_line: "info usernet".into() }),
            json!({ "command-line": "info usernet" })
        );
        assert_eq!(
            arguments(Screendump { filename: "/run/screen.png".into(), format: ImageFormat::Png }),
            json!({ "filename": "/run/screen.png", "format": "png" })
        );
        let capability = MigrationCapabilityStatus { capability: MigrationCapability::XIgnoreShared, state: true };
        assert_eq!(
            arguments(SetMigrationCapabilities { capabilities: vec![capability] }),
            json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] })
        );
    }

    #[test]
    fn a_state_that_is_not_told_apart_is_neither_loading_nor_the_end_of_a_migration() {
        let status: Status = serde_json::from_value(json!({ "running": false, "status": "inmigrate" })).unwrap();
        assert_eq!(status.status, RunState::Inmigrate);
        for other in ["running", "finish-migrate", "new-in-qemu-99"] {
            let status: Status = serde_json::from_value(json!({ "running": true, "status": other })).unwrap();
            assert_eq!(status.status, RunState::Other, "{other}");
        }
        let migration = |answer| serde_json::from_value::<Migration>(answer).unwrap();
        assert_eq!(migration(json!({})).status, None);
        for other in ["setup", "active", "device", "cancelling", "new-in-qemu-99"] {
            assert_eq!(migration(json!({ "status": other })).status, Some(MigrationStatus::Unfinished), "{other}");
        }
        assert_eq!(migration(json!({ "status": "completed", "ram": {} })).status, Some(MigrationStatus::Completed));
        let failed = migration(json!({ "status": "failed", "error-desc": "no room" }));
        assert_eq!((failed.status, failed.error_desc.as_deref()), (Some(MigrationStatus::Failed), Some("no room")));
    }

    #[test]
    fn an_answer_without_the_field_that_is_needed_is_refused() {
        assert!(serde_json::from_value::<Kvm>(json!({ "present": true })).is_err());
        assert!(serde_json::from_value::<Status>(json!({ "running": true })).is_err());
    }
}
