//! A plan as a value: its digest, `plan.json`, partial plans.

use std::{fs, time::Duration};

use insta::assert_snapshot;
use matrix::{ByteSize, CellId, Digest, GceOverrides, GceRunner, Plan, RunnerKind, SelectError, Step};
use proptest::prelude::*;

use crate::folder::Folder;

const MATRIX: &str = r#"
images = ["debian-11-minimal"]
package = { name = "hello", version = "2.12", artifacts = ["*.deb"] }
[[image]]
name = "debian-12-minimal"
prepare = { inline = "locale-gen {{ image.name }}", packages = ["gcc", "make"], timeout = "3m" }
[axes]
locale = ["C", "tr"]
[[suite]]
name = "smoke"
run = "smoke.sh"
results = "junit:/var/lib/*.xml"
artifacts = ["/var/log/*.log"]
files = ["data/*"]
[[suite]]
name = "own"
inline = "echo {{ axes.locale }}"
timeout = { suite = "1m" }
"#;

fn folder(artifact: &[u8], data: &[u8]) -> Folder {
    Folder::with(MATRIX).file("hello.deb", artifact).file("smoke.sh", "hello\n").file("data/d", data)
}

fn plan() -> Plan {
    folder(b"deb", b"data").load().plan
}

#[test]
fn a_plan_is_read_back_as_it_was_written() {
    let folder = folder(b"deb", b"data");
    let plan = folder.load().plan;
    let file = folder.path("plan.json");
    plan.write(&file).expect("written");
    assert_eq!(Plan::read(&file).expect("read"), plan);
    assert!(!folder.path("plan.json.part").exists());
}

#[test]
fn a_plan_that_was_changed_is_not_taken() {
    let folder = folder(b"deb", b"data");
    let file = folder.path("plan.json");
    folder.load().plan.write(&file).expect("written");
    let text = fs::read_to_string(&file).expect("text");

    fs::write(&file, text.replacen("\"cpus\": 1", "\"cpus\": 2", 1)).expect("changed");
    let error = Plan::read(&file).expect_err("changed").to_string();
    assert!(error.contains("changed after it was written"), "{error}");

    fs::write(&file, text.replace("debian-11-minimal.smoke", "../../debian-11.smoke")).expect("changed");
    let error = Plan::read(&file).expect_err("a cell outside the run").to_string();
    assert!(error.contains("is not a cell"), "{error}");

    fs::write(&file, &text[..text.len() / 2]).expect("cut");
    assert!(Plan::read(&file).is_err());
    assert!(Plan::read(&folder.path("none.json")).is_err());
}

#[test]
fn a_plan_read_back_holds_every_script_and_no_package_that_is_an_option() {
    let folder = folder(b"deb", b"data");
    let file = folder.path("plan.json");
    let whole = folder.load().plan;
    let read = |change: &dyn Fn(&mut Plan)| {
        let mut plan = whole.clone();
        change(&mut plan);
        // With the digest of its own content, as a forger would write it.
        let kind = if plan.runner.kind == RunnerKind::Auto { RunnerKind::Host } else { RunnerKind::Auto };
        plan.on(kind).write(&file).expect("written");
        Plan::read(&file)
    };
    assert!(read(&|_| {}).is_ok());
    let prepare = whole.images[1].prepare.as_ref().and_then(|prepare| prepare.script).expect("a script");
    for script in [prepare, whole.cells[0].script] {
        let gone = read(&|plan| drop(plan.scripts.remove(&script))).expect_err("gone").to_string();
        assert!(gone.ends_with(&format!("the text of the script {script} is missing")), "{gone}");
        let other = read(&|plan| drop(plan.scripts.insert(script, "rm -rf /".to_owned())));
        assert!(other.is_err(), "another text under its digest");
    }
    let option = read(&|plan| {
        plan.images[1].prepare.as_mut().expect("prepared").packages.push("--allow-unauthenticated".to_owned());
    });
    let option = option.expect_err("an option").to_string();
    assert!(option.ends_with("\"--allow-unauthenticated\" is not the name of a package"), "{option}");
}

const ON_GCE: &str = r#"
[runner]
kind = "gce"
memory = "8GiB"
project = "example.com:tests"
zones = ["us-central1-a", "europe-west4-b"]
machine_type = "n2-standard-8"
disk = "20GiB"
spot = true
image = "my-images/runner"
network = "projects/host-project/global/networks/shared"
subnet = "tests"
external_ip = false
proxy_command = "ssh -W %h:%p bastion"
labels = { team = "qa", empty = "" }
cache_disk = "nm-cache"
max_duration = "1d"
"#;

#[test]
fn a_machine_on_compute_engine_is_read_back_as_the_matrix_describes_it() {
    let folder = folder(b"deb", b"data").file("m.toml", format!("{MATRIX}{ON_GCE}"));
    let plan = folder.load().plan;
    let text = |text: &str| Some(text.to_owned());
    let expected = GceRunner {
        project: text("example.com:tests"),
        zones: ["us-central1-a", "europe-west4-b"].map(str::to_owned).to_vec(),
        machine_type: text("n2-standard-8"),
        spot: true,
        image: "my-images/runner".parse().expect("an image"),
        network: text("projects/host-project/global/networks/shared"),
        subnet: text("tests"),
        external_ip: false,
        proxy_command: text("ssh -W %h:%p bastion"),
        labels: [("team", "qa"), ("empty", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        cache_disk: text("nm-cache"),
        max_duration: Duration::from_secs(24 * 60 * 60),
        disk: Some(ByteSize::from_mib(20 << 10)),
    };
    let runner = &plan.runner;
    assert_eq!((runner.kind, runner.gce.as_ref()), (RunnerKind::Gce, Some(&expected)));
    assert_eq!((&runner.image, runner.disk), (&None, None), "they are those of another kind");
    let file = folder.path("plan.json");
    plan.write(&file).expect("written");
    assert_eq!(Plan::read(&file).expect("read"), plan);

    let elsewhere = plan.clone().on(RunnerKind::Host);
    assert_eq!(elsewhere.runner.gce, None);
    let cheaper = GceOverrides { machine_type: text("n2-standard-4"), ..GceOverrides::default() };
    let cheaper = plan.clone().on_gce(cheaper).expect("it may be");
    assert_ne!(cheaper.digest, plan.digest);
    let usual = elsewhere.on_gce(GceOverrides::default()).expect("it may be").runner.gce.expect("described");
    assert_eq!(
        (usual.image.to_string().as_str(), usual.max_duration.as_secs()),
        ("debian-cloud/debian-13", 4 * 60 * 60)
    );
}

#[test]
fn a_plan_whose_machine_on_compute_engine_could_be_another_one_is_not_taken() {
    let folder = folder(b"deb", b"data").file("m.toml", format!("{MATRIX}{ON_GCE}"));
    let file = folder.path("plan.json");
    let read = |change: &dyn Fn(&mut GceRunner)| {
        let mut plan = folder.load().plan;
        change(plan.runner.gce.as_mut().expect("described"));
        plan.on(RunnerKind::Gce).write(&file).expect("written");
        Plan::read(&file)
    };
    assert!(read(&|_| {}).is_ok());
    let path = read(&|gce| gce.zones.push("us-central1-a/instances/x".to_owned())).expect_err("a path").to_string();
    assert!(path.contains("`runner.gce`: write a region and the letter of a zone"), "{path}");
    read(&|gce| gce.max_duration = Duration::from_secs(0)).expect_err("no time");
    read(&|gce| gce.image.project = Some("a/b".to_owned())).expect_err("no image");
}

#[test]
fn a_plan_without_steps_or_with_steps_that_cannot_be_taken_is_not_taken() {
    let folder = folder(b"deb", b"data");
    let file = folder.path("plan.json");
    let mut plan = folder.load().plan;
    plan.write(&file).expect("written");
    // As versions before there were steps wrote it.
    let mut old: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("a plan")).expect("JSON");
    let cell = old["cells"][0].as_object_mut().expect("a cell");
    cell.remove("steps");
    cell.insert("install".to_owned(), true.into());
    fs::write(&file, old.to_string()).expect("written");
    let error = Plan::read(&file).expect_err("an old plan").to_string();
    assert!(error.contains("not a plan written by this version of nestmatrix: missing field `steps`"), "{error}");

    plan.cells[0].options.steps = vec![Step::Run];
    plan.on(RunnerKind::Host).write(&file).expect("written");
    let error = Plan::read(&file).expect_err("no prepare").to_string();
    assert!(error.ends_with("cell debian-11-minimal.smoke.locale=C: `steps` must begin with `prepare`"), "{error}");
}

#[test]
fn what_a_preparation_does_has_an_identity_of_its_own() {
    let prepare = |from: &str, to: &str| {
        let plan = folder(b"deb", b"data").file("m.toml", MATRIX.replace(from, to)).load().plan;
        plan.images.into_iter().find_map(|image| image.prepare).expect("prepared")
    };
    let usual = prepare("", "").digest();
    for (from, to) in [
        ("locale-gen", "true"),
        ("inline = \"locale-gen {{ image.name }}\", packages", "packages"),
        ("\"gcc\", \"make\"", "\"make\", \"gcc\""),
        ("\"gcc\", \"make\"", "\"gcc\""),
        ("timeout = \"3m\"", "network = \"open\""),
    ] {
        assert_ne!(prepare(from, to).digest(), usual, "{from} -> {to}");
    }
    // The default network of a preparation with packages, written out, is the same preparation.
    let said = prepare("timeout = \"3m\"", "network = \"repositories\"");
    assert_eq!(said.digest(), usual);
    // Its time limit does not change what it does, nor does the origin of its text.
    assert_eq!(prepare("\"3m\"", "\"4m\"").digest(), usual);
    let mut moved = prepare("", "");
    moved.script_origin = Some("prepare.sh".to_owned());
    assert_eq!(moved.digest(), usual);
}

#[test]
fn a_cell_id_read_back_is_one_safe_path_component() {
    let read = |text: &str| serde_json::from_value::<CellId>(text.into());
    for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a\\b", "a b", "a\0", "ä", &"x".repeat(121)] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    assert_eq!(read("debian-12.smoke.locale=C").expect("an id").as_str(), "debian-12.smoke.locale=C");
}

#[test]
fn the_place_does_not_decide_the_digest_but_every_byte_does() {
    let plan = plan();
    assert_eq!(folder(b"deb", b"data").load().plan.digest, plan.digest);
    assert_ne!(folder(b"deB", b"data").load().plan.digest, plan.digest);
    assert_ne!(folder(b"deb", b"dataa").load().plan.digest, plan.digest);
    let changed = |from: &str, to: &str| {
        let folder = folder(b"deb", b"data").file("m.toml", MATRIX.replace(from, to));
        folder.load().plan.digest
    };
    for (from, to) in [
        ("\"tr\"", "\"de\""),
        ("1m", "2m"),
        ("/var/lib/", "/var/log/"),
        ("version = \"2.12\"", "version = \"2.13\""),
        ("echo", "printf"),
        ("name = \"own\"", "name = \"mine\""),
        ("name = \"own\"", "guest = { cpus = 2 }\nname = \"own\""),
        ("name = \"own\"", "boot = \"cold\"\nname = \"own\""),
        ("name = \"own\"", "identity = \"unique\"\nname = \"own\""),
        ("name = \"own\"", "install = \"repository\"\nname = \"own\""),
        ("name = \"own\"", "dependencies = \"artifacts\"\nname = \"own\""),
        ("locale-gen", "true"),
        ("\"gcc\", \"make\"", "\"make\", \"gcc\""),
        ("timeout = \"3m\"", "timeout = \"4m\""),
        ("timeout = \"3m\"", "timeout = \"3m\", network = \"open\""),
        ("[axes]", "[runner]\nretries = 0\n[axes]"),
        ("run = \"smoke.sh\"", "run = \"smoke.sh\"\nreboot = true"),
        ("[axes]", "[network]\nunexpected = \"fail\"\n[axes]"),
        ("[axes]", "[network]\nallow = [\"example.com\"]\n[axes]"),
        ("[axes]", "[network]\nprivate = [\"example.com\"]\n[axes]"),
        (
            "run = \"smoke.sh\"",
            "run = \"smoke.sh\"\nsteps = [\"prepare\", \"install\", \"reboot\", \"run\", \"collect\"]",
        ),
    ] {
        assert_ne!(changed(from, to), plan.digest, "{from} -> {to}");
    }
    assert_eq!(changed("[axes]", "# a remark\n[axes]"), plan.digest);
}

#[test]
fn a_part_of_a_plan_holds_what_its_cells_need_and_has_a_digest_of_its_own() {
    let plan = plan();
    let part = plan.select(&["debian-12*.own.*=tr", "debian-12-minimal.own.locale=tr"]).expect("a part");
    assert_eq!(part.cells.iter().map(|cell| cell.id.as_str()).collect::<Vec<_>>(), ["debian-12-minimal.own.locale=tr"]);
    // Its own script, and the one that prepares its image.
    assert_eq!((part.images.len(), part.scripts.len()), (1, 2));
    let unprepared = plan.select(&["debian-11*.own.*=tr"]).expect("a part");
    assert_eq!(unprepared.scripts.len(), 1);
    assert_ne!(part.digest, plan.digest);
    assert_eq!(plan.select(&["*"]).expect("all of it"), plan);
    let id = &part.cells[0].id;
    assert_eq!(plan.cell(id), part.cell(id));
}

#[test]
fn a_glob_that_selects_nothing_is_a_mistake() {
    let plan = plan();
    assert_snapshot!(plan.select(&["debian-13*", "x"]).expect_err("no such cell"), @"no cell of the plan matches debian-13* or x");
    assert_snapshot!(plan.select(&["debian-{12"]).expect_err("no glob"), @"`debian-{12` is not a glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)");
    // Nor is one of several.
    assert_snapshot!(plan.select(&["*", "debain-12*"]).expect_err("no such cell"), @"no cell of the plan matches debain-12*");
    let Err(SelectError::Nothing { near, .. }) = plan.select(&["debian-12-minimal.smok.locale=C"]) else {
        panic!("nothing has this name");
    };
    assert_eq!(near[0], "debian-12-minimal.smoke.locale=C");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_digest_is_a_function_of_the_content(
        artifact in prop::collection::vec(any::<u8>(), 1..40),
        data in prop::collection::vec(any::<u8>(), 0..40),
        at in any::<prop::sample::Index>(),
    ) {
        // Two folders: the place differs, the content does not.
        let digest: Digest = folder(&artifact, &data).load().plan.digest;
        prop_assert_eq!(folder(&artifact, &data).load().plan.digest, digest);
        let mut other = artifact.clone();
        other[at.index(artifact.len())] ^= 1;
        prop_assert_ne!(folder(&other, &data).load().plan.digest, digest);
    }

    /// The digest covers what decides the work, but not paths.
    #[test]
    fn a_damaged_plan_file_is_never_another_plan(at in any::<prop::sample::Index>(), byte in any::<u8>(), length in 0usize..40) {
        let folder = folder(b"deb", b"data");
        let (file, plan) = (folder.path("plan.json"), folder.load().plan);
        plan.write(&file).expect("written");
        let mut text = fs::read(&file).expect("text");
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, [byte]).for_each(drop);
        fs::write(&file, text).expect("damaged");
        if let Ok(read) = Plan::read(&file) {
            prop_assert_eq!(read.digest, plan.digest);
            prop_assert_eq!(read.cells.len(), plan.cells.len());
            for (read, cell) in read.cells.iter().zip(&plan.cells) {
                prop_assert_eq!((&read.id, read.script, read.timeouts.clone()), (&cell.id, cell.script, cell.timeouts.clone()));
            }
            prop_assert_eq!(read.scripts, plan.scripts);
        }
    }
}
