//! Size and nature of this machine, read from the kernel.

use std::{io, path::Path};

use matrix::ByteSize;

/// Memory that is left to the machine itself whatever we start.
const RESERVE: ByteSize = ByteSize::from_mib(512);

/// What the kernel says of this machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Model name of the CPU.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: u32,
    /// CPU flags that matter to virtualization: `svm`, `vmx`, `hypervisor`.
    pub flags: Vec<String>,
    /// All of its memory.
    pub memory: ByteSize,
    /// What new programs can have without swapping.
    pub available: ByteSize,
    /// Kernel release.
    pub kernel: String,
}

impl Machine {
    /// Reads `/proc`.
    pub fn read() -> io::Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        Ok(Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
            flags: virtualization_flags(&cpuinfo),
            memory: kibibytes(&meminfo, "MemTotal")?,
            available: kibibytes(&meminfo, "MemAvailable")?,
            kernel: kernel_release(),
        })
    }

    /// Memory that guests may take together.
    pub fn spare(&self) -> ByteSize {
        ByteSize::from_bytes(self.available.bytes().saturating_sub(RESERVE.bytes()))
    }

    /// A hypervisor runs below us.
    pub fn is_virtual(&self) -> bool {
        self.flags.iter().any(|flag| flag == "hypervisor")
    }
}

/// Those of the first CPU's flags that [`Machine::flags`] keeps.
pub(super) fn virtualization_flags(cpuinfo: &str) -> Vec<String> {
    let flags = field(cpuinfo, "flags").unwrap_or_default().split_whitespace();
    flags.filter(|flag| ["svm", "vmx", "hypervisor"].contains(flag)).map(str::to_owned).collect()
}

/// The running kernel's release.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Bytes that an ordinary user may still write below `path`.
pub fn free_bytes(path: &Path) -> io::Result<ByteSize> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(ByteSize::from_bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn kibibytes(meminfo: &str, name: &str) -> io::Result<ByteSize> {
    field(meminfo, name)
        .and_then(|value| value.strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| ByteSize::from_bytes(kib << 10))
        .ok_or_else(|| io::Error::other(format!("/proc/meminfo has no {name}")))
}
