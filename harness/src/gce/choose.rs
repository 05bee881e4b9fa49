//! The machine type for what is to run on it. Pure.

/// A machine type's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineShape {
    /// `n2-standard-4`.
    pub(crate) name: String,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory, in MiB.
    pub(crate) memory_mib: u64,
}

/// Sizes of the N2 series: Intel, in nearly every zone, with every type of disk, and per CPU and GiB as cheap as any other Intel series
/// that nests (Google's price list for us-central1, 2026).
const CPUS: [u32; 9] = [2, 4, 8, 16, 32, 48, 64, 80, 96];
/// Memory for each CPU, in MiB, and the kind's largest number of CPUs.
const KINDS: [(&str, u64, u32); 3] = [("highcpu", 1024, 96), ("standard", 4096, 96), ("highmem", 8192, 80)];
/// What a CPU and what a GiB cost in proportion (the same price list: 0.031611 and 0.004237 $ an hour).
const CPU_COST: u64 = 31_611;
const GIB_COST: u64 = 4_237;

/// The cheapest type with at least so many CPUs and so much memory; `None`: there is none.
pub(crate) fn choose(cpus: u32, memory_mib: u64) -> Option<MachineShape> {
    let all = KINDS.iter().flat_map(|(kind, each, most)| {
        CPUS.iter().filter(move |cpus| *cpus <= most).map(move |&cpus| MachineShape {
            name: format!("n2-{kind}-{cpus}"),
            cpus,
            memory_mib: each * u64::from(cpus),
        })
    });
    let fits = all.filter(|shape| shape.cpus >= cpus && shape.memory_mib >= memory_mib);
    fits.min_by_key(|shape| u64::from(shape.cpus) * CPU_COST + shape.memory_mib / 1024 * GIB_COST)
}

/// The size of a type that [`choose`] may return; `None`: of another.
pub(crate) fn shape(machine_type: &str) -> Option<MachineShape> {
    let (kind, cpus) = machine_type.strip_prefix("n2-")?.split_once('-')?;
    let (_, each, _) = KINDS.iter().find(|(name, ..)| *name == kind)?;
    let cpus: u32 = cpus.parse().ok()?;
    Some(MachineShape { name: machine_type.to_owned(), cpus, memory_mib: each * u64::from(cpus) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gce::Suitability;

    #[test]
    fn the_cheapest_type_that_fits_is_chosen() {
        for (cpus, memory, chosen) in [
            (1, 1_000, Some("n2-highcpu-2")),
            (2, 2_049, Some("n2-standard-2")),
            (2, 9_000, Some("n2-highmem-2")),
            (4, 4_096, Some("n2-highcpu-4")),
            (4, 5_000, Some("n2-standard-4")),
            (4, 17_000, Some("n2-highmem-4")),
            (8, 8_192, Some("n2-highcpu-8")),
            // More CPUs with little memory are cheaper than few with much.
            (3, 5_000, Some("n2-standard-4")),
            (1, 600_000, Some("n2-highmem-80")),
            (1, 700_000, None),
            (97, 1, None),
        ] {
            let shape = choose(cpus, memory);
            assert_eq!(shape.as_ref().map(|shape| shape.name.as_str()), chosen, "{cpus} CPUs, {memory} MiB");
            if let Some(shape) = shape {
                assert_eq!(Suitability::of(&shape.name), Suitability::Nests);
                assert_eq!(super::shape(&shape.name), Some(shape));
            }
        }
    }
}
