//! Runs other programs.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use crate::failure::Failure;

/// Runs a command to its end; anything but success is a [`Failure`].
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = typed(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Command { command: shown, status }),
        Err(source) => Err(Failure::Start { command: shown, source }),
    }
}

/// Replaces this process by the command. Returns only if that fails.
pub(crate) fn exec(command: &mut Command) -> Failure {
    let shown = typed(command);
    Failure::Start { command: shown, source: command.exec() }
}

/// The output of a command, if it succeeds.
pub(crate) fn output(words: &[&str]) -> Option<String> {
    let (program, args) = words.split_first()?;
    let output = Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as a person would type it.
pub(crate) fn typed(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}
