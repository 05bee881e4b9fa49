//! Guests in an L1 that is booted for them: the same verdicts, and none lost whatever dies on the way.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    endings::assert_counts_agree,
    lab::{Finished, Lab},
    rootfs::alpine,
    store,
};

/// A machine that is lost must be missed by then.
const NOTICED: Duration = Duration::from_secs(15);

fn signal(pid: u64, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// Waits for an event that holds all of these.
fn event(lab: &Lab, out: &str, needles: &[&str]) -> Value {
    let journal = lab.path(out).join("events.jsonl");
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| needles.iter().all(|needle| line.contains(needle))) {
            return serde_json::from_str(line).unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(600), "no event with {needles:?} in {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ready(lab: &Lab, out: &str, number: u32) -> Value {
    event(lab, out, &["runner-ready", &format!("\"number\":{number},")])["runner"].clone()
}

/// Runs a script in the L1, as a person would who looks into it.
fn in_l1(lab: &Lab, out: &str, number: u32, script: &str) -> std::process::Output {
    Command::new(lab.path(out).join(format!("runners/{number}/enter"))).arg(script).output().unwrap()
}

/// When an L1 that only falls silent must be missed: 15 s, and where its CPU is emulated 5 s times what time limits are multiplied by;
/// with some time to notice.
fn silence(lab: &Lab, l1: &Value) -> Duration {
    let proof: Value = serde_json::from_str(&std::fs::read_to_string(lab.store().join("probe.json")).unwrap()).unwrap();
    let speed = proof["speed"].as_f64().unwrap();
    let speed = if l1["accelerator"] == "tcg" { speed.max(6.0) } else { speed };
    Duration::from_secs(15).max(Duration::from_secs(5).mul_f64(speed)) + Duration::from_secs(15)
}

fn events(run: &Finished) -> Vec<Value> {
    run.file("events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every cell has reported once, and no event contradicts another.
fn assert_sound(run: &Finished) {
    assert_counts_agree(run);
    assert_eq!(run.json()["contradictions"], Value::Array(Vec::new()), "{}", run.stderr);
    let finished: Vec<_> = events(run)
        .into_iter()
        .filter(|event| event["event"] == "cell-finished")
        .map(|event| event["cell"].clone())
        .collect();
    assert_eq!(finished.len(), run.json()["cells"].as_array().unwrap().len(), "each cell once: {finished:?}");
}

/// The shipped matrix.
#[test]
fn an_l1_that_freezes_in_the_middle_is_replaced_and_every_report_names_the_one_that_served() {
    store::the_rest();
    let lab = Lab::open();
    let child = lab.nestmatrix().args(["run", "nested", "--out"]).arg(lab.path("out")).spawn().unwrap();
    let l1 = ready(&lab, "out", 1)["l1"].clone();
    event(&lab, "out", &["guest-started", "\"runner\":1,"]);
    signal(l1["pid"].as_u64().unwrap(), "-STOP");
    let done = Instant::now();
    event(&lab, "out", &["runner-lost", "\"runner\":1,"]);
    assert!(done.elapsed() < silence(&lab, &l1), "{:?}", done.elapsed());
    let run = lab.finish(child, "out");

    run.assert_code(1);
    assert_eq!(run.verdict("debian-12-minimal.runs-under-kvm"), "passed", "{}", run.stderr);
    assert_eq!(run.verdict("debian-13-minimal.fails-on-purpose"), "failed(test)", "{}", run.stderr);
    assert!(run.file("cells/debian-13-minimal.fails-on-purpose/attempt-2/stderr.log").contains("fails on purpose"));
    assert_sound(&run);

    // The report says on which machine each guest ran, and what became of the first one.
    let record = run.json();
    let runners = record["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 2, "{runners:?}");
    assert!(runners[0]["lost"]["reason"].as_str().unwrap().contains("no message from it"), "{runners:?}");
    assert!(!runners[0]["lost"]["evidence"].as_array().unwrap().is_empty(), "with its console");
    let facts = &runners[1]["facts"];
    assert_eq!(facts["accelerator"], "kvm");
    assert!(facts["depth"].as_u64().unwrap() >= 2, "{facts}");
    assert!(facts["kernel"].as_str().unwrap().contains("deb13"), "the L1's kernel, not this machine's: {facts}");
    assert_eq!(facts["l1"]["image"], "debian-13-runner");
    for report in ["report.html", "summary.md", "junit.xml"] {
        let text = run.file(report);
        assert!(text.contains(facts["kernel"].as_str().unwrap()), "{report} names the machine");
    }
    let mut times = Vec::new();
    for cell in record["cells"].as_array().unwrap() {
        let last = cell["attempts"].as_array().unwrap().last().unwrap();
        // What QEMU itself says of the guest (`query-kvm`).
        assert_eq!(last["guest"]["accelerator"], "kvm", "{cell}");
        assert_eq!((&last["guest"]["boot"]["how"], &last["guest"]["runner"]), (&"cold".into(), &2.into()), "{cell}");
        let time = |name: &str| last[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        times.push((time("started"), time("ended")));
    }
    assert!(times[0].0 < times[1].1 && times[1].0 < times[0].1, "both guests ran at the same time: {times:?}");
    let lost: Vec<_> = events(&run).into_iter().filter(|event| event["retried"] == true).collect();
    assert!(!lost.is_empty() && lost.iter().all(|event| event["phase"] == "runner"), "{lost:?}");
    lab.assert_nothing_left();
}

/// What runs of one frozen L1 have in common: its guests, and their memory, which decide it.
fn of_frozen(more: &str) -> String {
    format!("runner = {{ kind = 'qemu', memory = '1300MiB', disk = '3GiB'{more} }}\n{}", alpine())
}

/// One L1 is frozen for all that only needs one: freezing one takes minutes, and a fork of it seconds.
#[test]
fn a_frozen_l1_is_forked_to_the_same_verdicts_survives_what_its_forks_die_of_and_reaches_nobody() {
    store::the_rest();
    let lab = Lab::warm();
    forks_come_to_the_same_verdicts(&lab);
    neither_the_agent_nor_the_orchestrator_is_needed_to_the_end(&lab);
    one_that_is_killed_is_missed_at_once(&lab);
    nobody_is_reached_and_a_full_disk_is_its_end_and_not_the_packages_fault(&lab);
    lab.assert_nothing_left();
}

fn assert_forked(run: &Finished, step: &str) {
    let record = run.json();
    // Orchestrators that were killed leave their runs.
    let is_of_dead_run = |warning: &&Value| warning.as_str().unwrap().starts_with("removed what the dead run ");
    let others = record["warnings"].as_array().unwrap().iter().filter(|warning| !is_of_dead_run(warning));
    assert_eq!(others.count(), 0, "nothing was booted instead: {record}");
    let runner = record["runners"].as_array().unwrap().last().unwrap().clone();
    let steps = runner["facts"]["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names[..2], [step, "fork"], "{names:?}");
    let templates = record["templates"].as_array().unwrap();
    assert_eq!(templates.last().unwrap()["cached"], true, "it came with the L1: {record}");
    for cell in record["cells"].as_array().unwrap() {
        let guest = &cell["attempts"].as_array().unwrap().last().unwrap()["guest"];
        assert_eq!((&guest["boot"]["how"], &guest["accelerator"]), (&"forked".into(), &"kvm".into()), "{cell}");
    }
}

fn forks_come_to_the_same_verdicts(lab: &Lab) {
    let matrix = of_frozen("")
        + "
        [[suite]]
        name = 'passes'
        inline = 'touch now && stat -c %y now'
        [[suite]]
        name = 'fails'
        inline = 'exit 3'
        ";
    let runs = ["first", "second"].map(|out| lab.run(&matrix, out, &[]));
    for (run, step) in runs.iter().zip(["freeze an L1", "find a frozen L1"]) {
        run.assert_code(1);
        assert_eq!(run.verdict("alpine.passes"), "passed", "{}", run.stderr);
        assert_eq!(run.verdict("alpine.fails"), "failed(test)", "{}", run.stderr);
        assert_sound(run);
        assert_forked(run, step);
    }
    // The clock of a fork in a fork, read between these two events; a second is what it may be off.
    let id = "alpine.passes";
    for run in &runs {
        let said = run.file(&format!("cells/{id}/attempt-1/stdout.log"));
        let said = jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f %z", said.trim()).unwrap();
        let said = said.as_nanosecond() as f64 / 1e9;
        let time = |event: &str| crate::templates::time_of(run, event, id).as_nanosecond() as f64 / 1e9;
        let (earliest, latest) = (time("test-started"), time("test-finished"));
        assert!(earliest - 1.0 < said && said < latest + 1.0, "{earliest} < {said} < {latest}");
    }
}

/// A run whose first cell has its verdict and whose second one is in the middle of its test, and the L1's process.
fn in_the_middle(lab: &Lab, out: &str) -> (Child, u64) {
    let matrix = of_frozen("")
        + "
        [[suite]]
        name = 'first'
        inline = 'echo first'
        [[suite]]
        name = 'second'
        inline = 'sleep 25; echo second'
        ";
    let child = lab.start(&matrix, out, &[]);
    let runner = ready(lab, out, 1);
    event(lab, out, &["cell-finished", ".first"]);
    event(lab, out, &["test-started", ".second"]);
    (child, runner["l1"]["pid"].as_u64().unwrap())
}

/// Ends the orchestrator, and its L1 with it.
fn kill_orchestrator(lab: &Lab, mut child: Child) {
    signal(child.id().into(), "-KILL");
    child.wait().unwrap();
    let killed = Instant::now();
    while !lab.guests().is_empty() {
        assert!(killed.elapsed() < Duration::from_secs(10), "the L1 dies with its orchestrator");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The agent's own death, then the orchestrator's: the run goes on, and what has a verdict is not run again.
fn neither_the_agent_nor_the_orchestrator_is_needed_to_the_end(lab: &Lab) {
    let (child, _) = in_the_middle(lab, "out");
    let output = in_l1(lab, "out", 1, "pkill -KILL -x nestmatrix");
    assert!(output.status.success(), "{output:?}");
    let killed = Instant::now();
    let lost = event(lab, "out", &["runner-lost"]);
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    assert!(lost["reason"].as_str().unwrap().contains("agent"), "{lost}");

    // The one that replaces it is booted.
    event(lab, "out", &["runner-progress", "\"runner\":2,", "booting the L1"]);
    while lab.guests().is_empty() {
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_orchestrator(lab, child);

    let resumed = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).spawn().unwrap();
    ready(lab, "out", 3);
    // Once more, while a guest runs.
    event(lab, "out", &["guest-started", "\"runner\":3,"]);
    kill_orchestrator(lab, resumed);

    let resumed = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).spawn().unwrap();
    ready(lab, "out", 4);
    // Meanwhile nobody else may write to the journal.
    let second = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process"), "{second:?}");
    let run = lab.finish(resumed, "out");

    run.assert_code(0);
    for (suite, attempts) in [("first", 1), ("second", 3)] {
        let id = format!("alpine.{suite}");
        assert_eq!(run.verdict(&id), "passed", "{}", run.stderr);
        assert_eq!(run.cell(&id)["attempts"].as_array().unwrap().len(), attempts, "{}", run.stderr);
        assert!(run.file(&format!("cells/{id}/attempt-{attempts}/stdout.log")).contains(suite));
    }
    assert_sound(&run);
    let record = run.json();
    let first_on = |cell: usize| record["cells"][cell]["attempts"][0].clone();
    let time = |attempt: &Value, name: &str| attempt[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (one, other) = (first_on(0), first_on(1));
    assert!(time(&other, "started") < time(&one, "ended"), "both guests ran at the same time: {one} {other}");
    let again = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "there is nothing left to resume: {again:?}");
}

fn one_that_is_killed_is_missed_at_once(lab: &Lab) {
    let (child, l1) = in_the_middle(lab, "killed");
    signal(l1, "-KILL");
    let killed = Instant::now();
    let lost = event(lab, "killed", &["runner-lost", "\"runner\":1,"]);
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    assert!(lost["reason"].as_str().unwrap().contains("signal: 9"), "{lost}");
    kill_orchestrator(lab, child);
}

/// One fork for two questions: whom can it reach, and what happens when its disk is full?
fn nobody_is_reached_and_a_full_disk_is_its_end_and_not_the_packages_fault(lab: &Lab) {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    // To a guest its host's loopback is 10.0.2.2, to an L1 that of this machine.
    // First what must answer, its own SSH server: else silence would prove nothing.
    let reach = |connect: &str| {
        format!(
            "reach() {{ {connect}; }}; reach 127.0.0.1 22 || {{ echo the probe itself does not work; exit 2; }}; \
             for to in '10.0.2.2 {port}' '10.0.2.3 53' '10.0.2.2 22'; do if reach $to 2>/dev/null; then echo \"$to answered\"; exit 1; fi; done"
        )
    };
    let from_guest = reach("nc -z -w 5 $1 $2");
    let matrix = format!(
        r#"{}
[[suite]]
name = "closed"
inline = '''
{from_guest}
'''
[[suite]]
name = "fill"
inline = "head -c 500000000 /dev/zero > /big; sync; sleep 600"
"#,
        of_frozen(", retries = 0")
    );
    let child = lab.start(&matrix, "full", &["--jobs", "1"]);
    ready(lab, "full", 1);
    let size = in_l1(lab, "full", 1, "df --output=size -BM /scratch | tail -n 1");
    let size: u64 = String::from_utf8(size.stdout).unwrap().trim().trim_end_matches('M').parse().unwrap();
    assert!((2600..=3072).contains(&size), "`runner.disk` is 3 GiB: {size} MiB");
    // Its guests are left less than one of them writes.
    let take = "fallocate -l $(($(df --output=avail -B1 /scratch | tail -n 1) - 400000000)) /scratch/taken";
    let taken = in_l1(lab, "full", 1, take);
    assert!(taken.status.success(), "{taken:?}");
    // An open guest of a run on this machine proves that there is something to reach (see `release.rs`).
    let reached = in_l1(lab, "full", 1, &reach("timeout 5 bash -c \"echo > /dev/tcp/$1/$2\""));
    assert!(reached.status.success(), "the L1 reached somebody: {reached:?}");
    let run = lab.finish(child, "full");
    run.assert_code(3);
    assert_eq!(run.verdict("alpine.closed"), "passed", "{}", run.stderr);
    assert!(server.accept().is_err(), "nobody came");
    let fill = run.cell("alpine.fill");
    assert_eq!(fill["verdict"], "not-run", "{}", run.stderr);
    let outcome = &fill["attempts"][0]["outcome"];
    assert_eq!((&outcome["verdict"], &outcome["phase"]), (&"error".into(), &"runner".into()), "{outcome}");
    assert!(outcome["reason"].as_str().unwrap().contains("disk is full"), "{outcome}");
    assert!(run.stderr.contains("runner.disk"), "with what to do: {}", run.stderr);
    assert_sound(&run);
    assert_forked(&run, "find a frozen L1");
}

#[test]
fn an_l1_that_cannot_run_guests_is_an_error_of_phase_runner_that_says_what_to_do() {
    store::the_rest();
    let lab = Lab::open();
    let matrix = |runner: &str| {
        format!("[runner]\nkind = 'qemu'\n{runner}\n{}[[suite]]\nname = 's'\ninline = 'true'\n", alpine())
    };
    let refused = |out: &str, runner: &str, words: &[&str]| {
        let run = lab.run(&matrix(runner), out, &[]);
        run.assert_code(3);
        assert_eq!(run.verdict("alpine.s"), "error(runner)", "{}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "`{word}` is missing in {}", run.stderr);
        }
        assert_sound(&run);
    };
    refused("no-qemu", "image = \"debian-12-minimal\"", &["qemu-system-x86_64", "runner.image"]);
    refused(
        "no-kvm",
        "kernel_args = \"module_blacklist=kvm_amd,kvm_intel\"",
        &["/dev/kvm does not exist", "--runner host"],
    );
    lab.assert_nothing_left();
}
