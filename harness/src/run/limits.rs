//! What a plan may take of this machine, and whether that is enough for it. Pure.

use images::{Catalog, Entry};
use matrix::{ByteSize, Image, Plan};

use super::error::RunError;
use crate::{
    fanout::{Budget, Cost},
    runner::TooLarge,
};

/// What guests may take together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) memory: ByteSize,
    pub(super) cpus: u32,
}

/// Of guests that run on this machine itself, which can spare so much memory and has so many CPUs.
pub(super) fn on_this_machine(plan: &Plan, spare: ByteSize, cpus: u32) -> Result<Limits, RunError> {
    let memory = plan.runner.memory.unwrap_or(spare);
    if memory > spare {
        return Err(RunError::Budget { asked: memory, spare });
    }
    let limits = Limits { memory, cpus: plan.runner.cpus.unwrap_or(cpus) };
    let budget = Budget::new(limits.memory, limits.cpus, usize::MAX);
    match plan.cells.iter().map(|cell| (cell, Cost::of(&cell.guest))).find(|(_, cost)| !budget.allows(*cost)) {
        Some((cell, cost)) => {
            Err(RunError::TooLarge { cell: cell.id.to_string(), needed: cost.memory(), budget: memory, spare })
        }
        None => Ok(limits),
    }
}

/// No guest is to have a smaller disk than the image that nestmatrix makes for it. How large images of others are is known when they are
/// there, and their guests have disks that are as large.
pub(super) fn check_disks(plan: &Plan, catalog: &Catalog) -> Result<(), RunError> {
    let least = |image: &Image| {
        let own = Entry::of_matrix(&image.name, &image.source);
        own.as_ref().or_else(|| catalog.get(&image.from))?.least_disk().map(ByteSize::from_bytes)
    };
    for cell in &plan.cells {
        let asked = cell.guest.disk;
        if let Some(least) = plan.image(cell).and_then(least).filter(|least| asked < *least) {
            return Err(RunError::SmallDisk { cell: cell.id.to_string(), asked, least });
        }
    }
    Ok(())
}

/// An L1 that cannot be had, as an error of the run.
pub(super) fn l1_too_large(error: TooLarge, spare: ByteSize) -> RunError {
    match error {
        TooLarge::Asked { asked } => RunError::L1Memory { asked, spare },
        TooLarge::Cell { cell, needed } => RunError::L1Cell { cell, needed, spare },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(disk: &str) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        std::fs::write(folder.path().join("own.raw"), "x").unwrap();
        let text = format!(
            "[guest]\n{disk}\n[[image]]\nname = 'debian-12-minimal'\n[[image]]\nname = 'own'\npath = 'own.raw'\n\
             [[suite]]\nname = 's'\ninline = 'true'\n"
        );
        std::fs::write(&file, text).unwrap();
        matrix::load(&file, &Catalog::shipped().names()).unwrap().plan
    }

    fn refused(plan: &Plan) -> Option<String> {
        check_disks(plan, Catalog::shipped()).err().map(|error| error.to_string())
    }

    #[test]
    fn a_disk_is_too_small_for_the_image_it_is_for_and_not_for_any() {
        let small = plan("disk = '2GiB'");
        insta::assert_snapshot!(refused(&small).unwrap(), @"cell debian-12-minimal.s gives its guest a disk of 2GiB, but the image itself has 4GiB: raise `disk`, or leave it out");
        let mut own = small;
        own.cells.retain(|cell| cell.image == "own");
        assert_eq!(refused(&own), None, "its own disk may have any size");
        assert_eq!(refused(&plan("disk = '4GiB'")), None);
        assert_eq!(refused(&plan("")), None);
    }
}
