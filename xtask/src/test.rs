//! `cargo xtask test`: set up, then run every test of the workspace, including those with real guests.

use std::{env, ffi::OsString, thread};

use crate::{
    build, command,
    failure::Failure,
    openssl,
    setup::{self, Purpose},
};

/// The default number of parallel tests: most wait for a server or a time limit, and those with guests wait for each other.
const THREADS: &str = "RUST_TEST_THREADS";

/// Everything but `--yes` is passed to `cargo test --workspace`.
pub(crate) fn run(mut args: Vec<OsString>) -> Result<(), Failure> {
    let yes = build::take_yes(&mut args);
    setup::ensure(Purpose::Test, yes)?;
    let mut tests = build::cargo();
    tests.args(["test", "--workspace"]).args(openssl::features(openssl::is_there())).args(args);
    if env::var_os(THREADS).is_none() {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        tests.env(THREADS, (4 * cpus).to_string());
    }
    Err(command::exec(&mut tests))
}
