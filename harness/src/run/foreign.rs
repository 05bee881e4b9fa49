//! Images for other kinds of CPU than this machine's: whether their guests can be emulated here, and how fast.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use images::{Catalog, Entry, Store};
use matrix::{Arch, Cell, Plan};
use reports::EventKind;

use super::image_phase::{Prepared, missing};
use crate::{
    events::Events,
    fanout::Emulation,
    guest::{Accelerator, Spawner},
    host::{self, Machine, Qemu},
    template::HostFingerprint,
};

/// What time limits are multiplied by at least where a CPU is emulated and nobody has measured: the proof of this machine may be one of
/// KVM.
pub(super) const EMULATION: f64 = 6.0;

/// The cells whose guests are of another kind than this machine, and which.
pub(super) fn cells<'a>(plan: &'a Plan, catalog: &Catalog) -> Vec<(&'a Cell, Arch)> {
    let arch = |cell: &Cell| {
        let image = plan.image(cell)?;
        let entry = Entry::of_matrix(&image.name, &image.source);
        Some(entry.or_else(|| catalog.get(&image.from).cloned())?.arch)
    };
    let foreign = plan.cells.iter().filter_map(|cell| Some((cell, arch(cell)?)));
    foreign.filter(|(_, arch)| *arch != Arch::here()).collect()
}

/// How guests of each other kind are run; else why they are not.
pub(super) type Emulations = BTreeMap<Arch, Result<Emulation, String>>;

/// QEMU for each other kind of CPU that some image is made for.
pub(super) struct Emulators(BTreeMap<Arch, Result<Qemu, String>>);

impl Emulators {
    /// Looks for all that these images need.
    pub(super) async fn find(entries: &[(String, Entry)]) -> Self {
        let mut found = BTreeMap::new();
        let needed: BTreeSet<Arch> = entries.iter().map(|(_, entry)| entry.arch).collect();
        for arch in needed.into_iter().filter(|arch| *arch != Arch::here()) {
            found.insert(arch, Qemu::of(arch).await.map_err(|error| error.to_string()));
        }
        Self(found)
    }

    /// All images are of this machine's own kind.
    pub(super) fn are_unneeded(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the images whose guests nothing here can run, and says why: nothing is built for nothing.
    pub(super) fn refuse(&self, entries: &mut Vec<(String, Entry)>, events: &Events) -> Prepared {
        let reason = |entry: &Entry| self.0.get(&entry.arch).and_then(|found| found.as_ref().err()).cloned();
        let refused = entries.extract_if(.., |(_, entry)| reason(entry).is_some());
        let said = refused.map(|(image, entry)| {
            let reason = reason(&entry).unwrap_or_default();
            events.send(EventKind::ImageStarted { image: image.clone() });
            let trouble = missing(reason);
            events.send(EventKind::ImageFailed { image: image.clone(), trouble: trouble.clone() });
            (image, Err(trouble))
        });
        said.collect()
    }

    /// How guests of the images that are there are run, each kind with the speed that its first kernel had; else why they are not.
    ///
    /// Disks that bring a boot loader have no kernel to measure with: it is taken for that of this machine's own guests, `own`, which is
    /// much the same where those are emulated as well.
    pub(super) async fn measure(
        &self,
        prepared: &Prepared,
        store: &Store,
        machine: &Machine,
        spawner: &Spawner,
        (scratch, own): (&Path, f64),
    ) -> Emulations {
        let mut emulations = BTreeMap::new();
        for (arch, qemu) in self.0.iter().filter_map(|(arch, qemu)| Some((*arch, qemu.as_ref().ok()?))) {
            let images = || prepared.values().flatten().filter(|image| image.arch == arch);
            if images().next().is_none() {
                continue;
            }
            let speed =
                match (host::measured(store.root(), qemu, machine), images().find_map(|image| image.kernel.as_ref())) {
                    (Some(speed), _) => Ok(speed),
                    (None, Some(kernel)) => {
                        let target = host::Target { kernel, scratch };
                        let measured = host::measure(store.root(), qemu, machine, spawner, &target).await;
                        measured.map_err(|why| format!("{arch} guests cannot be emulated on this machine: {why}"))
                    }
                    (None, None) => Ok(own.max(EMULATION)),
                };
            let host_fingerprint = HostFingerprint::new(qemu, machine, Accelerator::Tcg);
            let host_fingerprint = host_fingerprint.map_err(|error| format!("{}: {error}", qemu.system.display()));
            let emulation = speed
                .and_then(|speed| Ok(Emulation { qemu: qemu.clone(), speed, host_fingerprint: host_fingerprint? }));
            emulations.insert(arch, emulation);
        }
        emulations
    }
}
