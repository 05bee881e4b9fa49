//! What this machine says of running virtual machines, and of virtual machines that run some of their own.
//!
//! It says, it does not prove: a CPU flag may be masked, a device may lie, a parameter promises what only the hardware can
//! keep. The proof is the probe's. These words are for choosing a runner and for telling a person what to change.
//!
//! Sources: Linux, "Running nested guests with KVM" (the parameter `nested` of the vendor's module; `Y` or `1` is on);
//! Linux, `X86_FEATURE_HYPERVISOR` (the CPU flag every hypervisor sets for its guests).

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use super::machine::virtualization_flags;

/// Longest content of a one-word file that is read. Firmware writes the names of the machine: they may be anything.
const LONGEST: u64 = 256;

/// What this machine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nesting {
    /// The virtualization built into the CPU; `None`: it shows none.
    pub hardware: Option<Hardware>,
    /// `/dev/kvm`, which programs reach it by.
    pub device: KvmDevice,
    /// KVM's modules that are there, loaded or built in, in alphabetical order: `kvm`, `kvm_intel`.
    pub modules: Vec<String>,
    /// A hypervisor runs below us: this machine is a virtual machine.
    pub is_virtual: bool,
    /// Who makes this machine and what it is called, as its firmware has it: `Google Compute Engine`.
    pub system: Option<String>,
}

/// Virtualization built into the CPU, and the switch of KVM that lets guests have it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Which of the two kinds.
    pub extension: Extension,
    /// The parameter `nested` of its module as the kernel prints it: `Y`, `1`, `N`, `0`; `None`: the module is not loaded.
    pub nested: Option<String>,
}

/// The two kinds of virtualization that x86-64 CPUs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// What comes of opening `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmDevice {
    /// It opens. That is no proof that guests run.
    Opens,
    /// There is none.
    Missing,
    /// This user may not.
    Denied,
    /// Anything else, in the system's words.
    Fails(String),
}

impl Nesting {
    /// Reads `/proc`, `/sys` and `/dev` below `root`, which is `/` but in tests.
    pub fn read(root: &Path) -> io::Result<Self> {
        let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo"))?;
        let flags = virtualization_flags(&cpuinfo);
        let has = |flag: &str| flags.iter().any(|known| known == flag);
        let extension = [Extension::Vmx, Extension::Svm].into_iter().find(|extension| has(extension.flag()));
        Ok(Self {
            hardware: extension.map(|extension| Hardware::read(extension, root)),
            device: KvmDevice::open(root),
            modules: modules(&root.join("sys/module")),
            is_virtual: has("hypervisor"),
            system: system(&root.join("sys/class/dmi/id")),
        })
    }
}

impl Hardware {
    /// Only the module of this CPU's own maker is asked: a kernel with both built in has the parameter of both.
    fn read(extension: Extension, root: &Path) -> Self {
        let module = root.join("sys/module").join(extension.module());
        Self { extension, nested: word(&module.join("parameters/nested")) }
    }

    /// A guest of this machine can run guests of its own, as far as KVM is concerned.
    pub fn nests(&self) -> bool {
        matches!(self.nested.as_deref(), Some("Y" | "1"))
    }
}

impl Extension {
    /// Its CPU flag in `/proc/cpuinfo`.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Vmx => "vmx",
            Self::Svm => "svm",
        }
    }

    /// The name its maker sells it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "Intel VT-x",
            Self::Svm => "AMD-V",
        }
    }

    /// KVM's module for it.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Vmx => "kvm_intel",
            Self::Svm => "kvm_amd",
        }
    }
}

impl KvmDevice {
    /// Opens it, for reading and writing, and closes it again.
    pub fn open(root: &Path) -> Self {
        match fs::OpenOptions::new().read(true).write(true).open(root.join("dev/kvm")) {
            Ok(_) => Self::Opens,
            Err(error) => Self::from(error),
        }
    }
}

impl From<io::Error> for KvmDevice {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Fails(error.to_string()),
        }
    }
}

/// `/sys/module` also lists what is built into the kernel, which `/proc/modules` does not.
fn modules(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name == "kvm" || name.starts_with("kvm_"))
        .collect();
    names.sort();
    names
}

/// Maker and product, the maker only once.
fn system(dmi: &Path) -> Option<String> {
    match (word(&dmi.join("sys_vendor")), word(&dmi.join("product_name"))) {
        (Some(maker), Some(product)) if product.starts_with(&maker) => Some(product),
        (Some(maker), Some(product)) => Some(format!("{maker} {product}")),
        (maker, product) => maker.or(product),
    }
}

/// The one line of a short file; `None`: no such file, or nothing in it.
fn word(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let line = reports::clean::line(&String::from_utf8_lossy(&bytes));
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root folder with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn read(files: &[(&str, &str)]) -> Nesting {
        Nesting::read(machine(files).path()).unwrap()
    }

    fn cpu(flags: &str) -> (&'static str, String) {
        ("proc/cpuinfo", format!("processor\t: 0\nflags\t\t: fpu {flags} sse\nvmx flags\t: ept\n\nprocessor\t: 1\n"))
    }

    #[test]
    fn bare_metal_by_intel_with_everything_switched_on() {
        let (path, flags) = cpu("vmx");
        let nesting = read(&[
            (path, &flags),
            ("dev/kvm", ""),
            ("sys/module/kvm/parameters/halt_poll_ns", "200000\n"),
            ("sys/module/kvm_intel/parameters/nested", "Y\n"),
            ("sys/module/kvmgt/refcnt", "0\n"),
            ("sys/class/dmi/id/sys_vendor", "Dell Inc.\n"),
            ("sys/class/dmi/id/product_name", "PowerEdge R640\n"),
        ]);
        let expected = Nesting {
            hardware: Some(Hardware { extension: Extension::Vmx, nested: Some("Y".to_owned()) }),
            device: KvmDevice::Opens,
            modules: vec!["kvm".to_owned(), "kvm_intel".to_owned()],
            is_virtual: false,
            system: Some("Dell Inc. PowerEdge R640".to_owned()),
        };
        assert_eq!(nesting, expected);
    }

    #[test]
    fn a_virtual_machine_that_says_nothing_but_that_it_is_one() {
        let (path, flags) = cpu("hypervisor");
        let expected =
            Nesting { hardware: None, device: KvmDevice::Missing, modules: vec![], is_virtual: true, system: None };
        assert_eq!(read(&[(path, &flags)]), expected);
    }

    #[test]
    fn without_cpuinfo_nothing_is_claimed() {
        assert!(Nesting::read(machine(&[]).path()).is_err());
    }

    #[test]
    fn the_parameter_nested_is_read_in_each_of_its_spellings() {
        let (path, flags) = cpu("svm");
        let nests = |value: &str| {
            let nesting = read(&[(path, &flags), ("sys/module/kvm_amd/parameters/nested", value)]);
            nesting.hardware.unwrap().nests()
        };
        // Older kernels print a number, newer ones a letter. What is neither is no promise.
        let on = ["Y\n", "1\n", "Y", "N\n", "0\n", "", "perhaps\n"].map(nests);
        assert_eq!(on, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn only_the_module_of_the_cpus_maker_is_asked() {
        let (path, flags) = cpu("svm");
        let both = [(path, flags.as_str()), ("sys/module/kvm_intel/parameters/nested", "Y\n")];
        assert_eq!(read(&both).hardware, Some(Hardware { extension: Extension::Svm, nested: None }));
        let (path, flags) = cpu("");
        assert_eq!(read(&[(path, &flags), both[1]]).hardware, None);
    }

    #[test]
    fn a_maker_that_is_part_of_the_products_name_is_said_once() {
        let (path, flags) = cpu("hypervisor vmx");
        let system = |files: &[(&str, &str)]| read(&[&[(path, flags.as_str())], files].concat()).system;
        let (maker, product) = ("sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name");
        assert_eq!(
            system(&[(maker, "Google\n"), (product, "Google Compute Engine\n")]).unwrap(),
            "Google Compute Engine"
        );
        assert_eq!(system(&[(maker, "Amazon EC2\n"), (product, "m5.large\n")]).unwrap(), "Amazon EC2 m5.large");
        assert_eq!(system(&[(maker, "\n"), (product, "KVM\n")]).unwrap(), "KVM");
        assert_eq!(system(&[(maker, "QEMU\n")]).unwrap(), "QEMU");
    }

    #[test]
    fn names_from_firmware_are_short_and_cannot_move_the_cursor() {
        let (path, flags) = cpu("hypervisor");
        let hostile = format!("\u{1b}[2JQE\u{202e}MU\n{}", "x".repeat(100_000));
        let system = read(&[(path, &flags), ("sys/class/dmi/id/sys_vendor", &hostile)]).system.unwrap();
        assert!(system.starts_with("QEMU xxx") && system.len() < LONGEST as usize, "{system}");
    }

    #[test]
    fn why_the_device_cannot_be_opened_is_kept_apart() {
        assert_eq!(KvmDevice::from(io::Error::from(io::ErrorKind::PermissionDenied)), KvmDevice::Denied);
        let root = machine(&[("dev/kvm/not-a-device", "")]);
        assert!(matches!(KvmDevice::open(root.path()), KvmDevice::Fails(_)));
    }
}
