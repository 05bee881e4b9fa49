//! Compiles the programs of a crate that run inside guests: static and small, so that starting them needs nothing of a guest's
//! system. This is the build script of each crate with such a program, `NAME/NAME.rs`.

use std::{env, path::PathBuf, process::Command};

/// `images`: the init of a guest that is booted from a root file system. `harness`: the resume agent in frozen guests.
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
