//! `run`: a matrix from plan to exit code.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use matrix::{GceOverrides, Network, Plan, RunnerKind};

use super::{
    Failure, Outcome, args,
    catalog::{self, with_help},
    dry_run, matrix_file,
};
use crate::{
    fanout::{Purpose, named_by},
    guest::Spawner,
    package_lock::{LockFile, Locking},
    run::{Finished, Options, RunError, RunFolder, Start, locate, renew_lock},
};

/// Most cells and images that one sentence names.
const NAMED: usize = 5;

pub(super) async fn run(args: args::Run) -> Outcome {
    let (start, known, notes, locking) = match args.resume {
        Some(run) => {
            // Of a folder without a plan, the run itself says what is wrong.
            let plan = locate(&run).and_then(|folder| Plan::read(&folder.join("plan.json")).ok());
            let known = catalog::read(&args.which.catalog, plan.as_ref().map(|plan| plan.matrix.as_path()))?;
            let locking = match locate(&run) {
                Some(folder) => of_run(&folder)?,
                None => Locking::Off,
            };
            (Start::Resume(run), known, Vec::new(), locking)
        }
        None => {
            let matrix_file::Loaded { plan, known, in_part } = matrix_file::load_to_run(&args.which)?;
            if args.lock && !in_part.is_empty() {
                return Err(lock_in_part(&in_part));
            }
            let notes = known.unpinned(&plan).into_iter().collect();
            let plan = on_runner(plan, args.runner, args.identity, args.gce.overrides(), args.dry_run)?;
            if args.dry_run {
                return dry_run::dry_run(&plan, args.jobs.map(usize::from), &args.which.store.path()?).await;
            }
            let locking = locking(&plan, args.lock, args.locked)?;
            let beside = if locking == Locking::Off { Vec::new() } else { beside_lock(&plan) };
            (Start::Plan(Box::new(plan)), known, [notes, beside].concat(), locking)
        }
    };
    let lock = matches!(locking, Locking::Record { .. });
    let templates = args.limit.templates;
    let store = args.which.store.path()?;
    let options = Options {
        cold: args.cold,
        catalog: known.catalog,
        notes,
        offline: args.offline,
        locking: Arc::new(locking),
        templates,
        out: args.out,
        store,
        jobs: args.jobs.map(usize::from),
        keep: args.keep,
        purpose: Purpose::Test,
        format: args.message_format,
    };
    let spawner = Spawner::start().map_err(|error| Failure::message(2, error))?;
    let finished = crate::run::run(start, &spawner, &options).await.map_err(failure)?;
    let code = finished.run.exit_code();
    // What the run itself comes to is more important.
    match lock.then(|| renewed(&finished, &options.store)) {
        Some(Err(failure)) => Err(Failure { code: if code == 0 { failure.code } else { code }, ..failure }),
        Some(Ok(locked)) if code == 0 => Ok(locked),
        _ => Ok(code),
    }
}

/// What a run that is resumed began with.
fn of_run(folder: &Path) -> Result<Locking, Failure> {
    Locking::of_run(folder).map_err(|error| {
        let message = format!("{}: what its packages are pinned to cannot be read: {error}", folder.display());
        with_help(&message, "start a new run")
    })
}

/// The packages of an image are those of all its cells.
fn lock_in_part(images: &[String]) -> Failure {
    let help = "leave `--cell` out, or select whole images: `--cell 'IMAGE.*'`";
    let message =
        format!("`--lock` pins what all cells of an image get, and `--cell` leaves out some of {}", images.join(", "));
    with_help(&message, help)
}

/// What is to be said of guests whose network leads past the proxy.
fn beside_lock(plan: &Plan) -> Vec<String> {
    let images = plan.images.iter().filter(|image| {
        let open = |prepare: &matrix::Prepare| prepare.network == Network::Open;
        image.prepare.as_ref().is_some_and(open)
    });
    let cells = plan.cells.iter().filter(|cell| cell.guest.network == Network::Open);
    let named: Vec<_> =
        images.map(|image| image.name.as_str()).chain(cells.map(|cell| cell.id.as_str())).take(NAMED).collect();
    let message =
        format!("what guests of {} get is neither pinned nor compared: their network is \"open\"", named.join(", "));
    if named.is_empty() { Vec::new() } else { vec![message] }
}

/// What the run does with `repositories.lock`.
fn locking(plan: &Plan, lock: bool, locked: bool) -> Result<Locking, Failure> {
    if !lock && !locked {
        return Ok(Locking::Off);
    }
    let file = LockFile::beside(&plan.matrix);
    // Also before it is renewed: that it cannot be is better known before the run.
    match LockFile::read(&file).map_err(|error| with_help(&error, &error.help))? {
        _ if lock => Ok(Locking::Record { run: RunFolder::new_name() }),
        Some(lock) => Ok(Locking::keep(&lock, plan, &named_by(plan))),
        None => {
            let help = format!("`nestmatrix run {} --lock` makes it", plan.matrix.display());
            Err(with_help(&format!("there is no {}, which `--locked` keeps to", file.display()), &help))
        }
    }
}

/// Pins what the guests of the run got, and says so: 0, or 3 if not all of it is pinned.
fn renewed(finished: &Finished, store: &Path) -> Result<u8, Failure> {
    let plan = Plan::read(&finished.folder.join("plan.json")).map_err(|error| Failure::caused(3, error))?;
    let renewed = renew_lock(&plan, &named_by(&plan), &finished.folder, &images::packages(store))
        .map_err(|error| Failure { code: 3, ..with_help(&error, &error.help) })?;
    for line in &renewed.lines {
        say!("{line}");
    }
    Ok(if renewed.is_complete { 0 } else { 3 })
}

/// The same plan for the runner that the command line asks for, if it does.
fn on_runner(
    plan: Plan,
    runner: Option<args::Runner>,
    identity: Option<PathBuf>,
    gce: GceOverrides,
    dry_run: bool,
) -> Result<Plan, Failure> {
    if identity.is_some() && !matches!(runner, Some(args::Runner::Ssh(_))) {
        let help = "leave it out, or name a machine to log in to: `--runner ssh:user@host:port`";
        return Err(with_help(&"`--identity` applies to `--runner ssh:...` only", help));
    }
    if matches!((&runner, plan.runner.kind), (Some(args::Runner::Gce), _) | (None, RunnerKind::Gce)) {
        let help = "change the options `--gce-...`, or `[runner]` in the matrix";
        return plan.on_gce(gce).map_err(|error| with_help(&format!("the runner `gce`: {error}"), help));
    }
    if gce != GceOverrides::default() {
        let help = "add `--runner gce`, or leave them out";
        return Err(with_help(&"the options `--gce-...` apply to the runner `gce` only", help));
    }
    if dry_run {
        let help = "`nestmatrix plan` shows what would run; `--runner gce --dry-run` shows what would be created";
        return Err(with_help(&"`--dry-run` applies to the runner `gce` only", help));
    }
    Ok(match runner {
        Some(args::Runner::Here(kind)) => plan.on(kind),
        Some(args::Runner::Ssh(host)) => plan.on_host(host, identity),
        Some(args::Runner::Gce) | None => plan,
    })
}

/// A run that could not be started or recorded.
pub(super) fn failure(error: RunError) -> Failure {
    let code = error.exit_code();
    Failure::caused(code, error)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// What becomes of a matrix with this `[runner]` with these options: the plan, or what is wrong.
    fn with(runner: &str, options: &[&str]) -> Result<Plan, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let text = format!("images = ['a']\nsuite = [{{ name = 'a', inline = 'true' }}]\n[runner]\n{runner}");
        std::fs::write(&file, text).unwrap();
        let plan = matrix::load(&file, &["a"]).unwrap().plan;
        let args = args::Args::try_parse_from(["nestmatrix", "run"].iter().chain(options));
        let args::Verb::Run(args) = args.map_err(|error| error.to_string())?.verb else { panic!("it is `run`") };
        on_runner(plan, args.runner, args.identity, args.gce.overrides(), args.dry_run)
            .map_err(|failure| format!("{:?}", failure.report))
    }

    #[test]
    fn options_of_compute_engine_win_over_the_matrix_and_need_its_runner() {
        let matrix = "kind = 'gce'\nzones = ['us-east1-b']\nspot = true\nlabels = { team = 'qa' }\n";
        let untouched = with(matrix, &["--dry-run"]).unwrap().digest;
        assert_eq!(untouched, with(matrix, &["--runner", "gce"]).unwrap().digest);
        let options = [
            "--gce-project=my-project",
            "--gce-zone=us-central1-a,us-central1-b",
            "--gce-zone=us-central1-f",
            "--gce-machine-type=n2-standard-4",
            "--gce-disk=20GiB",
            "--gce-spot=false",
            "--gce-image=my-family",
            "--gce-network=default",
            "--gce-subnet=tests",
            "--gce-external-ip=false",
            "--gce-proxy-command=nc %h %p",
            "--gce-label=run=7",
            "--gce-cache-disk=cache",
            "--gce-max-duration=1d",
        ];
        let gce = with(matrix, &options).unwrap().runner.gce.unwrap();
        let json = serde_json::to_value(&gce).unwrap();
        let expected = serde_json::json!({
            "project": "my-project",
            "zones": ["us-central1-a", "us-central1-b", "us-central1-f"],
            "machine_type": "n2-standard-4",
            "spot": false,
            "image": "my-family",
            "network": "default",
            "subnet": "tests",
            "external_ip": false,
            "proxy_command": "nc %h %p",
            "labels": { "run": "7", "team": "qa" },
            "cache_disk": "cache",
            "max_duration": { "secs": 86400, "nanos": 0 },
            "disk": "20GiB",
        });
        assert_eq!(json, expected);
        let spot = with("kind = 'host'", &["--runner", "gce", "--gce-spot"]).unwrap();
        assert!(spot.runner.gce.is_some_and(|gce| gce.spot && gce.external_ip));
        assert_eq!(with(matrix, &["--runner", "host"]).unwrap().runner.gce, None);
    }

    #[test]
    fn options_that_cannot_be_meant_are_refused_with_what_to_do() {
        let gce = "kind = 'gce'\n";
        for (matrix, options, words) in [
            ("", &["--gce-spot"][..], &["apply to the runner `gce` only", "--runner gce"][..]),
            (gce, &["--runner", "qemu", "--gce-zone", "us-east1-b"], &["apply to the runner `gce` only"]),
            ("", &["--dry-run"], &["`--dry-run` applies", "`nestmatrix plan`"]),
            (gce, &["--runner", "gce", "--identity", "key"], &["`--identity` applies", "--runner ssh:"]),
            (gce, &["--gce-zone", "us-east1"], &["--gce-zone", "write a region and the letter of a zone"]),
            (gce, &["--gce-zone=us-east1-b,us-east1-b"], &["named twice"]),
            (gce, &["--gce-label", "nestmatrix-run=1"], &["--gce-label", "set by nestmatrix itself"]),
            (gce, &["--gce-max-duration", "5m"], &["--gce-max-duration", "from `10m` to `7d`"]),
            (gce, &["--resume", "latest", "--gce-spot"], &["cannot be used with"]),
            (gce, &["--resume", "latest", "--dry-run"], &["cannot be used with"]),
            ("", &["--lock", "--locked"], &["cannot be used with"]),
        ] {
            let error = with(matrix, options).expect_err("refused");
            for word in words {
                assert!(error.contains(word), "{options:?}: `{word}` is missing in {error}");
            }
        }
    }

    #[test]
    fn guests_with_an_open_network_are_said_to_be_beside_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let beside = |network: &str| {
            let suite = format!("suite = [{{ name = 'a', inline = 'true', guest = {{ network = '{network}' }} }}]\n");
            std::fs::write(&file, format!("images = ['a']\n{suite}")).unwrap();
            beside_lock(&matrix::load(&file, &["a"]).unwrap().plan)
        };
        assert!(beside("repositories").is_empty());
        assert_eq!(
            beside("open"),
            ["what guests of a.a get is neither pinned nor compared: their network is \"open\""]
        );
    }

    #[test]
    fn an_image_is_not_locked_with_some_of_its_cells() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let suites = "suite = [{ name = 'a', inline = 'true' }, { name = 'b', inline = 'true' }]\n";
        std::fs::write(&file, format!("images = ['debian-11-minimal', 'debian-12-minimal']\n{suites}")).unwrap();
        let in_part = |cells: &[&str]| {
            let cells = cells.iter().flat_map(|cell| ["--cell", cell]);
            let typed = ["nestmatrix", "run", file.to_str().unwrap()].into_iter().chain(cells);
            let args::Verb::Run(args) = args::Args::try_parse_from(typed).unwrap().verb else { panic!("it is `run`") };
            matrix_file::load(&args.which).ok().unwrap().in_part
        };
        assert_eq!(in_part(&["debian-12-minimal.a"]), ["debian-12-minimal"]);
        assert_eq!(in_part(&["*.a"]), ["debian-11-minimal", "debian-12-minimal"]);
        assert!(in_part(&[]).is_empty() && in_part(&["debian-12*"]).is_empty());
    }

    #[test]
    fn a_run_that_keeps_to_a_lock_needs_one_and_says_what_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = with("", &[]).unwrap();
        plan.matrix = folder.path().join("m.toml");
        let failure = locking(&plan, false, true).err().unwrap();
        let words = format!("{:?}", failure.report);
        assert!(
            failure.code == 2 && words.contains("repositories.lock") && words.contains("--lock` makes it"),
            "{words}"
        );
        std::fs::write(folder.path().join("repositories.lock"), "version = 9").unwrap();
        for lock in [true, false] {
            assert_eq!(locking(&plan, lock, !lock).err().unwrap().code, 2, "it is not one of this version");
        }
        std::fs::write(folder.path().join("repositories.lock"), "version = 1").unwrap();
        assert!(matches!(locking(&plan, true, false), Ok(Locking::Record { .. })));
        let kept = locking(&plan, false, true).ok().unwrap();
        assert_eq!(kept.pins("a"), Some(egress::Pins::default()), "no package is pinned");
    }
}
