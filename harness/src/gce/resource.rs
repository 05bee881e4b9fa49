//! Resources of Compute Engine, as far as they are looked at (reference: `compute/v1`). Everything may be missing.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// `PROVISIONING`, `STAGING`, `RUNNING`, `STOPPING`, `TERMINATED` ...
    pub(crate) status: String,
    /// Its address.
    pub(crate) zone: String,
    /// Its address.
    pub(crate) machine_type: String,
    /// `Intel Cascade Lake`.
    pub(crate) cpu_platform: String,
    /// When it was asked for (RFC 3339).
    pub(crate) creation_timestamp: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) advanced_machine_features: AdvancedMachineFeatures,
    pub(crate) network_interfaces: Vec<NetworkInterface>,
    pub(crate) resource_status: ResourceStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AdvancedMachineFeatures {
    pub(crate) enable_nested_virtualization: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NetworkInterface {
    #[serde(rename = "networkIP")]
    network_ip: String,
    access_configs: Vec<AccessConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct AccessConfig {
    #[serde(rename = "natIP")]
    nat_ip: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ResourceStatus {
    pub(crate) effective_instance_metadata: EffectiveMetadata,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EffectiveMetadata {
    pub(crate) enable_oslogin_metadata_value: bool,
}

impl Instance {
    /// The address it is reached at from outside; else the one inside its network.
    pub(crate) fn address(&self) -> Option<&str> {
        let network = self.network_interfaces.first()?;
        let outside =
            network.access_configs.iter().map(|access| access.nat_ip.as_str()).find(|address| !address.is_empty());
        outside.or(Some(network.network_ip.as_str())).filter(|address| !address.is_empty())
    }

    /// It takes no more part in anything.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(
            self.status.as_str(),
            "PENDING_STOP" | "STOPPING" | "STOPPED" | "TERMINATED" | "DEPROVISIONING" | "SUSPENDING" | "SUSPENDED"
        )
    }

    /// Name of its zone.
    pub(crate) fn zone(&self) -> &str {
        last(&self.zone)
    }

    /// Name of its machine type.
    pub(crate) fn machine_type(&self) -> &str {
        last(&self.machine_type)
    }
}

/// The last part of an address: a resource's name.
fn last(address: &str) -> &str {
    address.rsplit('/').next().unwrap_or_default()
}

/// What Compute Engine does about a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Operation {
    pub(crate) name: String,
    /// `PENDING`, `RUNNING`, `DONE`.
    pub(crate) status: String,
    pub(crate) operation_type: String,
    /// Address of what it is about.
    pub(crate) target_link: String,
    pub(crate) error: Option<OperationErrors>,
    pub(crate) http_error_status_code: Option<u16>,
    pub(crate) http_error_message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct OperationErrors {
    pub(crate) errors: Vec<OperationError>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct OperationError {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A zone, and what its machines have.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Zone {
    /// `UP`, `DOWN`.
    pub(crate) status: String,
    /// `Intel Cascade Lake` ...
    pub(crate) available_cpu_platforms: Vec<String>,
}

/// A machine type.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MachineType {
    pub(crate) guest_cpus: u32,
    pub(crate) memory_mb: u32,
    /// `X86_64`, `ARM64`.
    pub(crate) architecture: String,
    pub(crate) is_shared_cpu: bool,
}

/// A persistent disk.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Disk {
    /// Addresses of the instances that it is attached to.
    pub(crate) users: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A piece of serial output. int64 are JSON strings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct SerialOutput {
    pub(crate) contents: String,
    /// Where the next piece begins.
    pub(crate) next: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GuestAttributes {
    pub(super) query_value: GuestAttributesValue,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct GuestAttributesValue {
    pub(super) items: Vec<GuestAttribute>,
}

/// What a program in the machine has said for outside.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct GuestAttribute {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A page of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: Deserialize<'de>")]
pub(super) struct Page<T> {
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<T>,
    #[serde(default)]
    pub(super) next_page_token: String,
}

/// A page of instances of all zones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AggregatedPage {
    pub(super) items: BTreeMap<String, ScopedInstances>,
    pub(super) next_page_token: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ScopedInstances {
    pub(super) instances: Vec<Instance>,
}

/// An organization policy, of either API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Policy {
    /// Of v2.
    pub(super) spec: PolicySpec,
    /// Of v1.
    pub(super) boolean_policy: BooleanPolicy,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PolicySpec {
    pub(super) rules: Vec<PolicyRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PolicyRule {
    pub(super) enforce: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BooleanPolicy {
    pub(super) enforced: bool,
}
