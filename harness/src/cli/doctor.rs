//! `doctor`: is this machine fit, and if not, what to do.

use std::{path::Path, sync::atomic::AtomicBool};

use images::{Catalog, Control, Store};

use super::{Failure, Outcome, args, print, table};
use crate::{
    guest::Spawner,
    host::{self, Machine, Qemu},
};

/// One line of the answer.
struct Finding {
    what: &'static str,
    state: State,
    words: String,
    remedy: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Good,
    /// Works, but not as well as it could.
    Weak,
    /// Does not work.
    Bad,
}

/// Programs that bootstrapping an image calls, and what they are for.
const BUILDERS: [(&str, &str); 3] =
    [("mmdebstrap", "builds images"), ("mke2fs", "builds images"), ("unshare", "builds images")];
/// Least free space for a store: three images and their overlays.
const DISK: u64 = 5 << 30;
/// Least spare memory: one small guest.
const MEMORY: u64 = 1 << 30;

pub(super) async fn doctor(args: &args::Doctor) -> Outcome {
    let root = match &args.store.store {
        Some(folder) => folder.clone(),
        None => Store::default_root().map_err(|error| Failure::message(2, error))?,
    };
    let machine = Machine::read().map_err(|error| Failure::message(3, error))?;
    let mut findings = vec![qemu_finding().await];
    findings.extend(BUILDERS.iter().map(|(program, purpose)| builder(program, purpose)));
    findings.extend(size(&machine, &root));
    findings.push(accelerator(&machine, &root, args.fresh).await);
    let rows = findings.iter().map(|finding| {
        let state = match finding.state {
            State::Good => "ok",
            State::Weak => "warning",
            State::Bad => "MISSING",
        };
        vec![state.to_owned(), finding.what.to_owned(), finding.words.clone()]
    });
    let mut text = table(rows);
    for finding in &findings {
        if let Some(remedy) = &finding.remedy {
            text += &format!("\n{}: {remedy}", finding.what);
        }
    }
    print(&text)?;
    Ok(if findings.iter().any(|finding| finding.state == State::Bad) { 3 } else { 0 })
}

async fn qemu_finding() -> Finding {
    let what = "QEMU";
    match Qemu::find().await {
        Ok(qemu) => {
            let words = format!("{} at {}, machine {}", qemu.words, qemu.system.display(), qemu.machine());
            Finding { what, state: State::Good, words, remedy: None }
        }
        Err(error) => Finding {
            what,
            state: State::Bad,
            words: error.to_string(),
            remedy: Some("run `cargo xtask setup`".to_owned()),
        },
    }
}

fn builder(program: &'static str, purpose: &str) -> Finding {
    match host::find(program) {
        Some(path) => Finding { what: program, state: State::Good, words: path.display().to_string(), remedy: None },
        None => Finding {
            what: program,
            state: State::Bad,
            words: format!("not installed ({purpose})"),
            remedy: Some("run `cargo xtask setup`".to_owned()),
        },
    }
}

fn size(machine: &Machine, root: &Path) -> Vec<Finding> {
    let virtualization = if machine.is_virtual() { "a virtual machine" } else { "bare metal" };
    let flags =
        if machine.flags.is_empty() { "none of svm, vmx, hypervisor".to_owned() } else { machine.flags.join(", ") };
    let cpu = Finding {
        what: "CPU",
        state: State::Good,
        words: format!("{} x {} ({flags}); {virtualization}, kernel {}", machine.cpus, machine.cpu, machine.kernel),
        remedy: None,
    };
    let spare = machine.spare();
    let memory = Finding {
        what: "memory",
        state: if spare.bytes() >= MEMORY { State::Good } else { State::Weak },
        words: format!("{} MiB of {} MiB can go to guests", spare.mib(), machine.memory.mib()),
        remedy: (spare.bytes() < MEMORY).then(|| "close other programs, or lower `guest.memory`".to_owned()),
    };
    // The store may not exist yet: its nearest existing parent is on the same disk.
    let existing = root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let disk = match host::free_bytes(existing) {
        Ok(free) => Finding {
            what: "disk",
            state: if free.bytes() >= DISK { State::Good } else { State::Weak },
            words: format!("{} MiB free for the store {}", free.mib(), root.display()),
            remedy: (free.bytes() < DISK).then(|| "make room, or name another folder with --store".to_owned()),
        },
        Err(error) => Finding { what: "disk", state: State::Bad, words: error.to_string(), remedy: None },
    };
    vec![cpu, memory, disk]
}

async fn accelerator(machine: &Machine, root: &Path, fresh: bool) -> Finding {
    let what = "accelerator";
    let finding = |state, words: String, remedy| Finding { what, state, words, remedy };
    let Ok(qemu) = Qemu::find().await else { return finding(State::Bad, "unknown without QEMU".into(), None) };
    let known = if fresh { None } else { host::known(root, &qemu, machine) };
    let proof = match known {
        Some(proof) => Ok(proof),
        None => match prove(machine, root, &qemu).await {
            Some(result) => result,
            None => {
                let remedy =
                    "`nestmatrix images prepare debian-12-minimal` makes one; the first run proves it by itself"
                        .to_owned();
                let words = "not proved yet: there is no image in the store to boot".to_owned();
                return finding(State::Weak, words, Some(remedy));
            }
        },
    };
    match proof {
        Ok(proof) => {
            let slow = proof.accelerator == crate::guest::Accelerator::Tcg;
            let words = format!("{} (time limits x {}): {}", proof.accelerator, proof.speed, proof.reason);
            finding(if slow { State::Weak } else { State::Good }, words, None)
        }
        Err(error) => finding(State::Bad, error, None),
    }
}

/// Proves it with any image of the store; `None`: there is none.
async fn prove(machine: &Machine, root: &Path, qemu: &Qemu) -> Option<Result<host::Proof, String>> {
    if !root.is_dir() {
        return None;
    }
    let store = Store::open(root).ok()?;
    let present = store.list().into_iter().find(|status| status.present.is_some())?;
    let cancel = AtomicBool::new(false);
    let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
    let image = store.prepare(Catalog::shipped().get(&present.name)?, &control).ok()?;
    let scratch = tempfile::tempdir().ok()?;
    let spawner = Spawner::start().ok()?;
    let target = host::Target { kernel: &image.kernel, initrd: &image.initrd, scratch: scratch.path() };
    let proof = host::prove(store.root(), qemu, machine, &spawner, &target).await;
    Some(proof.map_err(|error| error.to_string()))
}
