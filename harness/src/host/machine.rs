//! Size and nature of this machine, read from the kernel.

use std::{io, path::Path};

use matrix::ByteSize;

use super::cgroup::{self, MemoryLimit};

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
    /// The control group that allows less memory than the machine has left, if one does.
    pub limit: Option<MemoryLimit>,
    /// The part of a CPU that a control group allows, where that is less than one whole.
    pub cpu_share: f64,
    /// Kernel release.
    pub kernel: String,
}

impl Machine {
    /// Reads `/proc`, and the limits of the control groups this process is in.
    pub fn read() -> io::Result<Self> {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> io::Result<Self> {
        let cpuinfo = std::fs::read_to_string(root.join("proc/cpuinfo"))?;
        let meminfo = std::fs::read_to_string(root.join("proc/meminfo"))?;
        let available = kibibytes(&meminfo, "MemAvailable")?;
        let quota = cgroup::cpus(root);
        // The affinity mask is the kernel's word to this process alone.
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        Ok(Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: quota.map_or(cpus, |quota| cpus.min((quota as u32).max(1))),
            flags: virtualization_flags(&cpuinfo),
            memory: kibibytes(&meminfo, "MemTotal")?,
            available,
            limit: cgroup::memory(root).filter(|limit| limit.left < available),
            cpu_share: quota.map_or(1.0, |quota| quota.clamp(0.01, 1.0)),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        })
    }

    /// Memory that guests may take together.
    pub fn spare(&self) -> ByteSize {
        let left = self.limit.as_ref().map_or(self.available, |limit| limit.left.min(self.available));
        ByteSize::from_bytes(left.bytes().saturating_sub(RESERVE.bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of 64 GiB, in a group with this limit, of which 1 GiB is used.
    fn spare_mib(limit: &str) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/cpuinfo", "model name : x\nflags : svm\n"),
            ("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 62914560 kB\n"),
            ("proc/self/cgroup", "0::/job\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/job/memory.max", limit),
            ("sys/fs/cgroup/job/memory.current", "1073741824"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Machine::below(root.path()).unwrap().spare().mib()
    }

    #[test]
    fn guests_may_take_what_the_control_group_leaves_and_not_what_the_machine_has() {
        assert_eq!(spare_mib("max"), 60 * 1024 - 512);
        assert_eq!(spare_mib("4294967296"), 3 * 1024 - 512);
        assert_eq!(spare_mib("1073741824"), 0);
        assert_eq!(spare_mib("1099511627776"), 60 * 1024 - 512, "more than there is");
    }
}
