//! An L1 on Compute Engine with guests in it: the server of the tests really boots it.

use std::{os::unix::fs::PermissionsExt as _, process::Child};

use serde_json::Value;

use crate::{
    endings::assert_counts_agree,
    gce::{assert_no_secrets, assert_nothing_is_left, in_cloud, running, until},
    gce_server::{Cloud, Machines, Setup},
    lab::{Finished, Lab},
    rootfs::alpine,
    stops::interrupt,
    store,
};

const PROXY: &str = r#"#!/bin/bash
# Connects to the SSH server of the instance $1: asks the cloud for its port.
exec 3<>"/dev/tcp/${CLOUD%:*}/${CLOUD#*:}" || exit 1
printf 'GET /test/ssh-port/%s HTTP/1.1\r\nHost: cloud\r\n\r\n' "$1" >&3
while read -r name value <&3; [ "${name%$'\r'}" ]; do
    [ "${name,,}" != content-length: ] || length=${value%$'\r'}
done
read -r -N "$length" port <&3
exec 3>&-
set -- "$port"
"#;
const RELAY: &str = include_str!("../gce/guest/relay.sh");

fn passes_and_fails() -> String {
    alpine() + "[[suite]]\nname = 'passes'\ninline = 'true'\n[[suite]]\nname = 'fails'\ninline = 'exit 3'\n"
}

fn setup() -> Setup {
    store::the_rest();
    Setup::new(Machines::Qemu(store::kept().to_owned()))
}

/// Starts a run on an instance without an external address, which is reached by a proxy command.
fn start(lab: &Lab, cloud: &Cloud, matrix: &str, out: &str, args: &[&str]) -> Child {
    let environment = cloud.environment();
    let (_, compute) = environment.iter().find(|(name, _)| name.ends_with("_COMPUTE")).unwrap();
    let proxy = lab.write("proxy", &(PROXY.to_owned() + RELAY));
    std::fs::set_permissions(&proxy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = lab.write(&format!("{out}.toml"), matrix);
    let mut command = in_cloud(lab, cloud);
    command.env("CLOUD", compute.trim_start_matches("http://").split('/').next().unwrap());
    command.arg("run").arg(file).args(["--runner", "gce", "--gce-external-ip", "false", "--gce-proxy-command"]);
    command.arg(format!("'{}' %n", proxy.display())).arg("--out").arg(lab.path(out)).args(args).spawn().unwrap()
}

/// The conversation without what is different each time, and without what is said again and again.
fn conversation(cloud: &Cloud, run: &Finished) -> String {
    let instance = run.json()["runners"][0]["machine"]["facts"]["name"].as_str().unwrap().to_owned();
    let run_name = run.json()["run"].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = Vec::new();
    for request in cloud.requests() {
        let query: Vec<_> = request
            .query
            .iter()
            .map(|(key, value)| match key.as_str() {
                "requestId" => "requestId=ID".to_owned(),
                "start" => "start=N".to_owned(),
                _ => format!("{key}={value}"),
            })
            .collect();
        let mut body = request.body.clone();
        if let Some(items) = body.pointer_mut("/metadata/items").and_then(Value::as_array_mut) {
            for item in items {
                match item["key"].as_str() {
                    Some("startup-script") => item["value"] = "<start-up script>".into(),
                    Some("ssh-keys") => item["value"] = "<keys>".into(),
                    _ => {}
                }
            }
        }
        for labels in ["/labels", "/disks/0/initializeParams/labels"] {
            if let Some(labels) = body.pointer_mut(labels) {
                labels["nestmatrix-owner"] = "<owner>".into();
            }
        }
        // The exchange of tokens is a secret's, and another crate's.
        let body = if body.is_null() || request.method == "sts.token" { String::new() } else { format!("\n{body:#}") };
        let line = format!("{} {} {}{body}\n", request.status, request.method, query.join("&"));
        let line = line.replace(&instance, "<instance>").replace(&run_name, "<run>");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

#[test]
fn an_l1_on_compute_engine_gives_the_verdicts_of_every_other_and_is_gone_afterwards() {
    let setup = setup();
    let lab = Lab::open();
    let cloud = Cloud::start(setup);
    let child = start(&lab, &cloud, &passes_and_fails(), "out", &[]);
    let run = lab.finish(child, "out");
    run.assert_code(1);
    assert_eq!(run.verdict("alpine.passes"), "passed", "{}", run.stderr);
    assert_eq!(run.verdict("alpine.fails"), "failed(test)", "{}", run.stderr);
    assert_counts_agree(&run);
    let runner = run.json()["runners"][0].clone();
    assert_eq!(
        (runner["kind"].as_str(), runner["facts"]["accelerator"].as_str()),
        (Some("gce"), Some("kvm")),
        "{runner}"
    );
    let machine = &runner["machine"];
    assert!(machine["held_ms"].as_u64().is_some_and(|held| held > 10_000), "{machine}");
    assert!(machine["first_guest_after_ms"].as_u64().is_some(), "{machine}");
    assert_nothing_is_left(&cloud);
    assert_no_secrets(&cloud, &run);
    lab.assert_nothing_left();
    insta::assert_snapshot!(conversation(&cloud, &run));
}

#[test]
#[ignore = "boots an L1: run it with `--ignored`"]
fn a_flag_that_is_accepted_and_ignored_is_found_out_and_said_in_googles_order() {
    let setup = setup().ignores_nested();
    let lab = Lab::open();
    let cloud = Cloud::start(setup);
    let child = start(&lab, &cloud, &passes_and_fails(), "out", &[]);
    let run = lab.finish(child, "out");
    run.assert_code(3);
    assert_eq!(run.verdict("alpine.passes"), "error(runner)", "{}", run.stderr);
    assert!(
        run.reason("alpine.passes").contains("guests cannot run under KVM there"),
        "{}",
        run.reason("alpine.passes")
    );
    let lost = &run.json()["runners"][0]["lost"];
    let said = lost.to_string();
    for words in [
        "ok     no organization policy",
        "NOT OK the machine's CPU cannot run virtual machines",
        "accepted the flag and ignored it",
    ] {
        assert!(said.contains(words), "`{words}` is not in {said}");
    }
    assert_nothing_is_left(&cloud);
}

#[test]
#[ignore = "boots several L1s: run it with `--ignored`"]
fn a_spot_instance_that_is_taken_back_in_mid_run_is_a_lost_l1_and_its_cells_are_tried_again() {
    let setup = setup();
    let lab = Lab::open();
    let cloud = Cloud::start(setup);
    let matrix = alpine() + "[[suite]]\nname = 's'\ninline = 'sleep 20'\n";
    let child = start(&lab, &cloud, &matrix, "out", &["--gce-spot"]);
    let first = running(&cloud)["name"].as_str().unwrap().to_owned();
    lab.wait_for_event("out", "test-started");
    cloud.preempt(&first);
    let run = lab.finish(child, "out");
    run.assert_code(0);
    assert_eq!(run.cell("alpine.s")["attempts"].as_array().unwrap().len(), 2, "{}", run.stderr);
    assert!(run.json()["runners"][0]["lost"].to_string().contains("took back the Spot instance"), "{}", run.stderr);
    assert_nothing_is_left(&cloud);
}

#[test]
#[ignore = "boots several L1s: run it with `--ignored`"]
fn an_instance_that_reaches_its_longest_time_says_so() {
    let setup = setup();
    let lab = Lab::open();
    let cloud = Cloud::start(setup);
    let matrix =
        alpine() + "[runner]\nretries = 0\n[[suite]]\nname = 's'\ninline = 'sleep 6000'\n[timeout]\nsuite = '2h'\n";
    let child = start(&lab, &cloud, &matrix, "out", &["--gce-max-duration", "10m"]);
    lab.wait_for_event("out", "test-started");
    let run = lab.finish(child, "out");
    run.assert_code(3);
    assert!(run.json()["runners"][0]["lost"].to_string().contains("longest time of 600 s"), "{}", run.stderr);
    let inserts = cloud.requests().iter().filter(|request| request.method == "compute.instances.insert").count();
    assert_eq!(inserts, 1, "another one would be held for as long");
    assert_nothing_is_left(&cloud);
}

#[test]
#[ignore = "boots several L1s: run it with `--ignored`"]
fn ctrl_c_and_a_kill_while_guests_run_leave_nothing_that_cleanup_does_not_find() {
    let setup = setup();
    let lab = Lab::open();
    let cloud = Cloud::start(setup);
    let matrix = alpine() + "[[suite]]\nname = 's'\ninline = 'sleep 6000'\n";
    let child = start(&lab, &cloud, &matrix, "twice", &[]);
    lab.wait_for_event("twice", "test-started");
    interrupt(child.id());
    lab.wait_for_event("twice", "run-interrupted");
    interrupt(child.id());
    lab.finish(child, "twice").assert_code(130);
    assert_nothing_is_left(&cloud);

    let mut child = start(&lab, &cloud, &matrix, "killed", &[]);
    lab.wait_for_event("killed", "test-started");
    child.kill().unwrap();
    child.wait().unwrap();
    let output = in_cloud(&lab, &cloud).args(["gce", "cleanup"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    until("it is gone", || cloud.instances().is_empty().then_some(()));
    cloud.assert_no_violations();
}

#[test]
#[ignore = "boots several L1s: run it with `--ignored`"]
fn a_baked_family_is_booted_from_and_a_cache_disk_keeps_what_the_next_run_needs() {
    let setup = setup();
    let lab = Lab::warm();
    let cloud = Cloud::start(setup);
    let baked = in_cloud(&lab, &cloud).args(["gce", "bake", "--family", "ours"]).output().unwrap();
    assert_eq!(baked.status.code(), Some(0), "{baked:?}");
    assert_nothing_is_left(&cloud);
    let args = ["--gce-image", "ours", "--gce-cache-disk", "cache"];
    let matrix = alpine() + "[[suite]]\nname = 's'\ninline = 'true'\n";
    // The machine that makes the disk ends before it could use it.
    let child = start(&lab, &cloud, &matrix, "interrupted", &args);
    running(&cloud);
    interrupt(child.id());
    lab.finish(child, "interrupted").assert_code(130);
    assert_nothing_is_left(&cloud);
    for (out, uploads) in [("first", true), ("second", false)] {
        let child = start(&lab, &cloud, &matrix, out, &args);
        let instance = running(&cloud);
        assert_eq!(instance["disks"].as_array().unwrap().len(), 2, "{instance}");
        let run = lab.finish(child, out);
        run.assert_code(0);
        assert_eq!(run.file("events.jsonl").contains("uploading alpine"), uploads, "{out}: {}", run.stderr);
        assert_eq!(run.json()["templates"][0]["cached"], !uploads, "{out}: {}", run.stderr);
        assert_nothing_is_left(&cloud);
    }
    assert!(cloud.disks().iter().any(|disk| disk["name"] == "cache"), "it stays: {:?}", cloud.disks());
}

#[test]
#[ignore = "boots an L1, and needs the right to serve port 22 of loopback addresses: run it with `--ignored`"]
fn an_instance_with_an_external_address_is_logged_in_to_there() {
    let setup = setup();
    let lab = Lab::open();
    let cloud = Cloud::start(setup);
    let file = lab.write("direct.toml", &passes_and_fails());
    let mut command = in_cloud(&lab, &cloud);
    let child =
        command.arg("run").arg(file).args(["--runner", "gce", "--out"]).arg(lab.path("direct")).spawn().unwrap();
    let run = lab.finish(child, "direct");
    run.assert_code(1);
    assert_eq!(run.verdict("alpine.passes"), "passed", "{}", run.stderr);
    assert_nothing_is_left(&cloud);
}

/// On a stock system, with the packages of its distribution. No instance: what Compute Engine has around it does not matter here.
#[test]
#[ignore = "installs QEMU in a guest from the package mirror: run it with `--ignored`"]
fn the_start_up_script_installs_qemu_on_a_stock_system() {
    store::the_rest();
    let lab = Lab::open();
    lab.write("startup.sh", include_str!("../../src/runner/gce/startup.sh"));
    let matrix = r#"
images = ["debian-13-minimal"]
guest = { network = "open", memory = "1GiB", disk = "6GiB" }
timeout = { suite = "30m" }
[[suite]]
name = "s"
files = ["startup.sh"]
inline = """
set -e
useradd -m nestmatrix
ssh-keygen -A
bash ./startup.sh
qemu-system-x86_64 --version
qemu-img --version
test -e /etc/udev/rules.d/99-nestmatrix.rules
"""
"#;
    let child = lab.start(matrix, "out", &[]);
    let run = lab.finish(child, "out");
    run.assert_code(0);
    let console = run.file("cells/debian-13-minimal.s/attempt-1/console.log");
    for line in ["nestmatrix-state: installing QEMU", "nestmatrix-host-key: ssh-", "nestmatrix-state: ready"] {
        assert!(console.contains(line), "`{line}` is not in {console}");
    }
}
