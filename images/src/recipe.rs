//! Everything that is added to an unmodified Debian, and its digest.
//!
//! The files lie in `images/recipe/`. Everything that decides the result of a build goes into [`Recipe::digest`], which is its
//! key in the store: a changed byte means a rebuilt image.

use std::fmt::Write as _;

use matrix::{Arch, Digest};

use crate::{Bootstrap, foreign};

/// Raised when the layout of a built image changes.
pub(crate) const FORMAT: u32 = 3;

/// Size of the root disk as a guest sees it, in bytes, unless its overlay is larger: the file system then grows at boot.
pub const DISK_BYTES: u64 = 4 << 30;

/// Kernel command line of every image. Words of one run are appended. The name of the serial port depends on the architecture.
///
/// `net.ifnames=0`: the network card is always `eth0`. `panic=-1`: a panic resets at once, which ends a QEMU with `-no-reboot`.
const fn cmdline(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "root=/dev/vda rw console=tty0 console=ttyS0,115200 net.ifnames=0 panic=-1 rootfstype=ext4",
        Arch::Aarch64 => "root=/dev/vda rw console=ttyAMA0 net.ifnames=0 panic=-1 rootfstype=ext4",
    }
}

/// Packages of every image on top of Debian's minimal base (`Priority: required`, and apt), and its kernel.
const PACKAGES: &[&str] =
    &["initramfs-tools", "systemd-sysv", "udev", "openssh-server", "iproute2", "e2fsprogs", "kmod"];

/// A file that is added to an image.
struct File {
    path: &'static str,
    mode: u32,
    content: &'static str,
}

const FILES: &[File] = &[
    File {
        path: "etc/systemd/system/nestmatrix-seed.service",
        mode: 0o644,
        content: include_str!("../recipe/files/nestmatrix-seed.service"),
    },
    File { path: "usr/lib/nestmatrix/seed", mode: 0o755, content: include_str!("../recipe/files/seed") },
    File {
        path: "etc/ssh/sshd_config.d/nestmatrix.conf",
        mode: 0o644,
        content: include_str!("../recipe/files/sshd.conf"),
    },
    File {
        path: "etc/systemd/system/systemd-udev-trigger.service.d/nestmatrix.conf",
        mode: 0o644,
        content: include_str!("../recipe/files/udev-trigger.conf"),
    },
    File { path: "etc/fstab", mode: 0o644, content: include_str!("../recipe/files/fstab") },
    File {
        path: "etc/initramfs-tools/conf.d/nestmatrix",
        mode: 0o644,
        content: include_str!("../recipe/files/initramfs.conf"),
    },
    File {
        path: "usr/share/initramfs-tools/modules.d/nestmatrix",
        mode: 0o644,
        content: include_str!("../recipe/files/initramfs.modules"),
    },
    File {
        path: "etc/initramfs-tools/hooks/nestmatrix",
        mode: 0o755,
        content: include_str!("../recipe/files/initramfs.hook"),
    },
    File {
        path: "etc/initramfs-tools/scripts/init-bottom/nestmatrix",
        mode: 0o755,
        content: include_str!("../recipe/files/initramfs.bottom"),
    },
];

/// Additional file for 64-bit Arm: no login on its serial port either.
const ON_AARCH64: File = File { path: "etc/systemd/system/serial-getty@ttyAMA0.service", mode: 0o644, content: "" };

/// The scripts of the build, by file name.
const SCRIPTS: &[(&str, &str)] = &[
    ("build.sh", include_str!("../recipe/build.sh")),
    ("customize.sh", include_str!("../recipe/customize.sh")),
    ("pack.sh", include_str!("../recipe/pack.sh")),
];

/// Everything that decides the result of a build, except the state of the distribution's archive.
pub(crate) struct Recipe {
    arch: Arch,
    pub(crate) release: String,
    pub(crate) cmdline: &'static str,
    suites: Vec<&'static str>,
    /// Sorted, each once.
    pub(crate) packages: Vec<String>,
    files: Vec<(String, u32, String)>,
    pub(crate) scripts: Vec<(String, String)>,
}

impl Recipe {
    /// The recipe of an image that is built from these packages.
    pub(crate) fn of(bootstrap: &Bootstrap, arch: Arch) -> Self {
        let mut packages: Vec<String> = PACKAGES.iter().map(|name| (*name).to_owned()).collect();
        packages.push(format!("linux-image-cloud-{}", foreign::debian(arch)));
        packages.extend(bootstrap.packages.iter().cloned());
        packages.sort();
        packages.dedup();
        let special = (arch == Arch::Aarch64).then_some(&ON_AARCH64);
        let mut files: Vec<(String, u32, String)> = FILES
            .iter()
            .chain(special)
            .map(|file| (file.path.to_owned(), file.mode, file.content.to_owned()))
            .collect();
        // The boot script compares the size of its disk with this.
        let sectors = DISK_BYTES / 512;
        files.push(("usr/lib/nestmatrix/disk-sectors".to_owned(), 0o644, format!("{sectors}\n")));
        let foreign = foreign::SCRIPTS.iter().filter(|_| arch != Arch::X86_64);
        let scripts =
            SCRIPTS.iter().chain(foreign).map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let suites = bootstrap.suites.iter().map(|suite| suite.suffix()).collect();
        Self { arch, release: bootstrap.release.clone(), cmdline: cmdline(arch), suites, packages, files, scripts }
    }

    /// The digest of all of it.
    pub(crate) fn digest(&self) -> Digest {
        // Lengths before contents: no two recipes produce the same text.
        let mut text = format!("nestmatrix recipe {FORMAT}\nrelease {}\ndisk {DISK_BYTES}\n", self.release);
        let mut item = |kind: &str, name: &str, mode: u32, content: &str| {
            let (name_bytes, bytes) = (name.len(), content.len());
            write!(text, "{kind} {name_bytes} {name} {mode:o} {bytes}\n{content}\n").expect("strings take all writes");
        };
        // The default is left out, so that older images keep their digests.
        if self.arch != Arch::X86_64 {
            item("arch", self.arch.name(), 0, "");
        }
        item("cmdline", "", 0, self.cmdline);
        for suite in &self.suites {
            item("suite", suite, 0, "");
        }
        for package in &self.packages {
            item("package", package, 0, "");
        }
        for (path, mode, content) in &self.files {
            item("file", path, *mode, content);
        }
        for (name, content) in &self.scripts {
            item("script", name, 0o755, content);
        }
        Digest::of(text.as_bytes())
    }

    /// The files as a tar archive for the root of the tree; always the same bytes.
    pub(crate) fn tar(&self) -> std::io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, mode, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content.as_bytes())?;
        }
        archive.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalog, Source};

    fn bootstrap() -> Bootstrap {
        match &Catalog::shipped().get("debian-12-minimal").expect("shipped").source {
            Source::Bootstrap(bootstrap) => bootstrap.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn debian_12() -> Recipe {
        Recipe::of(&bootstrap(), Arch::X86_64)
    }

    #[test]
    fn what_we_add_to_an_unmodified_debian_is_this_and_nothing_else() {
        let recipe = debian_12();
        let mut listing = String::new();
        for (path, mode, _) in &recipe.files {
            writeln!(listing, "{mode:o} /{path}").expect("string");
        }
        insta::assert_snapshot!(listing, @r"
        644 /etc/systemd/system/nestmatrix-seed.service
        755 /usr/lib/nestmatrix/seed
        644 /etc/ssh/sshd_config.d/nestmatrix.conf
        644 /etc/systemd/system/systemd-udev-trigger.service.d/nestmatrix.conf
        644 /etc/fstab
        644 /etc/initramfs-tools/conf.d/nestmatrix
        644 /usr/share/initramfs-tools/modules.d/nestmatrix
        755 /etc/initramfs-tools/hooks/nestmatrix
        755 /etc/initramfs-tools/scripts/init-bottom/nestmatrix
        644 /usr/lib/nestmatrix/disk-sectors
        ");
        insta::assert_snapshot!(
            recipe.packages.join(" "),
            @"e2fsprogs initramfs-tools iproute2 kmod linux-image-cloud-amd64 openssh-server systemd-sysv udev"
        );
    }

    #[test]
    fn a_changed_byte_in_any_added_file_or_script_makes_another_image() {
        let digest = debian_12().digest();
        for index in 0..debian_12().files.len() {
            let mut changed = debian_12();
            changed.files[index].2.push('\n');
            assert_ne!(changed.digest(), digest, "content of {}", changed.files[index].0);
            let mut changed = debian_12();
            changed.files[index].1 ^= 0o100;
            assert_ne!(changed.digest(), digest, "mode of {}", changed.files[index].0);
        }
        for index in 0..debian_12().scripts.len() {
            let mut changed = debian_12();
            changed.scripts[index].1.push('\n');
            assert_ne!(changed.digest(), digest, "{}", changed.scripts[index].0);
        }
    }

    #[test]
    fn another_release_or_another_package_makes_another_image() {
        let digest = debian_12().digest();
        let mut entry = bootstrap();
        entry.packages.push("locales".to_owned());
        assert_ne!(Recipe::of(&entry, Arch::X86_64).digest(), digest);
        entry.packages = vec!["kmod".to_owned()];
        assert_eq!(
            Recipe::of(&entry, Arch::X86_64).digest(),
            digest,
            "a package every image has anyway changes nothing"
        );
        entry.suites.clear();
        assert_ne!(Recipe::of(&entry, Arch::X86_64).digest(), digest);
        entry = bootstrap();
        entry.release = "trixie".to_owned();
        assert_ne!(Recipe::of(&entry, Arch::X86_64).digest(), digest);
    }

    #[test]
    fn another_kind_of_cpu_makes_another_image_and_leaves_those_there_were_alone() {
        let arm = Recipe::of(&bootstrap(), Arch::Aarch64);
        assert_ne!(arm.digest(), debian_12().digest());
        assert!(arm.packages.contains(&"linux-image-cloud-arm64".to_owned()), "{:?}", arm.packages);
        assert!(!arm.packages.contains(&"linux-image-cloud-amd64".to_owned()), "{:?}", arm.packages);
        assert!(arm.cmdline.contains("console=ttyAMA0"), "{}", arm.cmdline);
        let mut unsaid = Recipe::of(&bootstrap(), Arch::X86_64);
        unsaid.arch = Arch::Aarch64;
        assert_ne!(unsaid.digest(), debian_12().digest());
    }

    #[test]
    fn the_archive_of_added_files_is_the_same_every_time() {
        assert_eq!(debian_12().tar().expect("in memory"), debian_12().tar().expect("in memory"));
    }
}
