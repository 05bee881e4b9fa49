//! The methods that create something, with what Compute Engine checks besides the schema.

use std::{collections::BTreeMap, net::Ipv4Addr};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{
    call::{Call, path},
    operation::{Target, Work, region},
    refusal::Refusal,
    setup::{MACHINE_TYPES, MachineType, Policy},
    world::{Instance, Place, Slot, World, link, now, shortage},
};

/// Disk types that zones have.
const DISK_TYPES: [&str; 5] = ["pd-standard", "pd-balanced", "pd-ssd", "pd-extreme", "hyperdisk-balanced"];
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

/// The newest image of a family.
pub(super) fn newest<'a>(world: &'a World, project: &str, family: &str) -> Option<&'a Value> {
    let prefix = link(&format!("projects/{project}/global/images/"));
    let of_family = |image: &&Value| {
        image["family"] == family && image["selfLink"].as_str().is_some_and(|address| address.starts_with(&prefix))
    };
    world.images.iter().rev().filter(|image| image["status"] == "READY").find(of_family)
}

fn field(name: &str, value: &Value, why: &str) -> Refusal {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Refusal::invalid(format!("Invalid value for field 'resource.{name}': '{value}'. {why}"))
}

/// A partial or whole address below the project, such as `zones/z/machineTypes/t`.
fn below(world: &World, address: &str) -> String {
    let hosts = ["https://www.googleapis.com/compute/v1/", "https://compute.googleapis.com/compute/v1/"];
    let address = hosts.iter().find_map(|host| address.strip_prefix(host)).unwrap_or(address);
    let own = format!("projects/{}/", world.setup.project);
    address.strip_prefix(&own).unwrap_or(address).to_owned()
}

/// The last part of an address that must be `zones/ZONE/KIND/NAME`.
fn zonal<'a>(address: &'a str, zone: &str, kind: &str) -> Option<&'a str> {
    address.strip_prefix(&format!("zones/{zone}/{kind}/")).filter(|name| !name.is_empty() && !name.contains('/'))
}

fn source_image<'a>(world: &'a World, at: &str, address: &Value) -> Result<&'a Value, Refusal> {
    let text = below(world, address.as_str().unwrap_or_default());
    let parts: Vec<_> = text.split('/').collect();
    let own = world.setup.project.as_str();
    let found = match parts[..] {
        ["projects", project, "global", "images", "family", family] => newest(world, project, family),
        ["global", "images", "family", family] => newest(world, own, family),
        ["projects", _, "global", "images", _] | ["global", "images", _] => {
            let whole = if parts[0] == "global" { format!("projects/{own}/{text}") } else { text.clone() };
            world.images.iter().find(|image| image["selfLink"] == link(&whole))
        }
        _ => return Err(field(at, address, "The URL is malformed.")),
    };
    found.ok_or_else(|| field(at, address, "The referenced image resource cannot be found."))
}

fn disk_type(world: &World, zone: &str, at: &str, address: &Value, family: &str) -> Result<String, Refusal> {
    if address.is_null() {
        return Ok("pd-standard".to_owned());
    }
    let text = below(world, address.as_str().unwrap_or_default());
    let name = zonal(&text, zone, "diskTypes").ok_or_else(|| field(at, address, "The URL is malformed."))?;
    if !DISK_TYPES.contains(&name) {
        return Err(field(at, address, "The referenced diskType resource cannot be found."));
    }
    if ["c4", "n4"].contains(&family) && name.starts_with("pd-") {
        return Err(Refusal::invalid(format!("[{name}] features are not compatible for creating instance.")));
    }
    Ok(name.to_owned())
}

fn labels(value: &Value) -> Result<(), Refusal> {
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
    let (attached, created) = disks(world, &place, body, machine_type)?;
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

type NewDisks = Vec<(Place, Value)>;

/// The disks of a new instance as they are shown there, and those that are created for it.
fn disks(
    world: &mut World,
    instance: &Place,
    body: &Value,
    machine_type: MachineType,
) -> Result<(Vec<Value>, NewDisks), Refusal> {
    let (mut attached, mut created) = (Vec::new(), Vec::new());
    let asked = body["disks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !asked.first().is_some_and(|disk| disk["boot"] == true) {
        return Err(field(
            "disks",
            &Value::Null,
            "At least one disk must be a boot disk, and it must be the first one.",
        ));
    }
    let family = machine_type.name.split('-').next().unwrap_or_default();
    for (index, disk) in asked.iter().enumerate() {
        let at = format!("disks[{index}]");
        let mut shown = json!({
            "kind": "compute#attachedDisk", "index": index, "boot": index == 0, "autoDelete": false, "type": "PERSISTENT",
            "mode": "READ_WRITE", "interface": "SCSI", "deviceName": format!("persistent-disk-{index}"),
        });
        for (name, value) in disk.as_object().into_iter().flatten().filter(|(name, _)| *name != "initializeParams") {
            shown[name] = value.clone();
        }
        let size = match (disk.get("source"), disk.get("initializeParams")) {
            (Some(source), None) => {
                let address = below(world, source.as_str().unwrap_or_default());
                let name = zonal(&address, &instance.zone, "disks")
                    .ok_or_else(|| field(&format!("{at}.source"), source, "The URL is malformed."))?;
                let place = Place::from((instance.zone.as_str(), name));
                let known = world.disks.get(&place);
                let known = known.ok_or_else(|| Refusal::not_found(&path(world, &place, "disks")))?;
                if known["users"].as_array().is_some_and(|users| !users.is_empty()) {
                    let message = format!("The disk resource '{}' is already being used", path(world, &place, "disks"));
                    return Err(Refusal::new(400, "resourceInUseByAnotherResource", message));
                }
                shown["source"] = known["selfLink"].clone();
                known["sizeGb"].clone()
            }
            (None, Some(new)) => {
                let fallback = if index == 0 { instance.name.clone() } else { format!("{}-{index}", instance.name) };
                let name = new["diskName"].as_str().map_or(fallback, str::to_owned);
                let mut asked = json!({ "name": name, "type": new["diskType"] });
                asked["sizeGb"] =
                    if new["diskSizeGb"].is_null() { disk["diskSizeGb"].clone() } else { new["diskSizeGb"].clone() };
                for (from, to) in [("sourceImage", "sourceImage"), ("labels", "labels")] {
                    asked[to] = new[from].clone();
                }
                let place = Place::from((instance.zone.as_str(), name.as_str()));
                let disk = new_disk(world, &place, &asked, family, &format!("{at}.initializeParams"))?;
                shown["source"] = disk["selfLink"].clone();
                let size = disk["sizeGb"].clone();
                created.push((place, disk));
                size
            }
            _ => return Err(field(&at, &Value::Null, "Specify either source or initializeParams.")),
        };
        shown["diskSizeGb"] = size;
        attached.push(shown);
    }
    Ok((attached, created))
}

/// A disk as it is shown, ready.
fn new_disk(world: &mut World, place: &Place, asked: &Value, family: &str, at: &str) -> Result<Value, Refusal> {
    labels(asked)?;
    if world.disks.contains_key(place) {
        return Err(Refusal::exists(&path(world, place, "disks")));
    }
    let kind = disk_type(world, &place.zone, &format!("{at}.diskType"), &asked["type"], family)?;
    let image = match &asked["sourceImage"] {
        Value::Null => None,
        address => Some(source_image(world, &format!("{at}.sourceImage"), address)?.clone()),
    };
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
    let least = image.as_ref().and_then(|image| number(&image["diskSizeGb"]));
    let size = number(&asked["sizeGb"]).or(least).unwrap_or(500);
    if size == 0 || least.is_some_and(|least| size < least) {
        let least = least.unwrap_or(1);
        let why = format!("Requested disk size cannot be smaller than the image size ({least} GB)");
        return Err(field(&format!("{at}.diskSizeGb"), &asked["sizeGb"], &why));
    }
    let id = world.id();
    let (project, zone) = (&world.setup.project, &place.zone);
    let mut disk = json!({
        "kind": "compute#disk", "id": id.to_string(), "name": place.name, "sizeGb": size.to_string(), "status": "READY",
        "type": link(&format!("projects/{project}/zones/{zone}/diskTypes/{kind}")),
        "zone": link(&format!("projects/{project}/zones/{zone}")), "selfLink": link(&path(world, place, "disks")),
        "creationTimestamp": now(), "labelFingerprint": "42WmSpB8rSM=", "physicalBlockSizeBytes": "4096", "users": [],
    });
    if let Some(image) = image {
        disk["sourceImage"] = image["selfLink"].clone();
        disk["sourceImageId"] = image["id"].clone();
    }
    if !asked["labels"].is_null() {
        disk["labels"] = asked["labels"].clone();
    }
    Ok(disk)
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

/// `compute.disks.insert`.
pub(super) fn disk(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let zone = call.zone(world)?.to_owned();
    let request = request(call)?;
    if let Some(known) = known(world, request.as_deref()) {
        return Ok(known);
    }
    let mut asked = call.body.clone();
    if let Some(image) = call.parameter("sourceImage") {
        asked["sourceImage"] = image.into();
    }
    let place = Place::from((zone.as_str(), asked["name"].as_str().unwrap_or_default()));
    let mut disk = new_disk(world, &place, &asked, "", "disk")?;
    disk["status"] = "CREATING".into();
    let id = disk["id"].as_str().unwrap_or_default().to_owned();
    world.disks.insert(place.clone(), disk);
    let target = Target { zone: Some(&zone), path: &format!("disks/{}", place.name), id: &id };
    Ok(world.begin("insert", &target, Work::Disk(place.clone()), request.as_deref()))
}

/// `compute.images.insert`, from a disk or from an archive in a bucket.
pub(super) fn image(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    call.project(world)?;
    let request = request(call)?;
    if let Some(known) = known(world, request.as_deref()) {
        return Ok(known);
    }
    let body = &call.body;
    labels(body)?;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let at = format!("projects/{}/global/images/{name}", world.setup.project);
    if world.images.iter().any(|image| image["selfLink"] == link(&at)) {
        return Err(Refusal::exists(&at));
    }
    let mut source = None;
    let size = match (&body["sourceDisk"], &body["rawDisk"]["source"]) {
        (Value::String(disk), Value::Null) => {
            let address = below(world, disk);
            let place = match address.split('/').collect::<Vec<_>>()[..] {
                ["zones", zone, "disks", name] => Place::from((zone, name)),
                _ => return Err(field("sourceDisk", &body["sourceDisk"], "The URL is malformed.")),
            };
            let known = world.disks.get(&place).ok_or_else(|| Refusal::not_found(&path(world, &place, "disks")))?;
            let is_used = known["users"].as_array().is_some_and(|users| !users.is_empty());
            if is_used && call.parameter("forceCreate") != Some("true") {
                let message = format!("The disk resource '{}' is already being used", path(world, &place, "disks"));
                return Err(Refusal::new(400, "resourceInUseByAnotherResource", message));
            }
            source = Some(known.clone());
            known["sizeGb"].clone()
        }
        (Value::Null, Value::String(archive)) if archive.starts_with("https://storage.googleapis.com/") => "10".into(),
        _ => return Err(field("sourceDisk", &Value::Null, "Specify one source: a disk, or an archive in a bucket.")),
    };
    let id = world.id().to_string();
    let mut image = body.clone();
    let more = json!({
        "kind": "compute#image", "id": id, "status": "PENDING", "selfLink": link(&at), "creationTimestamp": now(),
        "diskSizeGb": size, "archiveSizeBytes": "1073741824", "sourceType": "RAW", "labelFingerprint": "42WmSpB8rSM=",
    });
    for (name, more) in more.as_object().into_iter().flatten() {
        image[name] = more.clone();
    }
    if let (Some(parts), Some(disk)) = (&world.parts, &source) {
        let failed = |error: std::io::Error| Refusal::new(500, "backendError", error.to_string());
        parts.capture(disk, &image).map_err(failed)?;
    }
    world.images.push(image);
    let target = Target { zone: None, path: &format!("images/{name}"), id: &id };
    Ok(world.begin("insert", &target, Work::Image(name), request.as_deref()))
}
