//! What all attempts of a run share.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use images::PreparedImage;
use matrix::{Cell, Plan};

use crate::{
    events::Events,
    guest::{Accelerator, Spawner},
    host::Qemu,
    ssh::Keypair,
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

/// The place where guests are run, and what they need.
#[derive(Debug)]
pub struct Station {
    /// What is to be run.
    pub plan: Arc<Plan>,
    /// Images by catalog name; one that could not be had is not in here.
    pub images: HashMap<String, Arc<PreparedImage>>,
    /// Starts guests.
    pub spawner: Spawner,
    /// QEMU.
    pub qemu: Qemu,
    /// What guests are run with.
    pub accelerator: Accelerator,
    /// What time limits are multiplied by.
    pub speed: f64,
    /// Overlays, keys: one folder for each attempt, gone when the attempt is.
    pub scratch: PathBuf,
    /// The run's `cells` folder: logs and artifacts.
    pub cells: PathBuf,
    /// The key that opens every guest of this run.
    pub login: Keypair,
    /// How far a cell goes.
    pub purpose: Purpose,
    /// Which guests are kept.
    pub keep: Keep,
    /// The way out.
    pub events: Events,
}

impl Station {
    /// A time limit on this machine.
    pub fn scaled(&self, limit: Duration) -> Duration {
        limit.mul_f64(self.speed)
    }

    /// The image of a cell; `None`: it could not be had.
    pub fn image(&self, cell: &Cell) -> Option<&PreparedImage> {
        let image = self.plan.images.iter().find(|image| image.name == cell.image)?;
        self.images.get(&image.from).map(Arc::as_ref)
    }

    /// Words a cell adds to its kernel's command line.
    pub fn kernel_args(&self, cell: &Cell) -> &[String] {
        self.plan.images.iter().find(|image| image.name == cell.image).map_or(&[], |image| &image.kernel_args)
    }
}
