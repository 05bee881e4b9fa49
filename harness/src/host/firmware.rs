//! UEFI for guests: where this machine keeps it.
//!
//! Distributions describe the firmware they ship for QEMU in JSON files (QEMU docs: interop/firmware.json), so that nobody has to know
//! their paths.

use std::{collections::BTreeMap, path::PathBuf};

use matrix::Arch;
use serde::Deserialize;

use crate::guest::Uefi;

/// A part that guests are to have, and that this machine has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPart {
    /// UEFI for guests of this kind.
    #[error("there is no UEFI firmware for {0} guests on this machine: run `cargo xtask setup`, or install `{package}`", package = package(*.0))]
    Uefi(Arch),
    /// The same with Secure Boot.
    #[error("there is no UEFI firmware with Secure Boot for {0} guests on this machine: run `cargo xtask setup`, or install `{package}`", package = package(*.0))]
    SecureBoot(Arch),
    /// What is a TPM for guests.
    #[error("`swtpm`, the TPM of guests (`guest.tpm`), is not installed: install the package `swtpm`")]
    Tpm,
}

/// The program that is a guest's TPM.
///
/// # Errors
///
/// It is not installed.
pub fn swtpm() -> Result<PathBuf, NoPart> {
    super::tools::find("swtpm").ok_or(NoPart::Tpm)
}

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

/// The files of UEFI for guests of this kind; `secure`: with Secure Boot, and keys that it trusts.
///
/// Without Secure Boot it is used without a place for its variables: guests live once, and boot what lies where removable media have it.
///
/// # Errors
///
/// None is installed.
pub fn uefi(arch: Arch, secure: bool) -> Result<Uefi, NoPart> {
    let mut named = BTreeMap::new();
    for folder in folders().iter().rev() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "json") {
                named.insert(entry.file_name(), entry.path());
            }
        }
    }
    // In the order of their names, as the format wants it: the first that fits.
    let described = named.values().filter_map(|path| files(&std::fs::read_to_string(path).ok()?, arch, secure));
    let there = |uefi: &Uefi| uefi.code.is_file() && (!secure || uefi.variables.is_file());
    described.into_iter().find(there).ok_or(if secure { NoPart::SecureBoot(arch) } else { NoPart::Uefi(arch) })
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
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
}

#[derive(Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

/// The files that this descriptor describes, if guests of this kind can be started with them.
fn files(descriptor: &str, arch: Arch, secure: bool) -> Option<Uefi> {
    let descriptor: Descriptor = serde_json::from_str(descriptor).ok()?;
    let machine = match arch {
        Arch::X86_64 => "pc-q35",
        Arch::Aarch64 => "virt",
    };
    let fits = descriptor.targets.iter().any(|target| {
        target.architecture == arch.name() && target.machines.iter().any(|pattern| pattern.starts_with(machine))
    });
    // What enforces Secure Boot needs a machine with SMM and keys; unsigned boot loaders would not start.
    let mut features = ["requires-smm", "secure-boot", "enrolled-keys"]
        .iter()
        .map(|feature| descriptor.features.iter().any(|known| known == feature));
    let suits = if secure { features.all(|has| has) } else { !features.any(|has| has) };
    let uefi = descriptor.interface_types.iter().any(|kind| kind == "uefi") && descriptor.mapping.device == "flash";
    let raw = |file: &FlashFile| file.format == "raw" && file.filename.is_absolute();
    let code = descriptor.mapping.executable.filter(raw)?.filename;
    let variables = descriptor.mapping.nvram_template.filter(raw).map(|file| file.filename);
    (fits && suits && uefi && (variables.is_some() || !secure))
        .then(|| Uefi { code, variables: variables.unwrap_or_default() })
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
        let of = |features, arch, machine| files(&descriptor(features, arch, machine), Arch::X86_64, false);
        let path = Some(Uefi {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            variables: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
        });
        assert_eq!(of(r#""acpi-s3", "amd-sev", "verbose-dynamic""#, "x86_64", "pc-q35-*"), path);
        assert_eq!(of(r#""secure-boot", "requires-smm""#, "x86_64", "pc-q35-*"), None);
        assert_eq!(of("", "aarch64", "virt-*"), None);
        assert_eq!(of("", "x86_64", "pc-i440fx-*"), None);
        assert_eq!(files("{", Arch::X86_64, false), None);
        assert_eq!(files(&descriptor("", "aarch64", "virt-*"), Arch::Aarch64, false), path);
    }

    #[test]
    fn secure_boot_is_that_of_firmware_that_trusts_keys_already() {
        let secure = |features| files(&descriptor(features, "x86_64", "pc-q35-*"), Arch::X86_64, true);
        assert!(secure(r#""enrolled-keys", "requires-smm", "secure-boot""#).is_some());
        assert_eq!(secure(r#""requires-smm", "secure-boot""#), None, "it would start anything");
        assert_eq!(secure(""), None);
        let described = descriptor(r#""enrolled-keys", "requires-smm", "secure-boot""#, "x86_64", "pc-q35-*");
        assert_eq!(files(&described.replace("nvram-template", "other"), Arch::X86_64, true), None);
        assert_eq!(files(&described, Arch::X86_64, false), None);
    }
}
