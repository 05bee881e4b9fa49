//! How do I start? `cargo xtask <verb>`: one file per verb.
//!
//! This crate must compile in seconds on a machine that has only Rust and a C compiler, because it installs the rest. So it uses
//! the standard library, a small argument parser and a JSON reader, and knows nothing of the other crates but the name of their
//! binary and the journal it writes.

mod bench;
mod build;
mod command;
mod dist;
mod failure;
mod openssl;
mod run_matrix;
mod setup;
mod test;

use std::{ffi::OsString, process::ExitCode};

use failure::Failure;

const HELP: &str = "\
cargo xtask <verb>

  setup [--test] [--arch ARCH] [--check] [--yes]
                                     install what this machine lacks (--test: also what the tests need; --arch: what
                                     guests of that kind of CPU need, such as aarch64)
  run-matrix [--yes] [ARGS]          set up, build, and run `nestmatrix run ARGS` (no ARGS: the release matrix;
                                     --help: what ARGS there are, once the machine is set up)
  test [--yes] [ARGS]                set up and run every test, as `cargo test --workspace ARGS`
  bench [fork] [many] [forks] [--pairs N] [--guests N] [--forks N] [--store DIR] [--json FILE] [--yes]
                                     what forks save, how many fit, whether they are right (no name: all of it)
  dist [--out DIR] [--yes]           build the one file that runs on any Linux, into DIR (default: dist)
  help                               this text

  --yes     install without asking
  --check   only say what is missing; exit code 2 if anything is

Exit codes: those of nestmatrix or of the tests; 2 if they could not be started; of bench, 1 if something does not hold.";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    // nestmatrix itself answers `run-matrix --help`, if it can be built.
    let help = build::asks_for_help(&rest) && (verb != "run-matrix" || !setup::is_done());
    let outcome = match verb.to_str() {
        Some("setup" | "run-matrix" | "test" | "bench" | "dist") if help => {
            println!("{HELP}");
            Ok(())
        }
        Some("setup") => setup::run(rest),
        Some("run-matrix") => run_matrix::run(rest),
        Some("test") => test::run(rest),
        Some("bench") => bench::run(rest),
        Some("dist") => dist::run(rest),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        Some("") => {
            eprintln!("{HELP}");
            return ExitCode::from(failure::NOT_STARTED);
        }
        _ => Err(Failure::Usage(format!("unknown verb `{}`", verb.display()))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
