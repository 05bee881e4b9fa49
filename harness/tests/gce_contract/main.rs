//! The stand-in for Compute Engine holds what the tests of the runner `gce` rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../gce/mod.rs"]
mod gce_server;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use gce_server::{Cloud, Fault, Machines, Refusal, Setup};
use nestmatrix::ssh::Keys;
use serde_json::{Value, json};

const ID: &str = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
const ZONE: &str = "projects/nestmatrix-test/zones/europe-west1-b";

/// A client that knows nothing.
struct Client {
    host: String,
    token: String,
}

impl Client {
    fn new(cloud: &Cloud) -> Self {
        let environment = cloud.environment();
        let value = |name: &str| environment.iter().find(|(other, _)| other == name).unwrap().1.clone();
        let credentials: Value =
            serde_json::from_slice(&std::fs::read(value("GOOGLE_APPLICATION_CREDENTIALS")).unwrap()).unwrap();
        let subject = std::fs::read_to_string(credentials["credential_source"]["file"].as_str().unwrap()).unwrap();
        let token_type = "urn:ietf:params:oauth:token-type:";
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("audience", credentials["audience"].as_str().unwrap())
            .append_pair("subject_token_type", &format!("{token_type}jwt"))
            .append_pair("requested_token_type", &format!("{token_type}access_token"))
            .append_pair("subject_token", &subject)
            .finish();
        let host = value("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE");
        let host = host.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        let mut client = Self { host, token: String::new() };
        let (status, answer) = client.send("POST", "/sts/token", "application/x-www-form-urlencoded", &form).unwrap();
        assert_eq!(status, 200, "{answer}");
        client.token = answer["access_token"].as_str().unwrap().to_owned();
        client
    }

    fn send(&self, verb: &str, path: &str, kind: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let length = body.len();
        write!(
            stream,
            "{verb} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {length}\r\n\r\n{body}",
            self.host, self.token
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap()))
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", &format!("/compute/v1/{path}"), "", "").unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send("POST", &format!("/compute/v1/{path}"), "application/json", &body).unwrap()
    }

    /// Waits for the operation that was answered.
    fn done(&self, operation: &Value) -> Value {
        loop {
            let name = operation["name"].as_str().unwrap();
            let (status, now) = self.post(&format!("{ZONE}/operations/{name}/wait"), &Value::Null);
            assert_eq!(status, 200, "{now}");
            if now["status"] == "DONE" {
                return now;
            }
        }
    }

    /// The reason of a refusal.
    fn reason(answer: &Value) -> &str {
        answer["error"]["errors"][0]["reason"].as_str().unwrap()
    }
}

fn instance(name: &str, run: &str) -> Value {
    json!({
        "name": name,
        "machineType": "zones/europe-west1-b/machineTypes/n2-standard-4",
        "labels": { "nestmatrix-run": run, "nestmatrix": "1" },
        "disks": [{ "boot": true, "autoDelete": true, "initializeParams": {
            "sourceImage": "projects/debian-cloud/global/images/family/debian-13", "diskSizeGb": "20",
        } }],
        "networkInterfaces": [{ "accessConfigs": [{ "type": "ONE_TO_ONE_NAT" }] }],
        "advancedMachineFeatures": { "enableNestedVirtualization": true },
        "scheduling": { "maxRunDuration": { "seconds": "3600" }, "instanceTerminationAction": "DELETE" },
    })
}

#[test]
fn what_is_not_in_the_contract_is_refused_and_remembered() {
    let cloud = Cloud::start(Setup::new(Machines::None));
    let client = Client::new(&cloud);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = instance("box", "a");
        change(&mut body);
        body
    };
    let insert = format!("{ZONE}/instances");
    for (path, body, what) in [
        (insert.clone(), with(&|body| body["machine"] = "n2".into()), "unknown property 'resource.machine'"),
        (insert.clone(), with(&|body| body["scheduling"]["maxRunDuration"]["seconds"] = 3600.into()), "no string"),
        (
            insert.clone(),
            with(&|body| body["scheduling"]["instanceTerminationAction"] = "KILL".into()),
            "none of its values",
        ),
        (insert.clone(), with(&|body| body["disks"][0]["initializeParams"]["diskSizeGb"] = "20GB".into()), "no int64"),
        (insert.clone(), with(&|body| body["id"] = "17".into()), "output only"),
        (insert.clone(), with(&|body| body["name"] = "Box".into()), "not of the form"),
        (format!("{insert}?dryRun=true"), instance("box", "a"), "unknown query parameter 'dryRun'"),
        (format!("{ZONE}/instances/box/reset"), Value::Null, "no such method"),
    ] {
        let before = cloud.violations().len();
        let (status, answer) = client.post(&path, &body);
        assert!(status == 400 || status == 404, "{what}: {answer}");
        let violations = cloud.violations();
        assert!(violations.len() == before + 1 && violations[before].contains(what), "{what}: {violations:?}");
    }
    assert_eq!(cloud.instances(), Vec::<Value>::new());
}

#[test]
fn an_insert_is_repeated_without_effect_and_a_name_is_taken_once() {
    let cloud = Cloud::start(Setup::new(Machines::None));
    let client = Client::new(&cloud);
    let path = format!("{ZONE}/instances?requestId={ID}");
    // The work is done, the answer is lost.
    let lost = Refusal::new(500, "backendError", "Internal error");
    cloud.fault("compute.instances.insert", [1], Fault::DoAndRefuse(lost));
    assert_eq!(client.post(&path, &instance("box", "a")).0, 500);
    let (status, operation) = client.post(&path, &instance("box", "a"));
    assert_eq!((status, operation["operationType"].as_str()), (200, Some("insert")), "{operation}");
    let (status, refused) = client.post(&format!("{ZONE}/instances"), &instance("box", "a"));
    assert_eq!((status, Client::reason(&refused)), (409, "alreadyExists"));
    assert!(client.done(&operation)["error"].is_null());
    let (_, running) = client.get(&format!("{ZONE}/instances/box"));
    assert_eq!(running["status"], "RUNNING");
    assert!(running["networkInterfaces"][0]["accessConfigs"][0]["natIP"].as_str().unwrap().starts_with("127.43.0."));

    cloud.shortage("europe-west1-b", Some("ZONE_RESOURCE_POOL_EXHAUSTED"));
    let (_, operation) = client.post(&format!("{ZONE}/instances"), &instance("other", "a"));
    assert_eq!(client.done(&operation)["error"]["errors"][0]["code"], "ZONE_RESOURCE_POOL_EXHAUSTED");
    assert_eq!(cloud.instances().len(), 1, "nothing came of it");

    let (_, operation) = client.send("DELETE", &format!("/compute/v1/{ZONE}/instances/box"), "", "").unwrap();
    client.done(&operation);
    assert_eq!((cloud.instances(), cloud.disks()), (Vec::new(), Vec::new()));
    cloud.revoke_tokens();
    assert_eq!(client.get(ZONE).0, 401);
    cloud.assert_no_violations();
}

#[test]
fn lists_are_filtered_by_labels_and_come_in_pages() {
    let cloud = Cloud::start(Setup::new(Machines::None).largest_page(2));
    let client = Client::new(&cloud);
    for (name, run) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        assert_eq!(client.post(&format!("{ZONE}/instances"), &instance(name, run)).0, 200);
    }
    let everywhere = "projects/nestmatrix-test/aggregated/instances";
    let named = |filter: &str| {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("filter", filter)
                .extend_pairs((!token.is_empty()).then_some(("pageToken", &token)))
                .finish();
            let (status, page) = client.get(&format!("{everywhere}?{query}"));
            assert_eq!(status, 200, "{page}");
            let here = page["items"]["zones/europe-west1-b"]["instances"].as_array().cloned().unwrap_or_default();
            assert!(here.len() <= 2);
            names.extend(here.iter().map(|instance| instance["name"].as_str().unwrap().to_owned()));
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return names.join(" "),
            }
        }
    };
    for (filter, names) in [
        ("labels.nestmatrix-run=a", "a1 a2 a3"),
        ("(labels.nestmatrix=1) AND (labels.nestmatrix-run=b)", "b1"),
        ("labels.nestmatrix-run:*", "a1 a2 a3 b1"),
        ("labels.nothing:*", ""),
        ("status=RUNNING labels.nestmatrix-run!=a", ""),
    ] {
        assert_eq!(named(filter), names, "{filter}");
    }
    cloud.assert_no_violations();
    assert_eq!(client.get(&format!("{everywhere}?filter=labels")).0, 400);
}

#[test]
fn spot_instances_are_taken_away_and_those_with_a_time_limit_end() {
    // A second of this cloud takes a millisecond.
    let cloud = Cloud::start(Setup::new(Machines::None).second(Duration::from_millis(1)));
    let client = Client::new(&cloud);
    let started = |name: &str, scheduling: Value| {
        let mut body = instance(name, "a");
        body["scheduling"] = scheduling;
        let (_, operation) = client.post(&format!("{ZONE}/instances"), &body);
        assert!(client.done(&operation)["error"].is_null());
    };
    let gone = |name: &str| cloud.instances().iter().all(|instance| instance["name"] != name);
    started("short", json!({ "maxRunDuration": { "seconds": "300" }, "instanceTerminationAction": "DELETE" }));
    started("spot", json!({ "provisioningModel": "SPOT", "instanceTerminationAction": "STOP" }));
    cloud.preempt("spot");
    eventually("end", &cloud, || (gone("short") && cloud.instances()[0]["status"] == "TERMINATED").then_some(()));
    let filter = "operationType=compute.instances.preempted";
    let (_, list) = client.get(&format!("{ZONE}/operations?filter={filter}"));
    assert!(list["items"][0]["targetLink"].as_str().unwrap().ends_with("/spot"), "{list}");
    assert!(cloud.disks().iter().all(|disk| disk["name"] == "spot"), "{:?}", cloud.disks());
    cloud.assert_no_violations();
}

fn printed(cloud: &Cloud) -> String {
    let names = cloud.instances().into_iter().filter_map(|instance| Some(instance["name"].as_str()?.to_owned()));
    names.map(|name| format!("{name} printed {}\n", cloud.serial(&name))).collect()
}

/// Waits for what an emulated guest takes minutes for.
fn eventually<T>(what: &str, cloud: &Cloud, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert_eq!(cloud.violations(), Vec::<String>::new());
        assert!(began.elapsed() < Duration::from_secs(600), "no {what}: {}", printed(cloud));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "on request: boots a virtual machine from an image of NESTMATRIX_TEST_STORE"]
fn a_real_instance_tells_its_host_keys_lets_in_the_user_of_its_metadata_and_ends() {
    let store =
        std::env::var_os("NESTMATRIX_TEST_STORE").expect("NESTMATRIX_TEST_STORE: a store with debian-13-runner");
    let cloud = Cloud::start(Setup::new(Machines::Qemu(store.into())));
    let client = Client::new(&cloud);
    let keys = Keys::generate("tester").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [_, key] = keys.write_private(folder.path(), ["id_ecdsa", "id_ed25519"]).unwrap();
    let mut body = instance("box", "a");
    body["metadata"] = json!({ "items": [
        { "key": "enable-guest-attributes", "value": "TRUE" },
        { "key": "enable-oslogin", "value": "FALSE" },
        { "key": "ssh-keys", "value": keys.public().map(|key| format!("tester:{key}")).join("\n") },
        { "key": "startup-script", "value": "echo started by $(id -un)" },
    ] });
    let (_, operation) = client.post(&format!("{ZONE}/instances"), &body);
    assert!(client.done(&operation)["error"].is_null(), "{:?}", cloud.violations());

    let attributes = format!("{ZONE}/instances/box/getGuestAttributes?queryPath=hostkeys/");
    let host_keys = eventually("host keys", &cloud, || {
        let (status, answer) = client.get(&attributes);
        let items = answer["queryValue"]["items"].as_array().cloned().unwrap_or_default();
        (status == 200 && items.len() == 2).then_some(items)
    });
    let port = cloud.ssh_port("box").unwrap();
    let known: String = host_keys
        .iter()
        .map(|key| format!("[127.0.0.1]:{port} {} {}\n", key["key"].as_str().unwrap(), key["value"].as_str().unwrap()))
        .collect();
    std::fs::write(folder.path().join("known_hosts"), known).unwrap();
    let ssh = |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60", "-o", "BatchMode=yes", "-i"]);
        ssh.arg(&key).args(["-o", "StrictHostKeyChecking=yes", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", folder.path().join("known_hosts").display()));
        ssh.args(["-p", &port.to_string(), "tester@127.0.0.1", command]).output().unwrap()
    };
    let said = eventually("login", &cloud, || {
        let output = ssh("id -un; sudo -n id -un; grep -c svm /proc/cpuinfo; getent hosts metadata.google.internal");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert_eq!(said.split_whitespace().take(4).collect::<Vec<_>>(), ["tester", "root", "1", "169.254.169.254"]);
    let (_, shown) = client.get(&format!("{ZONE}/instances/box"));
    let address = shown["networkInterfaces"][0]["accessConfigs"][0]["natIP"].as_str().unwrap();
    // Only root may serve the port of SSH.
    if rustix::process::geteuid().is_root() {
        // The agent makes the server read its settings again once it has created users: connections fail meanwhile.
        eventually("banner", &cloud, || {
            let mut banner = [0; 4];
            TcpStream::connect((address, 22)).ok()?.read_exact(&mut banner).ok()?;
            (&banner == b"SSH-").then_some(())
        });
    }
    assert_eq!(client.send("GET", "/test/ssh-port/box", "", "").unwrap(), (200, port.into()));
    eventually("startup script", &cloud, || cloud.serial("box").contains("started by root").then_some(()));

    // Its guest shuts down by itself.
    let pid = cloud.pid("box").unwrap();
    let began = Instant::now();
    let (_, operation) = client.send("DELETE", &format!("/compute/v1/{ZONE}/instances/box"), "", "").unwrap();
    client.done(&operation);
    assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
    assert_eq!(cloud.instances(), Vec::<Value>::new());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    cloud.assert_no_violations();
}
