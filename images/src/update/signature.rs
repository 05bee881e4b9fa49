//! Checks a publisher's signature of a text with `gpgv`, if the publisher's keys are on this machine.

use std::{fs, io, path::Path, process::Stdio, sync::atomic::AtomicBool, time::Duration};

use super::{Trust, UpdateErrorKind};
use crate::{
    error::{Failure, PrepareErrorKind},
    tool,
};

const GPGV: &str = "gpgv";
/// Time limit; a list has some MiB at most.
const LIMIT: Duration = Duration::from_secs(60);

/// The signed text, and whether it is proved. `detached`: the signature, if it is not inline.
///
/// # Errors
///
/// The keys are there, but the signature is not by one of them, or of another text.
pub(super) fn verify(text: &str, detached: Option<&str>, keyring: &Path) -> Result<(String, Trust), UpdateErrorKind> {
    let unproved = |why: String| Ok((text.to_owned(), Trust::NotChecked(why)));
    if !keyring.is_file() {
        return unproved(format!("the publisher's keys are not on this machine ({})", keyring.display()));
    }
    let broken = |error: io::Error| UpdateErrorKind::Signature(format!("it could not be checked: {error}"));
    let folder = tempfile::tempdir().map_err(broken)?;
    let [signed, signature, plain] = ["signed", "signature", "plain"].map(|name| folder.path().join(name));
    fs::write(&signed, text).map_err(broken)?;
    let mut command = tool::command(GPGV);
    command.arg("--keyring").arg(keyring).stdout(Stdio::null());
    match detached {
        Some(detached) => {
            fs::write(&signature, detached).map_err(broken)?;
            command.arg(&signature).arg(&signed);
        }
        // Text around the signed part is not signed: only gpgv's output counts.
        None => {
            command.arg("--output").arg(&plain).arg(&signed);
        }
    }
    match tool::run(command, GPGV, LIMIT, &AtomicBool::new(false), |_| {}) {
        Ok(()) => {}
        Err(Failure { kind: PrepareErrorKind::ToolMissing { .. }, .. }) => {
            return unproved(format!("`{GPGV}` is not installed"));
        }
        Err(Failure { kind: PrepareErrorKind::ToolFailed { .. }, tail }) if !tail.is_empty() => {
            let last = tail.iter().map(|line| line.trim_start_matches("gpgv: ")).rfind(|line| !line.trim().is_empty());
            return Err(UpdateErrorKind::Signature(last.unwrap_or_default().chars().take(200).collect()));
        }
        Err(failure) => return Err(UpdateErrorKind::Signature(failure.kind.to_string())),
    }
    let text = if detached.is_some() { text.to_owned() } else { fs::read_to_string(&plain).map_err(broken)? };
    Ok((text, Trust::Verified))
}
