//! Disks and images: the methods that create them, and the disks of new instances.

use serde_json::{Value, json};

use super::{
    call::{Call, path},
    create::{below, field, known, labels, request, zonal},
    operation::{Target, Work},
    refusal::Refusal,
    setup::MachineType,
    world::{Place, Slot, World, link, now},
};

/// Disk types that zones have.
const DISK_TYPES: [&str; 5] = ["pd-standard", "pd-balanced", "pd-ssd", "pd-extreme", "hyperdisk-balanced"];

/// The newest image of a family.
pub(super) fn newest<'a>(world: &'a World, project: &str, family: &str) -> Option<&'a Value> {
    let prefix = link(&format!("projects/{project}/global/images/"));
    let of_family = |image: &&Value| {
        image["family"] == family && image["selfLink"].as_str().is_some_and(|address| address.starts_with(&prefix))
    };
    world.images.iter().rev().filter(|image| image["status"] == "READY").find(of_family)
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

pub(super) type NewDisks = Vec<(Place, Value)>;

/// The disks of a new instance as they are shown there, and those that are created for it.
pub(super) fn of_instance(
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

/// `compute.disks.insert`.
pub(super) fn create(world: &mut World, call: &Call) -> Result<Value, Refusal> {
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
pub(super) fn create_image(world: &mut World, call: &Call) -> Result<Value, Refusal> {
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
            // A disk of a machine that is stopped is at rest.
            let runs = |user: &Value| {
                let mut instances = world.instances.values().map(|instance| &instance.value);
                instances.any(|instance| instance["selfLink"] == *user && instance["status"] != "TERMINATED")
            };
            let is_used = known["users"].as_array().is_some_and(|users| users.iter().any(runs));
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
        let user = disk["users"][0].clone();
        let machine = world.instances.values_mut().find(|instance| instance.value["selfLink"] == user);
        let capture = || parts.capture(disk, &image);
        match machine.map(|instance| &mut instance.machine) {
            Some(Slot::On(machine)) => machine.paused(capture),
            _ => capture(),
        }
        .map_err(failed)?;
    }
    world.images.push(image);
    let target = Target { zone: None, path: &format!("images/{name}"), id: &id };
    Ok(world.begin("insert", &target, Work::Image(name), request.as_deref()))
}
