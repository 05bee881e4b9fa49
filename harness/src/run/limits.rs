//! What a plan may take of this machine, and whether that is enough for it. Pure.

use images::{Catalog, Entry, Source};
use matrix::{ByteSize, Plan};

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

/// No guest is to have a smaller disk than the image that nestmatrix makes for it, nor firmware that could not start it. How large images
/// of others are is known when they are there, and their guests have disks that are as large.
pub(super) fn check_guests(plan: &Plan, catalog: &Catalog) -> Result<(), RunError> {
    for cell in &plan.cells {
        let Some(image) = plan.image(cell) else { continue };
        let own = Entry::of_matrix(&image.name, &image.source);
        let Some(entry) = own.as_ref().or_else(|| catalog.get(&image.from)) else { continue };
        let asked = cell.guest.disk;
        if let Some(least) = entry.least_disk().map(ByteSize::from_bytes).filter(|least| asked < *least) {
            return Err(RunError::SmallDisk { cell: cell.id.to_string(), asked, least });
        }
        match (cell.guest.firmware, &entry.source) {
            (Some(firmware), Source::Bootstrap(_) | Source::Rootfs(_)) => {
                return Err(RunError::NoBootLoader { cell: cell.id.to_string(), firmware });
            }
            (Some(firmware), Source::Disk { .. }) if !firmware.exists_for(entry.arch) => {
                return Err(RunError::NoSuchFirmware { cell: cell.id.to_string(), firmware, arch: entry.arch });
            }
            (Some(_) | None, _) => {}
        }
    }
    Ok(())
}

/// An L1 of a size that this machine cannot provide, as an error of the run.
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
            "[guest]\n{disk}\n[[image]]\nname = 'debian-12-minimal'\n[[image]]\nname = 'own'\npath = 'own.raw'\narch = 'x86_64'\n\
             [[suite]]\nname = 's'\ninline = 'true'\n"
        );
        std::fs::write(&file, text).unwrap();
        matrix::load(&file, &Catalog::shipped().names()).unwrap().plan
    }

    fn refused(plan: &Plan) -> Option<String> {
        check_guests(plan, Catalog::shipped()).err().map(|error| error.to_string())
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

    #[test]
    fn firmware_starts_only_images_that_have_a_boot_loader_and_only_what_there_is() {
        let mut plan = plan("firmware = 'uefi-secure'");
        insta::assert_snapshot!(refused(&plan).unwrap(), @"cell debian-12-minimal.s asks for the firmware `uefi-secure`, but guests of its image have no boot loader: they are booted with a kernel from outside of their disk; remove `guest.firmware`, or exclude the image from this suite");
        plan.cells.retain(|cell| cell.image == "own");
        assert_eq!(refused(&plan), None);
        let image = plan.images.iter_mut().find(|image| image.name == "own").unwrap();
        (image.from, image.source) = ("debian-12-aarch64".to_owned(), matrix::ImageSource::Catalog);
        insta::assert_snapshot!(refused(&plan).unwrap(), @r#"cell own.s asks for the firmware `uefi-secure`, which aarch64 machines do not have: write `guest.firmware = "uefi"`, or remove it"#);
    }
}
