//! `cargo xtask dist`: the one file that runs on any Linux of this architecture, and its digest.

mod elf;

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    build, command,
    failure::Failure,
    setup::{self, Purpose},
};

/// `dist [--out DIR] [--yes]`.
pub(crate) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let (mut out, mut yes) = (build::checkout().join("dist"), false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("out") => out = parser.value()?.into(),
            lexopt::Arg::Long("yes") => yes = true,
            other => return Err(other.unexpected().into()),
        }
    }
    setup::ensure(Purpose::Run, yes)?;
    let file = publish(&build::nestmatrix(build::Profile::Dist)?, &out)?;
    println!("{}", file.display());
    Ok(())
}

/// Copies a static binary to its name in `out`, with its digest beside it.
fn publish(binary: &Path, out: &Path) -> Result<PathBuf, Failure> {
    let bytes = fs::read(binary).map_err(Failure::at(binary))?;
    if elf::wants_loader(&bytes) != Some(false) {
        return Err(Failure::NotStatic(binary.to_owned()));
    }
    fs::create_dir_all(out).map_err(Failure::at(out))?;
    let name = format!("nestmatrix-{}-{ARCH}-linux", env!("CARGO_PKG_VERSION"));
    let (file, fresh) = (out.join(&name), out.join(format!("{name}.new")));
    // Renamed, because an earlier one may be running, and because a half file must not be visible.
    fs::copy(binary, &fresh).map_err(Failure::at(&fresh))?;
    fs::rename(&fresh, &file).map_err(Failure::at(&file))?;
    // Run in the folder, so that `sha256sum --check` finds the file by its bare name.
    let digest = out.join(format!("{name}.sha256"));
    let into = fs::File::create(&digest).map_err(Failure::at(&digest))?;
    command::run(Command::new("sha256sum").arg(&name).current_dir(out).stdin(Stdio::null()).stdout(into))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_the_binary_and_a_digest_that_can_be_checked() {
        // Linked like nestmatrix, unless other flags are set.
        let us = std::env::current_exe().expect("our own path");
        let out = build::output_folder().join(format!("dist-test-{}", std::process::id()));
        for again in [false, true] {
            let published = publish(&us, &out);
            if !cfg!(target_feature = "crt-static") {
                assert!(matches!(published, Err(Failure::NotStatic(_))));
                return;
            }
            let file = published.expect("published");
            assert_eq!(fs::read(&file).expect("the copy"), fs::read(&us).expect("ourselves"), "again: {again}");
            let mut check = Command::new("sha256sum");
            check.arg("--check").arg(format!("{}.sha256", file.file_name().expect("a name").display()));
            assert!(check.current_dir(&out).output().expect("sha256sum").status.success());
        }
        assert_eq!(fs::read_dir(&out).expect("the folder").count(), 2, "nothing but the two files");
        fs::remove_dir_all(&out).expect("removed");
    }

    #[test]
    fn what_is_no_static_program_is_not_published() {
        let out = build::output_folder().join(format!("dist-test-none-{}", std::process::id()));
        let text = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        assert!(matches!(publish(text, &out), Err(Failure::NotStatic(_))));
        assert!(!out.exists());
    }
}
