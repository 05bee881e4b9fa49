//! Where a run's results lie: `.nestmatrix/runs/<time>-<id>/`, and `latest` beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where runs lie below the current folder.
const RUNS: &str = ".nestmatrix/runs";

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// Name of the run.
    pub name: String,
    /// The folder; absolute.
    pub path: PathBuf,
}

impl RunFolder {
    /// A name for a run: when, and a few digits for those that start in the same second.
    pub fn new_name() -> String {
        let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
        format!("{now}-{:04x}", rand::random::<u16>())
    }

    /// Makes the folder of the run `name`: `out` if given (it must be empty or not there yet), else a new one below `.nestmatrix/runs`.
    pub fn create(name: String, out: Option<&Path>) -> io::Result<Self> {
        let path = match out {
            Some(out) => {
                fs::create_dir_all(out)?;
                if fs::read_dir(out)?.next().is_some() {
                    let words =
                        format!("{} is not empty; choose a new --out folder, nothing was changed", out.display());
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
                }
                out.canonicalize()?
            }
            None => {
                let runs = Path::new(RUNS);
                fs::create_dir_all(runs)?;
                let path = runs.canonicalize()?.join(&name);
                fs::create_dir(&path)?;
                point_latest(runs, &name)?;
                path
            }
        };
        Ok(Self { name, path })
    }
}

/// Moves the link `latest` in one step, so that it always points at some run.
fn point_latest(runs: &Path, name: &str) -> io::Result<()> {
    let new = runs.join(format!(".latest-{name}"));
    std::os::unix::fs::symlink(name, &new)?;
    fs::rename(new, runs.join("latest"))
}

/// Finds a run by its folder, its name, or `latest`.
pub fn locate(run: &Path) -> Option<PathBuf> {
    [run.to_owned(), Path::new(RUNS).join(run)].into_iter().find(|folder| folder.join("plan.json").is_file())
}
