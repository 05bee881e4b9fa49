//! Builds for another architecture: QEMU's user-mode emulator runs its programs.
//!
//! The kernel uses the emulator once it is registered (`binfmt_misc`). Since Linux 6.7 every user name space can have its own
//! registrations, so a build needs neither root nor a setting of this machine: it registers its own, which is gone when the build
//! ends. On older kernels this machine must have a registration; the distribution's package makes it.

use std::{ffi::OsString, fs, path::PathBuf};

use matrix::Arch;

use crate::{error::PrepareErrorKind, tool};

/// Run in place of `build.sh`, and in its name space.
pub(crate) const SCRIPTS: [(&str, &str); 2] =
    [("foreign.sh", include_str!("../recipe/foreign.sh")), ("binfmt.sh", include_str!("../recipe/binfmt.sh"))];

/// The first Linux with `binfmt_misc` for each user name space.
const NAMESPACED: (u32, u32) = (6, 7);

/// How programs of another architecture are run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    arch: Arch,
    /// The emulator that the build registers; `None`: this machine's kernel has one.
    emulator: Option<PathBuf>,
}

/// Debian's name of the architecture.
pub(crate) const fn debian(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    }
}

impl Foreign {
    /// `None`: this machine's own architecture.
    pub(crate) fn of(arch: Arch) -> Result<Option<Self>, PrepareErrorKind> {
        if arch == Arch::here() {
            return Ok(None);
        }
        let registered = fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{arch}")).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        // Statically linked: inside the tree there are no libraries for it. Newer distributions leave out the suffix.
        let names = [format!("qemu-{arch}-static"), format!("qemu-{arch}")];
        let emulator = names.iter().find_map(|name| tool::find(name));
        Self::decide(arch, &registered, &release, emulator).map(Some)
    }

    fn decide(
        arch: Arch,
        registered: &str,
        release: &str,
        emulator: Option<PathBuf>,
    ) -> Result<Self, PrepareErrorKind> {
        // F: opened at registration, so it works in every tree.
        let is_usable = registered.lines().any(|line| line == "enabled")
            && registered.lines().any(|line| line.strip_prefix("flags:").is_some_and(|flags| flags.contains('F')));
        if is_usable {
            return Ok(Self { arch, emulator: None });
        }
        match emulator {
            None => Err(PrepareErrorKind::NoEmulator { arch, old_kernel: None }),
            Some(_) if version(release).is_none_or(|version| version < NAMESPACED) => {
                Err(PrepareErrorKind::NoEmulator { arch, old_kernel: Some(release.to_owned()) })
            }
            emulator => Ok(Self { arch, emulator }),
        }
    }

    /// The first arguments of `foreign.sh`.
    pub(crate) fn args(&self) -> [OsString; 2] {
        let (magic, mask) = self.magic();
        let rule = self.emulator.as_ref().map_or(OsString::new(), |emulator| {
            // O: the program is opened for the emulator. P: it gets the original program name.
            let mut rule = OsString::from(format!(":nestmatrix-{}:M::{magic}:{mask}:", self.arch));
            rule.push(emulator);
            rule.push(":OPF");
            rule
        });
        [debian(self.arch).into(), rule]
    }

    /// The first bytes of this architecture's programs (ELF: 64 bits, little-endian, executable or shared, machine), and their
    /// mask.
    fn magic(&self) -> (String, &'static str) {
        let machine = match self.arch {
            Arch::X86_64 => 0x3e,
            Arch::Aarch64 => 0xb7,
        };
        let magic = format!(r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine:02x}\x00");
        (magic, r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff")
    }
}

/// `6.1.0-40-amd64` -> 6.1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTERED: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n";

    fn decide(registered: &str, release: &str, emulator: Option<&str>) -> Result<Foreign, String> {
        Foreign::decide(Arch::Aarch64, registered, release, emulator.map(PathBuf::from))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_kernel_that_knows_an_emulator_is_told_of_no_other() {
        let known = decide(REGISTERED, "6.1.0-40-amd64", None).expect("registered");
        assert_eq!(known.emulator, None);
        assert_eq!(known.args(), ["arm64", ""].map(OsString::from));
    }

    #[test]
    fn a_new_kernel_is_told_of_the_emulator_by_the_build_itself() {
        let own = decide("", "6.8.0-1021-azure", Some("/usr/bin/qemu-aarch64-static")).expect("there is one");
        let [arch, rule] = own.args();
        assert_eq!(arch, "arm64");
        insta::assert_snapshot!(
            rule.to_string_lossy(),
            @r":nestmatrix-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:OPF"
        );
        // Useless in a tree, where the path is looked up.
        let unusable = REGISTERED.replace("POF", "PO");
        assert_eq!(
            decide(&unusable, "6.8.0", Some("/usr/bin/qemu-aarch64-static")).map(|it| it.emulator.is_some()),
            Ok(true)
        );
    }

    #[test]
    fn without_an_emulator_or_with_an_old_kernel_that_was_told_of_none_nothing_is_built() {
        insta::assert_snapshot!(decide("", "6.8.0", None).expect_err("no emulator"), @"building it requires running aarch64 programs on this machine, but no emulator is installed");
        let old = decide("", "6.1.0-40-amd64", Some("/usr/bin/qemu-aarch64-static"));
        insta::assert_snapshot!(old.expect_err("old kernel"), @"building it requires running aarch64 programs on this machine, but no emulator is registered; before Linux 6.7 (this is 6.1.0-40-amd64) only root can register one");
        assert!(decide("disabled\nflags: F", "6.1", Some("/x")).is_err());
        assert!(decide("", "nonsense", Some("/x")).is_err());
    }
}
