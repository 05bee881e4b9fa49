//! What the families' scripts do to get dependencies, in a "guest" whose package managers only write down what they are asked.

use std::fs;

use matrix::PackageFamily;

use super::scripts_tests::{Guest, Ran};
use crate::payload::family::{self, UNUSABLE};

/// The script, with a system whose apk knows nothing but what is below `ROOT/apk`.
fn get(guest: &Guest, family: PackageFamily) -> Ran {
    let root = guest.root.path().display();
    let script = family::of(family).get_dependencies("export http_proxy=there\n");
    let script = script
        .replace("/etc/apk \"", &format!("{root}/apk \""))
        .replace("\"/$database", &format!("\"{root}/$database"));
    guest.run(&script)
}

/// Whether who installs the artifacts is told that what they depend on is there.
fn is_got(guest: &Guest) -> bool {
    guest.root.path().join("tmp/dependencies").exists()
}

/// A package manager that finds the way to the proxy, and succeeds but for these cases.
fn but(cases: &str) -> String {
    format!("[ \"$http_proxy\" = there ] || exit 99\ncase $* in {cases} esac")
}

/// What is asked for, the lists first; and what it is if the lists cannot be had: nothing else is asked then.
fn asked(family: PackageFamily, program: &str, artifact: &str, refused: &str) -> String {
    let guest = Guest::new(&[artifact]).with(program, &but(""));
    let ran = get(&guest, family);
    assert_eq!(ran.code, 0, "{}", ran.said);
    assert!(is_got(&guest));
    let guest = Guest::new(&[artifact]).with(program, &but(refused)).with("pacman-conf", "echo core");
    let without = get(&guest, family);
    assert_eq!(without.code, UNUSABLE, "{}", without.said);
    assert!(!is_got(&guest));
    assert!(!without.asked.contains(artifact), "{}", without.asked);
    ran.asked
}

#[test]
fn dnf_takes_the_keys_of_its_settings_and_skips_no_repository() {
    let refused = "*makecache*) exit 7 ;; *repolist*) echo a repository ;;";
    insta::assert_snapshot!(asked(PackageFamily::Rpm, "dnf", "a.rpm", refused), @r"
    dnf makecache --refresh --assumeyes --setopt=*.skip_if_unavailable=0
    dnf install --assumeyes --setopt=localpkg_gpgcheck=0 --setopt=install_weak_deps=0 --downloadonly --setopt=*.skip_if_unavailable=0 ./a.rpm
    ");
}

#[test]
fn zypper_takes_no_key_that_is_not_known() {
    insta::assert_snapshot!(asked(PackageFamily::Rpm, "zypper", "a.rpm", "*' refresh') exit 4 ;;"), @r"
    zypper --non-interactive refresh
    zypper --non-interactive --no-refresh install --download-only --no-recommends --oldpackage --allow-unsigned-rpm ./a.rpm
    ");
}

#[test]
fn yum_only_downloads() {
    insta::assert_snapshot!(asked(PackageFamily::Rpm, "yum", "a.rpm", "makecache*) exit 1 ;;"), @r"
    yum makecache --assumeyes
    yum install --assumeyes --downloadonly --setopt=localpkg_gpgcheck=0 ./a.rpm
    ");
}

#[test]
fn pacman_only_downloads() {
    insta::assert_snapshot!(asked(PackageFamily::Pacman, "pacman", "a.pkg.tar.zst", "*--refresh*) exit 1 ;;"), @r"
    pacman --sync --refresh --noprogressbar
    pacman --upgrade --noconfirm --noprogressbar --downloadonly ./a.pkg.tar.zst
    ");
}

#[test]
fn apt_only_downloads_and_one_list_that_cannot_be_had_is_too_many() {
    insta::assert_snapshot!(asked(PackageFamily::Deb, "apt-get", "a.deb", "update*) exit 100 ;;"), @r"
    apt-get update -o Acquire::Retries=1 -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o DPkg::Lock::Timeout=60
    apt-get install --yes --no-install-recommends --allow-downgrades --reinstall -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold --download-only -o Acquire::Retries=1 ./a.deb
    ");
}

#[test]
fn pkg_installs_what_a_file_depends_on_and_neither_files_nor_what_is_there() {
    let pkg = "case $* in 'query -F ./a.pkg %n') echo a ;; 'query -F ./b.pkg %n') echo b ;; *'./a.pkg %dn') echo b libx liby ;;
        'info -e liby') exit 0 ;; info*) exit 1 ;; update) exit $code ;; esac";
    let guest = |code| Guest::new(&["a.pkg", "b.pkg"]).with("pkg", &format!("code={code}\n{pkg}"));
    let fine = guest(0);
    let ran = get(&fine, PackageFamily::Pkg);
    assert_eq!(ran.code, 0, "{}", ran.said);
    let changes: Vec<_> =
        ran.asked.lines().filter(|line| line.contains("install") || line.contains("update")).collect();
    assert_eq!(changes, ["pkg update", "pkg install -y libx"]);
    assert_eq!(get(&guest(1), PackageFamily::Pkg).code, UNUSABLE);
}

#[test]
fn a_system_without_repositories_is_none_whose_repositories_cannot_be_used() {
    for (family, program, artifact, then) in [
        (PackageFamily::Rpm, "dnf", "a.rpm", "case $* in *makecache*) exit 1 ;; *downloadonly*) exit 3 ;; esac"),
        (PackageFamily::Rpm, "zypper", "a.rpm", "case $* in *' refresh') exit 6 ;; *download-only*) exit 3 ;; esac"),
        (
            PackageFamily::Pacman,
            "pacman",
            "a.pkg.tar.zst",
            "case $* in *--refresh*) exit 1 ;; *downloadonly*) exit 3 ;; esac",
        ),
    ] {
        let guest = Guest::new(&[artifact]).with(program, then).with("pacman-conf", "");
        let ran = get(&guest, family);
        assert_eq!(ran.code, 3, "{program}, which says what is missing: {}", ran.said);
        assert!(!is_got(&guest));
    }
}

/// An apk that makes these changes, and keeps what it downloads if it may.
fn apk(update: i32, simulate: i32, kept: &str) -> Guest {
    let then = format!(
        "case $* in
        update*) exit {update} ;;
        *--simulate*) echo '(1/3) Installing libx (1.0-r0)'; echo '( 2/3) Upgrading liby (1.0-r0 -> 1.1-r0)'
            echo '(3/3) Installing a (2.12-r0)'; exit {simulate} ;;
        *--no-scripts*) cd \"$root/tmp/system/etc/apk/cache\" && for kept in {kept}; do : >$kept.5eed5eed.apk; done; exit 1 ;;
        index*) printf 'C:Q1abc=\\nP:a\\nV:2.12-r0\\nA:noarch\\n' >APKINDEX; tar -czf \"$4\" APKINDEX; rm APKINDEX ;;
        esac"
    );
    let guest = Guest::new(&["a.apk"]).with("apk", &then);
    let system = guest.root.path();
    fs::create_dir_all(system.join("apk/cache")).unwrap();
    fs::create_dir_all(system.join("lib/apk/db")).unwrap();
    fs::write(system.join("apk/cache/old.apk"), "").unwrap();
    fs::write(system.join("apk/world"), "busybox\n").unwrap();
    fs::write(system.join("lib/apk/db/installed"), "P:busybox\n").unwrap();
    guest
}

#[test]
fn apk_downloads_in_a_copy_of_the_system_and_runs_nothing() {
    let guest = apk(0, 0, "libx-1.0-r0 liby-1.1-r0");
    let ran = get(&guest, PackageFamily::Apk);
    assert_eq!(ran.code, 0, "that an artifact cannot be installed is for the installation to say: {}", ran.said);
    let asked: Vec<_> = ran.asked.lines().filter(|line| !line.starts_with("apk index")).collect();
    insta::assert_snapshot!(asked.join("\n"), @r"
    apk update --no-progress --wait 60 --cache-dir ROOT/tmp/system/etc/apk/cache
    apk add --root ROOT/tmp/system --simulate --no-progress --allow-untrusted ./a.apk
    apk add --root ROOT/tmp/system --no-scripts --no-progress --allow-untrusted ./a.apk
    ");
    let copy = |file: &str| fs::read_to_string(guest.root.path().join("tmp/system").join(file));
    assert_eq!(copy("etc/apk/world").unwrap(), "busybox\n");
    assert_eq!(copy("lib/apk/db/installed").unwrap(), "P:busybox\n");
    assert!(copy("etc/apk/cache/old.apk").is_err(), "what was there before proves nothing");

    let ran = guest.run(&family::of(PackageFamily::Apk).install());
    assert_eq!(
        ran.asked.lines().last().unwrap(),
        "apk add --cache-dir ROOT/tmp/system/etc/apk/cache --no-network --no-progress --wait 60 --allow-untrusted ./a.apk"
    );
}

#[test]
fn what_apk_did_not_download_is_the_repositorys_fault_and_what_it_does_not_find_is_not() {
    let guest = apk(0, 0, "libx-1.0-r0 liby-1.0-r0");
    let ran = get(&guest, PackageFamily::Apk);
    assert_eq!(ran.code, UNUSABLE);
    assert!(ran.said.ends_with("ERROR: liby-1.1-r0: it was not downloaded\n"), "{}", ran.said);
    assert!(!is_got(&guest));
    assert_eq!(get(&apk(2, 0, ""), PackageFamily::Apk).code, UNUSABLE);
    let guest = apk(0, 2, "");
    let ran = get(&guest, PackageFamily::Apk);
    assert_eq!(ran.code, 1, "{}", ran.said);
    assert!(!ran.asked.contains("--no-scripts"), "{}", ran.asked);
}

#[test]
fn an_rpm_repository_is_told_whose_signature_its_lists_have() {
    let guest = Guest::new(&[]).with("dnf", "").with("rpm", "");
    let root = guest.root.path().display().to_string();
    let add = |description: &str, key: &str| {
        let script = family::of(PackageFamily::Rpm).add_repository().replace("PATH=$PATH:", ": PATH=");
        let script = script.replace("/etc/", &format!("{root}/etc/"));
        let ran = guest
            .run(&format!("NESTMATRIX_ROOT=$root\nset -- vendor '{description}' '{key}'\nexec </dev/null\n{script}"));
        assert_eq!(ran.code, 0, "{}", ran.said);
        fs::read_to_string(guest.root.path().join("etc/yum.repos.d/nestmatrix-vendor.repo"))
            .unwrap()
            .replace(&root, "ROOT")
    };
    let ours = add("[a]\nbaseurl=there\n[b]\nbaseurl=elsewhere", "vendor.asc");
    let line = "gpgkey=file://ROOT/etc/pki/rpm-gpg/nestmatrix-vendor";
    assert_eq!(ours, format!("[a]\n{line}\nbaseurl=there\n[b]\n{line}\nbaseurl=elsewhere\n"));
    let own = "[a]\ngpgkey=file:///own\n";
    assert_eq!(add(own, "vendor.asc"), format!("{own}\n"), "a description that says it itself is left as it is");
    assert_eq!(add("[a]\nbaseurl=there", ""), "[a]\nbaseurl=there\n");
}
