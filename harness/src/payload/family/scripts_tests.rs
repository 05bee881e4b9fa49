//! The families' scripts in a "guest" whose package managers only write down what they are asked.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use matrix::PackageFamily;

use crate::payload::{
    facts, family,
    inventory::{self, ARTIFACTS, Inventory, PACKAGES},
};

/// A folder for a payload, and one of programs that are found before all others.
pub(super) struct Guest {
    pub(super) root: tempfile::TempDir,
}

/// How a script ended, what it said, and what it asked its package managers, line by line.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) said: String,
    pub(super) asked: String,
}

impl Guest {
    pub(super) fn new(artifacts: &[&str]) -> Self {
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
    pub(super) fn with(self, program: &str, then: &str) -> Self {
        let path = self.root.path().join("bin").join(program);
        fs::write(&path, format!("#!/bin/sh\necho \"{program} $*\" >>\"$root/asked\"\n{then}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// As guards do: read into a shell that has `root`. Of the system's own tools it finds those of busybox alone, where there is one.
    pub(super) fn run(&self, script: &str) -> Ran {
        let bin = self.root.path().join("bin");
        let tools = "mkdir rm mv cp ln cat tr cut date sed grep awk wc sort cmp tar gzip sha256sum";
        for tool in tools.split(' ') {
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

fn install(family: PackageFamily) -> String {
    family::of(family).install()
}

impl Guest {
    /// Its answer to a question that names this package, if any.
    fn answer(&self, functions: &str, question: &str, named: &str) -> Inventory {
        let mark = "nestmatrix-5eed";
        let bin = self.root.path().join("bin");
        let named_in = self.root.path().join("named");
        fs::write(&named_in, named).unwrap();
        let path = format!("PATH={}; : PATH=", bin.display());
        let script = inventory::script(functions, &[question]).replace("PATH=/usr/local/sbin:", &path);
        let script = format!("NESTMATRIX_ROOT=$root\nset -- {mark}\nexec <{}\n{script}", named_in.display());
        let ran = self.run(&script);
        assert_eq!(ran.code, 0, "{}", ran.said);
        inventory::read(ran.said.as_bytes(), mark).unwrap()
    }

    /// What it says that the files in its folder are.
    fn artifacts(&self, family: PackageFamily) -> Inventory {
        self.answer(family::of(family).functions, ARTIFACTS, "")
    }

    /// What it says is installed, and what proves the content of this package, if any.
    fn packages(&self, family: PackageFamily, of: &str) -> Inventory {
        self.answer(family::of(family).functions, PACKAGES, of)
    }
}

/// Artifacts as a person reads them.
fn shown(inventory: &Inventory) -> String {
    let artifacts = inventory.artifacts.iter().map(|found| {
        let id = &found.id;
        format!(
            "{} is {} {} {} {}",
            found.file,
            id.name,
            id.version,
            id.arch,
            &found.identity[..found.identity.len().min(12)]
        )
    });
    let left = inventory.left_out.iter().map(|(id, file)| format!("{file} is for {}", id.arch));
    let unread = inventory.unread.iter().map(|file| format!("{file} is unread"));
    let packages = inventory.packages.iter().map(|found| {
        let id = &found.id;
        format!("{} {} {} {}", id.name, id.version, id.arch, found.state)
    });
    let proofs = inventory
        .proofs
        .iter()
        .map(|(id, proof)| format!("{} {}: {}", id.name, id.version, &proof[..proof.len().min(12)]));
    artifacts.chain(left).chain(unread).chain(packages).chain(proofs).collect::<Vec<_>>().join("\n")
}

#[test]
fn package_managers_say_their_versions() {
    let facts = |guest: Guest| {
        let script = facts::script().replace("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin", "");
        facts::read(guest.run(&format!("exec 2>/dev/null\n{script}")).said.as_bytes()).package_managers
    };
    let dpkg = "printf 'package=apt  not-installed\\npackage=dpkg 1.21.22 installed\\n'";
    let rpm = "printf 'package=dnf 4.14.0 installed\\npackage yum is not installed\\npackage=rpm 4.18.0 installed\\n'";
    let guest = Guest::new(&[]).with("dpkg-query", dpkg).with("rpm", rpm);
    let guest =
        guest.with("apk", "echo 'apk-tools 2.14.4, compiled for x86_64.'").with("pacman", "echo pacman 6.0.2-1");
    assert_eq!(facts(guest), ["dpkg 1.21.22", "dnf 4.14.0", "rpm 4.18.0", "apk-tools 2.14.4", "pacman 6.0.2-1"]);
    let guest = Guest::new(&[]).with("dpkg-query", "exit 2").with("rpm", "exit 1");
    assert_eq!(facts(guest.with("apk", "").with("pacman", "exit 1")), [""; 0]);
}

#[test]
fn files_of_other_families_are_no_artifacts() {
    for family in PackageFamily::ALL {
        let guest = Guest::new(&["hello.tar.gz", "hello.pkg.tar.zst.sig"]).with("dpkg", "").with("rpm", "");
        assert_eq!(shown(&guest.artifacts(family)), "", "{family:?}");
    }
}

#[test]
fn debian_packages_are_named_by_what_they_hold_and_those_for_other_systems_are_put_aside() {
    let dpkg = "case $1 in --print-architecture) echo amd64 ;; --print-foreign-architectures) echo i386 ;; esac";
    let control = "mkdir \"$3\"
case $2 in
*broken*) exit 2 ;;
*arm*) printf 'Package: hello\\nVersion: 1.0\\nArchitecture: arm64\\n' >\"$3/control\" ;;
*old*) printf 'package:old\\nVERSION: 2\\nVersion:  2 \\nArchitecture: i386\\nDescription: a\\n Package: b\\n' >\"$3/control\" ;;
*) printf 'Package: hello\\nVersion: 1:1.0-1\\nArchitecture: all\\n' >\"$3/control\"; echo 5eed >\"$3/md5sums\" ;;
esac";
    let guest = Guest::new(&["hello.deb", "a b.deb", "arm.deb", "old.deb", "broken.deb"])
        .with("dpkg", dpkg)
        .with("dpkg-deb", control);
    insta::assert_snapshot!(shown(&guest.artifacts(PackageFamily::Deb)), @r"
    a b.deb is hello 1:1.0-1 all 63b0cdd80b27
    hello.deb is hello 1:1.0-1 all 63b0cdd80b27
    old.deb is old 2 i386 unpacked
    arm.deb is for arm64
    broken.deb is unread
    ");
    assert!(!guest.root.path().join("artifacts/arm.deb").exists(), "or it would be installed along");
}

#[test]
fn nothing_is_asked_of_dpkg_that_old_ones_do_not_know() {
    let query = "for format; do :; done
case $format in *'${db:'*) state= ;; *'${Status}'*) state='install ok installed' ;; esac
printf '%shello\\t1.0\\tall\\t%s\\n' \"${format%%'${Package}'*}\" \"$state\"";
    let guest = Guest::new(&[]).with("dpkg-query", query);
    assert_eq!(shown(&guest.packages(PackageFamily::Deb, "")), "hello 1.0 all installed");
}

#[test]
fn what_apt_takes_from_a_repository_instead_is_installed_by_dpkg() {
    let apt = "cd \"$root/artifacts\" && echo \"$PWD/a.deb\" >>\"$root/tmp/given-to-dpkg\"";
    let guest = Guest::new(&["a.deb", "a b.deb"]).with("apt-get", apt).with("dpkg", "exit 7");
    let ran = guest.run(&install(PackageFamily::Deb));
    assert_eq!(ran.code, 7);
    let asked: Vec<_> = ran.asked.lines().collect();
    assert!(
        asked[0].contains(" --allow-downgrades --reinstall ") && asked[0].ends_with(" ./a b.deb ./a.deb"),
        "{asked:?}"
    );
    assert_eq!(asked[1..], ["dpkg --install --force-confdef --force-confold ./a b.deb"]);

    let apt = "for file in \"$root\"/artifacts/*; do echo \"$file\"; done >>\"$root/tmp/given-to-dpkg\"";
    let guest = Guest::new(&["a.deb", "a b.deb"]).with("apt-get", apt).with("dpkg", "");
    assert_eq!(guest.run(&install(PackageFamily::Deb)).asked.lines().count(), 1, "dpkg has nothing to do");

    let guest = Guest::new(&["a.deb"]).with("apt-get", "exit 100").with("dpkg", "");
    let ran = guest.run(&install(PackageFamily::Deb));
    assert_eq!((ran.code, ran.asked.lines().count()), (100, 1));
}

/// What rpm says of every file, and is installed.
const RPM: &str = "echo a 1 1 noarch 5eed 5eed";

#[test]
fn of_the_installers_of_rpm_packages_the_first_that_is_there_gets_all_of_them_without_repositories() {
    let guest = || Guest::new(&["a.rpm", "b.rpm"]).with("rpm", RPM);
    let first =
        |guest: Guest| guest.run(&install(PackageFamily::Rpm)).asked.lines().next().unwrap_or_default().to_owned();
    let all = guest().with("dnf", "").with("zypper", "").with("yum", "");
    insta::assert_snapshot!(first(all), @"dnf install --assumeyes --setopt=localpkg_gpgcheck=0 --setopt=install_weak_deps=0 --setopt=*.enabled=0 --setopt=gpgcheck=0 ./a.rpm ./b.rpm");
    insta::assert_snapshot!(first(guest().with("zypper", "").with("yum", "")), @"zypper --non-interactive --no-refresh --no-gpg-checks --reposd-dir ROOT/tmp/repositories install --no-recommends --oldpackage --allow-unsigned-rpm ./a.rpm ./b.rpm");
    insta::assert_snapshot!(first(guest().with("yum", "")), @"yum install --assumeyes --disablerepo=* --nogpgcheck ./a.rpm ./b.rpm");
    insta::assert_snapshot!(first(guest()), @"rpm --upgrade --oldpackage --replacepkgs ./a.rpm ./b.rpm");
}

#[test]
fn what_zypper_adds_to_a_success_is_no_failure_and_everything_else_is() {
    for (code, expected) in [(0, 0), (102, 0), (103, 0), (106, 0), (4, 4), (8, 8), (107, 107)] {
        let guest = Guest::new(&["a.rpm"]).with("rpm", RPM).with("zypper", &format!("exit {code}"));
        assert_eq!(guest.run(&install(PackageFamily::Rpm)).code, expected, "zypper exits with {code}");
    }
}

#[test]
fn rpm_replaces_what_was_installed_with_the_same_version_or_a_newer_one() {
    for installer in ["dnf", "zypper", "yum"] {
        let rpm = "case $* in *' --package ./b.rpm') echo b 1 1 noarch 5eed 5eed ;; *' b') echo b 1 1 noarch 01d 01d ;; *'./c.rpm') echo c 1 1 noarch 5eed 5eed ;;
            *' c') exit 1 ;; *--query*) echo a 1 1 noarch 5eed 5eed ;; *) exit 3 ;; esac";
        let guest = Guest::new(&["a.rpm", "b.rpm", "c.rpm"]).with("rpm", rpm).with(installer, "");
        let ran = guest.run(&install(PackageFamily::Rpm));
        assert_eq!(ran.asked.lines().last().unwrap(), "rpm --upgrade --oldpackage --replacepkgs ./b.rpm");
        assert_eq!(ran.code, 3);
    }
    let guest = Guest::new(&["a.rpm"]).with("rpm", RPM).with("dnf", "");
    assert!(!guest.run(&install(PackageFamily::Rpm)).asked.contains("--upgrade"), "dnf did it");
}

#[test]
fn rpm_packages_are_told_apart_by_their_digests() {
    let rpm = "case $* in
        *--querytags) echo SHA256HEADER ;;
        *./broken.rpm) exit 1 ;;
        *--package*) printf 'hello\\t1:2.12-1\\tnoarch\\tmd5.sha1.sha256' ;;
        *--all*) printf 'nestmatrix-5eed\\thave\\thello\\t2.12-1\\tnoarch\\tinstalled\\nnestmatrix-5eed\\tproof\\thello\\t2.12-1\\tnoarch\\tmd5\\nnestmatrix-5eed\\thave\\tgpg-pubkey\\t1-1\\t(none)\\tinstalled\\n' ;;
        esac";
    let guest = Guest::new(&["hello.rpm", "broken.rpm"]).with("rpm", rpm);
    insta::assert_snapshot!(shown(&guest.artifacts(PackageFamily::Rpm)), @r"
    hello.rpm is hello 1:2.12-1 noarch md5.sha1.sha
    broken.rpm is unread
    ");
    insta::assert_snapshot!(shown(&guest.packages(PackageFamily::Rpm, "")), @r"
    hello 2.12-1 noarch installed
    hello 2.12-1: md5
    ");
    let asked = guest.run("").asked;
    assert_eq!(
        asked.matches("%{SIGMD5}.%{SHA1HEADER}.%{SHA256HEADER}").count(),
        3,
        "two files and all that is installed: {asked}"
    );
    let old = Guest::new(&["hello.rpm"]).with("rpm", "printf 'hello\\t1\\tnoarch\\tmd5.sha1'");
    old.artifacts(PackageFamily::Rpm);
    assert!(!old.run("").asked.contains("SHA256HEADER"), "an old rpm fails of a tag that it does not know");
}

#[test]
fn apk_gets_all_of_them_without_signatures_and_without_a_network() {
    let guest = Guest::new(&["a.apk", "b-1 2.apk"]).with("apk", "exit 3");
    let ran = guest.run(&install(PackageFamily::Apk));
    insta::assert_snapshot!(ran.asked, @"apk add --repositories-file ROOT/tmp/repositories --no-network --no-progress --wait 60 --allow-untrusted ./a.apk ./b-1 2.apk");
    assert_eq!(ran.code, 3);
}

#[test]
fn packages_that_were_broken_before_are_no_failure_of_apk() {
    // It exits with the number of broken packages in its database.
    let run = |before: &str, apk: &str| {
        let guest = Guest::new(&["a.apk"]).with("apk", apk);
        let database = guest.root.path().join("database");
        fs::write(&database, before).unwrap();
        let script = install(PackageFamily::Apk)
            .replace("/lib/apk/db/installed /usr/lib/apk/db/installed", &database.display().to_string());
        guest.run(&script).code
    };
    let two = "C:Q1\nP:old\nf:s\n\nP:fine\n\nP:worse\nf:fs\n\n";
    assert_eq!(run(two, "exit 2"), 0, "both were broken before");
    assert_eq!(run(two, "printf 'P:a\\nf:s\\n' >>\"$root/database\"; exit 3"), 3, "one is new");
    assert_eq!(run(two, "printf 'P:a\\nf:s\\n' >\"$root/database\"; exit 1"), 1, "another one");
    assert_eq!(run(two, "exit 99"), 99);
    assert_eq!(run("P:fine\n\n", "exit 1"), 1);
}

#[test]
fn apk_packages_are_told_apart_by_the_digest_of_their_control_segment() {
    let index =
        "printf 'C:Q1abc=\\nP:hello\\nV:2.12-r0\\nA:noarch\\n' >APKINDEX; tar -czf \"$4\" APKINDEX; rm APKINDEX";
    let apk = format!(
        "case $* in *./new.apk) [ $1 = adbdump ] || exit 1; printf 'info:\\n  name: hello\\n  version: 3-r0\\n  arch: x86_64\\npaths:\\n  name: x\\n' ;; *./broken.apk) exit 99 ;; *) {index} ;; esac"
    );
    let guest = Guest::new(&["hello.apk", "new.apk", "broken.apk"]).with("apk", &apk);
    insta::assert_snapshot!(shown(&guest.artifacts(PackageFamily::Apk)), @r"
    hello.apk is hello 2.12-r0 noarch Q1abc=
    new.apk is hello 3-r0 x86_64 pinned
    broken.apk is unread
    ");
    let (world, database) = (guest.root.path().join("world"), guest.root.path().join("database"));
    fs::write(&world, "busybox\nnew><Q2new=\nmoved><Q1old=\n").unwrap();
    let packages = [("hello", "f:s\n", "Q1abc="), ("new", "f:S\n", "Q2new="), ("moved", "", "Q1new=")];
    let packages =
        packages.map(|(name, flags, digest)| format!("C:{digest}\nP:{name}\nV:1-r0\nA:noarch\n{flags}F:opt\n\n"));
    fs::write(&database, packages.concat().trim_end()).unwrap();
    let script = family::of(PackageFamily::Apk).functions.replace("/etc/apk/world", &world.display().to_string());
    let script = script.replace("database=/lib/apk/db/installed", &format!("database={}", database.display()));
    insta::assert_snapshot!(shown(&guest.answer(&script, PACKAGES, "")), @r"
    hello 1-r0 noarch broken
    new 1-r0 noarch installed
    moved 1-r0 noarch installed
    hello 1-r0: Q1abc=
    new 1-r0: Q2new=
    new 1-r0: pinned
    moved 1-r0: Q1new=
    ");
}

#[test]
fn pkg_is_not_fetched_from_the_network_and_one_that_was_brought_along_comes_first() {
    // What stands in for pkg where there is none.
    let bootstrap = "case $1 in -N) exit 1 ;; query) echo some-1 ;; info) exit 1 ;; esac";
    let ran = Guest::new(&["hello-2.12.pkg"]).with("pkg", bootstrap).run(&install(PackageFamily::Pkg));
    insta::assert_snapshot!(ran.said, @"pkg: it is not installed on this system, and not among the artifacts");
    assert_eq!(ran.code, 1);
    let ran =
        Guest::new(&["hello-2.12.pkg", "pkg-1.21.3.pkg"]).with("pkg", bootstrap).run(&install(PackageFamily::Pkg));
    let added: Vec<_> = ran.asked.lines().filter(|line| line.starts_with("pkg add")).collect();
    assert_eq!(added, ["pkg add ./pkg-1.21.3.pkg", "pkg add ./hello-2.12.pkg", "pkg add ./pkg-1.21.3.pkg"]);
}

#[test]
fn a_freebsd_package_that_is_installed_is_replaced_only_if_its_files_are_others() {
    let run = |installed: &str| {
        let pkg = format!(
            "case $* in 'query -F ./hello.pkg %n') echo hello ;; 'query -F '*) echo 2.12 /f 5eed ;; query*) echo {installed} ;; esac"
        );
        let ran = Guest::new(&["hello.pkg"]).with("pkg", &pkg).run(&install(PackageFamily::Pkg));
        assert_eq!(ran.code, 0);
        ran.asked.lines().filter(|line| line.starts_with("pkg add")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(run("2.12 /f 5eed"), "", "it came along with another");
    assert_eq!(run("2.12 /f 01d"), "pkg add -f ./hello.pkg");
    assert_eq!(run("3.0 /f 5eed"), "pkg add -f ./hello.pkg");
}

#[test]
fn nothing_is_asked_of_the_program_that_fetches_pkg() {
    let guest = Guest::new(&["hello.pkg"]).with("pkg", "[ $1 = -N ] && exit 1; echo fetched");
    assert_eq!(shown(&guest.artifacts(PackageFamily::Pkg)), "hello.pkg is unread");
    assert_eq!(shown(&guest.packages(PackageFamily::Pkg, "hello\t1\tany\n")), "");
    let guest = Guest::new(&["hello.pkg"])
        .with("pkg", "case $* in *'/opt') echo /f 5eed ;; query*%n*) printf 'hello\\t1\\tFreeBSD:14:amd64' ;; esac");
    insta::assert_snapshot!(shown(&guest.artifacts(PackageFamily::Pkg)), @"hello.pkg is hello 1 FreeBSD:14:amd64 unpacked");
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
fn pacman_packages_are_told_apart_by_their_lists_of_files() {
    let pacman = "case $* in *--file*broken*) exit 1 ;; *--file*) echo hello 2.12-1 ;; *) echo base 1-1; echo hello 2.12-1 ;; esac";
    let bsdtar = "case $2 in *plain*) exit 1 ;; *) echo 5eed ;; esac";
    let guest = Guest::new(&["a.pkg.tar.zst", "a.pkg.tar.zst.sig", "plain.pkg.tar", "broken.pkg.tar.xz"]);
    let guest = guest.with("pacman", pacman).with("bsdtar", bsdtar);
    insta::assert_snapshot!(shown(&guest.artifacts(PackageFamily::Pacman)), @r"
    a.pkg.tar.zst is hello 2.12-1 any 63b0cdd80b27
    plain.pkg.tar is hello 2.12-1 any unpacked
    broken.pkg.tar.xz is unread
    ");
    let entry = guest.root.path().join("db/local/hello-2.12-1");
    fs::create_dir_all(&entry).unwrap();
    fs::write(entry.join("mtree"), "5eed\n").unwrap();
    let conf = guest.root.path().join("conf");
    fs::write(&conf, format!("[options]\nDBPath = {}\n", guest.root.path().join("db").display())).unwrap();
    let script = family::of(PackageFamily::Pacman).functions.replace("/etc/pacman.conf", &conf.display().to_string());
    insta::assert_snapshot!(shown(&guest.answer(&script, PACKAGES, "hello\t2.12-1\tany\n")), @r"
    base 1-1 any installed
    hello 2.12-1 any installed
    hello 2.12-1: 63b0cdd80b27
    ");
}
