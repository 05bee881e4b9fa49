//! An L1 on Compute Engine, up to the moment it would be logged in to: what is refused before anything is created, what goes wrong on the
//! way, and that nothing is left of it. No machine runs behind these instances.

use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    gce_server::{Cloud, Fault, Machines, Policy, Refusal, Setup, Zone},
    lab::{Finished, Lab},
    rootfs::alpine,
    stops::interrupt,
};

/// The zone of tests that need only one.
const ZONE: &str = "europe-west1-b";

fn broken() -> Refusal {
    Refusal::new(500, "internalError", "Internal error. Please try again or contact Google Support.")
}

fn one() -> String {
    alpine() + "[[suite]]\nname = 's'\ninline = 'true'\n"
}

fn setup() -> Setup {
    Setup::new(Machines::None)
}

/// The program, in this cloud and with this zone.
pub(crate) fn in_cloud(lab: &Lab, cloud: &Cloud) -> Command {
    let mut command = lab.nestmatrix();
    command.env_remove("GCE_METADATA_HOST").envs(cloud.environment()).env("CLOUDSDK_COMPUTE_ZONE", ZONE);
    command
}

fn start(lab: &Lab, cloud: &Cloud, out: &str, args: &[&str]) -> Child {
    let file = lab.write(&format!("{out}.toml"), &one());
    let mut command = in_cloud(lab, cloud);
    command.arg("run").arg(file).args(["--runner", "gce", "--out"]).arg(lab.path(out)).args(args).spawn().unwrap()
}

fn run(lab: &Lab, cloud: &Cloud, args: &[&str]) -> Finished {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let out = format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let child = start(lab, cloud, &out, args);
    lab.finish(child, &out)
}

fn count(cloud: &Cloud, method: &str) -> usize {
    cloud.requests().iter().filter(|request| request.method == method).count()
}

/// Waits until there is something to see.
pub(crate) fn until<T>(what: &str, mut see: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = see() {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The one instance there is, once it runs.
pub(crate) fn running(cloud: &Cloud) -> Value {
    until("a running instance", || cloud.instances().into_iter().find(|instance| instance["status"] == "RUNNING"))
}

fn name(instance: &Value) -> String {
    instance["name"].as_str().unwrap().to_owned()
}

#[track_caller]
pub(crate) fn assert_nothing_is_left(cloud: &Cloud) {
    assert_eq!(cloud.instances(), Vec::<Value>::new(), "instances are left");
    cloud.assert_no_violations();
}

/// The cell has no verdict, and this is why.
#[track_caller]
fn assert_error(run: &Finished, words: &str) {
    run.assert_code(3);
    assert_eq!(run.verdict("alpine.s"), "error(runner)", "{}", run.stderr);
    assert!(run.reason("alpine.s").contains(words), "`{words}` is not in: {}", run.reason("alpine.s"));
}

#[test]
fn what_cannot_nest_is_refused_before_anybody_is_asked() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    for (machine_type, words) in [
        ("e2-standard-4", "E2"),
        ("n2d-standard-4", "AMD"),
        ("t2a-standard-4", "Arm"),
        ("m1-ultramem-40", "memory-optimized"),
        ("a3-highgpu-8g", "A3"),
    ] {
        let run = run(&lab, &cloud, &["--gce-machine-type", machine_type]);
        run.assert_code(2);
        assert!(run.stderr.contains(machine_type) && run.stderr.contains(words), "{}", run.stderr);
    }
    let file = lab.write("m.toml", &one());
    let without_zone =
        in_cloud(&lab, &cloud).env_remove("CLOUDSDK_COMPUTE_ZONE").args(["run", "--runner", "gce"]).arg(file).output();
    let without_zone = without_zone.unwrap();
    assert_eq!(without_zone.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&without_zone.stderr).contains("--gce-zone"), "{without_zone:?}");
    assert_eq!(cloud.requests().len(), 0);
}

#[test]
fn a_policy_that_forbids_is_obeyed_whichever_service_says_it_and_one_that_nobody_may_read_is_a_warning() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    for (v2, v1) in [(Policy::Enforced, Policy::NotEnforced), (Policy::Unreadable, Policy::Enforced)] {
        cloud.set_policy(v2, v1);
        assert_error(&run(&lab, &cloud, &[]), "compute.disableNestedVirtualization");
    }
    assert_eq!(count(&cloud, "compute.zones.get"), 0, "nothing else was asked");
    cloud.set_policy(Policy::Unreadable, Policy::Unreadable);
    cloud.shortage(ZONE, Some("QUOTA_EXCEEDED"));
    let run = run(&lab, &cloud, &[]);
    assert_error(&run, "QUOTA_EXCEEDED");
    assert!(run.file("events.jsonl").contains("cannot be told"), "{}", run.stderr);
    assert_nothing_is_left(&cloud);
}

#[test]
fn a_zone_that_has_no_such_machine_or_none_left_is_passed_over() {
    let zones = [Zone::new("a-a1-a", &["AMD Milan", "Intel Broadwell"]), Zone::usual("b-b1-b"), Zone::usual("c-c1-c")];
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup().zones(zones)));
    let zones = ["--gce-zone", "a-a1-a,b-b1-b,x-x1-x,c-c1-c"];
    for code in ["ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED"] {
        cloud.shortage("b-b1-b", Some(code));
        let out = format!("out-{code}");
        let child = start(&lab, &cloud, &out, &zones);
        let instance = running(&cloud);
        assert!(instance["zone"].as_str().unwrap().ends_with("/c-c1-c"), "{instance}");
        interrupt(child.id());
        let run = lab.finish(child, &out);
        run.assert_code(130);
        let said = run.file("events.jsonl");
        for words in ["it has no CPU platform of the series N2", code, "there is no such zone"] {
            assert!(said.contains(words), "`{words}` is not in {said}");
        }
        assert_nothing_is_left(&cloud);
    }
    cloud.shortage("c-c1-c", Some("ZONE_RESOURCE_POOL_EXHAUSTED"));
    assert_error(&run(&lab, &cloud, &zones), "no zone has an instance of type");
    assert_nothing_is_left(&cloud);
}

#[test]
fn an_operation_that_is_done_and_failed_is_no_instance_and_another_zone_is_not_tried_for_it() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    cloud.shortage(ZONE, Some("INVALID_USAGE"));
    assert_error(&run(&lab, &cloud, &["--gce-zone", "europe-west1-b,europe-west1-c"]), "INVALID_USAGE");
    assert_eq!(count(&cloud, "compute.instances.insert"), 1);
    assert_nothing_is_left(&cloud);
}

#[test]
fn storms_errors_in_the_middle_of_work_and_expired_tokens_are_lived_through_and_create_one_instance() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    cloud.storm(3, Some(1));
    cloud.fault("compute.instances.insert", [1], Fault::DoAndRefuse(broken()));
    cloud.fault("compute.instances.insert", [2], Fault::Cut);
    cloud.fault("compute.zoneOperations.wait", [1], Fault::Refuse(broken()));
    let child = start(&lab, &cloud, "out", &[]);
    let instance = running(&cloud);
    assert_eq!(cloud.instances().len(), 1);
    cloud.revoke_tokens();
    cloud.print(&name(&instance), "nestmatrix-state: failed: apt-get update: no route\n");
    let run = lab.finish(child, "out");
    assert_error(&run, "no route");
    let unauthenticated = cloud.requests().iter().filter(|request| request.status == 401).count();
    assert!(unauthenticated >= 1, "a token had expired");
    assert!(count(&cloud, "compute.instances.insert") >= 3);
    assert_nothing_is_left(&cloud);
}

#[test]
fn without_credentials_or_rights_it_is_said_what_is_missing() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    cloud.clock_skew(true);
    assert_error(&run(&lab, &cloud, &[]), "no credentials");
    cloud.clock_skew(false);
    for (refusal, words) in [
        (Refusal::new(403, "forbidden", "Required 'compute.zones.get' permission for it"), "compute.zones.get"),
        (
            Refusal::new(
                403,
                "accessNotConfigured",
                "Compute Engine API has not been used in project 1 before or it is disabled.",
            ),
            "gcloud services enable compute.googleapis.com",
        ),
    ] {
        cloud.fault("compute.zones.get", [1], Fault::Refuse(refusal));
        let run = run(&lab, &cloud, &[]);
        run.assert_code(3);
        assert!(
            (run.stdout.clone() + &run.stderr).contains(words),
            "`{words}` is not in {} {}",
            run.stdout,
            run.stderr
        );
    }
    assert_nothing_is_left(&cloud);
}

#[test]
fn ctrl_c_in_every_step_leaves_nothing() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup().operations_take(Duration::from_secs(2))));
    for (number, method) in [
        "orgpolicy.projects.policies.getEffectivePolicy",
        "compute.zones.get",
        "compute.machineTypes.get",
        "compute.instances.insert",
        "compute.zoneOperations.wait",
        "compute.instances.getSerialPortOutput",
        "compute.instances.getGuestAttributes",
    ]
    .into_iter()
    .enumerate()
    {
        let (out, before) = (format!("out-{number}"), count(&cloud, method));
        // So that it comes while the answer is awaited.
        cloud.fault(method, [1], Fault::Delay(Duration::from_millis(700)));
        let child = start(&lab, &cloud, &out, &[]);
        until(method, || (count(&cloud, method) > before).then_some(()));
        interrupt(child.id());
        let run = lab.finish(child, &out);
        run.assert_code(130);
        assert_eq!(run.verdict("alpine.s"), "not-run", "{method}");
        assert_nothing_is_left(&cloud);
    }
}

#[test]
fn what_a_killed_run_left_is_found_and_deleted_by_cleanup_by_the_next_run_or_by_its_longest_time() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    let verb = |args: &[&str]| verb(&lab, &cloud, args);
    let mut child = start(&lab, &cloud, "killed", &[]);
    let first = name(&running(&cloud));
    let (code, text) = verb(&["list"]);
    assert!(code == Some(0) && text.contains(&first) && text.contains("runs on this machine"), "{text}");
    let (code, text) = verb(&["cleanup", "--all"]);
    assert!(code == Some(0) && cloud.instances().len() == 1, "a run that lives keeps its instance: {text}");
    child.kill().unwrap();
    child.wait().unwrap();
    // Another store's view of it.
    let elsewhere = lab.path("elsewhere");
    let (code, text) = verb(&["cleanup", "--store", elsewhere.to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("--all") && cloud.instances().len() == 1, "{text}");
    let (_, text) = verb(&["list"]);
    assert!(text.contains("dead"), "{text}");
    let (code, text) = verb(&["cleanup"]);
    assert!(code == Some(0) && text.contains(&format!("deleted {first}")), "{text}");
    assert_nothing_is_left(&cloud);

    let mut child = start(&lab, &cloud, "killed-again", &[]);
    let second = name(&running(&cloud));
    child.kill().unwrap();
    child.wait().unwrap();
    cloud.shortage(ZONE, Some("QUOTA_EXCEEDED"));
    let run = run(&lab, &cloud, &[]);
    assert_error(&run, "QUOTA_EXCEEDED");
    assert!(run.file("events.jsonl").contains(&format!("deleted the instance {second}")), "{}", run.stderr);
    assert_nothing_is_left(&cloud);

    // A thousandth of a second each: its ten minutes are over soon.
    let cloud = Cloud::start(setup().second(Duration::from_millis(10)));
    let mut child = start(&lab, &cloud, "ends-by-itself", &["--gce-max-duration", "10m"]);
    running(&cloud);
    child.kill().unwrap();
    child.wait().unwrap();
    until("it is gone", || cloud.instances().is_empty().then_some(()));
    cloud.assert_no_violations();
}

#[test]
fn a_machine_that_goes_before_it_is_ready_is_a_lost_one_and_the_next_is_tried() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup().second(Duration::from_millis(50))));
    let child = start(&lab, &cloud, "out", &["--gce-spot"]);
    let first = name(&running(&cloud));
    cloud.preempt(&first);
    let second = until("another one", || cloud.instances().iter().map(name).find(|name| *name != first));
    running(&cloud);
    cloud.print(&second, "nestmatrix-state: failed: no QEMU\n");
    let run = lab.finish(child, "out");
    assert_error(&run, "no QEMU");
    let said = run.file("events.jsonl");
    assert!(said.contains("took back the Spot instance"), "{said}");
    assert_nothing_is_left(&cloud);
}

/// What a verb of `gce` came to, and said.
fn verb(lab: &Lab, cloud: &Cloud, args: &[&str]) -> (Option<i32>, String) {
    let output = in_cloud(lab, cloud).arg("gce").args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// What a program said that ends by itself.
fn ended(mut child: Child) -> Output {
    until("its end", || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

fn denied() -> Refusal {
    Refusal::new(403, "forbidden", "Required 'compute.instances.create' permission for it")
}

#[test]
fn an_instance_that_may_have_been_created_is_looked_for_until_it_is_gone() {
    let hiding = setup().operations_take(Duration::from_secs(4)).hides_new();
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    // It was created, but what came back says otherwise.
    cloud.fault("compute.instances.insert", [1], Fault::DoAndCut);
    cloud.fault("compute.instances.insert", [2], Fault::Refuse(denied()));
    assert_error(&run(&lab, &cloud, &[]), "compute.instances.create");
    cloud.fault("compute.instances.insert", [1], Fault::DoAndGarble);
    assert_error(&run(&lab, &cloud, &[]), "not what the service promises");
    assert_eq!(count(&cloud, "compute.instances.delete"), 2);
    assert_nothing_is_left(&cloud);

    // The same, and nobody can see it yet.
    let cloud = Cloud::start(hiding.clone());
    cloud.fault("compute.instances.insert", [1], Fault::DoAndCut);
    cloud.fault("compute.instances.insert", [2], Fault::Refuse(denied()));
    assert_error(&run(&lab, &cloud, &[]), "compute.instances.create");
    assert_nothing_is_left(&cloud);
    let missed = |cloud: &Cloud| {
        let requests = cloud.requests();
        requests.iter().filter(|request| request.method.ends_with("delete") && request.status == 404).count()
    };
    assert_eq!(missed(&cloud), 1, "it was looked for before it could be seen");

    // It is stopped before anybody can see what it asked for.
    let cloud = Cloud::start(hiding);
    for fault in [None, Some(Fault::DoAndDelay(Duration::from_millis(900)))] {
        let (out, before) = (format!("stopped-{}", fault.is_some()), count(&cloud, "compute.instances.insert"));
        fault.into_iter().for_each(|fault| cloud.fault("compute.instances.insert", [1], fault));
        let child = start(&lab, &cloud, &out, &[]);
        until("an insert", || (count(&cloud, "compute.instances.insert") > before).then_some(()));
        until("an instance", || (!cloud.instances().is_empty()).then_some(()));
        interrupt(child.id());
        lab.finish(child, &out).assert_code(130);
        assert_nothing_is_left(&cloud);
    }
    assert_eq!(missed(&cloud), 2, "it was looked for before it could be seen");
}

#[test]
fn whoever_leaves_at_once_is_told_what_may_be_left() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    let mut child = start(&lab, &cloud, "out", &[]);
    let instance = name(&running(&cloud));
    // It would wait for that.
    cloud.fault("compute.instances.delete", [1], Fault::Delay(Duration::from_secs(600)));
    until("its end", || {
        interrupt(child.id());
        std::thread::sleep(Duration::from_millis(300));
        child.try_wait().unwrap()
    });
    let run = lab.finish(child, "out");
    run.assert_code(130);
    assert!(run.stderr.contains(&format!("{instance} in {ZONE} may still be there")), "{}", run.stderr);
    let (code, text) = verb(&lab, &cloud, &["cleanup"]);
    assert!(code == Some(0) && text.contains(&format!("deleted {instance}")), "{text}");
    assert_nothing_is_left(&cloud);
}

#[test]
fn a_disk_that_another_run_takes_first_is_done_without() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    let taken = [
        Refusal::new(
            409,
            "alreadyExists",
            "The resource 'projects/nestmatrix-test/zones/z/disks/cache' already exists",
        ),
        Refusal::new(400, "resourceInUseByAnotherResource", "The disk resource is already being used"),
    ];
    for (number, refusal) in taken.into_iter().enumerate() {
        cloud.fault("compute.instances.insert", [1], Fault::Refuse(refusal));
        let out = format!("out-{number}");
        let child = start(&lab, &cloud, &out, &["--gce-cache-disk", "cache"]);
        let instance = running(&cloud);
        assert_eq!(instance["disks"].as_array().unwrap().len(), 1, "{instance}");
        interrupt(child.id());
        let run = lab.finish(child, &out);
        assert!(run.file("events.jsonl").contains("this run goes without it"), "{}", run.stderr);
        assert_nothing_is_left(&cloud);
    }
}

#[test]
fn a_bake_leaves_an_image_or_nothing_and_says_so_if_it_cannot() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup().operations_take(Duration::from_secs(1))));
    let bake = || in_cloud(&lab, &cloud).args(["gce", "bake"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let signal = |child: &Child, name: &str| {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    };
    // Stopped while it asks for its machine, while that is made, and while it is set up: by whatever stops programs.
    for (method, name) in [
        ("compute.instances.insert", "-INT"),
        ("compute.zoneOperations.wait", "-HUP"),
        ("compute.instances.getSerialPortOutput", "-TERM"),
    ] {
        let before = count(&cloud, method);
        cloud.fault(method, [1], Fault::DoAndDelay(Duration::from_millis(700)));
        let child = bake();
        until(method, || (count(&cloud, method) > before).then_some(()));
        signal(&child, name);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(130), "{method}: {output:?}");
        assert_nothing_is_left(&cloud);
    }
    // Once its image is asked for, that is made.
    cloud.fault("compute.images.insert", [1], Fault::DoAndDelay(Duration::from_millis(700)));
    let child = bake();
    cloud.print(&name(&running(&cloud)), "nestmatrix-state: ready\n");
    until("an image", || (count(&cloud, "compute.images.insert") > 0).then_some(()));
    signal(&child, "-INT");
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("made the image nestmatrix-l1-"), "{output:?}");
    assert_nothing_is_left(&cloud);
    // One that lives keeps its machine, one that is dead does not.
    let mut child = bake();
    let machine = name(&running(&cloud));
    let (code, text) = verb(&lab, &cloud, &["cleanup", "--all"]);
    assert!(code == Some(0) && cloud.instances().len() == 1, "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, text) = verb(&lab, &cloud, &["cleanup"]);
    assert!(code == Some(0) && text.contains(&format!("deleted {machine}")), "{text}");
    assert_nothing_is_left(&cloud);
    // Its image is made, but its machine may not be deleted.
    cloud.fault("compute.instances.delete", [1], Fault::Refuse(denied()));
    let child = bake();
    let machine = name(&running(&cloud));
    cloud.print(&machine, "nestmatrix-state: ready\n");
    let output = ended(child);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("{machine} in {ZONE} may still be there")), "{said}");
    assert_eq!(count(&cloud, "compute.images.insert"), 2);
    let (code, _) = verb(&lab, &cloud, &["cleanup"]);
    assert_eq!(code, Some(0));
    assert_nothing_is_left(&cloud);
}

#[test]
fn what_dead_runs_left_is_not_worth_a_run_where_google_is_there_but_its_list_is_not() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    cloud.fault("compute.instances.aggregatedList", [1], Fault::Refuse(denied()));
    cloud.shortage(ZONE, Some("QUOTA_EXCEEDED"));
    let run = run(&lab, &cloud, &[]);
    assert_error(&run, "QUOTA_EXCEEDED");
    assert!(run.file("events.jsonl").contains("could not look for instances that dead runs left"), "{}", run.stderr);
    // The first request of all is in the record, too; and nothing in it is secret.
    let record = run.file("runners/1/requests.jsonl");
    assert!(record.lines().next().unwrap().contains("aggregated/instances"), "{record}");
    assert_no_secrets(&cloud, &run);
}

#[test]
fn a_name_that_is_mistyped_and_a_tunnel_that_cannot_be_are_found_out_before_anything_is_created() {
    let (lab, cloud) = (Lab::resting(), Cloud::start(setup()));
    let no_project = run(&lab, &cloud, &["--gce-project", "no-such-project"]);
    assert_error(&no_project, "no-such-project");
    assert!(no_project.stderr.contains("is the right project"), "{}", no_project.stderr);
    assert_eq!(count(&cloud, "compute.zones.get"), 0, "nothing else was asked");
    let no_zone = run(&lab, &cloud, &["--gce-zone", "europe-west1-x,europe-west1-y"]);
    assert_error(&no_zone, "there is no such zone");
    assert!(no_zone.stderr.contains("gcloud compute zones list"), "{}", no_zone.stderr);

    // Nobody is logged in to it.
    let bin = lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("gcloud"), "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(bin.join("gcloud"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let file = lab.write("tunnel.toml", &one());
    let mut command = in_cloud(&lab, &cloud);
    command.env("PATH", path).arg("run").arg(file).args(["--runner", "gce", "--gce-external-ip", "false", "--out"]);
    let child = command.arg(lab.path("tunnel")).spawn().unwrap();
    let run = lab.finish(child, "tunnel");
    assert_error(&run, "`gcloud` is not logged in");
    assert!(run.stderr.contains("gcloud auth login"), "{}", run.stderr);
    assert_eq!(count(&cloud, "compute.instances.insert"), 0);
    cloud.assert_no_violations();
}

/// None of the cloud's secrets is in what the run wrote down.
#[track_caller]
pub(crate) fn assert_no_secrets(cloud: &Cloud, run: &Finished) {
    let secrets = cloud.secrets();
    assert!(secrets.len() > 1, "there are some");
    let words = secrets.iter().map(String::as_str).chain(["PRIVATE KEY", "Bearer "]);
    for words in words {
        let found = Command::new("grep").args(["-r", "-l", "-F", "-a", "-e", words]).arg(&run.out).output().unwrap();
        assert_eq!(found.status.code(), Some(1), "`{words}` is in {}", String::from_utf8_lossy(&found.stdout));
    }
}
