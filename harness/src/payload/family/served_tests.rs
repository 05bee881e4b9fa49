//! What the families' scripts do to serve artifacts as a repository, in a "guest" whose package managers only write down what they are asked.

use std::fs;

use matrix::PackageFamily;

use super::scripts_tests::{Guest, Ran};
use crate::payload::family;

/// What is asked to install names, once what is missing was got and before.
fn asked(family: PackageFamily, program: &str, artifact: &str, names: &str) -> (String, String) {
    let install = |got: bool| {
        let guest = Guest::new(&[artifact])
            .with(program, "")
            .with("rpm", "echo a 1 1 noarch 5eed 5eed")
            .with("pacman-conf", "");
        fs::write(guest.root.path().join("tmp/names"), names).unwrap();
        if got {
            fs::write(guest.root.path().join("tmp/dependencies"), "").unwrap();
        }
        let ran = guest.run(&family::of(family).install());
        assert_eq!(ran.code, 0, "{}", ran.said);
        let line = ran.asked.lines().find(|line| line.starts_with(&format!("{program} "))).unwrap().to_owned();
        line.trim_start_matches(program).trim_start().to_owned()
    };
    (install(false), install(true))
}

#[test]
fn apt_installs_names_from_the_artifacts_repository_alone_until_something_was_got_and_then_from_it_first() {
    let (first, then) = asked(PackageFamily::Deb, "apt-get", "a.deb", "b\na:amd64\n");
    let sources = |said: &str| said.split_once("-o Dir::Etc::sourcelist=").unwrap().1.to_owned();
    insta::assert_snapshot!(sources(&first), @"/etc/apt/sources.list.d/nestmatrix-package_under_test.list -o Dir::Etc::sourceparts=- b a:amd64");
    insta::assert_snapshot!(sources(&then), @"/etc/apt/sources.list.d/nestmatrix-package_under_test.list -o Dir::Etc::sourceparts=ROOT/tmp/sources.list.d b a:amd64");
}

#[test]
fn the_others_install_names_from_the_artifacts_repository_alone_until_something_was_got() {
    let (first, then) = asked(PackageFamily::Rpm, "dnf", "a.rpm", "a.noarch\n");
    insta::assert_snapshot!(first, @"install --assumeyes --setopt=localpkg_gpgcheck=0 --setopt=install_weak_deps=0 --repo=nestmatrix-package_under_test a.noarch");
    insta::assert_snapshot!(then, @"install --assumeyes --setopt=localpkg_gpgcheck=0 --setopt=install_weak_deps=0 --cacheonly a.noarch");
    let (first, then) = asked(PackageFamily::Rpm, "zypper", "a.rpm", "a.noarch\n");
    insta::assert_snapshot!(first, @"--non-interactive --no-refresh --reposd-dir ROOT/tmp/repositories install --no-recommends --oldpackage --force --from nestmatrix-package_under_test a.noarch");
    insta::assert_snapshot!(then, @"--non-interactive --no-refresh install --no-recommends --oldpackage --force --from nestmatrix-package_under_test a.noarch");
    let (first, then) = asked(PackageFamily::Rpm, "yum", "a.rpm", "a.noarch\n");
    insta::assert_snapshot!(first, @"install --assumeyes --disablerepo=* --enablerepo=nestmatrix-package_under_test a.noarch");
    insta::assert_snapshot!(then, @"install --assumeyes --cacheonly a.noarch");
    let (first, then) = asked(PackageFamily::Apk, "apk", "a.apk", "a@nestmatrix-package_under_test\n");
    insta::assert_snapshot!(first, @"add --repositories-file ROOT/tmp/repositories --no-network --no-progress --wait 60 a@nestmatrix-package_under_test");
    insta::assert_snapshot!(then, @"add --cache-dir ROOT/tmp/system/etc/apk/cache --no-network --no-progress --wait 60 a@nestmatrix-package_under_test");
    let (first, then) = asked(PackageFamily::Pacman, "pacman", "a.pkg.tar.zst", "nestmatrix-package_under_test/a\n");
    insta::assert_snapshot!(first, @"--sync --noconfirm --noprogressbar --config ROOT/tmp/pacman.conf nestmatrix-package_under_test/a");
    insta::assert_snapshot!(then, @"--sync --noconfirm --noprogressbar nestmatrix-package_under_test/a");
}

/// Makes a repository of what is there.
fn make(guest: &Guest, family: PackageFamily) -> Ran {
    let script = family::of(family).make_repository().replace("PATH=$PATH:", ": PATH=");
    let ran = guest.run(&format!("NESTMATRIX_ROOT=$root\nset -- mark\nexec 2>&1\n{script}"));
    // It is beside the payload, where nobody removes it.
    let root = guest.root.path();
    let beside = root.with_file_name(format!("{}-repository", root.file_name().unwrap().display()));
    if beside.exists() {
        fs::rename(beside, root.join("repository")).unwrap();
    }
    ran
}

#[test]
fn what_rpm_says_of_a_package_is_xml_that_says_the_same() {
    // Tags come as control characters.
    let rpm = r"case $* in
        *'.rpm --package'*) printf 'a-1-1.noarch.rpm' ;;
        *'%{NAME}-'*) printf 'a-1-1.noarch\n' ;;
        *) printf '\001summary\002<b> & \42c\42\001/summary\002\n'
            for entry in 'any,,' 'old, < ,1.0' 'full, >= ,2:1.0-3.el9' 'same, = ,1-2' '(none),,(none)' 'rpmlib(X), <= ,3-1' '(a >= 1 if b),,'; do
                name=${entry%%,*} rest=${entry#*,}
                printf '\001rpm:entry name=\003%s\003 flags=\003%s\003 ver=\003%s\003/\002\n' $q $name ${rest%,*} ${rest#*,}
            done
            printf '\001file\002(none)\001/file\002\n\001file\002/usr/bin/a&b\001/file\002\n' ;;
        esac";
    let rpm = rpm.replace("$q $name ${rest%,*} ${rest#*,}", "\"$name\" \"${rest%,*}\" \"${rest#*,}\"");
    let guest = Guest::new(&["x.rpm"]).with("dnf", "").with("rpm", &rpm);
    let ran = make(&guest, PackageFamily::Rpm);
    assert_eq!(ran.code, 0, "{}", ran.said);
    let said = fs::read_to_string(guest.root.path().join("tmp/packages")).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| !line.contains("checksum")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    <summary>&lt;b&gt; &amp; &quot;c&quot;</summary>
    <rpm:entry name="any"/>
    <rpm:entry name="old" flags="LT" epoch="0" ver="1.0"/>
    <rpm:entry name="full" flags="GE" epoch="2" ver="1.0" rel="3.el9"/>
    <rpm:entry name="same" flags="EQ" epoch="0" ver="1" rel="2"/>
    <rpm:entry name="(a &gt;= 1 if b)"/>
    <file>/usr/bin/a&amp;b</file>
    <size package="0" installed="0" archive="0"/>
    <location href="a-1-1.noarch.rpm"/>
    </package>
    "#);
    assert_eq!(fs::read_to_string(guest.root.path().join("tmp/names")).unwrap(), "a-1-1.noarch\n");
    assert!(ran.said.starts_with("mark\n<?xml ") && ran.said.ends_with("</repomd>\nmark\n"), "{}", ran.said);
}

#[test]
fn a_debian_package_is_one_paragraph_and_installed_in_its_version() {
    let dpkg = r"case $* in
        --field*) printf 'Package: a\nVersion: 1:2\n\n \n' ;;
        *_*) echo a_1:2_amd64.deb ;;
        *) echo 'a 1:2 amd64' ;;
        esac";
    let guest = Guest::new(&["x.deb"]).with("apt-get", "").with("dpkg-deb", dpkg);
    let ran = make(&guest, PackageFamily::Deb);
    assert_eq!(ran.code, 0, "{}", ran.said);
    assert_eq!(fs::read_to_string(guest.root.path().join("tmp/names")).unwrap(), "a:amd64=1:2\n");
    let listed = fs::read_to_string(guest.root.path().join("repository/Packages")).unwrap();
    assert!(listed.starts_with("Package: a\nVersion: 1:2\nFilename: ./a_1_2_amd64.deb\nSize: 0\nSHA256: "), "{listed}");
}

#[test]
fn a_system_that_cannot_install_by_name_is_told_apart() {
    let guest = Guest::new(&["x.deb"]).with("dpkg-deb", "");
    let ran = make(&guest, PackageFamily::Deb);
    assert_eq!((ran.code, &*ran.said), (1, "E: this system has dpkg, but no apt-get that installs by name\n"));
    let ran = make(&Guest::new(&["x.rpm"]).with("rpm", ""), PackageFamily::Rpm);
    assert_eq!(
        (ran.code, &*ran.said),
        (1, "error: this system has rpm, but no dnf, zypper or yum that installs by name\n")
    );
    let ran = make(&Guest::new(&["x.pkg.tar.zst"]).with("pacman", ""), PackageFamily::Pacman);
    assert_eq!((ran.code, &*ran.said), (1, "error: this system has no repo-add, which makes repositories\n"));
}
