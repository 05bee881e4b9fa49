//! The first boot of a cloud image: over when cloud-init says so, and whether it went well.
//!
//! An SSH server answers long before; a test that starts then races with what still changes the system.

use std::time::Instant;

use serde::Deserialize;

use crate::ssh::{Exec, Session, SshError, Stdin};

const WAIT: &str = include_str!("first-boot.sh");
/// Most words of an error that are shown.
const LONGEST: usize = 400;

/// The first boot did not go well.
#[derive(Debug, thiserror::Error)]
pub enum FirstBootError {
    /// cloud-init says that something failed.
    #[error("cloud-init failed: {0}")]
    Failed(String),
    /// It came to an end without the seed.
    #[error("cloud-init did not find its seed: it used the data source {0}")]
    NoSeed(String),
    /// What it says cannot be understood.
    #[error("what cloud-init says of the first boot cannot be understood: {0}")]
    Unclear(String),
    /// The connection or the cancellation; also that the time limit was reached.
    #[error("waiting for cloud-init: {0}")]
    Ssh(#[from] SshError),
}

/// Waits for it. Whoever calls it has just connected to a guest that was booted from a cloud image.
pub async fn first_boot(session: &Session, deadline: Instant) -> Result<(), FirstBootError> {
    let exit = session.exec(Exec::new(WAIT, Stdin::None, deadline)).await?;
    if !exit.success() {
        let said = String::from_utf8_lossy(&exit.stderr_tail);
        return Err(FirstBootError::Unclear(short(&said)));
    }
    judge(&String::from_utf8_lossy(&exit.stdout_tail))
}

/// `/run/cloud-init/result.json` (cloud-init docs: explanation/return_codes and reference/cli).
#[derive(Deserialize)]
struct Document {
    v1: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    datasource: Option<String>,
    #[serde(default)]
    errors: Vec<String>,
}

/// What the file's text comes to; no text: there was no cloud-init.
fn judge(text: &str) -> Result<(), FirstBootError> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let document: Document = serde_json::from_str(text).map_err(|error| FirstBootError::Unclear(error.to_string()))?;
    let Outcome { datasource, errors } = document.v1;
    if !errors.is_empty() {
        return Err(FirstBootError::Failed(short(&errors.join("; "))));
    }
    match datasource.as_deref().map(str::trim) {
        Some(found) if found.starts_with("DataSourceNoCloud") => Ok(()),
        other => Err(FirstBootError::NoSeed(short(other.unwrap_or("none")))),
    }
}

/// What cloud-init said on the console of a guest that never let us in, if it said that something is wrong.
pub fn complaint(console: &[String]) -> Option<String> {
    let wrong = |line: &&String| {
        let line = line.to_ascii_lowercase();
        line.contains("cloud-")
            && ["error", "critical", "traceback", "failed", "fatal"].iter().any(|word| line.contains(word))
    };
    let lines: Vec<&str> = console.iter().filter(wrong).take(3).map(|line| line.trim()).collect();
    (!lines.is_empty()).then(|| short(&lines.join("; ")))
}

fn short(text: &str) -> String {
    reports::clean::line(text).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        judge(text).map_or_else(|error| error.to_string(), |()| "well".to_owned())
    }

    #[test]
    fn a_first_boot_went_well_when_the_seed_was_found_and_nothing_failed() {
        // cloud-init 22.4 of Debian 12.
        let well = r#"{ "v1": { "datasource": "DataSourceNoCloud [seed=/dev/vdb][dsmode=net]", "errors": [] } }"#;
        assert_eq!(said(well), "well");
        assert_eq!(said(""), "well", "without cloud-init there is nothing to wait for");
        let failed =
            r#"{"v1": {"datasource": "DataSourceNoCloud", "errors": ["('scripts_user', RuntimeError('1 failed'))"]}}"#;
        insta::assert_snapshot!(said(failed), @"cloud-init failed: ('scripts_user', RuntimeError('1 failed'))");
        let none = r#"{"v1": {"datasource": "DataSourceNone", "errors": []}}"#;
        insta::assert_snapshot!(said(none), @"cloud-init did not find its seed: it used the data source DataSourceNone");
        assert!(said("{").contains("cannot be understood"));
        assert!(said(r#"{"v1": {"datasource": null}}"#).contains("data source none"));
    }

    #[test]
    fn of_a_console_only_complaints_of_cloud_init_are_told() {
        let console = [
            "[   10.0] cloud-init[300]: Cloud-init v. 22.4.2 running 'init'",
            "[   12.0] cloud-init[300]: 2026-01-01 - util.py[WARNING]: Failed to mount /dev/vdb",
            "[   13.0] something else failed",
            "[FAILED] Failed to start cloud-init.service - Initial cloud-init job.",
        ];
        let console = console.map(str::to_owned);
        insta::assert_snapshot!(complaint(&console).unwrap(), @"[ 12.0] cloud-init[300]: 2026-01-01 - util.py[WARNING]: Failed to mount /dev/vdb; [FAILED] Failed to start cloud-init.service - Initial cloud-init job.");
        assert_eq!(complaint(&console[..1]), None);
    }
}
