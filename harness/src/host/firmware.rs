//! UEFI for guests: where this machine keeps it.
//!
//! Distributions describe the firmware they ship for QEMU in JSON files (QEMU docs: interop/firmware.json), so that nobody has to know
//! their paths.

use std::{collections::BTreeMap, path::PathBuf};

use matrix::Arch;
use serde::Deserialize;

/// There is no UEFI for guests of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no UEFI firmware for {0} guests on this machine: run `cargo xtask setup`, or install `{package}`", package = package(*.0))]
pub struct NoUefi(pub Arch);

/// What it comes in on Debian and Ubuntu.
const fn package(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "ovmf",
        Arch::Aarch64 => "qemu-efi-aarch64",
    }
}

/// The folders descriptors are in; a file in an earlier one hides those of the same name.
fn folders() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    own.map(|own| own.join("qemu/firmware"))
        .into_iter()
        .chain([PathBuf::from("/etc/qemu/firmware"), PathBuf::from("/usr/share/qemu/firmware")])
        .collect()
}

/// The file with UEFI's code for guests of this kind.
///
/// It is used without a place for its variables: guests live once, and boot what lies where removable media have it.
///
/// # Errors
///
/// None is installed.
pub fn uefi(arch: Arch) -> Result<PathBuf, NoUefi> {
    let mut named = BTreeMap::new();
    for folder in folders().iter().rev() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "json") {
                named.insert(entry.file_name(), entry.path());
            }
        }
    }
    // In the order of their names, as the format wants it: the first that fits.
    let described = named.values().filter_map(|path| code(&std::fs::read_to_string(path).ok()?, arch));
    described.into_iter().find(|path| path.is_file()).ok_or(NoUefi(arch))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Mapping {
    device: String,
    executable: Option<Executable>,
}

#[derive(Deserialize)]
struct Executable {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

/// The file that this descriptor describes, if guests of this kind can be started with it.
fn code(descriptor: &str, arch: Arch) -> Option<PathBuf> {
    let descriptor: Descriptor = serde_json::from_str(descriptor).ok()?;
    let machine = match arch {
        Arch::X86_64 => "pc-q35",
        Arch::Aarch64 => "virt",
    };
    let fits = descriptor.targets.iter().any(|target| {
        target.architecture == arch.name() && target.machines.iter().any(|pattern| pattern.starts_with(machine))
    });
    // What enforces Secure Boot needs a machine with SMM and keys; unsigned boot loaders would not start.
    let plain = !["requires-smm", "secure-boot", "enrolled-keys"]
        .iter()
        .any(|feature| descriptor.features.iter().any(|known| known == feature));
    let uefi = descriptor.interface_types.iter().any(|kind| kind == "uefi") && descriptor.mapping.device == "flash";
    let executable =
        descriptor.mapping.executable.filter(|file| file.format == "raw" && file.filename.is_absolute())?;
    (fits && plain && uefi).then_some(executable.filename)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(features: &str, arch: &str, machine: &str) -> String {
        format!(
            r#"{{"description": "UEFI", "interface-types": ["uefi"], "features": [{features}], "tags": [],
            "mapping": {{"device": "flash",
                "executable": {{"filename": "/usr/share/OVMF/OVMF_CODE_4M.fd", "format": "raw"}},
                "nvram-template": {{"filename": "/usr/share/OVMF/OVMF_VARS_4M.fd", "format": "raw"}}}},
            "targets": [{{"architecture": "{arch}", "machines": ["{machine}"]}}]}}"#
        )
    }

    #[test]
    fn the_firmware_that_starts_anything_is_chosen_and_none_of_another_kind() {
        let of = |features, arch, machine| code(&descriptor(features, arch, machine), Arch::X86_64);
        let path = Some(PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd"));
        assert_eq!(of(r#""acpi-s3", "amd-sev", "verbose-dynamic""#, "x86_64", "pc-q35-*"), path);
        assert_eq!(of(r#""secure-boot", "requires-smm""#, "x86_64", "pc-q35-*"), None);
        assert_eq!(of("", "aarch64", "virt-*"), None);
        assert_eq!(of("", "x86_64", "pc-i440fx-*"), None);
        assert_eq!(code("{", Arch::X86_64), None);
        assert_eq!(code(&descriptor("", "aarch64", "virt-*"), Arch::Aarch64), path);
    }
}
