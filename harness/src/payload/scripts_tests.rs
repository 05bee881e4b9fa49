//! The families' scripts in a "guest" whose package managers only write down what they are asked.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use matrix::PackageFamily;
use reports::InstalledPackage;

use super::{family, install::NOTHING, installed};

/// A folder for a payload, and one of programs that are found before all others.
struct Guest {
    root: tempfile::TempDir,
}

/// How a script ended, what it said, and what it asked its package managers, line by line.
struct Ran {
    code: i32,
    said: String,
    asked: String,
}

impl Guest {
    fn new(artifacts: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["artifacts", "tmp", "bin"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        for artifact in artifacts {
            fs::write(root.path().join("artifacts").join(artifact), "").unwrap();
        }
        Self { root }
    }

    /// Gives it a program that writes down what it is asked, and goes on with `then`.
    fn with(self, program: &str, then: &str) -> Self {
        let path = self.root.path().join("bin").join(program);
        fs::write(&path, format!("#!/bin/sh\necho \"{program} $*\" >>\"$root/asked\"\n{then}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// As guards do: read into a shell that has `root`. Of the system's own tools it finds those of busybox alone, where there is one.
    fn run(&self, script: &str) -> Ran {
        let bin = self.root.path().join("bin");
        for tool in ["mkdir", "rm", "cat", "tr", "grep"] {
            let here = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
            let own = ["/bin", "/usr/bin"].map(|folder| format!("{folder}/{tool}"));
            let own = own.iter().find(|path| Path::new(path).exists()).map(String::as_str);
            let _ = std::os::unix::fs::symlink(here.or(own).unwrap(), bin.join(tool));
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).env("PATH", &bin).env("root", self.root.path());
        let output = shell.output().unwrap();
        assert!(output.stderr.is_empty(), "all of it is one stream: {output:?}");
        let root = self.root.path().display().to_string();
        let said = String::from_utf8(output.stdout).unwrap();
        let asked = fs::read_to_string(self.root.path().join("asked")).unwrap_or_default().replace(&root, "ROOT");
        Ran { code: output.status.code().unwrap(), said, asked }
    }
}

fn install(family: PackageFamily) -> &'static str {
    family::of(family).install
}

#[test]
fn a_system_without_an_artifact_says_so_before_anything_is_asked() {
    for family in [PackageFamily::Rpm, PackageFamily::Apk, PackageFamily::Pacman, PackageFamily::Pkg] {
        let guest = Guest::new(&["hello.tar.gz", "hello.pkg.tar.zst.sig"]);
        assert_eq!(guest.run(install(family)).code, NOTHING, "{family:?}");
    }
}

/// What rpm is asked at the end.
const RPM: &str = "case $* in *' -p '*) echo a-1-1.noarch ;; esac";

#[test]
fn of_the_installers_of_rpm_packages_the_first_that_is_there_gets_all_of_them_without_repositories() {
    let guest = || Guest::new(&["a.rpm", "b.rpm"]).with("rpm", RPM);
    let first =
        |guest: Guest| guest.run(install(PackageFamily::Rpm)).asked.lines().next().unwrap_or_default().to_owned();
    let all = guest().with("dnf", "").with("zypper", "").with("yum", "");
    insta::assert_snapshot!(first(all), @"dnf install --assumeyes --setopt=*.enabled=0 --setopt=gpgcheck=0 --setopt=localpkg_gpgcheck=0 --setopt=install_weak_deps=0 ./a.rpm ./b.rpm");
    insta::assert_snapshot!(first(guest().with("zypper", "").with("yum", "")), @"zypper --non-interactive --no-refresh --no-gpg-checks --reposd-dir ROOT/tmp/repositories install --allow-unsigned-rpm --no-recommends --oldpackage ./a.rpm ./b.rpm");
    insta::assert_snapshot!(first(guest().with("yum", "")), @"yum install --assumeyes --disablerepo=* --nogpgcheck ./a.rpm ./b.rpm");
    insta::assert_snapshot!(first(guest()), @"rpm --upgrade --oldpackage --replacepkgs ./a.rpm ./b.rpm");
}

#[test]
fn what_zypper_adds_to_a_success_is_no_failure_and_everything_else_is() {
    for (code, expected) in [(0, 0), (102, 0), (103, 0), (106, 0), (4, 4), (8, 8), (107, 107)] {
        let guest = Guest::new(&["a.rpm"]).with("rpm", RPM).with("zypper", &format!("exit {code}"));
        assert_eq!(guest.run(install(PackageFamily::Rpm)).code, expected, "zypper exits with {code}");
    }
}

#[test]
fn an_rpm_that_is_not_there_after_all_is_a_failure() {
    let rpm = format!("{RPM}\ncase $* in *' -p '*) ;; *) exit 1 ;; esac");
    let guest = Guest::new(&["a.rpm"]).with("rpm", &rpm).with("dnf", "");
    assert_eq!(guest.run(install(PackageFamily::Rpm)).code, 1);
}

#[test]
fn apk_gets_all_of_them_without_signatures_and_without_a_network() {
    let guest = Guest::new(&["a.apk", "b-1 2.apk"]).with("apk", "exit 3");
    let ran = guest.run(install(PackageFamily::Apk));
    insta::assert_snapshot!(ran.asked, @"apk add --allow-untrusted --no-network --repositories-file ROOT/tmp/repositories --no-progress --wait 60 ./a.apk ./b-1 2.apk");
    assert_eq!(ran.code, 3);
}

#[test]
fn pkg_is_not_fetched_from_the_network_and_one_that_was_brought_along_comes_first() {
    // What stands in for pkg where there is none.
    let bootstrap = "case $1 in -N) exit 1 ;; query) echo some-1 ;; info) exit 1 ;; esac";
    let ran = Guest::new(&["hello-2.12.pkg"]).with("pkg", bootstrap).run(install(PackageFamily::Pkg));
    insta::assert_snapshot!(ran.said, @"pkg: it is not installed on this system, and not among the artifacts");
    assert_eq!(ran.code, 1);
    let ran = Guest::new(&["hello-2.12.pkg", "pkg-1.21.3.pkg"]).with("pkg", bootstrap).run(install(PackageFamily::Pkg));
    let added: Vec<_> = ran.asked.lines().filter(|line| line.starts_with("pkg add")).collect();
    assert_eq!(added, ["pkg add ./pkg-1.21.3.pkg", "pkg add ./hello-2.12.pkg", "pkg add ./pkg-1.21.3.pkg"]);
}

#[test]
fn a_freebsd_package_that_came_along_with_another_is_not_added_twice() {
    let pkg = "case $1 in query) echo some-1 ;; esac";
    let ran = Guest::new(&["hello-2.12.pkg"]).with("pkg", pkg).run(install(PackageFamily::Pkg));
    assert_eq!((ran.code, ran.asked.contains("pkg add")), (0, false), "{}", ran.asked);
}

#[test]
fn pacman_does_not_hear_of_the_repositories_of_its_system() {
    let guest =
        Guest::new(&["hello-2.12-1-any.pkg.tar.zst"]).with("pacman", "cat \"$root/tmp/pacman.conf\" 2>/dev/null");
    let conf = guest.root.path().join("etc");
    let text = "# a comment\n[options]\nSigLevel = Never\n\n[core]\nServer = elsewhere\n[options]\nColor";
    fs::write(&conf, text).unwrap();
    let script = install(PackageFamily::Pacman).replace("/etc/pacman.conf", &conf.display().to_string());
    let ran = guest.run(&script);
    assert!(ran.said.starts_with("[options]\nSigLevel = Never\n\n[options]\nColor\n"), "{}", ran.said);
    assert!(
        ran.asked.starts_with("pacman --upgrade --noconfirm --noprogressbar --config ROOT/tmp/pacman.conf "),
        "{}",
        ran.asked
    );
}

#[test]
fn what_is_installed_is_asked_in_each_family_and_told_in_the_same_words() {
    let names = ["hello".to_owned(), "nothere".to_owned()];
    let asked = |family, program: &str, answer: &str| {
        let ran = Guest::new(&[]).with(program, answer).run(&family::query(family, &names));
        installed::installed_packages(family, ran.said.as_bytes())
    };
    let expected = [InstalledPackage { name: "hello".to_owned(), version: "2.12-r0".to_owned() }];
    let apk = "for name; do :; done; [ \"$name\" = hello ] || exit 1; echo hello-2.12-r0";
    assert_eq!(asked(PackageFamily::Apk, "apk", apk), expected);
    let pacman = "echo hello 2.12-r0\necho \"error: package 'nothere' was not found\" >&2\nexit 1";
    assert_eq!(asked(PackageFamily::Pacman, "pacman", pacman), expected);
    let rpm = "echo 'nestmatrix: hello 2.12-r0 is installed'; echo 'package nothere is not installed'; exit 1";
    assert_eq!(asked(PackageFamily::Rpm, "rpm", rpm), expected);
}
