//! What decides a template, as one digest. Pure but for the look at QEMU's file.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use matrix::Digest;

use super::resume_agent;
use crate::{
    guest::{Accelerator, Launch, MachineSpec, Ram, Seed, seed_recipe},
    host::{Machine, Qemu},
    payload,
};

/// Raised when templates are made in another way.
const FORMAT: u32 = 6;

/// What templates of this machine were born with besides what each guest is started with: a state is loaded by the very QEMU, and under
/// hardware virtualization on the very CPU, that it was saved by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFingerprint(String);

impl HostFingerprint {
    /// Of guests that are run here with this accelerator.
    ///
    /// # Errors
    ///
    /// QEMU's file cannot be looked at.
    pub fn new(qemu: &Qemu, machine: &Machine, accelerator: Accelerator) -> io::Result<Self> {
        let mut text = format!("qemu {} {}", qemu.line, file_stamp(&qemu.system)?);
        if accelerator == Accelerator::Kvm {
            // What `-cpu host` shows a guest.
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
            let first = cpuinfo.split("\n\n").next().unwrap_or_default().lines();
            let decides = |line: &&str| ["flags", "microcode", "stepping"].iter().any(|name| line.starts_with(name));
            let shown: Vec<_> = first.filter(decides).collect();
            text += &format!("\ncpu {} kernel {}\n{}", machine.cpu, machine.kernel, shown.join("\n"));
        }
        Ok(Self(text))
    }
}

/// What changes when another file is installed in place of this one.
///
/// # Errors
///
/// It cannot be looked at.
pub fn file_stamp(file: &Path) -> io::Result<String> {
    let file = std::fs::metadata(file)?;
    Ok(format!("{} {} {}", file.len(), file.mtime(), file.mtime_nsec()))
}

/// The key of the template of machines like this one; `parts` is what else decides them, each by its name.
pub fn key(host_fingerprint: &HostFingerprint, spec: &MachineSpec, parts: &[(&str, String)]) -> Digest {
    // What the machine is, and what this version makes of that: where its files lie decides nothing.
    let launch = Launch { ram: Ram::Kept(PathBuf::new()), port: true, ..Launch::new(spec.clone()) };
    let args = launch.args(Default::default());
    let args = args.iter().map(|arg| ("argument", arg.to_string_lossy().into_owned()));
    // It fails for maps whose keys are no text, and there are none here.
    let machine = ("machine", serde_json::to_string(spec).unwrap_or_default());
    let seed = (spec.seed == Some(Seed::CloudInit)).then(|| ("seed", seed_recipe().to_string()));
    let resume_agent = ("resume_agent", Digest::of(resume_agent::PROGRAM).to_string());
    let facts = payload::facts_script();
    let scripts = [super::freeze::RESUME_AGENT, super::freeze::QUIESCE, &facts].into_iter();
    // Of all families: which one a guest is of may be known only when it runs.
    let scripts = scripts.chain(payload::rehearsals().map(|script| -> &str { script }));
    let scripts = scripts.map(|script| ("script", Digest::of(script.as_bytes()).to_string()));
    let own = [("host_fingerprint", host_fingerprint.0.clone()), resume_agent, machine].into_iter().chain(seed);
    let parts = parts.iter().cloned().chain(own).chain(scripts).chain(args);
    let mut text = format!("nestmatrix template {FORMAT}\n");
    for (name, part) in parts {
        // Lengths before contents: no two lists of parts write the same text.
        text += &format!("{name} {} {part}\n", part.len());
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use images::Start;
    use matrix::{ByteSize, Firmware};

    use super::*;
    use crate::guest::{Cpu, Disk};

    fn spec() -> MachineSpec {
        MachineSpec::sample()
    }

    fn parts(image: &str) -> [(&'static str, String); 1] {
        [("image", image.to_owned())]
    }

    fn here() -> HostFingerprint {
        HostFingerprint("qemu 10.0.2".into())
    }

    #[test]
    fn guests_that_differ_for_their_kernel_share_no_template() {
        let of = |spec: &MachineSpec| key(&here(), spec, &parts("a"));
        let first = of(&spec());
        let others = [
            MachineSpec { cpus: 2, ..spec() },
            MachineSpec { memory: ByteSize::from_mib(1024), ..spec() },
            MachineSpec { machine: "pc-q35-9.2".into(), ..spec() },
            MachineSpec { accelerator: Accelerator::Kvm, ..spec() },
            MachineSpec { cpu: Cpu::Nesting, ..spec() },
            MachineSpec { start: Start::Kernel("root=/dev/vda quiet".into()), ..spec() },
            MachineSpec { start: Start::Firmware(Firmware::Bios), ..spec() },
            MachineSpec { start: Start::Firmware(Firmware::Uefi), ..spec() },
            MachineSpec { arch: matrix::Arch::Aarch64, ..spec() },
            MachineSpec { screen: false, ..spec() },
            MachineSpec { nics: 0, ..spec() },
            MachineSpec { seed: Some(Seed::CloudInit), ..spec() },
            MachineSpec { port: true, ..spec() },
            MachineSpec { disks: vec![Disk::root(ByteSize::from_mib(8192))], ..spec() },
            MachineSpec {
                disks: spec().disks.into_iter().chain([Disk::empty("data", ByteSize::from_mib(64))]).collect(),
                ..spec()
            },
        ];
        for other in others {
            assert_ne!(of(&other), first, "{other:?}");
        }
        assert_ne!(key(&here(), &spec(), &parts("b")), first);
        assert_ne!(key(&here(), &spec(), &[]), first);
        assert_ne!(key(&HostFingerprint("qemu 10.0.3".into()), &spec(), &parts("a")), first);
    }
}
