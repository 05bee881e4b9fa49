//! `cargo xtask run-matrix`: set up, build, run `nestmatrix run`.

use std::{ffi::OsString, process::Command};

use crate::{
    build, command,
    failure::Failure,
    setup::{self, Purpose},
};

/// Everything but `--yes` is passed to `nestmatrix run`.
pub(crate) fn run(mut args: Vec<OsString>) -> Result<(), Failure> {
    let yes = build::take_yes(&mut args);
    setup::ensure(Purpose::Run, yes)?;
    let nestmatrix = build::nestmatrix(build::Profile::Release)?;
    Err(command::exec(Command::new(nestmatrix).arg("run").args(args)))
}
