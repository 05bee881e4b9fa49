//! Properties of an operating system that the matrix file, the catalog and the guests share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of packages a system installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PackageFamily {
    /// Debian packages: apt and dpkg.
    Deb,
    /// RPM packages: dnf, zypper or yum.
    Rpm,
    /// Alpine packages: apk.
    Apk,
    /// Arch packages: pacman.
    Pacman,
    /// FreeBSD packages: pkg.
    Pkg,
}

impl PackageFamily {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Deb, Self::Rpm, Self::Apk, Self::Pacman, Self::Pkg];

    /// How a package's file ends, for people.
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Deb => ".deb",
            Self::Rpm => ".rpm",
            Self::Apk => ".apk",
            Self::Pacman => ".pkg.tar.*",
            Self::Pkg => ".pkg",
        }
    }

    /// The name of a package's file without its ending; `None`: it is not a package of this family.
    pub fn stem(self, file_name: &str) -> Option<&str> {
        match self {
            Self::Pacman => {
                // Excludes the signature beside it.
                let (stem, packed) = file_name.rsplit_once(".pkg.tar")?;
                ["", ".zst", ".xz", ".gz", ".bz2", ".lz4", ".lrz", ".lzo", ".Z"].contains(&packed).then_some(stem)
            }
            other => file_name.strip_suffix(other.ending()),
        }
    }
}

/// The kind of CPU a system is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Arch {
    /// 64-bit x86 (amd64).
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm (arm64).
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture this program was compiled for, which is the one it runs on.
    pub const fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Its name, as kernels and QEMU spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What starts the boot loader of a disk that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// The firmware of PCs, which starts the code in a disk's first sector. 64-bit x86 only.
    Bios,
    /// UEFI, which starts a program from a disk's EFI system partition.
    Uefi,
    /// UEFI with Secure Boot: starts only what is signed with one of Microsoft's keys. 64-bit x86 only.
    UefiSecure,
}

impl Firmware {
    /// True if machines of this architecture have such firmware.
    pub const fn exists_for(self, arch: Arch) -> bool {
        matches!((self, arch), (Self::Uefi, _) | (_, Arch::X86_64))
    }
}

/// The bus of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskInterface {
    /// virtio: the machine's own bus, without a controller.
    #[default]
    Virtio,
    /// NVMe: a controller of its own. Guests with such a disk are booted, never forked.
    Nvme,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::UefiSecure => "uefi-secure",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_no_package() {
        let stem = |name| PackageFamily::Pacman.stem(name);
        assert_eq!(stem("hello-2.12-1-any.pkg.tar.zst"), Some("hello-2.12-1-any"));
        assert_eq!(stem("hello-2.12-1-any.pkg.tar"), Some("hello-2.12-1-any"));
        assert_eq!(stem("hello-2.12-1-any.pkg.tar.zst.sig"), None);
        assert_eq!(PackageFamily::Pkg.stem("hello-2.12-1-any.pkg.tar.zst"), None);
    }
}
