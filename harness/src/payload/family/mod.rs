//! What is known of each family of package managers: one table. Each family has a file of what is said of it (`adapter` has what that
//! is), and one of what is run in its guests.

mod adapter;
mod apk;
mod deb;
#[cfg(test)]
mod dependencies_tests;
mod pacman;
mod pkg;
pub(super) mod reasons;
mod rpm;
#[cfg(test)]
mod scripts_tests;
#[cfg(test)]
mod served_tests;

use std::time::Instant;

use matrix::{Arch, PackageFamily};

pub(super) use self::adapter::{Adapter, UNUSABLE};
use super::{quote, words};
use crate::ssh::{Exec, Session, SshError, Stdin};

/// The adapter of a family.
pub(super) fn of(family: PackageFamily) -> &'static Adapter {
    match family {
        PackageFamily::Deb => &deb::ADAPTER,
        PackageFamily::Rpm => &rpm::ADAPTER,
        PackageFamily::Apk => &apk::ADAPTER,
        PackageFamily::Pacman => &pacman::ADAPTER,
        PackageFamily::Pkg => &pkg::ADAPTER,
    }
}

/// What names of files call the kinds of CPU we have.
const fn own_words(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "amd64"],
        Arch::Aarch64 => &["aarch64", "arm64"],
    }
}

/// What names of files call other kinds of CPU, and packages that are only sources.
const FOREIGN: [&str; 25] = [
    "i386",
    "i486",
    "i586",
    "i686",
    "x86",
    "armhf",
    "armel",
    "armv6",
    "armv6h",
    "armv6hl",
    "armv7",
    "armv7h",
    "armv7hl",
    "armv7hnl",
    "mips64el",
    "mips64",
    "ppc64",
    "ppc64le",
    "ppc64el",
    "s390x",
    "riscv64",
    "loong64",
    "loongarch64",
    "src",
    "nosrc",
];

/// Whether a guest of this family and CPU can install a file of this name. What a name does not say, its package manager will.
pub(super) fn accepts(family: PackageFamily, arch: Arch, file_name: &str) -> bool {
    family.stem(file_name).is_some_and(|stem| foreign(family, arch, stem).is_none())
}

/// Of these files those that a guest of this family is not sent, because they are for another CPU and none is the same for this one:
/// in words. That a release has the same package for several CPUs is nothing to be told.
pub fn left_out<'a>(family: PackageFamily, arch: Arch, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let stems: Vec<_> = names.filter_map(|name| family.stem(name).map(|stem| (name, stem))).collect();
    let any = ["all", "any", "noarch"];
    let ours = own_words(arch).iter().chain((of(family).also)(arch)).chain(&any);
    let without_own = |stem| ours.clone().find_map(|word| without(stem, word)).unwrap_or(stem);
    let sent: Vec<_> = stems.iter().filter(|(_, stem)| foreign(family, arch, stem).is_none()).collect();
    let mut left = Vec::new();
    for (name, stem) in &stems {
        // Sources are for no system.
        let Some(word) = foreign(family, arch, stem).filter(|word| !["src", "nosrc"].contains(word)) else { continue };
        let base = without(stem, word);
        if !sent.iter().any(|(_, stem)| Some(without_own(stem)) == base) {
            left.push(format!(
                "{name} is not installed: it is for {word}, and no other artifact is the same for {arch}"
            ));
        }
    }
    left
}

/// The other CPU that a file is for, as the name without its ending says.
fn foreign(family: PackageFamily, arch: Arch, stem: &str) -> Option<&'static str> {
    if own_words(arch).iter().chain((of(family).also)(arch)).any(|word| without(stem, word).is_some()) {
        return None;
    }
    let others = Arch::ALL.into_iter().filter(|other| *other != arch).flat_map(own_words);
    others.chain(&FOREIGN).copied().find(|word| without(stem, word).is_some())
}

/// What stands before a word at the end of a name.
fn without<'a>(stem: &'a str, word: &str) -> Option<&'a str> {
    let rest = stem.strip_suffix(word)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix(['-', '_', '.']) }
}

/// A script that installs packages by their names, from wherever the guest's package manager gets them.
pub fn install_by_name(family: PackageFamily, names: &[String]) -> String {
    with(names, of(family).by_name)
}

/// A script that does what a payload does, without doing anything: what it reads from the disk stays in the guest's memory, and what
/// the package manager works out for itself is worked out.
pub fn rehearsal(family: PackageFamily) -> &'static str {
    of(family).rehearsal
}

/// Those of all families.
pub fn rehearsals() -> impl Iterator<Item = &'static str> {
    PackageFamily::ALL.into_iter().map(rehearsal)
}

/// What says the package managers that are there, of all families.
pub(super) fn facts() -> String {
    PackageFamily::ALL.map(|family| of(family).facts).concat()
}

/// A script with its arguments.
fn with(names: &[String], script: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| quote::word(name)).collect();
    format!("set -- {}\n{script}", names.join(" "))
}

/// Says which family it is. Those who install come first: that other families' tools are there (`rpm` on Debian, `dpkg` on
/// Fedora) says nothing. A `pkg` may be anything but on FreeBSD.
const DETECT: &str = "\
for found in apt-get:deb dnf:rpm zypper:rpm yum:rpm apk:apk pacman:pacman dpkg:deb rpm:rpm; do
    if command -v \"${found%:*}\" >/dev/null 2>&1; then echo \"${found#*:}\"; exit; fi
done
case $(uname -s) in FreeBSD | DragonFly) echo pkg ;; esac
";

/// What is said of a guest in which [`detect_family`] finds none.
pub const UNKNOWN_FAMILY: &str =
    "the guest has no package manager that is known (apt-get, dnf, zypper, yum, apk, pacman, dpkg, rpm, FreeBSD's pkg)";

/// Which family the guest is of, by the programs in it; `None`: of none that is known.
///
/// # Errors
/// The connection, the deadline or the cancellation.
pub async fn detect_family(session: &Session, deadline: Instant) -> Result<Option<PackageFamily>, SshError> {
    let path = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin";
    let command = format!("{path}\n{DETECT}");
    let exit = session.exec(Exec::new(command, Stdin::None, deadline)).await?;
    Ok(detected(&exit.stdout_tail))
}

fn detected(output: &[u8]) -> Option<PackageFamily> {
    words::meant(words::last_lines(output, 1).last()?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    fn taken(family: PackageFamily, arch: Arch, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| accepts(family, arch, name)).collect()
    }

    #[test]
    fn a_guest_is_sent_packages_of_its_family_for_its_cpu_or_for_any() {
        let names = [
            "hello_2.10-3_amd64.deb",
            "hello_2.10-3_arm64.deb",
            "hello_2.10-3_i386.deb",
            "hello-doc_2.10-3_all.deb",
            "hello-2.12-1.x86_64.rpm",
            "hello-2.12-1.x86_64_v2.rpm",
            "hello-2.12-1.aarch64.rpm",
            "hello-2.12-1.i686.rpm",
            "hello-doc-2.12-1.noarch.rpm",
            "hello-2.12-1.src.rpm",
            "hello-2.12-r0.apk",
            "hello_2.12_aarch64.apk",
            "hello-2.12-1-x86_64.pkg.tar.zst",
            "hello-2.12-1-aarch64.pkg.tar.zst",
            "hello-doc-2.12-1-any.pkg.tar.xz",
            "hello-2.12-1-x86_64.pkg.tar.zst.sig",
            "hello-2.12.pkg",
            "hello-2.12.tar.gz",
        ];
        use Arch::{Aarch64, X86_64};
        use PackageFamily::{Apk, Deb, Pacman, Pkg, Rpm};
        let cases: [(PackageFamily, Arch, &[&str]); 7] = [
            // dpkg itself knows whether it was told to take packages for i386.
            (Deb, X86_64, &["hello_2.10-3_amd64.deb", "hello_2.10-3_i386.deb", "hello-doc_2.10-3_all.deb"]),
            (Deb, Aarch64, &["hello_2.10-3_arm64.deb", "hello-doc_2.10-3_all.deb"]),
            (Rpm, X86_64, &["hello-2.12-1.x86_64.rpm", "hello-2.12-1.x86_64_v2.rpm", "hello-doc-2.12-1.noarch.rpm"]),
            (Rpm, Aarch64, &["hello-2.12-1.aarch64.rpm", "hello-doc-2.12-1.noarch.rpm"]),
            (Apk, X86_64, &["hello-2.12-r0.apk"]),
            (Pacman, X86_64, &["hello-2.12-1-x86_64.pkg.tar.zst", "hello-doc-2.12-1-any.pkg.tar.xz"]),
            (Pkg, X86_64, &["hello-2.12.pkg"]),
        ];
        for (family, arch, expected) in cases {
            assert_eq!(taken(family, arch, &names), expected, "{family:?} {arch}");
        }
    }

    #[test]
    fn a_package_that_is_for_other_cpus_alone_is_named() {
        let names = [
            "hello_1_amd64.deb",
            "hello_1_arm64.deb",
            "plugin_1_arm64.deb",
            "doc_1_all.deb",
            "doc_1_arm64.deb",
            "x_1_i386.deb",
        ];
        let left = |arch| left_out(PackageFamily::Deb, arch, names.into_iter());
        assert_eq!(
            left(Arch::X86_64),
            ["plugin_1_arm64.deb is not installed: it is for arm64, and no other artifact is the same for x86_64"]
        );
        assert_eq!(
            left(Arch::Aarch64),
            ["x_1_i386.deb is not installed: it is for i386, and no other artifact is the same for aarch64"]
        );
        let names = ["a-1.x86_64.rpm", "a-1.src.rpm", "a-1.aarch64.rpm", "b-1.aarch64.rpm"];
        let left = left_out(PackageFamily::Rpm, Arch::X86_64, names.into_iter());
        assert_eq!(
            left,
            ["b-1.aarch64.rpm is not installed: it is for aarch64, and no other artifact is the same for x86_64"]
        );
        assert_eq!(
            left_out(PackageFamily::Apk, Arch::X86_64, names.into_iter()),
            [""; 0],
            "and files of others are not"
        );
    }

    #[test]
    fn a_name_that_says_no_cpu_is_sent() {
        for (family, name) in [
            (PackageFamily::Deb, "hello.deb"),
            (PackageFamily::Rpm, "latest.rpm"),
            (PackageFamily::Rpm, "farm64.rpm"),
            (PackageFamily::Pacman, "hello.pkg.tar"),
        ] {
            assert!(accepts(family, Arch::X86_64, name), "{name}");
        }
    }

    #[test]
    fn names_reach_a_script_as_its_arguments_whatever_they_are() {
        let names = ["gcc".to_owned(), "$(reboot) 'x'".to_owned()];
        let script = with(&names, "printf '<%s>' \"$@\"\n");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "<gcc><$(reboot) 'x'>");
    }

    #[test]
    fn every_script_of_every_family_is_one_for_a_posix_shell() {
        for family in PackageFamily::ALL {
            let Adapter { functions, by_name, rehearsal, .. } = of(family);
            for script in [functions, by_name, rehearsal] {
                for shell in [&["sh"][..], &["bash", "--posix"], &["busybox", "sh"]] {
                    let run = Command::new(shell[0]).args(&shell[1..]).args(["-n", "-c", script]).output();
                    let Ok(output) = run else { continue };
                    let fine = output.status.success() && output.stderr.is_empty();
                    assert!(fine, "{family:?} in {shell:?}: {output:?}\n{script}");
                }
            }
        }
    }

    #[test]
    fn a_family_is_found_by_who_installs_and_not_by_tools_of_others() {
        let found = |programs: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            for program in programs {
                let path = dir.path().join(program);
                fs::write(&path, "#!/bin/sh\n").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            std::os::unix::fs::symlink("/bin/uname", dir.path().join("uname")).unwrap();
            let output = Command::new("/bin/sh").args(["-c", DETECT]).env("PATH", dir.path()).output().unwrap();
            detected(&output.stdout)
        };
        assert_eq!(found(&["dpkg", "apt-get", "rpm"]), Some(PackageFamily::Deb));
        assert_eq!(found(&["dpkg", "rpm", "dnf"]), Some(PackageFamily::Rpm));
        assert_eq!(found(&["rpm", "zypper"]), Some(PackageFamily::Rpm));
        assert_eq!(found(&["apk"]), Some(PackageFamily::Apk));
        assert_eq!(found(&["pacman"]), Some(PackageFamily::Pacman));
        assert_eq!(found(&["dpkg"]), Some(PackageFamily::Deb));
        assert_eq!(found(&["pkg"]), None, "not FreeBSD");
        assert_eq!(detected(b"hello from .profile\npkg\n"), Some(PackageFamily::Pkg));
    }
}
