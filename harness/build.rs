//! Compiles the program that waits in frozen guests (`waker/waker.rs`): static and small, for it goes into them as it is.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=waker/waker.rs");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("waker");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "--crate-name=waker", "--crate-type=bin", "--target"]).arg(variable("TARGET"));
    rustc.args([
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Cembed-bitcode=no",
        "-Cstrip=symbols",
        "-Ctarget-feature=+crt-static",
    ]);
    rustc.arg("-o").arg(&output).arg("waker/waker.rs");
    let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?}: {error}"));
    assert!(status.success(), "{rustc:?}: {status}");
}
