//! What an L1 is created with. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::series::series;

/// Label of every instance of ours: whose store its run has, so that only its own machine takes it for a dead run's.
pub(crate) const OWNER_LABEL: &str = "nestmatrix-owner";
/// Instances that have it.
pub(crate) const OURS: &str = "labels.nestmatrix-owner:*";
/// Label with the name of its run.
pub(crate) const RUN_LABEL: &str = "nestmatrix-run";
/// Label of a disk that was made to be a cache, and its value.
const CACHE_LABEL: &str = "nestmatrix";
const CACHE_VALUE: &str = "cache";
/// What the boot disk is called in the machine: `/dev/disk/by-id/google-...`.
const BOOT_DISK: &str = "nestmatrix-boot";
/// The same of the disk that stays.
const CACHE_DISK: &str = "nestmatrix-cache";

/// An L1 that is to be created.
#[derive(Clone, Debug)]
pub(crate) struct InstanceSpec<'a> {
    pub(crate) name: &'a str,
    pub(crate) project: &'a str,
    pub(crate) zone: &'a str,
    pub(crate) machine_type: &'a str,
    /// `projects/P/global/images/family/F`.
    pub(crate) image: &'a str,
    pub(crate) disk_gib: u64,
    /// A disk that stays when the instance goes, and its size in GiB if it is to be made.
    pub(crate) cache_disk: Option<(&'a str, Option<u64>)>,
    pub(crate) spot: bool,
    /// A name, or an address.
    pub(crate) network: Option<&'a str>,
    /// A name, or an address.
    pub(crate) subnet: Option<&'a str>,
    pub(crate) external_ip: bool,
    /// All of them.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// After so many seconds Compute Engine deletes it, whatever happens here.
    pub(crate) max_seconds: u64,
    /// Who logs in.
    pub(crate) user: &'a str,
    /// With which keys, as in `authorized_keys`.
    pub(crate) keys: &'a [String],
    /// Run by the machine when it is up.
    pub(crate) startup: &'a str,
}

/// Whether a disk with these labels was made to be a cache.
pub(crate) fn is_cache(labels: &BTreeMap<String, String>) -> bool {
    labels.get(CACHE_LABEL).is_some_and(|value| value == CACHE_VALUE)
}

impl InstanceSpec<'_> {
    /// The body of `instances.insert`. int64 are JSON strings.
    pub(crate) fn body(&self) -> Value {
        let series = series(self.machine_type);
        let in_zone = |kind: &str, name: &str| format!("zones/{}/{kind}/{name}", self.zone);
        let disk_type = series.and_then(|series| series.disk.as_deref()).unwrap_or("pd-balanced");
        let mut disks = vec![json!({
            "boot": true,
            "autoDelete": true,
            "deviceName": BOOT_DISK,
            "initializeParams": {
                "sourceImage": self.image,
                "diskSizeGb": self.disk_gib.to_string(),
                "diskType": in_zone("diskTypes", disk_type),
                "labels": self.labels,
            },
        })];
        if let Some((name, new)) = self.cache_disk {
            let mut disk = json!({ "autoDelete": false, "deviceName": CACHE_DISK, "mode": "READ_WRITE" });
            match new {
                None => disk["source"] = json!(format!("projects/{}/{}", self.project, in_zone("disks", name))),
                Some(gib) => {
                    disk["initializeParams"] = json!({
                        "diskName": name,
                        "labels": { CACHE_LABEL: CACHE_VALUE },
                        "diskSizeGb": gib.to_string(),
                        "diskType": in_zone("diskTypes", disk_type),
                    });
                }
            }
            disks.push(disk);
        }
        let mut network = json!({ "network": address(self.network.unwrap_or("default"), "global/networks") });
        if let Some(subnet) = self.subnet {
            let region = self.zone.rsplit_once('-').map_or(self.zone, |(region, _)| region);
            network["subnetwork"] = json!(address(subnet, &format!("regions/{region}/subnetworks")));
            if self.network.is_none() {
                network.as_object_mut().map(|network| network.remove("network"));
            }
        }
        if self.external_ip {
            network["accessConfigs"] = json!([{ "type": "ONE_TO_ONE_NAT", "name": "External NAT" }]);
        }
        // A machine that Compute Engine must move or wants back is lost, and its cells are tried again: guests in it would not survive being
        // moved unharmed. It is never restarted, and deleted at its end whoever ends it.
        let scheduling = json!({
            "automaticRestart": false,
            "onHostMaintenance": "TERMINATE",
            "provisioningModel": if self.spot { "SPOT" } else { "STANDARD" },
            "instanceTerminationAction": "DELETE",
            "maxRunDuration": { "seconds": self.max_seconds.to_string() },
        });
        let keys: Vec<_> = self.keys.iter().map(|key| format!("{}:{}", self.user, key.trim())).collect();
        let items: Vec<_> = [
            ("enable-guest-attributes", "TRUE"),
            ("enable-oslogin", "FALSE"),
            ("block-project-ssh-keys", "TRUE"),
            ("ssh-keys", &keys.join("\n")),
            ("startup-script", self.startup),
        ]
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
        let mut body = json!({
            "name": self.name,
            "description": "runs guests of nestmatrix, and is deleted with its run",
            "machineType": in_zone("machineTypes", self.machine_type),
            "advancedMachineFeatures": { "enableNestedVirtualization": true },
            "disks": disks,
            "networkInterfaces": [network],
            "scheduling": scheduling,
            "labels": self.labels,
            "metadata": { "items": items },
            // None: what runs on it gets no credentials of the project.
            "serviceAccounts": [],
        });
        if let Some(minimum) = series.and_then(|series| series.minimum.as_deref()) {
            body["minCpuPlatform"] = json!(minimum);
        }
        body
    }
}

/// A name, as an address of this collection.
fn address(text: &str, collection: &str) -> String {
    if text.contains('/') { text.to_owned() } else { format!("{collection}/{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec<'a>(labels: &'a BTreeMap<String, String>, keys: &'a [String]) -> InstanceSpec<'a> {
        InstanceSpec {
            name: "nm-1",
            project: "p",
            zone: "us-central1-a",
            machine_type: "n2-standard-4",
            image: "projects/debian-cloud/global/images/family/debian-13",
            disk_gib: 64,
            cache_disk: None,
            spot: false,
            network: None,
            subnet: None,
            external_ip: true,
            labels,
            max_seconds: 14_400,
            user: "nestmatrix",
            keys,
            startup: "true",
        }
    }

    #[test]
    fn an_l1_nests_has_no_service_account_and_ends_by_itself() {
        let labels = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
        let keys = ["ssh-ed25519 AAAA one".to_owned(), "ecdsa BBBB two".to_owned()];
        let body = spec(&labels, &keys).body();
        assert_eq!(body["advancedMachineFeatures"]["enableNestedVirtualization"], true);
        assert_eq!(body["serviceAccounts"], json!([]));
        assert_eq!(body["scheduling"]["maxRunDuration"]["seconds"], "14400", "int64 are strings");
        assert_eq!(body["scheduling"]["instanceTerminationAction"], "DELETE");
        assert_eq!(body["disks"][0]["initializeParams"]["diskSizeGb"], "64");
        assert_eq!(body["disks"][0]["autoDelete"], true);
        assert!(body.get("minCpuPlatform").is_none(), "every N2 nests");
        let items = body["metadata"]["items"].as_array().unwrap();
        let value = |key: &str| items.iter().find(|item| item["key"] == key).unwrap()["value"].clone();
        assert_eq!(value("ssh-keys"), "nestmatrix:ssh-ed25519 AAAA one\nnestmatrix:ecdsa BBBB two");
        assert_eq!(value("enable-oslogin"), "FALSE");
    }

    #[test]
    fn instances_of_ours_are_found_by_their_label() {
        assert_eq!(OURS, format!("labels.{OWNER_LABEL}:*"));
    }

    #[test]
    fn what_is_asked_for_is_what_is_sent() {
        let labels = BTreeMap::new();
        let usual = spec(&labels, &[]);
        let spot = InstanceSpec { spot: true, machine_type: "n1-standard-4", ..usual.clone() }.body();
        assert_eq!(spot["scheduling"]["provisioningModel"], "SPOT");
        assert_eq!(spot["minCpuPlatform"], "Intel Haswell");
        let inside = InstanceSpec { external_ip: false, subnet: Some("lab"), ..usual.clone() }.body();
        let network = &inside["networkInterfaces"][0];
        assert_eq!(network["subnetwork"], "regions/us-central1/subnetworks/lab");
        assert!(network.get("accessConfigs").is_none() && network.get("network").is_none(), "{network}");
        let shared = InstanceSpec { network: Some("projects/host/global/networks/n"), ..usual.clone() }.body();
        assert_eq!(shared["networkInterfaces"][0]["network"], "projects/host/global/networks/n");
        let cached =
            InstanceSpec { cache_disk: Some(("cache", None)), machine_type: "n4-standard-4", ..usual.clone() }.body();
        assert_eq!(cached["disks"][1]["source"], "projects/p/zones/us-central1-a/disks/cache");
        assert_eq!(cached["disks"][1]["autoDelete"], false);
        let made = InstanceSpec { cache_disk: Some(("cache", Some(128))), ..usual }.body();
        assert_eq!(made["disks"][1]["initializeParams"]["diskName"], "cache");
        assert_eq!(made["disks"][1]["autoDelete"], false, "it stays");
        let labels = serde_json::from_value(made["disks"][1]["initializeParams"]["labels"].clone()).unwrap();
        assert!(is_cache(&labels) && !is_cache(&BTreeMap::new()), "and is known again");
        assert_eq!(
            cached["disks"][0]["initializeParams"]["diskType"],
            "zones/us-central1-a/diskTypes/hyperdisk-balanced"
        );
    }
}
