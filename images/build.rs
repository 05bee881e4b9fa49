//! Compiles a crate's programs that go into guests as they are: static and small, for nothing of a guest's system may be needed to start
//! them. The build script of each crate that has one, `NAME/NAME.rs`.

use std::{env, path::PathBuf, process::Command};

/// What starts a guest that is booted from a root file system (`images`), and what waits in frozen guests (`harness`).
const PROGRAMS: [&str; 2] = ["init", "resume_agent"];

fn main() {
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    for name in PROGRAMS {
        let source = PathBuf::from(name).join(name).with_extension("rs");
        if !source.exists() {
            continue;
        }
        println!("cargo::rerun-if-changed={}", source.display());
        let mut rustc = Command::new(variable("RUSTC"));
        rustc.args(["--edition=2024", "--crate-name", name, "--crate-type=bin", "--target"]).arg(variable("TARGET"));
        rustc.args([
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cembed-bitcode=no",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ]);
        rustc.arg("-o").arg(PathBuf::from(variable("OUT_DIR")).join(name)).arg(source);
        let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?}: {error}"));
        assert!(status.success(), "{rustc:?}: {status}");
    }
}
