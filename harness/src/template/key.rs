//! What decides a template, as one digest. Pure but for the look at QEMU's file.

use std::{io, os::unix::fs::MetadataExt as _, path::PathBuf};

use matrix::{Digest, Network};

use super::waker;
use crate::{
    guest::{Accelerator, Command, Loader, Port, Ram},
    host::{Machine, Qemu},
    payload,
};

/// Raised when templates are made in another way.
const FORMAT: u32 = 5;

/// What templates of this machine were born with besides what each guest is started with: a state is loaded by the very QEMU, and under
/// hardware virtualization on the very CPU, that it was saved by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birthplace(String);

impl Birthplace {
    /// Of guests that are run here with this accelerator.
    ///
    /// # Errors
    ///
    /// QEMU's file cannot be looked at.
    pub fn new(qemu: &Qemu, machine: &Machine, accelerator: Accelerator) -> io::Result<Self> {
        let file = std::fs::metadata(&qemu.system)?;
        let mut text = format!("qemu {} {} {} {}", qemu.line, file.len(), file.mtime(), file.mtime_nsec());
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

/// The key of the template of guests that are started like this; `parts` is what else decides them, each by its name.
pub fn key(birthplace: &Birthplace, command: &Command, parts: &[(&str, String)]) -> Digest {
    // Where files lie, and what the guest cannot see, decides nothing.
    let mut command = Command {
        qemu: PathBuf::new(),
        name: String::new(),
        ram: Ram::Kept(PathBuf::new()),
        disk: Some(PathBuf::new()),
        loader: match &command.loader {
            Loader::Kernel { cmdline, .. } => {
                Loader::Kernel { kernel: PathBuf::new(), initrd: PathBuf::new(), cmdline: cmdline.clone() }
            }
            Loader::Bios => Loader::Bios,
            Loader::Uefi(_) => Loader::Uefi(PathBuf::new()),
        },
        network: command.network.map(|_| Network::Isolated),
        port: Port::Open,
        qmp_fd: 0,
        port_fd: 0,
        ..command.clone()
    };
    command.firmware.clear();
    command.more_disks.iter_mut().for_each(|disk| disk.file = PathBuf::new());
    let args = command.args();
    let args = args.iter().map(|arg| ("argument", arg.to_string_lossy().into_owned()));
    let waker = ("waker", Digest::of(waker::PROGRAM).to_string());
    let scripts = [super::freeze::LIE_IN_WAIT, super::freeze::SETTLE, payload::FACTS].into_iter();
    // Of all families: which one a guest is of may be known only when it runs.
    let scripts = scripts.chain(payload::rehearsals());
    let scripts = scripts.map(|script| ("script", Digest::of(script.as_bytes()).to_string()));
    let parts = parts.iter().cloned().chain([("birthplace", birthplace.0.clone()), waker]).chain(scripts).chain(args);
    let mut text = format!("nestmatrix template {FORMAT}\n");
    for (name, part) in parts {
        // Lengths before contents: no two lists of parts write the same text.
        text += &format!("{name} {} {part}\n", part.len());
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Cpu;

    fn command() -> Command {
        Command::sample()
    }

    fn parts(image: &str) -> [(&'static str, String); 1] {
        [("image", image.to_owned())]
    }

    fn here() -> Birthplace {
        Birthplace("qemu 10.0.2".into())
    }

    #[test]
    fn guests_that_differ_for_their_kernel_share_no_template() {
        let of = |command: &Command| key(&here(), command, &parts("a"));
        let first = of(&command());
        let others = [
            Command { cpus: 2, ..command() },
            Command { memory_mib: 1024, ..command() },
            Command { machine: "pc-q35-9.2".into(), ..command() },
            Command { accelerator: Accelerator::Kvm, ..command() },
            Command { cpu: Cpu::Nesting, ..command() },
            Command { loader: Command::sample_loader("root=/dev/vda quiet"), ..command() },
            Command { loader: Loader::Bios, ..command() },
            Command { loader: Loader::Uefi("/code".into()), ..command() },
            Command { arch: matrix::Arch::Aarch64, ..command() },
            Command { screen: false, ..command() },
            Command { network: None, ..command() },
        ];
        for other in others {
            assert_ne!(of(&other), first, "{other:?}");
        }
        assert_ne!(key(&here(), &command(), &parts("b")), first);
        assert_ne!(key(&here(), &command(), &[]), first);
        assert_ne!(key(&Birthplace("qemu 10.0.3".into()), &command(), &parts("a")), first);
    }

    #[test]
    fn guests_that_differ_for_us_alone_share_one() {
        let of = |command: &Command| key(&here(), command, &parts("a"));
        let first = of(&command());
        let same = [
            Command { name: "a.c".into(), qmp_fd: 9, port_fd: 10, port: Port::Open, ..command() },
            Command { ram: Ram::Forked("/t/ram".into()), ..command() },
            Command { disk: Some("/scratch/disk".into()), ..command() },
            Command { network: Some(Network::Open), ..command() },
        ];
        for command in same {
            assert_eq!(of(&command), first, "{command:?}");
        }
    }
}
