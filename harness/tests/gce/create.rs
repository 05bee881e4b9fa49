//! `compute.instances.insert`, with what Compute Engine checks besides the schema.

use std::{collections::BTreeMap, net::Ipv4Addr};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{
    call::{Call, path},
    disks,
    operation::{Target, Work, region},
    refusal::Refusal,
    setup::{MACHINE_TYPES, Policy},
    world::{Instance, Place, Slot, World, link, now, shortage},
};

/// Shortest and longest `maxRunDuration`, seconds (Compute Engine's documentation: limit the run time of a VM).
const RUN_TIMES: std::ops::RangeInclusive<i64> = 30..=120 * 24 * 3600;

/// The id of a request: any UUID but that of zeros.
pub(super) fn request(call: &Call) -> Result<Option<String>, Refusal> {
    let Some(id) = call.parameter("requestId") else { return Ok(None) };
    let parts: Vec<_> = id.split('-').collect();
    let is_uuid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.chars().all(|digit| digit.is_ascii_hexdigit()))
        && id.chars().any(|digit| digit != '0' && digit != '-');
    match is_uuid {
        true => Ok(Some(id.to_owned())),
        false => Err(Refusal::invalid(format!(
            "Invalid value for field 'requestId': '{id}'. Must be a valid non-zero UUID."
        ))),
    }
}

/// The operation that was begun by this request before.
pub(super) fn known(world: &mut World, request: Option<&str>) -> Option<Value> {
    let name = world.by_request.get(request?)?.clone();
    world.operation(&name).map(|operation| operation.value.clone())
}

pub(super) fn field(name: &str, value: &Value, why: &str) -> Refusal {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Refusal::invalid(format!("Invalid value for field 'resource.{name}': '{value}'. {why}"))
}

/// A partial or whole address below the project, such as `zones/z/machineTypes/t`.
pub(super) fn below(world: &World, address: &str) -> String {
    let hosts = ["https://www.googleapis.com/compute/v1/", "https://compute.googleapis.com/compute/v1/"];
    let address = hosts.iter().find_map(|host| address.strip_prefix(host)).unwrap_or(address);
    let own = format!("projects/{}/", world.setup.project);
    address.strip_prefix(&own).unwrap_or(address).to_owned()
}

/// The last part of an address that must be `zones/ZONE/KIND/NAME`.
pub(super) fn zonal<'a>(address: &'a str, zone: &str, kind: &str) -> Option<&'a str> {
    address.strip_prefix(&format!("zones/{zone}/{kind}/")).filter(|name| !name.is_empty() && !name.contains('/'))
}

pub(super) fn labels(value: &Value) -> Result<(), Refusal> {
    let labels = value["labels"].as_object();
    let fits = |text: &str| {
        text.len() <= 63
            && text
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter))
    };
    for (key, value) in labels.into_iter().flatten() {
        if !fits(key)
            || !key.starts_with(|letter: char| letter.is_ascii_lowercase())
            || !fits(value.as_str().unwrap_or_default())
        {
            return Err(field(&format!("labels.{key}"), value, "The label key or value is not allowed."));
        }
    }
    if labels.is_some_and(|labels| labels.len() > 64) {
        return Err(field("labels", &value["labels"], "More than 64 labels."));
    }
    Ok(())
}

fn metadata(value: &Value) -> Result<BTreeMap<String, String>, Refusal> {
    let mut all = BTreeMap::new();
    for item in value["metadata"]["items"].as_array().into_iter().flatten() {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        if text("value").len() > 256 << 10 {
            return Err(field("metadata.items", &item["key"], "Value is too large: maximum size 262144 characters."));
        }
        if all.insert(text("key"), text("value")).is_some() {
            return Err(field("metadata.items", &item["key"], "Duplicate metadata key."));
        }
    }
    match all.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > 512 << 10 {
        true => Err(field("metadata", &Value::Null, "Metadata has exceeded 512 KiB.")),
        false => Ok(all),
    }
}

fn scheduling(value: &Value) -> Result<Value, Refusal> {
    let asked = &value["scheduling"];
    let spot = asked["provisioningModel"] == "SPOT" || asked["preemptible"] == true;
    if spot && asked["onHostMaintenance"] == "MIGRATE" {
        return Err(field("scheduling.onHostMaintenance", &asked["onHostMaintenance"], "Spot VMs cannot be migrated."));
    }
    if spot && asked["automaticRestart"] == true {
        return Err(field("scheduling.automaticRestart", &asked["automaticRestart"], "Spot VMs are not restarted."));
    }
    if let Some(duration) = asked.get("maxRunDuration") {
        let seconds = duration["seconds"].as_str().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        if !RUN_TIMES.contains(&seconds) {
            let why = "maxRunDuration must be between 30 seconds and 120 days.";
            return Err(field("scheduling.maxRunDuration", duration, why));
        }
        if asked["instanceTerminationAction"].is_null() {
            let why = "instanceTerminationAction must be specified together with maxRunDuration.";
            return Err(field("scheduling.instanceTerminationAction", &Value::Null, why));
        }
    } else if !spot && !asked["instanceTerminationAction"].is_null() {
        let why = "It is for Spot VMs and VMs with a limited run time.";
        return Err(field("scheduling.instanceTerminationAction", &asked["instanceTerminationAction"], why));
    }
    let mut shown = json!({
        "onHostMaintenance": if spot { "TERMINATE" } else { "MIGRATE" },
        "automaticRestart": !spot,
        "preemptible": spot,
        "provisioningModel": if spot { "SPOT" } else { "STANDARD" },
    });
    for (name, value) in asked.as_object().into_iter().flatten() {
        shown[name] = value.clone();
    }
    if spot && shown["instanceTerminationAction"].is_null() {
        shown["instanceTerminationAction"] = "STOP".into();
    }
    Ok(shown)
}

/// `compute.instances.insert`.
pub(super) fn instance(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let zone = call.zone(world)?.to_owned();
    let request = request(call)?;
    if let Some(known) = known(world, request.as_deref()) {
        return Ok(known);
    }
    let body = &call.body;
    let place = Place::from((zone.as_str(), body["name"].as_str().unwrap_or_default()));
    let address = below(world, body["machineType"].as_str().unwrap_or_default());
    let machine_type = zonal(&address, &zone, "machineTypes")
        .ok_or_else(|| field("machineType", &body["machineType"], "The URL is malformed."))?;
    let machine_type = *MACHINE_TYPES
        .iter()
        .find(|known| known.name == machine_type)
        .ok_or_else(|| field("machineType", &body["machineType"], "The referenced resource does not exist."))?;
    let least = &body["minCpuPlatform"];
    let platforms = world.setup.zones.iter().find(|known| known.name == zone).map(|zone| &zone.cpu_platforms);
    if !least.is_null() && !platforms.is_some_and(|known| known.iter().any(|known| *least == known.as_str())) {
        return Err(field("minCpuPlatform", least, "The CPU platform is not available in the zone."));
    }
    labels(body)?;
    let metadata = metadata(body)?;
    let scheduling = scheduling(body)?;
    let nested = body["advancedMachineFeatures"]["enableNestedVirtualization"] == true;
    if nested && [world.setup.policy_v2, world.setup.policy_v1].contains(&Policy::Enforced) {
        let message = format!(
            "Constraint constraints/compute.disableNestedVirtualization violated for project {}.",
            world.setup.project
        );
        return Err(Refusal::new(412, "conditionNotMet", message));
    }
    if world.instances.contains_key(&place) {
        return Err(Refusal::exists(&path(world, &place, "instances")));
    }
    let (attached, created) = disks::of_instance(world, &place, body, machine_type)?;
    let (interfaces, nat) = interfaces(world, &zone, body)?;
    for (place, disk) in created {
        world.disks.insert(place, disk);
    }
    let id = world.id();
    for attached in &attached {
        let name = attached["source"].as_str().and_then(|source| source.rsplit('/').next()).unwrap_or_default();
        let disk = world.disks.get_mut(&Place::from((zone.as_str(), name)));
        let user = link(&format!("projects/{}/zones/{zone}/instances/{}", world.setup.project, place.name));
        if let Some(disk) = disk {
            disk["users"] = json!([user]);
        }
    }

    let project = &world.setup.project;
    let at = path(world, &place, "instances");
    let mut value = body.clone();
    let more = json!({
        "kind": "compute#instance", "id": id.to_string(), "status": "PROVISIONING", "creationTimestamp": now(),
        "zone": link(&format!("projects/{project}/zones/{zone}")), "selfLink": link(&at),
        "machineType": link(&format!("projects/{project}/zones/{zone}/machineTypes/{}", machine_type.name)),
        "cpuPlatform": least.as_str().unwrap_or(machine_type.platform),
        "disks": attached, "networkInterfaces": interfaces, "scheduling": scheduling,
        "labelFingerprint": "42WmSpB8rSM=", "fingerprint": fingerprint(id), "startRestricted": false, "deletionProtection": false,
        "resourceStatus": { "scheduling": {}, "effectiveInstanceMetadata": effective(&metadata) },
    });
    for (name, more) in more.as_object().into_iter().flatten() {
        value[name] = more.clone();
    }
    value["metadata"]["kind"] = "compute#metadata".into();
    value["metadata"]["fingerprint"] = fingerprint(id + 1).into();
    value["tags"]["fingerprint"] = fingerprint(id + 2).into();
    let failure = shortage(world, &zone);
    let target = Target { zone: Some(&zone), path: &format!("instances/{}", place.name), id: &id.to_string() };
    let answer = world.begin("insert", &target, Work::Insert(place.clone(), failure), request.as_deref());
    let nested = nested && machine_type.nests && !world.setup.ignores_nested;
    let instance = Instance {
        value,
        metadata,
        preempted: false,
        hidden: world.setup.hides_new.into(),
        serial: Default::default(),
        attributes: BTreeMap::new(),
        nested,
        nat,
        machine: Slot::Empty,
        expires: None,
        ending: None,
    };
    world.instances.insert(place, instance);
    Ok(answer)
}

fn fingerprint(number: u64) -> String {
    base64::prelude::BASE64_STANDARD.encode(number.to_be_bytes())
}

/// What metadata comes to that Compute Engine itself reads.
fn effective(metadata: &BTreeMap<String, String>) -> Value {
    let says = |key: &str| metadata.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    json!({
        "enableOsloginMetadataValue": says("enable-oslogin"),
        "enableGuestAttributesMetadataValue": says("enable-guest-attributes"),
        "blockProjectSshKeysMetadataValue": says("block-project-ssh-keys"),
        "serialPortEnableMetadataValue": says("serial-port-enable"),
        "serialPortLoggingEnableMetadataValue": says("serial-port-logging-enable"),
        "enableOsInventoryMetadataValue": says("enable-os-inventory"),
        "enableOsconfigMetadataValue": says("enable-osconfig"),
        "vmDnsSettingMetadataValue": metadata.get("vm-dns-setting").map_or("GLOBAL_DEFAULT", String::as_str),
    })
}

/// The network interfaces of a new instance as they are shown, and its external address.
fn interfaces(world: &mut World, zone: &str, body: &Value) -> Result<(Vec<Value>, Option<Ipv4Addr>), Refusal> {
    let asked = body["networkInterfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    if asked.is_empty() {
        return Err(field("networkInterfaces", &Value::Null, "At least one network interface is required."));
    }
    let (mut shown, mut nat) = (Vec::new(), None);
    for (index, interface) in asked.iter().enumerate() {
        let id = world.id();
        let number = (id / 7919 % 250 + 2) as u8;
        let (project, region) = (&world.setup.project, region(zone));
        let mut value = json!({
            "network": link(&format!("projects/{project}/global/networks/default")),
            "subnetwork": link(&format!("projects/{project}/regions/{region}/subnetworks/default")),
            "stackType": "IPV4_ONLY",
        });
        for (name, asked) in interface.as_object().into_iter().flatten() {
            value[name] = asked.clone();
        }
        value["kind"] = "compute#networkInterface".into();
        value["name"] = format!("nic{index}").into();
        value["networkIP"] = format!("10.132.{index}.{number}").into();
        value["fingerprint"] = fingerprint(id).into();
        for access in value.get_mut("accessConfigs").and_then(Value::as_array_mut).into_iter().flatten() {
            let address = *nat.get_or_insert_with(|| external(&world.instances));
            let more = json!({
                "kind": "compute#accessConfig", "type": "ONE_TO_ONE_NAT", "natIP": address.to_string(), "networkTier": "PREMIUM",
            });
            for (name, more) in more.as_object().into_iter().flatten() {
                access[name] = more.clone();
            }
            if access["name"].is_null() {
                access["name"] = "external-nat".into();
            }
        }
        shown.push(value);
    }
    Ok((shown, nat))
}

/// An external address that no other instance has. Other test processes may run, so it is also one on which nobody serves SSH, if that can
/// be told.
fn external(instances: &BTreeMap<Place, Instance>) -> Ipv4Addr {
    let free = (2..=250).map(|number| Ipv4Addr::new(127, 43, 0, number)).filter(|address| {
        let is_free = |port: u16| match std::net::TcpListener::bind((*address, port)) {
            Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
            Ok(_) => true,
        };
        instances.values().all(|instance| instance.nat != Some(*address)) && is_free(22)
    });
    free.take(1).next().unwrap_or(Ipv4Addr::new(127, 43, 0, 1))
}
