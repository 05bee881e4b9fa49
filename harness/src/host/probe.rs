//! Which accelerator really works, proved by booting a guest with it.
//!
//! A `/dev/kvm` that opens, has the right API version and runs firmware may still hang every stock kernel, or make QEMU
//! abort. So nothing is believed but a real 64-bit kernel that ran a real program: the image's own kernel and initial file
//! system with `rdinit=/bin/true`. When that program exits, Linux panics with "Attempted to kill init! exitcode=0x00000000",
//! which no hung, crashed or half-working machine can print.
//!
//! The CPU time it takes is also the measure of this machine's speed: unlike time on the clock it does not depend on what
//! else runs meanwhile, and the answer is remembered.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use images::{Kernel, Start};
use matrix::{Arch, ByteSize};
use serde::{Deserialize, Serialize};

use super::{machine::Machine, nesting::KvmDevice, tools::Qemu};
use crate::guest::{
    self, Accelerator, BootFiles, Cpu, Ended, Guest, Launch, MachineSpec, Spawner, StartError, process_cpu_time,
};

/// A guest that has not exited by then under hardware virtualization never will: it needs about a second.
const KVM_LIMIT: Duration = Duration::from_secs(30);
/// The same in an L1: one with an emulated CPU is slow, and one whose nested virtualization hangs does not come to an end at all.
const L1_LIMIT: Duration = Duration::from_secs(240);
/// Software emulation on a small, busy machine.
const TCG_LIMIT: Duration = Duration::from_secs(180);
/// CPU time the probe guest takes on a machine with hardware virtualization: there the speed factor is 1.
const REFERENCE: Duration = Duration::from_secs(1);
/// A machine that is slower than this runs no guests.
const SLOWEST: f64 = 100.0;
/// The last line of a guest that ran its program to the end.
const PROOF: &str = "Attempted to kill init! exitcode=0x00000000";

/// What was proved on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Kernel, QEMU and CPU it was proved with: if one changes it is proved again.
    key: String,
    /// What guests are run with.
    pub accelerator: Accelerator,
    /// Why this one; says what to do where the answer is a disappointment.
    pub reason: String,
    /// What time limits are multiplied by, 1.0 or more.
    pub speed: f64,
}

impl Proof {
    /// What is said of this machine where all guests are of other kinds, and nothing had to be proved.
    pub fn unneeded() -> Self {
        let reason = "guests of another kind of CPU than this machine's are emulated".to_owned();
        Self { key: String::new(), accelerator: Accelerator::Tcg, reason, speed: 1.0 }
    }

    /// The same, now that the speeds of emulated guests are known: where no others are run, the slowest is said of all.
    pub fn told_of_emulated(mut self, speeds: impl Iterator<Item = f64>) -> Self {
        if self.key.is_empty() {
            self.speed = speeds.fold(self.speed, f64::max);
        }
        self
    }

    /// The same where a control group allows a part of a CPU: what takes so much CPU time takes that much longer. (It is not remembered
    /// so: the next run may be allowed more.)
    fn on(mut self, machine: &Machine) -> Self {
        self.speed = (self.speed / machine.cpu_share).clamp(1.0, SLOWEST);
        self
    }
}

/// Nothing works here.
#[derive(Debug, thiserror::Error)]
#[error("no accelerator works on this machine: kvm: {kvm}; tcg: {tcg}")]
pub struct ProbeError {
    kvm: String,
    tcg: String,
}

/// What the probe boots, and where it may write.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// A stock kernel; its initial file system must have `/bin/true`.
    pub kernel: &'a Kernel,
    /// A folder for its logs, ours alone.
    pub scratch: &'a Path,
}

fn key(qemu: &Qemu, machine: &Machine) -> String {
    // A device that appears, disappears or changes hands is another answer as well.
    format!(
        "{} | qemu {} | {} | kvm: {}",
        machine.kernel,
        qemu.words,
        machine.cpu,
        kvm_opens().err().unwrap_or_default()
    )
}

fn file(store: &Path, arch: Arch) -> PathBuf {
    let own = arch == Arch::here();
    store.join(if own { "probe.json".to_owned() } else { format!("probe-{arch}.json") })
}

/// The answer of an earlier proof, if it still holds.
pub fn known(store: &Path, qemu: &Qemu, machine: &Machine) -> Option<Proof> {
    let proof: Proof = serde_json::from_slice(&fs::read(file(store, qemu.arch())).ok()?).ok()?;
    (proof.key == key(qemu, machine) && (1.0..=SLOWEST).contains(&proof.speed)).then(|| proof.on(machine))
}

/// Boots the probe guest and remembers the answer in the store.
pub async fn prove(
    store: &Path,
    qemu: &Qemu,
    machine: &Machine,
    spawner: &Spawner,
    target: &Target<'_>,
) -> Result<Proof, ProbeError> {
    let attempt =
        |accelerator, limit: Duration| boot(qemu, spawner, target, accelerator, limit.div_f64(machine.cpu_share));
    let kvm = match kvm_opens() {
        Ok(()) => attempt(Accelerator::Kvm, KVM_LIMIT).await,
        Err(why) => Err(why),
    };
    let (accelerator, cost, reason) = match kvm {
        Ok(cost) => (Accelerator::Kvm, cost, ran_under_kvm(cost)),
        Err(kvm) => match attempt(Accelerator::Tcg, TCG_LIMIT).await {
            Ok(cost) => (Accelerator::Tcg, cost, emulated(&kvm)),
            Err(tcg) => return Err(ProbeError { kvm, tcg }),
        },
    };
    let proof = Proof { key: key(qemu, machine), accelerator, reason, speed: speed(cost) };
    // Not being able to remember costs the next run a few seconds and this one nothing.
    let _ = remember(&file(store, qemu.arch()), &proof);
    Ok(proof.on(machine))
}

/// Boots the probe guest of an L1 under KVM, and under nothing else. The error says why that did not go well.
pub async fn prove_kvm(
    qemu: &Qemu,
    machine: &Machine,
    spawner: &Spawner,
    target: &Target<'_>,
) -> Result<Proof, String> {
    kvm_opens()?;
    let cost = boot(qemu, spawner, target, Accelerator::Kvm, L1_LIMIT).await?;
    Ok(Proof {
        key: key(qemu, machine),
        accelerator: Accelerator::Kvm,
        reason: ran_under_kvm(cost),
        speed: speed(cost),
    }
    .on(machine))
}

fn emulated(kvm: &str) -> String {
    format!("KVM is unusable here, using slower emulation: {kvm}")
}

fn ran_under_kvm(cost: Duration) -> String {
    format!("a guest ran under it with {:.1} s of CPU time", cost.as_secs_f64())
}

fn speed(cost: Duration) -> f64 {
    let speed = (cost.as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, SLOWEST);
    (speed * 10.0).round() / 10.0
}

fn remember(file: &Path, proof: &Proof) -> io::Result<()> {
    let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(file))?;
    serde_json::to_writer_pretty(&mut new, proof)?;
    new.persist(file)?;
    Ok(())
}

/// Can we open `/dev/kvm` at all? If not: why, and what to do.
pub fn kvm_opens() -> Result<(), String> {
    match KvmDevice::open(Path::new("/")) {
        KvmDevice::Opens => Ok(()),
        KvmDevice::Missing => {
            Err("/dev/kvm does not exist (no hardware virtualization here: enable it in the firmware, or \
             nested virtualization in the hypervisor below, and load kvm_intel or kvm_amd)"
                .into())
        }
        KvmDevice::Denied => {
            Err("/dev/kvm may not be opened by this user (`sudo usermod -aG kvm $USER`, then log in again)".into())
        }
        KvmDevice::Fails(error) => Err(format!("/dev/kvm cannot be opened: {error}")),
    }
}

/// Boots the probe guest of another kind of CPU than this machine's, by emulation, and remembers in the store what time limits of such
/// guests are multiplied by, 1.0 or more: that of this machine's own guests may be one of hardware.
///
/// # Errors
///
/// Why that did not go well.
pub async fn measure(
    store: &Path,
    qemu: &Qemu,
    machine: &Machine,
    spawner: &Spawner,
    target: &Target<'_>,
) -> Result<f64, String> {
    let cost = boot(qemu, spawner, target, Accelerator::Tcg, TCG_LIMIT.div_f64(machine.cpu_share)).await?;
    let (key, accelerator) = (key(qemu, machine), Accelerator::Tcg);
    let reason = format!("guests of {} are emulated", qemu.arch());
    let proof = Proof { key, accelerator, reason, speed: speed(cost) };
    // As above.
    let _ = remember(&file(store, qemu.arch()), &proof);
    Ok(proof.on(machine).speed)
}

/// What an earlier [`measure`] came to, if it still holds.
pub fn measured(store: &Path, qemu: &Qemu, machine: &Machine) -> Option<f64> {
    known(store, qemu, machine).map(|proof| proof.speed)
}

async fn boot(
    qemu: &Qemu,
    spawner: &Spawner,
    target: &Target<'_>,
    accelerator: Accelerator,
    limit: Duration,
) -> Result<Duration, String> {
    let spec = MachineSpec {
        arch: qemu.arch(),
        machine: qemu.machine(),
        accelerator,
        cpu: Cpu::Fullest,
        cpus: 1,
        memory: ByteSize::from_mib(256),
        disks: Vec::new(),
        nics: 0,
        start: Start::Kernel(format!("console={} rdinit=/bin/true panic=-1", guest::serial_port(qemu.arch()))),
        seed: None,
        tpm: false,
        screen: false,
        port: false,
        reboots: 0,
    };
    let launch = Launch {
        qemu: qemu.system.clone(),
        name: format!("probe-{accelerator}"),
        boot: BootFiles { kernel: target.kernel.clone(), ..BootFiles::default() },
        ..Launch::new(spec)
    };
    let started = Instant::now();
    let guest = match tokio::time::timeout(limit, Guest::start(spawner, launch, true, target.scratch)).await {
        Ok(Ok(guest)) => guest,
        Ok(Err(StartError::Gone { how })) => return Err(format!("QEMU ends at once: {how}")),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("timeout: QEMU does not start".to_owned()),
    };
    let ended = tokio::time::timeout(limit.saturating_sub(started.elapsed()), guest.ended()).await;
    let cost = process_cpu_time(guest.pid());
    let proved = guest.console().tail(usize::MAX).iter().any(|line| line.contains(PROOF));
    let last = guest.console().tail(1).pop().unwrap_or_else(|| "nothing".to_owned());
    guest.kill().await;
    match ended {
        Ok(Ended::Panicked { .. } | Ended::Reset) if proved => {
            cost.ok_or_else(|| "the CPU time of a guest booted with it cannot be read (is /proc mounted?)".to_owned())
        }
        Ok(ended) => Err(format!("a guest booted with it failed: {ended}; its console ends with: {last}")),
        Err(_) => Err(format!(
            "a stock kernel booted with it hangs: nothing after {} s (was this machine busy? `nestmatrix doctor --fresh` \
             tries again); its console ends with: {last}",
            limit.as_secs()
        )),
    }
}
