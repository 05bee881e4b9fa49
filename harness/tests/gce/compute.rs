//! The methods of Compute Engine, but for the creation of things.

use serde_json::{Value, json};

use super::{
    call::{Call, path},
    create, disks,
    operation::{Target, Work, region},
    refusal::Refusal,
    setup::{MACHINE_TYPES, Zone},
    world::{Instance, Place, Then, World, link},
};

/// Serves every method but `wait`.
pub(super) fn serve(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    match call.method {
        "compute.disks.get" => disk(world, call),
        "compute.disks.insert" => disks::create(world, call),
        "compute.globalOperations.get" | "compute.zoneOperations.get" => operation(world, call),
        "compute.images.getFromFamily" => image(world, call),
        "compute.images.insert" => disks::create_image(world, call),
        "compute.instances.aggregatedList" => every_instance(world, call),
        "compute.instances.delete" => end(world, call, "delete", Then::Delete),
        "compute.instances.get" => Ok(world.instances[&call.instance(world)?].value.clone()),
        "compute.instances.getGuestAttributes" => guest_attributes(world, call),
        "compute.instances.getSerialPortOutput" => serial(world, call),
        "compute.instances.insert" => create::instance(world, call),
        "compute.instances.list" => instances(world, call),
        "compute.instances.stop" => end(world, call, "stop", Then::Stop),
        "compute.machineTypes.get" => machine_type(world, call),
        "compute.zoneOperations.list" => operations(world, call),
        "compute.zones.get" => {
            let name = call.zone(world)?;
            let known = world.setup.zones.iter().position(|zone| zone.name == name);
            Ok(known.map_or(Value::Null, |index| zone(world, index)))
        }
        "compute.zones.list" => {
            call.project(world)?;
            let zones = (0..world.setup.zones.len()).map(|index| zone(world, index)).collect();
            list(world, call, "compute#zoneList", "zones", zones)
        }
        method => Err(Refusal::new(501, "notImplemented", format!("{method} is not served here"))),
    }
}

fn list(world: &World, call: &Call, kind: &str, at: &str, all: Vec<Value>) -> Result<Value, Refusal> {
    let (items, next) = call.page(world, all)?;
    let at = format!("projects/{}/{at}", world.setup.project);
    let mut list = json!({ "kind": kind, "id": at, "selfLink": link(&at) });
    // An empty list has no items at all.
    if !items.is_empty() {
        list["items"] = items.into();
    }
    if let Some(next) = next {
        list["nextPageToken"] = next.into();
    }
    Ok(list)
}

fn zone(world: &World, index: usize) -> Value {
    let Zone { name, cpu_platforms } = &world.setup.zones[index];
    let project = &world.setup.project;
    json!({
        "kind": "compute#zone", "id": (2000 + index).to_string(), "name": name, "description": name, "status": "UP",
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "region": link(&format!("projects/{project}/regions/{}", region(name))),
        "selfLink": link(&format!("projects/{project}/zones/{name}")),
        "availableCpuPlatforms": cpu_platforms, "supportsPzs": true,
    })
}

fn machine_type(world: &World, call: &Call) -> Result<Value, Refusal> {
    let (zone, name) = (call.zone(world)?, call.at("machineType"));
    let at = format!("projects/{}/zones/{zone}/machineTypes/{name}", world.setup.project);
    let known = MACHINE_TYPES.iter().enumerate().find(|(_, known)| known.name == name);
    let (index, known) = known.ok_or_else(|| Refusal::not_found(&at))?;
    Ok(json!({
        "kind": "compute#machineType", "id": (3000 + index).to_string(), "name": name, "zone": zone, "selfLink": link(&at),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "guestCpus": known.cpus, "memoryMb": known.memory_mb, "architecture": known.architecture(),
        "imageSpaceGb": 0, "isSharedCpu": false, "maximumPersistentDisks": 128, "maximumPersistentDisksSizeGb": "263168",
    }))
}

fn image(world: &World, call: &Call) -> Result<Value, Refusal> {
    let (project, family) = (call.at("project"), call.at("family"));
    disks::newest(world, project, family)
        .cloned()
        .ok_or_else(|| Refusal::not_found(&format!("projects/{project}/global/images/family/{family}")))
}

fn disk(world: &World, call: &Call) -> Result<Value, Refusal> {
    let place = Place::from((call.zone(world)?, call.at("disk")));
    world.disks.get(&place).cloned().ok_or_else(|| Refusal::not_found(&path(world, &place, "disks")))
}

/// The operation that a request is about.
pub(super) fn operation(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let zone = match call.path.contains_key("zone") {
        true => Some(call.zone(world)?.to_owned()),
        false => call.project(world).map(|()| None)?,
    };
    let name = call.at("operation");
    let scope = zone.as_ref().map_or("global".to_owned(), |zone| format!("zones/{zone}"));
    let missing = Refusal::not_found(&format!("projects/{}/{scope}/operations/{name}", world.setup.project));
    let known = world.operations.iter().find(|known| known.name() == name || known.value["id"] == name);
    known.filter(|known| known.zone == zone).map(|known| known.value.clone()).ok_or(missing)
}

fn operations(world: &World, call: &Call) -> Result<Value, Refusal> {
    let zone = call.zone(world)?;
    let here = world.operations.iter().rev().filter(|operation| operation.zone.as_deref() == Some(zone));
    let all = here.map(|operation| operation.value.clone()).collect();
    list(world, call, "compute#operationList", &format!("zones/{zone}/operations"), all)
}

fn instances(world: &World, call: &Call) -> Result<Value, Refusal> {
    let zone = call.zone(world)?;
    let here = world.instances.iter().filter(|(place, _)| place.zone == zone);
    let all = here.map(|(_, instance)| instance.value.clone()).collect();
    list(world, call, "compute#instanceList", &format!("zones/{zone}/instances"), all)
}

fn every_instance(world: &World, call: &Call) -> Result<Value, Refusal> {
    call.project(world)?;
    let all = world.instances.values().map(|instance| instance.value.clone()).collect();
    let mut answer = list(world, call, "compute#instanceAggregatedList", "aggregated/instances", all)?;
    let items = answer["items"].take();
    let mut scopes = serde_json::Map::new();
    for zone in &world.setup.zones {
        let own = link(&format!("projects/{}/zones/{}", world.setup.project, zone.name));
        let here: Vec<_> = items.as_array().into_iter().flatten().filter(|item| item["zone"] == own).cloned().collect();
        let scope = format!("zones/{}", zone.name);
        let list = match here.is_empty() {
            true => json!({ "warning": {
                "code": "NO_RESULTS_ON_PAGE",
                "message": format!("There are no results for scope '{scope}' on this page."),
                "data": [{ "key": "scope", "value": scope }],
            } }),
            false => json!({ "instances": here }),
        };
        scopes.insert(scope, list);
    }
    answer["items"] = scopes.into();
    Ok(answer)
}

/// Deletes or stops an instance.
fn end(world: &mut World, call: &Call, kind: &str, then: Then) -> Result<Value, Refusal> {
    let request = create::request(call)?;
    if let Some(known) = create::known(world, request.as_deref()) {
        return Ok(known);
    }
    let place = call.instance(world)?;
    let instance = &world.instances[&place];
    if instance.ending.is_some() {
        return Err(Refusal::not_ready(&path(world, &place, "instances")));
    }
    let id = instance.value["id"].as_str().unwrap_or_default().to_owned();
    let (zone, target) = (Some(place.zone.as_str()), format!("instances/{}", place.name));
    let answer = world.begin(kind, &Target { zone, path: &target, id: &id }, Work::End, request.as_deref());
    world.end(&place, then, answer["name"].as_str().map(str::to_owned));
    Ok(answer)
}

fn serial(world: &World, call: &Call) -> Result<Value, Refusal> {
    let place = call.instance(world)?;
    let Instance { value, serial, .. } = &world.instances[&place];
    if !["RUNNING", "STOPPING"].iter().any(|status| value["status"] == *status) {
        return Err(Refusal::not_ready(&path(world, &place, "instances")));
    }
    let port = call.parameter("port").unwrap_or("1");
    let start = call.parameter("start").and_then(|start| start.parse().ok()).unwrap_or(0);
    let (start, contents, next) = if port == "1" { serial.from(start) } else { (0, String::new(), 0) };
    Ok(json!({
        "kind": "compute#serialPortOutput", "contents": contents, "start": start.to_string(), "next": next.to_string(),
        "selfLink": link(&format!("{}/serialPort", path(world, &place, "instances"))),
    }))
}

fn guest_attributes(world: &World, call: &Call) -> Result<Value, Refusal> {
    let place = call.instance(world)?;
    let wanted = call.parameter("queryPath").or(call.parameter("variableKey")).unwrap_or_default();
    let (namespace, key) = wanted.split_once('/').unwrap_or((wanted, ""));
    let instance = &world.instances[&place];
    let items: Vec<_> = instance
        .attributes
        .iter()
        .filter(|((space, name), _)| (namespace.is_empty() || space == namespace) && (key.is_empty() || name == key))
        .map(|((space, name), value)| json!({ "namespace": space, "key": name, "value": value }))
        .collect();
    if items.is_empty() {
        let message = format!("The resource '{wanted}' of type 'Guest Attribute' was not found.");
        return Err(Refusal::new(404, "notFound", message));
    }
    let at = link(&format!("{}/getGuestAttributes", path(world, &place, "instances")));
    let mut answer = json!({ "kind": "compute#guestAttributes", "selfLink": at });
    match call.parameter("variableKey") {
        Some(name) => {
            answer["variableKey"] = name.into();
            answer["variableValue"] = items[0]["value"].clone();
        }
        None => {
            answer["queryPath"] = wanted.into();
            answer["queryValue"] = json!({ "items": items });
        }
    }
    Ok(answer)
}
