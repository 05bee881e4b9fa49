//! Every report of a run, rebuilt from its plan and its journal.
//!
//! A finished run and `nestmatrix report RUN` both call this, so a run that crashed has the same reports as one that did not.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use matrix::Plan;
use rayon::prelude::*;

use crate::{Run, RunRecord, html, journal, junit, summary};

/// The result of [`all`].
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The run, folded from the journal.
    pub run: Run,
    /// `run.json`: the whole run for programs.
    pub run_json: PathBuf,
    /// `junit.xml`: for continuous integration.
    pub junit_xml: PathBuf,
    /// `report.html`: for people.
    pub report_html: PathBuf,
    /// `summary.md`: for the page of a CI job.
    pub summary_md: PathBuf,
}

/// The reports of a run could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The plan cannot be read.
    #[error(transparent)]
    Plan(#[from] matrix::PlanFileError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// A report could not be made.
    #[error("report {name} cannot be rendered: {reason}")]
    Render {
        /// Its file name.
        name: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// A report could not be written.
    #[error("report {} cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// Makes the content of one report.
type Renderer = fn(&Run, &Path) -> Result<Vec<u8>, String>;

/// The run in this folder, from its plan and its journal. Also of a run that crashed.
pub fn fold(run_dir: &Path) -> Result<Run, RenderError> {
    let plan = Plan::read(&run_dir.join("plan.json"))?;
    let mut run = Run::new(&plan);
    let damage = journal::for_each(run_dir, |event| run.fold_one(&event))?;
    damage.iter().for_each(|damage| run.damage(damage.to_string()));
    Ok(run)
}

/// Reads `plan.json` and `events.jsonl` in the folder of a run and writes `run.json`, `junit.xml`, `report.html` and
/// `summary.md` beside them. Also works on a run that crashed.
pub fn all(run_dir: &Path) -> Result<Rendered, RenderError> {
    let run = fold(run_dir)?;
    let reports: [(&str, Renderer); 4] = [
        ("run.json", |run, _| serde_json::to_vec_pretty(&RunRecord::new(run)).map_err(|error| error.to_string())),
        ("junit.xml", junit::render),
        ("report.html", html::render),
        ("summary.md", |run, dir| Ok(summary::render(run, dir).into_bytes())),
    ];
    let paths = reports.map(|(name, _)| run_dir.join(name));
    reports.par_iter().zip(&paths).try_for_each(|((name, render), path)| {
        let content = render(&run, run_dir).map_err(|reason| RenderError::Render { name, reason })?;
        write(path, &content).map_err(|source| RenderError::Write { path: path.clone(), source })
    })?;
    let [run_json, junit_xml, report_html, summary_md] = paths;
    Ok(Rendered { run, run_json, junit_xml, report_html, summary_md })
}

/// Under a temporary name first, so that no half report is ever visible. Not synced: a report can be rebuilt.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(dir)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}
