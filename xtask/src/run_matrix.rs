//! `cargo xtask run-matrix`: set up, build, hand over to `nestmatrix run`.

use std::{ffi::OsString, path::Path, process::Command};

use crate::{
    build, command,
    failure::Failure,
    setup::{self, Purpose},
};

/// Everything but `--yes` goes to `nestmatrix run` as it is.
pub(crate) fn run(mut args: Vec<OsString>) -> Result<(), Failure> {
    let yes = build::take_yes(&mut args);
    setup::ensure(Purpose::Run, yes)?;
    let nestmatrix = build::nestmatrix()?;
    if wants_sample_package(&args) {
        build::sample_package()?;
    }
    Err(command::become_(Command::new(nestmatrix).arg("run").args(args)))
}

/// A matrix of one's own is a `.toml` file elsewhere; anything else names a definition shipped here.
fn wants_sample_package(args: &[OsString]) -> bool {
    let shipped = build::checkout().join("matrix/definitions").canonicalize().unwrap_or_default();
    !args.iter().map(Path::new).any(|path| {
        path.extension().is_some_and(|extension| extension == "toml")
            && !path.canonicalize().is_ok_and(|path| path.starts_with(&shipped))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_package_is_built_for_shipped_definitions_only() {
        let wants = |args: &[&str]| wants_sample_package(&args.iter().map(Into::into).collect::<Vec<_>>());
        assert!(wants(&[]));
        assert!(wants(&["release", "--jobs", "2"]));
        assert!(wants(&["--out", "/tmp/somewhere"]));
        assert!(wants(&[concat!(env!("CARGO_MANIFEST_DIR"), "/../matrix/definitions/release.toml")]));
        assert!(!wants(&["mine.toml"]));
        assert!(!wants(&["--jobs", "2", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]));
    }
}
