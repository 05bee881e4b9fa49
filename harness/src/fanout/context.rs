//! What all attempts of a run share.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use matrix::{Arch, Cell, Plan};
use tokio_util::sync::CancellationToken;

use super::{image::BootImage, template_cache::TemplateCache};
use crate::{
    events::Events,
    guest::{Accelerator, Spawner},
    host::Qemu,
    package_lock::Locking,
    ssh::Keys,
    template::HostFingerprint,
};

/// Which guests are left running for a person to look into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// None.
    #[default]
    Never,
    /// Those whose cell is not green.
    Failed,
    /// All.
    Always,
}

/// How far a cell goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To its verdict.
    Test,
    /// To the end of phase install; then its guest is left to a person who sits in front of it.
    Shell,
}

/// Images by catalog name, each known from when it is there: guests of one need not wait for another.
#[derive(Debug)]
pub struct BootImages(HashMap<String, OnceLock<BootImage>>);

impl BootImages {
    /// Room for every image of the plan; none is there yet.
    pub fn of(plan: &Plan) -> Self {
        Self(plan.images.iter().map(|image| (image.from.clone(), OnceLock::new())).collect())
    }

    /// It is there. What no cell of the plan uses is not kept, and what is there already stays.
    pub fn add(&self, name: &str, image: BootImage) {
        if let Some(place) = self.0.get(name) {
            place.get_or_init(|| image);
        }
    }

    /// One that is there.
    fn get(&self, name: &str) -> Option<&BootImage> {
        self.0.get(name)?.get()
    }
}

/// How guests of another kind are run here.
#[derive(Clone, Debug)]
pub struct Emulation {
    /// Their QEMU.
    pub qemu: Qemu,
    /// What their time limits are multiplied by.
    pub speed: f64,
    /// What is prepared for them is born there.
    pub host_fingerprint: HostFingerprint,
}

/// The place where guests are run, and what they need.
#[derive(Debug)]
pub struct RunContext {
    /// Which of the run's runners this is, from 1.
    pub runner: u32,
    /// What is to be run.
    pub plan: Arc<Plan>,
    /// Images that are there. A cell is dispatched only when its image is there, or is known to be unavailable.
    pub images: Arc<BootImages>,
    /// Starts guests.
    pub spawner: Spawner,
    /// QEMU for guests of this machine's own kind of CPU.
    pub qemu: Qemu,
    /// What those are run with.
    pub accelerator: Accelerator,
    /// How guests of other kinds are run.
    pub emulations: BTreeMap<Arch, Emulation>,
    /// Guests have no screen and print only what went wrong at their first attempt, where printing is dear.
    pub terse: bool,
    /// What time limits of guests of this machine's own kind are multiplied by.
    pub speed: f64,
    /// Overlays, keys: one folder for each attempt, gone when the attempt is.
    pub scratch: PathBuf,
    /// The run's `cells` folder: logs and artifacts.
    pub cells: PathBuf,
    /// How guests get to the repositories of their systems; else why not.
    pub proxy: Result<egress::Proxy, String>,
    /// Which packages they may get there.
    pub locking: Arc<Locking>,
    /// Where guests are forked from.
    pub template_cache: TemplateCache,
    /// The keys that open every guest that is booted.
    pub login: Keys,
    /// How far a cell goes.
    pub purpose: Purpose,
    /// Which guests are kept.
    pub keep: Keep,
    /// Cancelled when a guest met a full disk here: there is no room for any other either.
    pub disk_full: CancellationToken,
    /// The way out.
    pub events: Events,
}

impl RunContext {
    /// Whether this attempt's guest has no screen, and prints only what went wrong on its serial console.
    ///
    /// Where the CPU is emulated and nested as well, every character printed takes a detour through two machines: 10 of the 27
    /// seconds of a boot (measured). An attempt that follows another, because that one failed, says everything; so does one that
    /// is the only one.
    pub(super) fn is_terse(&self, number: u32, last: u32) -> bool {
        self.terse && number == 1 && last > 1
    }

    /// The image of a cell; `None`: it is unavailable.
    pub fn image(&self, cell: &Cell) -> Option<&BootImage> {
        let image = self.plan.image(cell)?;
        self.images.get(&image.from)
    }

    /// Words a cell adds to its kernel's command line.
    pub fn kernel_args(&self, cell: &Cell) -> &[String] {
        self.plan.image(cell).map_or(&[], |image| &image.kernel_args)
    }
}
