//! `cargo xtask test`: set up, then every test of the workspace, those that boot real guests included.

use std::ffi::OsString;

use crate::{
    build, command,
    failure::Failure,
    openssl,
    setup::{self, Purpose},
};

/// Everything but `--yes` goes to `cargo test --workspace` as it is.
pub(crate) fn run(mut args: Vec<OsString>) -> Result<(), Failure> {
    let yes = build::take_yes(&mut args);
    setup::ensure(Purpose::Test, yes)?;
    Err(command::become_(
        build::cargo().args(["test", "--workspace"]).args(openssl::features(openssl::is_there())).args(args),
    ))
}
