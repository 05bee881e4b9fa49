//! One step of setup: shown exactly as it is executed, so that it can also be done by hand.

use std::{
    fmt,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{command as other, failure::Failure};

/// The user that runs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// We are root.
    Root,
    /// Another user, with `sudo`.
    Sudo,
}

/// One step of setup, as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Run a command.
    Run(As, Vec<String>),
    /// Write a file.
    Write(As, String, String),
}

impl Step {
    /// A command made of these words.
    pub(super) fn run<'a>(who: As, words: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Run(who, words.into_iter().map(str::to_owned).collect())
    }

    /// Executes it. Waits for a terminal only if `sudo` asks for a password.
    pub(super) fn execute(&self) -> Result<(), Failure> {
        match self {
            // Not to stdout, which belongs to the command after setup.
            Self::Run(who, words) => other::run(command(*who, words).stdin(Stdio::null()).stdout(std::io::stderr())),
            Self::Write(who, path, text) => {
                let mut tee = command(*who, &["tee".into(), path.clone()]);
                let failed = |source| Failure::File { path: path.into(), source };
                let mut child = tee.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(failed)?;
                if let Some(mut stdin) = child.stdin.take() {
                    stdin.write_all(text.as_bytes()).map_err(failed)?;
                }
                let status = child.wait().map_err(failed)?;
                if status.success() { Ok(()) } else { Err(Failure::Command { command: self.to_string(), status }) }
            }
        }
    }
}

fn command(who: As, words: &[String]) -> Command {
    let words: Vec<&str> = prefix(who).iter().copied().chain(words.iter().map(String::as_str)).collect();
    let mut command = Command::new(words.first().copied().unwrap_or("true"));
    command.args(words.get(1..).unwrap_or_default());
    command
}

const fn prefix(who: As) -> &'static [&'static str] {
    match who {
        As::Root => &[],
        As::Sudo => &["sudo"],
    }
}

/// As one would type it into a shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(who, words) => {
                let words: Vec<&str> = prefix(*who).iter().copied().chain(words.iter().map(String::as_str)).collect();
                f.write_str(&words.join(" "))
            }
            Self::Write(who, path, text) => {
                let sudo = if *who == As::Sudo { "sudo " } else { "" };
                write!(f, "{sudo}tee {path} >/dev/null <<'EOF'\n{text}EOF")
            }
        }
    }
}
