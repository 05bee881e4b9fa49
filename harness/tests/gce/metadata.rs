//! The metadata server that a guest of Compute Engine finds at 169.254.169.254.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{
    Shared,
    http::{Answer, Request, Server},
    setup::Setup,
    world::{Instance, Place, World},
};

/// Where all of it is.
const ROOT: &str = "/computeMetadata/v1/";
/// Longest wait for a change that is asked for without a limit.
const LONGEST: Duration = Duration::from_secs(600);

/// Serves one instance.
pub(super) fn serve(shared: Arc<Shared>, place: Place) -> Server {
    Server::start(move |request| answer(&shared, &place, request).into())
}

fn text(status: u16, body: &str) -> Answer {
    google(Answer::text(status, body))
}

fn google(mut answer: Answer) -> Answer {
    answer.headers.push(("metadata-flavor", "Google".to_owned()));
    answer.headers.push(("server", "Metadata Server for VM".to_owned()));
    answer
}

fn answer(shared: &Shared, place: &Place, request: &Request) -> Answer {
    if request.path == "/" {
        return text(200, "computeMetadata/\n");
    }
    if request.header("metadata-flavor") != Some("Google") {
        return text(403, "Missing required header \"Metadata-Flavor\": \"Google\".");
    }
    let Some(path) = request.path.strip_prefix(ROOT) else { return text(404, "Not Found") };
    match request.verb.as_str() {
        "GET" => get(shared, place, path, request),
        "PUT" => put(shared, place, path, request),
        _ => text(405, "Method Not Allowed"),
    }
}

fn put(shared: &Shared, place: &Place, path: &str, request: &Request) -> Answer {
    let names: Vec<_> = path.split('/').collect();
    let ["instance", "guest-attributes", namespace, key] = names[..] else { return text(404, "Not Found") };
    let mut world = shared.world();
    let Some(instance) = world.instances.get_mut(place) else { return text(404, "Not Found") };
    if !instance.metadata.get("enable-guest-attributes").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return text(403, "Guest attributes endpoint access is disabled.");
    }
    let value = String::from_utf8_lossy(&request.body).into_owned();
    instance.attributes.insert((namespace.to_owned(), key.to_owned()), value);
    text(200, "")
}

fn get(shared: &Shared, place: &Place, path: &str, request: &Request) -> Answer {
    let says = |name: &str| request.parameter(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let last = request.parameter("last_etag");
    let limit =
        request.parameter("timeout_sec").and_then(|limit| limit.parse().ok()).map_or(LONGEST, Duration::from_secs);
    let (began, mut first) = (Instant::now(), None);
    let mut world = shared.world();
    loop {
        let Some(instance) = world.instances.get(place) else { return text(404, "Not Found") };
        let tree = tree(&world, place, instance);
        let Some(found) = find(&tree, path) else { return text(404, "Not Found") };
        let etag = etag(found);
        let known = last.map(str::to_owned).unwrap_or_else(|| first.get_or_insert_with(|| etag.clone()).clone());
        let left = limit.checked_sub(began.elapsed());
        if let Some(left) = left
            && says("wait_for_change")
            && known == etag
            && !shared.ends.load(Ordering::SeqCst)
        {
            world =
                shared.changed.wait_timeout(world, left).map_or_else(|error| error.into_inner().0, |(world, _)| world);
            continue;
        }
        let alt = request.parameter("alt");
        let mut answer = match found {
            Value::Object(_) | Value::Array(_) if !says("recursive") && alt != Some("json") => {
                Answer::text(200, listing(found))
            }
            Value::String(found) if alt != Some("json") => Answer::text(200, found.as_str()),
            found => Answer::json(200, found),
        };
        answer.headers.push(("etag", etag));
        return google(answer);
    }
}

fn etag(value: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The value at a path. Names have dashes there, and humps in JSON; but those of attributes are the user's.
fn find<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').filter(|name| !name.is_empty()).try_fold(tree, |value, name| match value {
        Value::Object(object) => object.get(name).or_else(|| object.get(&humps(name))),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

fn humps(name: &str) -> String {
    let mut parts = name.split('-');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (head, tail) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        text + &head.to_uppercase() + tail
    })
}

/// The names below a value, one a line; those that have names below them end with a slash.
fn listing(value: &Value) -> String {
    let line = |name: &str, value: &Value| {
        let slash = if value.is_object() || value.is_array() { "/" } else { "" };
        let dashed = name.chars().map(|letter| match letter.is_ascii_uppercase() {
            true => format!("-{}", letter.to_ascii_lowercase()),
            false => letter.to_string(),
        });
        format!("{}{slash}\n", dashed.collect::<String>())
    };
    match value {
        Value::Object(object) => object.iter().map(|(name, value)| line(name, value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| line(&index.to_string(), value)).collect(),
        _ => String::new(),
    }
}

/// Everything there is, as JSON has it.
fn tree(world: &World, place: &Place, instance: &Instance) -> Value {
    let project = &world.setup.project;
    let number = Setup::NUMBER;
    let value = &instance.value;
    let last = |value: &Value| value.as_str().and_then(|text| text.rsplit('/').next()).unwrap_or_default().to_owned();
    let interfaces: Vec<_> = value["networkInterfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|interface| {
            let access = interface["accessConfigs"].as_array().into_iter().flatten();
            let access: Vec<_> =
                access.map(|config| json!({ "externalIp": config["natIP"], "type": config["type"] })).collect();
            json!({
                "accessConfigs": access, "dnsServers": ["169.254.169.254"], "forwardedIps": [], "gateway": "169.254.169.2",
                "ip": interface["networkIP"], "ipAliases": [], "mac": MAC, "mtu": 1460, "targetInstanceIps": [],
                "network": format!("projects/{number}/networks/default"), "subnetmask": "255.255.255.0",
            })
        })
        .collect();
    let disks = value["disks"].as_array().into_iter().flatten().map(|disk| {
        json!({
            "deviceName": disk["deviceName"], "index": disk["index"], "interface": "SCSI", "mode": disk["mode"],
            "type": "PERSISTENT",
        })
    });
    let accounts: Map<String, Value> = value["serviceAccounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|account| {
            let shown = json!({ "aliases": ["default"], "email": account["email"], "scopes": account["scopes"] });
            ("default".to_owned(), shown)
        })
        .collect();
    let flag = |value: bool| if value { "TRUE" } else { "FALSE" };
    let scheduling = &value["scheduling"];
    json!({
        "instance": {
            "attributes": instance.metadata,
            "cpuPlatform": value["cpuPlatform"],
            "description": value["description"].as_str().unwrap_or_default(),
            "disks": disks.collect::<Vec<_>>(),
            "guestAttributes": {},
            "hostname": format!("{}.{}.c.{project}.internal", place.name, place.zone),
            "id": value["id"].as_str().and_then(|id| id.parse::<u64>().ok()),
            "image": "",
            "licenses": [],
            "machineType": format!("projects/{number}/machineTypes/{}", last(&value["machineType"])),
            "maintenanceEvent": "NONE",
            "name": place.name,
            "networkInterfaces": interfaces,
            "partnerAttributes": {},
            "preempted": flag(instance.preempted),
            "remainingCpuTime": -1,
            "scheduling": {
                "automaticRestart": flag(scheduling["automaticRestart"] == true),
                "onHostMaintenance": scheduling["onHostMaintenance"],
                "preemptible": flag(scheduling["preemptible"] == true),
            },
            "serviceAccounts": accounts,
            "tags": value["tags"]["items"].as_array().cloned().unwrap_or_default(),
            "virtualClock": { "driftToken": "0" },
            "zone": format!("projects/{number}/zones/{}", place.zone),
        },
        "oslogin": { "authenticate": { "sessions": {} } },
        "project": { "attributes": {}, "numericProjectId": number, "projectId": project },
    })
}

/// Of every first network card: machines do not see each other.
pub(super) const MAC: &str = "42:01:0a:84:00:02";
