//! What a cloud has before a test begins.

use std::{path::PathBuf, time::Duration};

/// What runs behind an instance.
#[derive(Clone, Debug)]
pub(crate) enum Machines {
    /// Nothing: it becomes `RUNNING`, and nobody answers.
    None,
    /// An emulated machine, started from the image `debian-13-runner` of this store.
    Qemu(PathBuf),
}

/// What can be learned of the constraint `compute.disableNestedVirtualization`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Policy {
    NotEnforced,
    Enforced,
    /// The caller may not read it: 403.
    Unreadable,
}

/// A machine type, as every zone has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct MachineType {
    pub(super) name: &'static str,
    pub(super) cpus: u32,
    pub(super) memory_mb: u32,
    /// What it runs on, unless another one was asked for.
    pub(super) platform: &'static str,
    /// Its CPUs can run virtual machines (Google's documentation: nested virtualization, restrictions).
    pub(super) nests: bool,
}

const fn machine_type(
    name: &'static str,
    cpus: u32,
    memory_mb: u32,
    platform: &'static str,
    nests: bool,
) -> MachineType {
    MachineType { name, cpus, memory_mb, platform, nests }
}

pub(super) const MACHINE_TYPES: [MachineType; 20] = [
    machine_type("n1-standard-1", 1, 3840, "Intel Haswell", true),
    machine_type("n1-standard-2", 2, 7680, "Intel Haswell", true),
    machine_type("n1-standard-4", 4, 15360, "Intel Haswell", true),
    machine_type("n1-standard-8", 8, 30720, "Intel Haswell", true),
    machine_type("n2-highcpu-2", 2, 2048, "Intel Cascade Lake", true),
    machine_type("n2-highcpu-4", 4, 4096, "Intel Cascade Lake", true),
    machine_type("n2-highcpu-8", 8, 8192, "Intel Cascade Lake", true),
    machine_type("n2-highmem-2", 2, 16384, "Intel Cascade Lake", true),
    machine_type("n2-standard-2", 2, 8192, "Intel Cascade Lake", true),
    machine_type("n2-standard-4", 4, 16384, "Intel Cascade Lake", true),
    machine_type("n2-standard-8", 8, 32768, "Intel Cascade Lake", true),
    machine_type("n2-standard-16", 16, 65536, "Intel Cascade Lake", true),
    machine_type("c3-standard-4", 4, 16384, "Intel Sapphire Rapids", true),
    machine_type("c3-standard-8", 8, 32768, "Intel Sapphire Rapids", true),
    machine_type("c4-standard-4", 4, 15360, "Intel Emerald Rapids", true),
    machine_type("e2-standard-2", 2, 8192, "Intel Broadwell", false),
    machine_type("e2-standard-4", 4, 16384, "Intel Broadwell", false),
    machine_type("m1-ultramem-40", 40, 984_064, "Intel Broadwell", false),
    machine_type("n2d-standard-4", 4, 16384, "AMD Milan", false),
    machine_type("t2a-standard-4", 4, 16384, "Ampere Altra", false),
];

impl MachineType {
    pub(super) fn architecture(&self) -> &'static str {
        if self.name.starts_with("t2a") { "ARM64" } else { "X86_64" }
    }
}

/// A zone.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) name: String,
    pub(crate) cpu_platforms: Vec<String>,
}

impl Zone {
    pub(crate) fn new(name: &str, cpu_platforms: &[&str]) -> Self {
        Self { name: name.to_owned(), cpu_platforms: cpu_platforms.iter().map(|&name| name.to_owned()).collect() }
    }

    /// With what most zones have.
    pub(crate) fn usual(name: &str) -> Self {
        let platforms =
            ["Haswell", "Broadwell", "Skylake", "Cascade Lake", "Ice Lake", "Sapphire Rapids", "Emerald Rapids"];
        let intel = platforms.map(|name| format!("Intel {name}"));
        Self { name: name.to_owned(), cpu_platforms: [&intel[..], &["AMD Milan".to_owned()]].concat() }
    }
}

/// How a cloud is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(super) project: String,
    pub(super) zones: Vec<Zone>,
    pub(super) machines: Machines,
    pub(super) policy_v2: Policy,
    pub(super) policy_v1: Policy,
    pub(super) second: Duration,
    pub(super) operations_take: Duration,
    pub(super) largest_page: usize,
    pub(super) ignores_nested: bool,
    pub(super) hides_new: bool,
    pub(super) memory_mib: u64,
    pub(super) families: Vec<String>,
}

impl Setup {
    pub(super) const NUMBER: u64 = 123_456_789_012;

    /// A project in which everything works: `nestmatrix-test`, four zones, no constraint.
    pub(crate) fn new(machines: Machines) -> Self {
        let zones = ["europe-west1-b", "europe-west1-c", "europe-west1-d", "us-central1-a"];
        Self {
            project: "nestmatrix-test".to_owned(),
            zones: zones.map(Zone::usual).to_vec(),
            machines,
            policy_v2: Policy::NotEnforced,
            policy_v1: Policy::NotEnforced,
            second: Duration::from_secs(1),
            operations_take: Duration::from_millis(200),
            largest_page: 500,
            ignores_nested: false,
            hides_new: false,
            memory_mib: 3072,
            families: Vec::new(),
        }
    }

    pub(crate) fn project(self, project: &str) -> Self {
        Self { project: project.to_owned(), ..self }
    }

    pub(crate) fn zones(self, zones: impl IntoIterator<Item = Zone>) -> Self {
        Self { zones: zones.into_iter().collect(), ..self }
    }

    /// What the two interfaces say of the constraint. It is enforced if either says so.
    pub(crate) fn policy(self, v2: Policy, v1: Policy) -> Self {
        Self { policy_v2: v2, policy_v1: v1, ..self }
    }

    /// How long a second of this cloud takes: it counts for `maxRunDuration`, for the 30 s of a preemption, for the 90 s that a
    /// guest has to shut down in, and for the 2 minutes of `wait`.
    pub(crate) fn second(self, takes: Duration) -> Self {
        Self { second: takes, ..self }
    }

    /// How long an operation takes at least.
    pub(crate) fn operations_take(self, time: Duration) -> Self {
        Self { operations_take: time, ..self }
    }

    /// Most entries on a page of a list; 500 at most (Compute Engine's `maxResults`).
    pub(crate) fn largest_page(self, entries: usize) -> Self {
        Self { largest_page: entries.clamp(1, 500), ..self }
    }

    /// `enableNestedVirtualization` is accepted and without effect, on every machine type.
    pub(crate) fn ignores_nested(self) -> Self {
        Self { ignores_nested: true, ..self }
    }

    /// The first request about a new instance does not find it.
    pub(crate) fn hides_new(self) -> Self {
        Self { hides_new: true, ..self }
    }

    /// Memory of emulated machines, whatever their type says.
    pub(crate) fn memory_mib(self, memory_mib: u64) -> Self {
        Self { memory_mib, ..self }
    }

    /// The project has an image of its own in this family.
    pub(crate) fn own_family(mut self, family: &str) -> Self {
        self.families.push(family.to_owned());
        self
    }
}
