//! Compiles the first program of guests that are booted from a root file system (`init/init.rs`): static, for nothing of such a
//! system may be needed to start it.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=init/init.rs");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("init");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "--crate-name=init", "--crate-type=bin", "--target"]).arg(variable("TARGET"));
    rustc.args([
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Cembed-bitcode=no",
        "-Cstrip=symbols",
        "-Ctarget-feature=+crt-static",
    ]);
    rustc.arg("-o").arg(&output).arg("init/init.rs");
    let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?}: {error}"));
    assert!(status.success(), "{rustc:?}: {status}");
}
