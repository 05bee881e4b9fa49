//! `shell`: a person instead of a suite.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome, args, matrix_file, run::failure};
use crate::{
    fanout::{Keep, Purpose},
    guest::{Spawner, process_alive, process_start_time},
    host,
    run::{MessageFormat, Options, Start},
    scratch::sweep,
};

pub(super) async fn shell(args: args::Shell) -> Outcome {
    if host::find("ssh").is_none() {
        return Err(Failure::message(2, "`ssh` is not installed: install OpenSSH's client"));
    }
    let which = args::Which { matrix: args.matrix, cells: vec![args.cell], catalog: args.catalog, store: args.store };
    let matrix_file::Loaded { plan, known, .. } = matrix_file::load_to_run(&which)?;
    let [cell] = plan.cells.as_slice() else {
        let ids: Vec<&str> = plan.cells.iter().map(|cell| cell.id.as_str()).collect();
        let report =
            miette::miette!(help = format!("name one of them: {}", ids.join(", ")), "{} cells match", ids.len());
        return Err(Failure::usage(report));
    };
    let id = cell.id.clone();
    if plan.runner.kind.is_elsewhere() {
        say!("the guest is booted on this machine, whatever runner the matrix names");
    }
    let folder = tempfile::tempdir().map_err(|error| Failure::message(2, error))?;
    let templates = args.limit.templates;
    let store = which.store.path()?;
    let options = Options {
        cold: false,
        notes: known.unpinned(&plan).into_iter().collect(),
        catalog: known.catalog,
        offline: false,
        locking: Arc::default(),
        templates,
        out: Some(folder.path().join("run")),
        store: store.clone(),
        jobs: Some(1),
        keep: Keep::Always,
        purpose: Purpose::Shell,
        format: MessageFormat::Human,
    };
    // It lives until the shell is left: the guest dies when this thread does.
    let spawner = Spawner::start().map_err(|error| Failure::message(2, error))?;
    let start = Start::Plan(Box::new(plan.on(matrix::RunnerKind::Host)));
    let finished = crate::run::run(start, &spawner, &options).await.map_err(failure)?;
    let attempt = finished.run.cell(&id).and_then(|cell| cell.last_attempt());
    let Some((kept, pid)) = attempt.and_then(|attempt| Some((attempt.kept.as_ref()?, attempt.guest.as_ref()?.pid)))
    else {
        return Err(Failure::message(3, format!("{id}: its guest could not be made ready; see above")));
    };
    say!("entering {id}; the guest is thrown away when you leave");
    let mut ssh = tokio::process::Command::new("sh");
    ssh.arg("-c").arg(format!("exec {}", kept.ssh)).stdin(Stdio::inherit()).kill_on_drop(true);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::message(3, error))?;
    // Dropped, ssh is killed; the guest and what it lies in are removed either way.
    let status = tokio::select! {
        status = ssh.status() => Some(status),
        _ = terminate.recv() => None,
    };
    end(pid).await;
    for line in sweep(&store) {
        say!("{line}");
    }
    // ssh's own failures are 255; a shell's last command decides nothing here.
    match status {
        Some(Ok(status)) => Ok(if status.code() == Some(255) { 3 } else { 0 }),
        Some(Err(error)) => Err(Failure::message(3, error)),
        None => Ok(130),
    }
}

async fn end(pid: u32) {
    let Some(started) = process_start_time(pid) else { return };
    let Some(number) = rustix::process::Pid::from_raw(pid as i32) else { return };
    let _ = rustix::process::kill_process(number, rustix::process::Signal::KILL);
    for _ in 0..250 {
        if !process_alive(pid, started) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
