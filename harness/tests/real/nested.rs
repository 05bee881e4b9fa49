//! Guests in an L1 that is booted for them: the same verdicts, and none lost whatever dies on the way.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    endings::assert_counts_agree,
    lab::{Finished, Lab},
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

#[test]
fn an_l1_that_freezes_or_is_killed_in_the_middle_is_replaced_and_every_verdict_is_the_same() {
    let lab = Lab::open();
    let child = lab.nestmatrix().args(["run", "nested", "--out"]).arg(lab.path("out")).spawn().unwrap();
    for (number, name) in [(1, "-STOP"), (2, "-KILL")] {
        let runner = ready(&lab, "out", number);
        event(&lab, "out", &["guest-started", &format!("\"runner\":{number},")]);
        signal(runner["l1"]["pid"].as_u64().unwrap(), name);
        let done = Instant::now();
        event(&lab, "out", &["runner-lost", &format!("\"runner\":{number},")]);
        assert!(done.elapsed() < NOTICED, "{name}: {:?}", done.elapsed());
    }
    let run = lab.finish(child, "out");

    run.assert_code(1);
    assert_eq!(run.verdict("debian-12-minimal.runs-under-kvm"), "passed", "{}", run.stderr);
    assert_eq!(run.verdict("debian-13-minimal.fails-on-purpose"), "failed(test)", "{}", run.stderr);
    assert!(run.file("cells/debian-13-minimal.fails-on-purpose/attempt-3/stderr.log").contains("fails on purpose"));
    assert_sound(&run);

    // The report says on which machine each guest ran, and what became of the first one.
    let record = run.json();
    let runners = record["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 3, "{runners:?}");
    assert!(runners[0]["lost"]["reason"].as_str().unwrap().contains("nothing was heard"), "{runners:?}");
    assert!(runners[1]["lost"]["reason"].as_str().unwrap().contains("signal: 9"), "{runners:?}");
    assert!(!runners[0]["lost"]["evidence"].as_array().unwrap().is_empty(), "with its console");
    let facts = &runners[2]["facts"];
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
        assert_eq!(last["guest"]["runner"], 3, "{cell}");
        let time = |name: &str| last[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        times.push((time("started"), time("ended")));
    }
    assert!(times[0].0 < times[1].1 && times[1].0 < times[0].1, "both guests ran at the same time: {times:?}");
    let lost: Vec<_> = events(&run).into_iter().filter(|event| event["retried"] == true).collect();
    assert!(!lost.is_empty() && lost.iter().all(|event| event["phase"] == "runner"), "{lost:?}");
    lab.assert_nothing_left();
}

const TWO: &str = r#"
images = ["debian-12-minimal"]
[runner]
kind = "qemu"
[[suite]]
name = "first"
inline = "echo first"
[[suite]]
name = "second"
inline = "sleep 30; echo second"
"#;

/// The agent's own death, then the orchestrator's: the run goes on, and what has a verdict is not run again.
#[test]
fn neither_the_agent_nor_the_orchestrator_is_needed_to_the_end() {
    let lab = Lab::open();
    let mut child: Child = lab.start(TWO, "out", &["--jobs", "1"]);
    ready(&lab, "out", 1);
    event(&lab, "out", &["test-started", ".second"]);
    let output = in_l1(&lab, "out", 1, "pkill -KILL -x nestmatrix");
    assert!(output.status.success(), "{output:?}");
    let killed = Instant::now();
    let lost = event(&lab, "out", &["runner-lost"]);
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    assert!(lost["reason"].as_str().unwrap().contains("agent"), "{lost}");

    event(&lab, "out", &["guest-started", "\"runner\":2"]);
    signal(child.id().into(), "-KILL");
    child.wait().unwrap();
    let in_use = Instant::now();
    while !lab.guests().is_empty() {
        assert!(in_use.elapsed() < Duration::from_secs(10), "the L1 dies with its orchestrator");
        std::thread::sleep(Duration::from_millis(50));
    }

    let resumed = lab.nestmatrix().args(["run", "--jobs", "1", "--resume"]).arg(lab.path("out")).spawn().unwrap();
    ready(&lab, "out", 3);
    // Meanwhile nobody else may write to the journal.
    let second = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process"), "{second:?}");
    let run = lab.finish(resumed, "out");

    run.assert_code(0);
    for (suite, attempts) in [("first", 1), ("second", 3)] {
        let id = format!("debian-12-minimal.{suite}");
        assert_eq!(run.verdict(&id), "passed", "{}", run.stderr);
        assert_eq!(run.cell(&id)["attempts"].as_array().unwrap().len(), attempts, "{}", run.stderr);
        assert!(run.file(&format!("cells/{id}/attempt-{attempts}/stdout.log")).contains(suite));
    }
    assert_sound(&run);
    let again = lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "there is nothing left to resume: {again:?}");
    lab.assert_nothing_left();
}

/// One L1 for two questions: whom can it reach, and what happens when its disk is full?
#[test]
fn an_l1_reaches_nobody_and_a_full_disk_in_it_is_its_end_and_not_the_packages_fault() {
    let lab = Lab::open();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    // To a guest its host's loopback is 10.0.2.2, to an L1 that of this machine.
    // First what must answer, its own SSH server: else silence would prove nothing.
    let reach = format!(
        "timeout 5 bash -c 'echo > /dev/tcp/127.0.0.1/22' || {{ echo the probe itself does not work; exit 2; }}; for to in 10.0.2.2/{port} 10.0.2.3/53 10.0.2.2/22; do \
         if timeout 5 bash -c \"echo > /dev/tcp/$to\" 2>/dev/null; then echo \"$to answered\"; exit 1; fi; done"
    );
    let matrix = format!(
        r#"
images = ["debian-12-minimal"]
[runner]
kind = "qemu"
retries = 0
disk = "400MiB"
[[suite]]
name = "closed"
inline = '''
{reach}
'''
[[suite]]
name = "fill"
inline = "head -c 500000000 /dev/zero > /big; sync; sleep 600"
"#
    );
    let child = lab.start(&matrix, "out", &["--jobs", "1"]);
    ready(&lab, "out", 1);
    // An open guest of a run on this machine proves that there is something to reach (see `release.rs`).
    let reached = in_l1(&lab, "out", 1, &reach);
    assert!(reached.status.success(), "the L1 reached somebody: {reached:?}");
    let run = lab.finish(child, "out");
    run.assert_code(3);
    assert_eq!(run.verdict("debian-12-minimal.closed"), "passed", "{}", run.stderr);
    assert!(server.accept().is_err(), "nobody came");
    let fill = run.cell("debian-12-minimal.fill");
    assert_eq!(fill["verdict"], "not-run", "{}", run.stderr);
    let outcome = &fill["attempts"][0]["outcome"];
    assert_eq!((&outcome["verdict"], &outcome["phase"]), (&"error".into(), &"runner".into()), "{outcome}");
    assert!(outcome["reason"].as_str().unwrap().contains("disk is full"), "{outcome}");
    assert!(run.stderr.contains("runner.disk"), "with what to do: {}", run.stderr);
    assert_sound(&run);
    lab.assert_nothing_left();
}

#[test]
fn an_l1_that_cannot_run_guests_is_an_error_of_phase_runner_that_says_what_to_do() {
    let lab = Lab::open();
    let matrix = |runner: &str| {
        format!(
            "images = [\"debian-12-minimal\"]\n[runner]\nkind = \"qemu\"\n{runner}\n[[suite]]\nname = \"s\"\ninline = \"true\"\n"
        )
    };
    let refused = |out: &str, runner: &str, words: &[&str]| {
        let run = lab.run(&matrix(runner), out, &[]);
        run.assert_code(3);
        assert_eq!(run.verdict("debian-12-minimal.s"), "error(runner)", "{}", run.stderr);
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

#[test]
fn a_second_run_forks_the_l1_and_the_guests_in_it_and_comes_to_the_same_verdicts() {
    let lab = Lab::warm();
    let matrix = "
        images = ['debian-12-minimal']
        runner.kind = 'qemu'
        [[suite]]
        name = 'passes'
        inline = 'test \"$(systemd-detect-virt)\" = kvm && date +%s.%N'
        [[suite]]
        name = 'fails'
        inline = 'exit 3'
    ";
    let runs = ["first", "second"].map(|out| lab.run(matrix, out, &[]));
    for (run, step) in runs.iter().zip(["freeze an L1", "find a frozen L1"]) {
        run.assert_code(1);
        assert_eq!(run.verdict("debian-12-minimal.passes"), "passed", "{}", run.stderr);
        assert_eq!(run.verdict("debian-12-minimal.fails"), "failed(test)", "{}", run.stderr);
        assert_sound(run);
        let record = run.json();
        assert_eq!(record["warnings"], Value::Array(Vec::new()), "nothing was booted instead");
        let steps = record["runners"][0]["facts"]["steps"].as_array().unwrap().clone();
        let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names[..2], [step.to_owned(), "fork".to_owned()], "{names:?}");
        assert_eq!(record["templates"][0]["cached"], true, "it came with the L1: {record}");
        for cell in record["cells"].as_array().unwrap() {
            let guest = &cell["attempts"][0]["guest"];
            assert_eq!((&guest["boot"]["how"], &guest["accelerator"]), (&"forked".into(), &"kvm".into()), "{cell}");
        }
    }
    // The clock of a fork in a fork, read between these two events; a second is what it may be off.
    let id = "debian-12-minimal.passes";
    for run in &runs {
        let said: f64 = run.file(&format!("cells/{id}/attempt-1/stdout.log")).trim().parse().unwrap();
        let time = |event: &str| crate::templates::time_of(run, event, id).as_nanosecond() as f64 / 1e9;
        let (earliest, latest) = (time("test-started"), time("test-finished"));
        assert!(earliest - 1.0 < said && said < latest + 1.0, "{earliest} < {said} < {latest}");
    }
    lab.assert_nothing_left();
}
