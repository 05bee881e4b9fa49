//! `run --dry-run`: every request that creating an L1 on Compute Engine would take, as it would be sent. Only the price list is asked.

use std::{path::Path, time::Duration};

use matrix::Plan;
use serde_json::Value;

use super::{Failure, Outcome, catalog::with_help};
use crate::{
    gce::{Call, Calls, Client, InZone, OURS, Priced, Settings, series, shape},
    runner::{CacheDisk, Mark, intend},
};

/// What is not known before the run: names and keys that are made for it.
const RUN: &str = "RUN";
const KEYS: [&str; 2] = ["ecdsa-sha2-nistp256 KEY", "ssh-ed25519 KEY"];

/// How long the price list may take.
const PRICE: Duration = Duration::from_secs(20);

pub(super) async fn dry_run(plan: &Plan, jobs: Option<usize>, store: &Path) -> Outcome {
    let settings = Settings::read();
    let mut text = text(plan, jobs, &settings)?;
    let intended = intend(plan, jobs, &settings).map_err(|trouble| Failure::message(2, trouble.reason))?;
    for zone in &intended.zones {
        let price =
            tokio::time::timeout(PRICE, price(&settings, store, (&intended.machine_type, zone), intended.gce.spot));
        text += &match price.await.ok().flatten() {
            Some(usd) => format!(
                "\n{} in {zone}: about ${usd:.4} an hour, without its disk and its address\n",
                intended.machine_type
            ),
            None => format!(
                "\n{} in {zone}: its price is not known: the price list is not reachable, or has no such type\n",
                intended.machine_type
            ),
        };
    }
    super::print(&text)
}

/// US dollars an hour.
async fn price(settings: &Settings, store: &Path, (machine_type, zone): (&str, &str), spot: bool) -> Option<f64> {
    let shape = shape(machine_type)?;
    let client = Client::new(settings).ok()?;
    let priced = Priced::new(series(machine_type)?.priced_as()?, zone, spot);
    Some(priced.rate(&client, settings, store).await?.of(shape.cpus, shape.memory_mib))
}

fn text(plan: &Plan, jobs: Option<usize>, settings: &Settings) -> Result<String, Failure> {
    let intended = intend(plan, jobs, settings).map_err(|trouble| match trouble.help {
        Some(help) => with_help(&trouble.reason, &help),
        None => Failure::message(2, trouble.reason),
    })?;
    let calls = Calls { endpoints: &settings.endpoints, project: &intended.project };
    let mark = Mark { owner: "OWNER", run: RUN, number: 1 };
    let name = mark.name();
    let mut text = format!(
        "project {}, zones {}, {}: {}\n\
         No request was sent. A run checks project, zones, machine type and credentials before it creates anything.\n",
        intended.project,
        intended.zones.join(", "),
        intended.machine_type,
        intended.why
    );
    let mut add = |head: &str, all: Vec<Call<'_>>| {
        text += &format!("\n# {head}\n");
        all.iter().for_each(|call| text += &shown(call));
    };
    add("what did dead runs of this machine leave?", vec![calls.instances(OURS)]);
    add(
        "does an organization policy forbid it? (the second only where the first cannot be asked)",
        vec![calls.policy_v2(), calls.policy_v1()],
    );
    for zone in &intended.zones {
        let in_zone = |name| InZone { zone, name };
        let cache = intended.gce.cache_disk.as_deref();
        let mut looks = vec![calls.zone(zone), calls.machine_type(in_zone(&intended.machine_type))];
        looks.extend(cache.map(|disk| calls.disk(in_zone(disk))));
        add(&format!("can {zone} do it?"), looks);
        let disk = if cache.is_some() { CacheDisk::Ours } else { CacheDisk::None };
        let body = intended.body(zone, mark, disk, &KEYS.map(str::to_owned));
        add(
            "create it; quota and stock-out: the next zone",
            vec![
                calls.insert(in_zone(&name), body, "REQUEST"),
                calls.wait(&format!("create the instance {name} in {zone}"), Some(zone), "OPERATION"),
            ],
        );
        add(
            "until it is ready, every 7 s; then its host keys, once",
            vec![
                calls.instance(in_zone(&name)),
                calls.serial(in_zone(&name), "0"),
                calls.guest_attributes(in_zone(&name), "nestmatrix"),
                calls.guest_attributes(in_zone(&name), "hostkeys"),
            ],
        );
        add("in the end, whatever happens", vec![calls.delete(in_zone(&name), "REQUEST")]);
    }
    Ok(text)
}

fn shown(call: &Call<'_>) -> String {
    let query: Vec<_> = call.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let mut text = format!("{} {}{query}\n", call.method, call.url);
    if let Some(body) = &call.body {
        text += &format!("{:#}\n", without_script(body.clone()));
    }
    text
}

/// The start-up script is long, and always the same.
fn without_script(mut body: Value) -> Value {
    if let Some(items) = body.pointer_mut("/metadata/items").and_then(Value::as_array_mut) {
        for item in items.iter_mut().filter(|item| item["key"] == "startup-script") {
            item["value"] = Value::from("<start-up script>");
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gce::Endpoints;

    #[test]
    fn every_request_is_shown_as_it_would_be_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let matrix = "images = ['a', 'b']\n[runner]\nkind = 'gce'\nproject = 'my-project'\nzones = ['us-central1-a', 'us-east1-b']\n\
                      spot = true\ncache_disk = 'cache'\nlabels = { team = 'x' }\n[[suite]]\nname = 's'\ninline = 'true'\n";
        std::fs::write(&file, matrix).unwrap();
        let plan = matrix::load(&file, &["a", "b"]).unwrap().plan;
        let endpoints = Endpoints {
            compute: "https://compute.example/compute/v1/".into(),
            org_policy: "https://policy.example/".into(),
            resource_manager: "https://manager.example/".into(),
            billing: "https://billing.example/".into(),
        };
        let settings = Settings { project: None, zone: None, endpoints };
        let text = text(&plan, None, &settings).unwrap_or_else(|failure| panic!("{:?}", failure.report));
        insta::assert_snapshot!(text);
    }
}
