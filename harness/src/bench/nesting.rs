//! The same work three times: on this machine, in a guest on it (an L1), in a guest inside an L1 booted for it (an L2).

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Instant,
};

use images::Catalog;
use matrix::{Plan, RunnerKind};
use procfs::{Current as _, LoadAverage};
use reports::{Phase, Run};

use super::{
    ratio::{Comparison, Place, Setting},
    work::Times,
};
use crate::{
    fanout::{Keep, Purpose},
    guest::{Accelerator, Spawner},
    host::Machine,
    run::{Finished, MessageFormat, Options, RunError, RunFolder, Start},
    scratch::{Scratch, ScratchError},
};

/// What this program is called in the guests.
const PROGRAM: &str = "nestmatrix";

/// The places, in the order they are taken.
const HOST: &str = "host";
const L1: &str = "L1 guest";
const L2: &str = "L2 guest";

/// What is to be compared.
#[derive(Debug)]
pub(crate) struct Request {
    /// Catalog name of both guests' image.
    pub(crate) image: String,
    /// How often the work is done in each place.
    pub(crate) rounds: u16,
    /// The store.
    pub(crate) store: PathBuf,
}

/// There is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Nothing was started.
    #[error("could not {what}: {why}")]
    Prepare {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// No folder to work in.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A run could not be started or recorded.
    #[error("{place}: {source}")]
    Run {
        /// Where.
        place: &'static str,
        /// Why.
        source: RunError,
    },
    /// The work was not done.
    #[error("the work was not done in one place ({place}): {why}")]
    Work {
        /// Where.
        place: &'static str,
        /// Why.
        why: String,
    },
    /// The places did not do the same work.
    #[error("{0}")]
    Different(String),
    /// Somebody asked us to stop.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// 2 where nothing was started, 3 where a figure is missing, 130 interrupted.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Prepare { .. } | Self::Scratch(_) => 2,
            Self::Run { place: L1, source } => source.exit_code(),
            Self::Run { .. } | Self::Work { .. } | Self::Different(_) => 3,
            Self::Interrupted => 130,
        }
    }
}

/// Does the work everywhere, one place after the other, and compares. Says on standard error where it is.
pub(crate) async fn compare(request: &Request, spawner: &Spawner) -> Result<Comparison, BenchError> {
    // Beside the guests' overlays, so that all three places write to the same disk; swept by the next start if we are killed.
    let scratch = Scratch::create(&request.store, &RunFolder::new_name())?;
    let folder = scratch.path();
    let program = folder.join(PROGRAM);
    let prepare = |what| move |error: io::Error| BenchError::Prepare { what, why: error.to_string() };
    fs::copy("/proc/self/exe", &program).map_err(prepare("copy this program"))?;
    let plan = plan(folder, &request.image, request.rounds)?;
    let guest = plan.cells.first().map(|cell| &cell.guest);
    let guest =
        guest.map(|guest| format!("{}, {} CPU, {}", request.image, guest.cpus, guest.memory)).unwrap_or_default();
    // Its mean of the last minute.
    let load =
        LoadAverage::current().map_err(|error| prepare("read the load of this machine")(io::Error::other(error)))?;
    let setting = Setting { guest, load: load.one.into() };
    let depth = u32::from(Machine::read().map_err(prepare("read the size of this machine"))?.is_virtual());

    // In the current folder, as those of other runs: after a failure the evidence is in them.
    let runs = Path::new(RUNS).join(RunFolder::new_name());
    say!("bench-nesting: the work on this machine; then two runs, below {} until they have ended well", runs.display());
    let host = on_this_machine(&program, request.rounds, depth).await?;
    let l1 = Guest { place: L1, out: runs.join("l1"), request, spawner };
    let l1 = l1.work(plan.clone().on(RunnerKind::Host)).await?;
    let l2 = Guest { place: L2, out: runs.join("l2"), request, spawner };
    let l2 = l2.work(plan.on(RunnerKind::Qemu)).await?;
    fs::remove_dir_all(&runs).map_err(prepare("remove the folders of the runs"))?;
    Comparison::new(host, l1, l2, &setting).map_err(BenchError::Different)
}

/// Where the two runs lie.
const RUNS: &str = ".nestmatrix/bench";

/// A matrix of one cell: this program does the work in a guest.
fn plan(folder: &Path, image: &str, rounds: u16) -> Result<Plan, BenchError> {
    let why = |what| move |why: String| BenchError::Prepare { what, why };
    let file = folder.join("bench.toml");
    fs::write(&file, matrix(image, rounds)).map_err(|error| why("write the matrix")(error.to_string()))?;
    let loaded = matrix::load(&file, &Catalog::shipped().names());
    Ok(loaded.map_err(|error| why("load the matrix")(error.to_string()))?.plan)
}

/// A round takes well below a second; the limit allows for a hundred times that, besides what this machine's speed allows for.
fn matrix(image: &str, rounds: u16) -> String {
    format!(
        "images = [\"{image}\"]\n\
         [[suite]]\n\
         name = \"bench-work\"\n\
         inline = \"./{PROGRAM} bench-work --rounds {rounds}\"\n\
         files = [\"{PROGRAM}\"]\n\
         timeout = {{ suite = \"{}m\" }}\n",
        u32::from(rounds) + 1
    )
}

async fn on_this_machine(program: &Path, rounds: u16, depth: u32) -> Result<Place, BenchError> {
    let place = HOST;
    let wrong = |why| BenchError::Work { place, why };
    let mut command = tokio::process::Command::new(program);
    command.args(["bench-work", "--rounds", &rounds.to_string()]);
    command.current_dir(program.parent().unwrap_or(Path::new("."))).stdin(Stdio::null()).kill_on_drop(true);
    let began = Instant::now();
    let output = command.output().await.map_err(|error| wrong(error.to_string()))?;
    let outside_ms = began.elapsed().as_millis() as u64;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(wrong(format!("{}: {}", output.status, reports::clean::line(&said))));
    }
    let times = Times::parse(&String::from_utf8_lossy(&output.stdout), rounds).map_err(wrong)?;
    Ok(Place { place, depth, accelerator: "-".to_owned(), emulated: false, outside_ms, times })
}

/// A guest that is to do the work.
struct Guest<'a> {
    place: &'static str,
    /// Folder of its run.
    out: PathBuf,
    request: &'a Request,
    spawner: &'a Spawner,
}

impl Guest<'_> {
    async fn work(self, plan: Plan) -> Result<Place, BenchError> {
        let Self { place, out, request, spawner } = self;
        say!("bench-nesting: the work in an {place}");
        let options = Options {
            // Every level is booted: it is the same work that is compared.
            cold: true,
            catalog: Catalog::shipped().clone(),
            notes: Vec::new(),
            offline: false,
            locking: Arc::default(),
            templates: matrix::ByteSize::from_bytes(0),
            out: Some(out),
            store: request.store.clone(),
            jobs: Some(1),
            keep: Keep::Never,
            purpose: Purpose::Test,
            format: MessageFormat::Human,
        };
        let start = Start::Plan(Box::new(plan));
        let finished = crate::run::run(start, spawner, &options).await;
        let Finished { run, folder } = finished.map_err(|source| BenchError::Run { place, source })?;
        match run.exit_code() {
            0 => read(place, &run, &folder, request.rounds).map_err(|why| BenchError::Work { place, why }),
            130 => Err(BenchError::Interrupted),
            _ => Err(BenchError::Work { place, why: why(&run) }),
        }
    }
}

/// Why a run did not end well, in a line.
fn why(run: &Run) -> String {
    let bad = run.bad_cells().first().map(|cell| {
        let phase = cell.verdict.phase().map(|phase| format!(" in phase {phase}")).unwrap_or_default();
        format!("{}{phase}: {}", cell.verdict.name(), cell.verdict.reason().unwrap_or("no reason was given"))
    });
    bad.unwrap_or_else(|| format!("{}: {}", run.conclusion(), run.problems().join("; ")))
}

/// What a run that passed says of its one cell.
fn read(place: &'static str, run: &Run, folder: &Path, rounds: u16) -> Result<Place, String> {
    let missing = |what: &str| format!("the run does not say {what}");
    let cell = run.cells.first().ok_or_else(|| missing("what ran"))?;
    let attempt = cell.last_attempt().ok_or_else(|| missing("what ran"))?;
    let guest = attempt.guest.as_ref().ok_or_else(|| missing("what the guest was"))?;
    let runner = run.runner(guest.runner).and_then(|runner| runner.facts.as_ref());
    let runner = runner.ok_or_else(|| missing("where the guest ran"))?;
    let test = attempt.phases.iter().find(|phase| phase.phase == Phase::Test);
    let outside_ms = test.and_then(|test| test.elapsed_ms).ok_or_else(|| missing("how long the work took"))?;
    let log = folder.join(attempt.folder(&cell.id)).join("stdout.log");
    let text = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let emulated = |accelerator: &str| accelerator == Accelerator::Tcg.to_string();
    let (within, in_emulated) = match &runner.l1 {
        Some(l1) => (format!(", in an L1 run by {}: {}", l1.accelerator, l1.nesting), emulated(&l1.accelerator)),
        None => (String::new(), false),
    };
    Ok(Place {
        place,
        depth: runner.depth,
        accelerator: format!("{}{within}", guest.accelerator),
        emulated: in_emulated || emulated(&guest.accelerator),
        outside_ms,
        times: Times::parse(&text, rounds)?,
    })
}

#[cfg(test)]
mod tests {
    use matrix::Digest;
    use reports::{
        CaseVerdict, Ending, Event, EventKind, GuestFacts, L1Facts, RunnerFacts, TestCase, Trouble, TroubleKind,
    };

    use super::*;

    /// A plan of one cell, in a folder with a program in it.
    fn planned(folder: &Path) -> Plan {
        fs::write(folder.join(PROGRAM), "program").unwrap();
        plan(folder, "debian-12-minimal", 3).unwrap()
    }

    fn runner(l1: Option<L1Facts>) -> RunnerFacts {
        RunnerFacts {
            number: 1,
            kind: "qemu".into(),
            reason: "it was asked for".into(),
            accelerator: "kvm".into(),
            accelerator_reason: "a guest ran under it".into(),
            qemu: "10.0.2".into(),
            kernel: "6.12".into(),
            speed: 1.0,
            memory: 1 << 30,
            cpus: 2,
            depth: 2,
            l1,
            steps: Vec::new(),
        }
    }

    fn l1(accelerator: &str) -> L1Facts {
        L1Facts {
            image: "debian-13-runner".into(),
            digest: Digest::of(b"image"),
            accelerator: accelerator.into(),
            nesting: "how it nests".into(),
            machine: "pc-q35-10.0".into(),
            qemu: "10.0.2".into(),
            host_kernel: "6.12".into(),
            memory: 4 << 30,
            cpus: 2,
            pid: 1,
        }
    }

    /// A run of the plan's one cell on this runner, with this end.
    fn ran(plan: &Plan, runner: RunnerFacts, ending: Ending) -> Run {
        let verdict = ending.verdict();
        let cell = &plan.cells[0].id;
        let (cell, attempt) = (|| cell.clone(), 1);
        let (kind, reason) = (runner.kind.clone(), runner.reason.clone());
        let guest = GuestFacts {
            runner: 1,
            image: Digest::of(b"image"),
            accelerator: runner.accelerator.clone(),
            machine: "pc-q35-10.0".into(),
            pid: 2,
            boot: reports::Boot::default(),
        };
        let case =
            TestCase { name: "exit".into(), verdict: CaseVerdict::Passed, elapsed_ms: 900, file: None, line: None };
        let mut events = vec![
            EventKind::RunStarted { run: "run".into(), plan: plan.digest, version: "0".into(), locked: None },
            EventKind::RunnerStarted { runner: 1, kind, reason },
            EventKind::RunnerReady { runner },
            EventKind::AttemptStarted { cell: cell(), attempt },
            EventKind::GuestStarted { cell: cell(), attempt, guest },
            EventKind::PhaseStarted { cell: cell(), attempt, phase: Phase::Test, timeout_ms: None },
            EventKind::PhaseFinished { cell: cell(), attempt, phase: Phase::Test, elapsed_ms: 1000 },
        ];
        if ending == Ending::Passed {
            events.push(EventKind::TestStarted { cell: cell(), attempt, name: case.name.clone() });
            events.push(EventKind::TestFinished { cell: cell(), attempt, case });
        }
        events.extend([
            EventKind::AttemptFinished { cell: cell(), attempt, ending, retried: false },
            EventKind::CellFinished { cell: cell(), verdict },
            EventKind::RunFinished { elapsed_ms: 2000 },
        ]);
        let at = jiff::Timestamp::UNIX_EPOCH;
        let events: Vec<Event> = events.into_iter().map(|kind| Event { at, clock_ms: None, kind }).collect();
        Run::fold(plan, &events)
    }

    /// Leaves what the program printed where a run leaves it.
    fn printed(folder: &Path, plan: &Plan, text: &str) {
        let attempt = folder.join(reports::attempt_folder(&plan.cells[0].id, 1));
        fs::create_dir_all(&attempt).unwrap();
        fs::write(attempt.join("stdout.log"), text).unwrap();
    }

    const TIMES: &str = r#"{"checksum":"00ff","cpu_ms":[1.0,2.0,3.0],"io_ms":[4.0,5.0,6.0]}"#;

    #[test]
    fn a_guest_of_hardware_in_an_emulated_l1_is_emulated() {
        let folder = tempfile::tempdir().unwrap();
        let plan = planned(folder.path());
        printed(folder.path(), &plan, TIMES);
        let place = |l1| {
            let run = ran(&plan, runner(l1), Ending::Passed);
            assert_eq!(run.exit_code(), 0, "{:?}", run.problems());
            read(L2, &run, folder.path(), 3).unwrap()
        };
        let emulated = place(Some(l1("tcg")));
        assert_eq!(emulated.accelerator, "kvm, in an L1 run by tcg: how it nests");
        assert!(emulated.emulated);
        assert_eq!((emulated.depth, emulated.outside_ms), (2, 1000));
        assert_eq!(emulated.times.io_ms, [4.0, 5.0, 6.0]);
        assert!(!place(Some(l1("kvm"))).emulated);
        assert_eq!(place(None).accelerator, "kvm");
    }

    #[test]
    fn a_guest_that_printed_something_else_has_no_figures() {
        let folder = tempfile::tempdir().unwrap();
        let plan = planned(folder.path());
        let run = ran(&plan, runner(None), Ending::Passed);
        let read = || read(L1, &run, folder.path(), 3).unwrap_err();
        assert!(read().contains("stdout.log"), "{}", read());
        printed(folder.path(), &plan, "Illegal instruction");
        assert!(read().contains("printed no times"), "{}", read());
    }

    #[test]
    fn a_run_that_did_not_end_well_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let plan = planned(folder.path());
        let timeout = Trouble::new(TroubleKind::Timeout, Phase::Boot, "no sign of an SSH server");
        let run = ran(&plan, runner(None), Ending::Troubled(timeout));
        assert_eq!(why(&run), "error in phase boot: no sign of an SSH server");
    }

    #[test]
    fn what_was_refused_before_anything_ran_is_a_usage_error_and_nothing_else_is() {
        let refused = |place| BenchError::Run { place, source: RunError::KeepInL1 }.exit_code();
        assert_eq!((refused(L1), refused(L2)), (2, 3));
    }

    #[test]
    fn the_matrix_sends_this_program_to_one_guest_and_is_valid_whatever_the_rounds() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(PROGRAM), "program").unwrap();
        for rounds in [1, 3, 100] {
            let plan = plan(folder.path(), "debian-12-minimal", rounds).unwrap();
            let [cell] = plan.cells.as_slice() else { panic!("{:?}", plan.cells) };
            assert_eq!(cell.files[0].relative, PROGRAM);
            assert_eq!(plan.scripts[&cell.script], format!("./nestmatrix bench-work --rounds {rounds}"));
            assert_eq!(cell.timeouts.suite.as_secs(), 60 * (u64::from(rounds) + 1));
        }
    }
}
