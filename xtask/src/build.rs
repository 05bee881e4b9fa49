//! Builds nestmatrix with cargo.

use std::{
    ffi::OsString,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{command::run, failure::Failure, openssl};

/// The checkout this was compiled from.
pub(crate) fn checkout() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// cargo's output folder for all profiles: `target/<triple>`. Our own path is `<that>/<profile>/xtask`, which honours every way
/// of moving it.
pub(crate) fn output_folder() -> PathBuf {
    let us = std::env::current_exe().ok();
    us.as_deref().and_then(|us| us.ancestors().nth(2)).map_or_else(|| checkout().join("target"), Path::to_owned)
}

/// The cargo that started us, so that toolchain overrides hold.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(checkout());
    command
}

/// How nestmatrix is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// To be run here, soon: compile time matters.
    Release,
    /// To be copied to other machines: optimized, and smaller.
    Dist,
}

impl Profile {
    /// Its name in Cargo.toml; also the folder cargo builds it in.
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }

    /// Its usual compile time, from scratch.
    const fn takes(self) -> &'static str {
        match self {
            Self::Release => "usually 1 to 3 minutes on 2 CPUs",
            Self::Dist => "usually 4 to 8 minutes on 2 CPUs",
        }
    }
}

/// Builds `nestmatrix` and returns its path. Prints the usual and the actual time; on a terminal cargo shows its progress,
/// elsewhere only its errors.
pub(crate) fn nestmatrix(profile: Profile) -> Result<PathBuf, Failure> {
    let binary = output_folder().join(profile.name()).join("nestmatrix");
    let features = openssl::features(openssl::is_there());
    let mut build = cargo();
    build.args(["build", "--profile", profile.name(), "--package", "nestmatrix"]).args(features);
    if !std::io::stderr().is_terminal() {
        build.arg("--quiet");
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!("xtask: building nestmatrix{}", expectation(profile, binary.is_file(), !features.is_empty(), cpus));
    let began = Instant::now();
    run(build.stdout(Stdio::null()))?;
    eprintln!("xtask: nestmatrix is built, after {} s: {}", began.elapsed().as_secs(), binary.display());
    if binary.is_file() { Ok(binary) } else { Err(Failure::NotBuilt(binary)) }
}

/// Describes a build and its usual time: from scratch, or only changes.
fn expectation(profile: Profile, there: bool, with_openssl: bool, cpus: usize) -> String {
    let (cpus, own) = (format!("this machine has {cpus}"), profile.takes());
    match (there, with_openssl) {
        (true, _) => " (what has changed)".to_owned(),
        (false, false) => format!(" (once, {own}; {cpus})"),
        (false, true) => format!(
            " and OpenSSL, of which there are no static archives here (once, {own}, and as much for OpenSSL; {cpus})"
        ),
    }
}

/// True if the arguments before `--` ask for help.
pub(crate) fn asks_for_help(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--help" || arg == "-h")
}

/// Removes `--yes` from arguments that are passed on. Returns whether it was there.
pub(crate) fn take_yes(args: &mut Vec<OsString>) -> bool {
    let ours = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let before = args.len();
    let mut index = 0;
    args.retain(|arg| {
        let keep = index >= ours || arg != "--yes";
        index += 1;
        keep
    });
    args.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_is_ours_and_everything_else_is_passed_on() {
        let mut args: Vec<OsString> = ["--yes", "a.toml", "--yes", "--", "--yes"].map(Into::into).into();
        assert!(take_yes(&mut args));
        assert_eq!(args, ["a.toml", "--", "--yes"]);
        assert!(!take_yes(&mut args));
        assert_eq!(args, ["a.toml", "--", "--yes"]);
    }

    #[test]
    fn a_first_build_says_how_long_it_takes_and_a_later_one_that_it_is_short() {
        let first = expectation(Profile::Release, false, false, 8);
        assert!(
            first.contains("minutes on 2 CPUs") && first.contains("has 8") && !first.contains("OpenSSL"),
            "{first}"
        );
        assert!(expectation(Profile::Dist, false, true, 2).contains("as much for OpenSSL"));
        assert!(!expectation(Profile::Release, true, true, 2).contains("minutes"));
    }

    #[test]
    fn help_after_two_dashes_is_asked_of_somebody_else() {
        let asks = |args: &[&str]| asks_for_help(&args.iter().map(Into::into).collect::<Vec<_>>());
        assert!(asks(&["--jobs", "2", "--help"]) && asks(&["-h"]));
        assert!(!asks(&["--", "--help"]) && !asks(&["help"]));
    }
}
