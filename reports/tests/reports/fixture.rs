//! A made-up run: a package on four systems, with one cell of every kind.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use matrix::{CellId, Digest, Plan};
use reports::{
    Boot, CaseVerdict, ContentSource, Ending, Event, EventKind, GuestFacts, Journal, L1Facts, NetworkRequest, Phase,
    RequestOutcome, RunnerFacts, StepTime, SystemFacts, TestCase, Trouble, TroubleKind, Verdict, attempt_folder,
};

/// Names the catalog is said to have.
const CATALOG: [&str; 5] =
    ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal", "debian-testing-minimal", "debian-sid-minimal"];

/// The plan of a matrix file with this text.
pub(crate) fn plan_of(text: &str) -> Plan {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("hello.toml");
    fs::write(&file, text).expect("writable");
    fs::write(dir.path().join("hello_2.12-1_amd64.deb"), "package").expect("writable");
    let mut plan = matrix::load(&file, &CATALOG).expect("a valid matrix").plan;
    plan.matrix = "hello.toml".into();
    plan
}

/// Four systems, two suites.
pub(crate) fn plan() -> Plan {
    plan_of(
        r#"
        [package]
        name = "hello"
        version = "2.12"
        artifacts = ["*.deb"]

        [[image]]
        name = "debian-11-minimal"
        [[image]]
        name = "debian-12-minimal"
        [[image]]
        name = "debian-13-minimal"
        [[image]]
        name = "debian-sid-minimal"

        [[suite]]
        name = "smoke"
        inline = "hello"
        [[suite]]
        name = "service"
        inline = "systemctl is-active hello"
        "#,
    )
}

/// A machine whose guests run under TCG, two virtual machines deep.
pub(crate) fn runner_facts(number: u32, kind: &str, reason: &str) -> RunnerFacts {
    RunnerFacts {
        number,
        kind: kind.to_owned(),
        reason: reason.to_owned(),
        accelerator: "tcg".to_owned(),
        accelerator_reason: "/dev/kvm opens, but a guest under it never printed a line in 10s".to_owned(),
        qemu: "10.0.2".to_owned(),
        kernel: "6.12.41".to_owned(),
        speed: 4.5,
        memory: 6 << 30,
        cpus: 2,
        depth: 2,
        l1: None,
        steps: Vec::new(),
    }
}

/// The same as a virtual machine that was booted for the run.
pub(crate) fn l1_facts(number: u32, reason: &str) -> RunnerFacts {
    let step = |(step, elapsed_ms): (&str, u64)| StepTime { step: step.to_owned(), elapsed_ms };
    RunnerFacts {
        accelerator: "kvm".to_owned(),
        accelerator_reason: "a guest under it came up in 3.1s".to_owned(),
        kernel: "6.12.43+deb13-cloud-amd64".to_owned(),
        memory: 3 << 30,
        cpus: 1,
        l1: Some(L1Facts {
            image: "debian-13-runner".to_owned(),
            digest: Digest::of(b"debian-13-runner"),
            accelerator: "tcg".to_owned(),
            nesting: "emulated SVM".to_owned(),
            machine: "pc-q35-10.0".to_owned(),
            qemu: "10.0.2".to_owned(),
            host_kernel: "6.8.0".to_owned(),
            memory: 4 << 30,
            cpus: 1,
            pid: 4_700,
        }),
        steps: [("boot", 14_500), ("upload", 1_200), ("proof", 9_000)].map(step).into(),
        ..runner_facts(number, "qemu", reason)
    }
}

/// The template of an image of this name.
pub(crate) fn template(image: &str) -> Digest {
    Digest::of(format!("template of {image}").as_bytes())
}

/// The facts of this system: image, version, name, kernel, libc, init.
const SYSTEMS: [(&str, &str, &str, &str, &str, &str); 2] = [
    ("debian-11", "11", "Debian GNU/Linux 11 (bullseye)", "5.10.0-35-cloud-amd64", "glibc 2.31", "systemd 247"),
    ("debian-12", "12", "Debian GNU/Linux 12 (bookworm)", "6.1.0-39-cloud-amd64", "glibc 2.36", "systemd 252"),
];

/// A Debian of this version.
pub(crate) fn system(version: &str, name: &str, kernel: &str, libc: &str, init: &str) -> SystemFacts {
    let text = |text: &str| Some(text.to_owned());
    SystemFacts {
        id: text("debian"),
        version: text(version),
        name: text(name),
        kernel: text(kernel),
        kernel_lent: false,
        arch: text("x86_64"),
        libc: text(libc),
        init: text(init),
        package_managers: vec!["apt 2.6.1".to_owned(), "dpkg 1.21.22".to_owned()],
        cgroups: Some(reports::Cgroups::V2),
        selinux: Some(reports::Selinux::Absent),
        apparmor: Some(true),
        root_bytes: None,
    }
}

/// A file of a host that was fetched, of 1 MiB.
pub(crate) fn fetched(host: &str, path: &str, source: ContentSource) -> NetworkRequest {
    let outcome = RequestOutcome::Served { status: 200, source, digest: Some(Digest::of(path.as_bytes())) };
    requested("GET", host, 80, Some(path), outcome)
}

/// A host that the policy does not allow.
pub(crate) fn refused(host: &str) -> NetworkRequest {
    let reason = "the policy of the cell does not allow this host".to_owned();
    NetworkRequest { bytes: 0, ..requested("CONNECT", host, 443, None, RequestOutcome::Refused { reason }) }
}

/// A request that ended in this way after a quarter of a second.
pub(crate) fn requested(
    method: &str,
    host: &str,
    port: u16,
    path: Option<&str>,
    outcome: RequestOutcome,
) -> NetworkRequest {
    let (method, host, path) = (method.to_owned(), host.to_owned(), path.map(str::to_owned));
    NetworkRequest { method, host, port, path, outcome, bytes: 1 << 20, elapsed_ms: 250 }
}

/// A stream of events with a clock.
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
    now: Timestamp,
    /// The runner guests are started on.
    pub(crate) runner: u32,
    /// Their accelerator.
    accelerator: &'static str,
    /// How they are started.
    pub(crate) boot: Boot,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::new(),
            now: "2026-11-22T10:30:00Z".parse().expect("a time"),
            runner: 1,
            accelerator: "tcg",
            boot: Boot::default(),
        }
    }

    pub(crate) fn emit(&mut self, kind: EventKind) {
        let began = self.events.first().map_or(self.now, |event| event.at);
        let clock_ms = Some(12 + self.now.duration_since(began).as_millis() as u64);
        self.events.push(Event { at: self.now, clock_ms, kind });
    }

    pub(crate) fn wait(&mut self, ms: i64) {
        self.now += SignedDuration::from_millis(ms);
    }

    /// The beginning of a run on the machine it was started on.
    pub(crate) fn start(&mut self, plan: &Plan) {
        self.start_run(plan);
        let reason = "this machine is itself a VM";
        self.emit(EventKind::RunnerStarted { runner: 1, kind: "host".to_owned(), reason: reason.to_owned() });
        self.emit(EventKind::RunnerReady { runner: runner_facts(1, "host", reason) });
        self.runner = 1;
    }

    pub(crate) fn start_run(&mut self, plan: &Plan) {
        let run = "20261122-103000-k3x9".to_owned();
        self.emit(EventKind::RunStarted { run, plan: plan.digest, version: "0.1.0".to_owned(), locked: None });
    }

    /// Boots an L1 to run guests in.
    pub(crate) fn boot_runner(&mut self, runner: u32) {
        let reason = "the matrix asks for a virtual machine of its own";
        self.emit(EventKind::RunnerStarted { runner, kind: "qemu".to_owned(), reason: reason.to_owned() });
        for (message, ms) in [("booting debian-13-runner under tcg", 14_500), ("uploading nestmatrix", 1_200)] {
            self.emit(EventKind::RunnerProgress { runner, message: message.to_owned() });
            self.wait(ms);
        }
        self.emit(EventKind::RunnerProgress { runner, message: "proving that guests run on it".to_owned() });
        self.wait(9_000);
        self.emit(EventKind::RunnerReady { runner: l1_facts(runner, reason) });
        (self.runner, self.accelerator) = (runner, "kvm");
    }

    pub(crate) fn lose_runner(&mut self, runner: u32) {
        let tail = ["[  131.402] Out of memory: Killed process 812 (qemu-system-x86)", "[  131.911] EXT4-fs error"];
        self.emit(EventKind::RunnerLost {
            runner,
            trouble: Trouble::new(TroubleKind::RunnerLost, Phase::Runner, "it no longer answers: no heartbeat for 30s")
                .with_evidence(tail.map(str::to_owned).into())
                .with_help("give it more memory: runner.memory in the matrix file"),
        });
    }

    /// Freezes a template of an image; guests are forked from it from here on.
    pub(crate) fn freeze(&mut self, image: &str, ms: u64) {
        let (runner, template) = (self.runner, template(image));
        self.emit(EventKind::TemplateStarted { runner, template, image: image.to_owned() });
        self.wait(ms as i64);
        let (cached, cost) = (false, 61 << 20);
        self.emit(EventKind::TemplateReady { runner, template, cached, elapsed_ms: ms, cost });
        self.boot = Boot::Forked { template };
    }

    /// Fails to freeze one; guests are booted from here on.
    pub(crate) fn fail_to_freeze(&mut self, image: &str, ms: u64, reason: &str) {
        let (runner, template) = (self.runner, template(image));
        self.emit(EventKind::TemplateStarted { runner, template, image: image.to_owned() });
        self.wait(ms as i64);
        let trouble = Trouble::new(TroubleKind::NoTemplate, Phase::Prepare, reason)
            .with_help("raise timeout.boot in the matrix file");
        self.emit(EventKind::TemplateFailed { runner, template, trouble, elapsed_ms: ms, bootable: true });
        self.boot = Boot::Cold { reason: Some(format!("no template of {image}: {reason}")) };
    }

    pub(crate) fn image(&mut self, name: &str, ms: u64, cached: bool) {
        let image = name.to_owned();
        self.emit(EventKind::ImageStarted { image: image.clone() });
        self.wait(ms as i64);
        let digest = Digest::of(name.as_bytes());
        self.emit(EventKind::ImageReady { image, digest, cached, elapsed_ms: ms });
    }

    pub(crate) fn attempt(&mut self, cell: &CellId, attempt: u32) {
        self.emit(EventKind::AttemptStarted { cell: cell.clone(), attempt });
    }

    pub(crate) fn phase(&mut self, cell: &CellId, attempt: u32, phase: Phase, ms: u64) {
        let timeout_ms = Some(if phase == Phase::Boot { 810_000 } else { 600_000 });
        self.emit(EventKind::PhaseStarted { cell: cell.clone(), attempt, phase, timeout_ms });
        if phase == Phase::Boot {
            let guest = GuestFacts {
                runner: self.runner,
                image: Digest::of(b"image"),
                accelerator: self.accelerator.to_owned(),
                machine: "pc-q35-10.0".to_owned(),
                pid: 4711,
                boot: self.boot.clone(),
            };
            self.emit(EventKind::GuestStarted { cell: cell.clone(), attempt, guest });
        }
        self.wait(ms as i64);
        self.emit(EventKind::PhaseFinished { cell: cell.clone(), attempt, phase, elapsed_ms: ms });
    }

    /// A request of a guest.
    pub(crate) fn request(&mut self, cell: &CellId, phase: Phase, request: NetworkRequest) {
        self.emit(EventKind::NetworkRequested { cell: cell.clone(), attempt: 1, phase, request });
    }

    pub(crate) fn case(&mut self, cell: &CellId, attempt: u32, name: &str, verdict: CaseVerdict, elapsed_ms: u64) {
        let name = name.to_owned();
        self.emit(EventKind::TestStarted { cell: cell.clone(), attempt, name: name.clone() });
        let case = TestCase { name, verdict, elapsed_ms, file: None, line: None };
        self.emit(EventKind::TestFinished { cell: cell.clone(), attempt, case });
    }

    pub(crate) fn end_attempt(&mut self, cell: &CellId, verdict: &Verdict, tail: &[&str], help: Option<&str>) {
        self.tell_end(cell, 1, verdict, tail, help);
    }

    /// The end of a numbered attempt; without help it is retried.
    pub(crate) fn tell_end(
        &mut self,
        cell: &CellId,
        attempt: u32,
        verdict: &Verdict,
        tail: &[&str],
        help: Option<&str>,
    ) {
        self.emit(EventKind::AttemptFinished {
            cell: cell.clone(),
            attempt,
            ending: ending(verdict, tail, help),
            retried: verdict.phase().is_some_and(Phase::is_infrastructure) && help.is_none(),
        });
    }

    pub(crate) fn end(&mut self, cell: &CellId, verdict: Verdict) {
        self.emit(EventKind::CellFinished { cell: cell.clone(), verdict });
    }

    /// The end of a cell, after the suite ran in this attempt.
    pub(crate) fn conclude(&mut self, cell: &CellId, attempt: u32, verdict: Verdict) {
        self.phase(cell, attempt, Phase::Test, 100);
        let help = verdict.phase().is_some_and(Phase::is_infrastructure).then_some("none");
        self.tell_end(cell, attempt, &verdict, &[], help);
        self.end(cell, verdict);
    }

    /// A cell whose suite skips itself.
    pub(crate) fn skip(&mut self, cell: &CellId, reason: &str) {
        self.attempt(cell, 1);
        self.case(cell, 1, "smoke", CaseVerdict::Skipped { reason: reason.to_owned() }, 0);
        self.conclude(cell, 1, Verdict::Skipped { reason: reason.to_owned() });
    }

    pub(crate) fn finish(&mut self) {
        let first = self.events.first().map_or(self.now, |event| event.at);
        let elapsed_ms = self.now.duration_since(first).as_millis() as u64;
        self.emit(EventKind::RunFinished { elapsed_ms });
    }

    /// Boots a guest and uploads the payload.
    pub(crate) fn boot(&mut self, cell: &CellId, attempt: u32) {
        self.attempt(cell, attempt);
        self.phase(cell, attempt, Phase::Boot, 21_400);
        self.phase(cell, attempt, Phase::Connect, 1_900);
        self.phase(cell, attempt, Phase::Prepare, 300);
        let known = SYSTEMS.iter().find(|(image, ..)| cell.as_str().starts_with(image));
        if let Some((_, version, name, kernel, libc, init)) = known {
            let facts = system(version, name, kernel, libc, init);
            self.emit(EventKind::SystemSeen { cell: cell.clone(), attempt, facts });
        }
    }

    pub(crate) fn pass(&mut self, cell: &CellId) {
        self.boot(cell, 1);
        self.phase(cell, 1, Phase::Install, 3_100);
        self.case(cell, 1, "smoke", CaseVerdict::Passed, 840);
        self.phase(cell, 1, Phase::Test, 900);
        self.phase(cell, 1, Phase::Collect, 100);
        self.end_attempt(cell, &Verdict::Passed, &[], None);
        self.end(cell, Verdict::Passed);
    }
}

/// The events of [`plan`].
pub(crate) fn story(plan: &Plan) -> Story {
    let mut story = Story::new();
    let cells: Vec<&CellId> = plan.cells.iter().map(|cell| &cell.id).collect();
    story.start_run(plan);
    story.image("debian-11-minimal", 300, true);
    story.image("debian-12-minimal", 400, true);
    story.image("debian-13-minimal", 41_200, false);
    let image = || "debian-sid-minimal".to_owned();
    story.emit(EventKind::ImageStarted { image: image() });
    story.emit(EventKind::ImageProgress { image: image(), message: "unpacking 112 packages".to_owned() });
    story.wait(9_000);
    story.emit(EventKind::ImageReady { image: image(), digest: Digest::of(b"sid"), cached: false, elapsed_ms: 9_000 });
    story.boot_runner(1);

    // debian-11: does not install.
    for cell in [cells[0], cells[1]] {
        story.boot(cell, 1);
        story.phase(cell, 1, Phase::Install, 2_200);
        let reason = "hello 2.12 does not install: dpkg exited with 1".to_owned();
        let verdict = Verdict::Failed { phase: Phase::Install, reason };
        let help = "install.log has every word of it; the package asks for more than this system has";
        story.end_attempt(cell, &verdict, &[], Some(help));
        story.end(cell, verdict);
    }
    // debian-12: forked from a template. Results of its own; the service fails.
    story.freeze("debian-12-minimal", 24_600);
    story.boot(cells[2], 1);
    let file = |name: &str, source| fetched("deb.debian.org", &format!("/debian/{name}"), source);
    story.request(cells[2], Phase::Install, file("dists/bookworm/InRelease", ContentSource::Revalidated));
    story.request(cells[2], Phase::Install, file("pool/main/g/glibc/libc6_2.36-9_amd64.deb", ContentSource::Cache));
    story.request(cells[2], Phase::Install, file("pool/main/n/nss/libnss3_3.87-1_amd64.deb", ContentSource::Server));
    story.phase(cells[2], 1, Phase::Install, 3_000);
    story.case(cells[2], 1, "greet::says hello", CaseVerdict::Passed, 120);
    story.case(
        cells[2],
        1,
        "greet::says it in Turkish",
        CaseVerdict::Skipped { reason: "locale tr_TR is not there".to_owned() },
        0,
    );
    story.case(cells[2], 1, "version", CaseVerdict::Passed, 60);
    story.phase(cells[2], 1, Phase::Test, 1_200);
    story.phase(cells[2], 1, Phase::Collect, 200);
    let path = "results/tests.xml".to_owned();
    story.emit(EventKind::ArtifactCollected { cell: cells[2].clone(), attempt: 1, path, bytes: 2_113 });
    story.end_attempt(cells[2], &Verdict::Passed, &[], None);
    story.end(cells[2], Verdict::Passed);

    story.boot(cells[3], 1);
    story.phase(cells[3], 1, Phase::Install, 3_300);
    let failed = CaseVerdict::Failed {
        message: "exit code 3".to_owned(),
        detail: "$ systemctl is-active hello\nfailed\nhello.service: Failed with result 'exit-code'.\n".to_owned(),
    };
    story.request(cells[3], Phase::Test, refused("telemetry.example.com"));
    story.request(cells[3], Phase::Test, refused("telemetry.example.com"));
    story.case(cells[3], 1, "service", failed, 700);
    story.phase(cells[3], 1, Phase::Test, 800);
    let verdict = Verdict::Failed { phase: Phase::Test, reason: "service: exit code 3".to_owned() };
    story.end_attempt(cells[3], &verdict, &[], None);
    story.end(cells[3], verdict);
    // debian-13: no template, so one is booted and passes; one loses its runner, and never boots on the next.
    story.fail_to_freeze("debian-13-minimal", 60_000, "the guest did not answer over SSH in 1m 00s");
    story.pass(cells[4]);
    story.boot = Boot::default();
    story.boot(cells[5], 1);
    story.lose_runner(1);
    let lost = Verdict::Error { phase: Phase::Runner, reason: "runner 1 was lost".to_owned() };
    story.tell_end(cells[5], 1, &lost, &[], None);
    story.boot_runner(2);
    let verdict = Verdict::Error { phase: Phase::Boot, reason: "the guest's kernel panicked".to_owned() };
    let tail = [
        "[    1.902] VFS: Unable to mount root fs on unknown-block(0,0)",
        "[    1.903] Kernel panic - not syncing: \u{1b}[31mVFS\u{1b}[0m",
    ];
    story.attempt(cells[5], 2);
    story.phase(cells[5], 2, Phase::Boot, 2_400);
    let help = "boot it by hand: nestmatrix shell debian-13-minimal.service";
    story.tell_end(cells[5], 2, &verdict, &tail, Some(help));
    story.end(cells[5], verdict);
    // debian-sid: one is skipped, one never ran.
    story.skip(cells[6], "sid is only tried at night");
    story.emit(EventKind::Warning { cell: None, message: "little disk space left: 1.2 GiB".to_owned() });
    story.end(cells[7], Verdict::NotRun { reason: "the run's time was up".to_owned() });
    story.finish();
    story
}

/// Writes the folder of a run: plan, journal and a few logs.
pub(crate) fn write(dir: &Path) -> Plan {
    let plan = plan();
    plan.write(&dir.join("plan.json")).expect("writable");
    let mut journal = Journal::create(dir).expect("a new journal");
    for event in story(&plan).events {
        journal.append(&event).expect("writable");
    }
    let log = |cell: usize, name: &str, text: &str| {
        let folder = dir.join(attempt_folder(&plan.cells[cell].id, 1));
        fs::create_dir_all(&folder).expect("writable");
        fs::write(folder.join(name), text).expect("writable");
    };
    for cell in [0, 1] {
        log(cell, "install.log", DPKG);
        log(cell, "console.log", CONSOLE);
    }
    log(2, "stdout.log", "Hello, world!\n3 tests, 0 failures\n");
    log(2, "console.log", CONSOLE);
    log(3, "stdout.log", "checking the service <hello> & its \u{1b}[31msocket\u{1b}[0m ]]> done\0\n");
    log(3, "stderr.log", "hello.service: Failed with result 'exit-code'.\n");
    log(4, "stdout.log", "Hello, world!\n");
    log(5, "console.log", CONSOLE);
    plan
}

const DPKG: &str = "\
Selecting previously unselected package hello.\r
(Reading database ... 9241 files and directories currently installed.)\r
Preparing to unpack .../hello_2.12-1_amd64.deb ...\r
Unpacking hello (2.12-1) ...\r
dpkg: dependency problems prevent configuration of hello:\r
 hello depends on libc6 (>= 2.34); however:\r
  Version of libc6:amd64 on system is 2.31-13+deb11u13.\r
\r
dpkg: error processing package hello (--install):\r
 dependency problems - leaving unconfigured\r
Errors were encountered while processing:\r
 hello\r
";

const CONSOLE: &str = "\
[    0.000000] Linux version 6.1.0-39-cloud-amd64\r
[    1.204113] systemd[1]: Detected virtualization qemu.\r
[\u{1b}[0;32m  OK  \u{1b}[0m] Started OpenBSD Secure Shell server.\r
[\u{1b}[0;32m  OK  \u{1b}[0m] Reached target Multi-User System.\r
";

/// An attempt with this ending.
pub(crate) fn ending(verdict: &Verdict, tail: &[&str], help: Option<&str>) -> Ending {
    let (kind, phase, reason) = match verdict {
        Verdict::Passed => return Ending::Passed,
        Verdict::Skipped { reason } => return Ending::Skipped { reason: reason.clone() },
        Verdict::Failed { phase, reason } => (TroubleKind::TestFailed, *phase, reason),
        Verdict::Error { phase, reason } => (TroubleKind::Host, *phase, reason),
        Verdict::NotRun { reason } => (TroubleKind::Interrupted, Phase::Test, reason),
    };
    let evidence = tail.iter().map(ToString::to_string).collect();
    Ending::Troubled(Trouble { kind, phase, reason: reason.clone(), evidence, help: help.map(str::to_owned) })
}
