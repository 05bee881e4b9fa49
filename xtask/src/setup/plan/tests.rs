//! The plan for each of many machines.

use super::*;
use crate::setup::facts::AptSource;

/// A machine with a compiler and nothing else.
fn bare(system: &str, codename: &str, apt_qemu: Option<Version>, sources: &[(&str, &str)]) -> Facts {
    Facts {
        root: true,
        user: "ada".into(),
        system: system.into(),
        codename: codename.into(),
        installer: Some(Installer::Apt),
        present: [Item::CCompiler, Item::DpkgDeb, Item::DebianKeyring, Item::SshClient].into(),
        free_subordinate_id: 100_000,
        apt_qemu,
        apt_sources: sources
            .iter()
            .map(|(uri, release)| AptSource {
                uri: (*uri).into(),
                release: (*release).into(),
                component: "main".into(),
            })
            .collect(),
        ..Facts::default()
    }
}

const MIRROR: &str = "http://mirror.example/debian/";

fn bookworm() -> Facts {
    bare(
        "Debian 12",
        "bookworm",
        Some((7, 2)),
        &[("http://vendor.example/apt/debian", "bookworm"), (MIRROR, "bookworm"), (MIRROR, "bookworm-updates")],
    )
}

fn complete(mut facts: Facts) -> Facts {
    facts.present = Item::ALL.into();
    facts.qemu = Some((10, 0));
    facts.foreign_qemu = Some((10, 0));
    facts
}

fn commands(facts: &Facts, purpose: Purpose) -> Vec<String> {
    let plan = plan(facts, purpose);
    assert_eq!(plan.by_hand, None);
    plan.steps.iter().map(ToString::to_string).collect()
}

const INSTALL: &str =
    "env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends";

#[test]
fn a_complete_machine_is_left_alone() {
    for purpose in [Purpose::Run, Purpose::Foreign, Purpose::Test] {
        assert_eq!(plan(&complete(bookworm()), purpose), Plan::default());
    }
    assert_eq!(Plan::default().to_string(), "setup: nothing is missing\n");
}

#[test]
fn debian_12_gets_qemu_from_backports_of_its_own_mirror_and_the_rest_from_the_release() {
    let added = format!(
        "tee {BACKPORTS_FILE} >/dev/null <<'EOF'\nTypes: deb\nURIs: {MIRROR}\nSuites: bookworm-backports\n\
         Components: main\nSigned-By: {DEBIAN_KEYRING}\nEOF"
    );
    let rest = [
        "apt-get update".to_owned(),
        format!("{INSTALL} ovmf mmdebstrap gpg e2fsprogs pkgconf libssl-dev"),
        format!("{INSTALL} -t bookworm-backports qemu-system-x86 qemu-utils"),
    ];
    let mut all = vec![added];
    all.extend(rest.clone());
    assert_eq!(commands(&bookworm(), Purpose::Run), all);
    assert!(plan(&bookworm(), Purpose::Run).note.is_some_and(|note| note.contains("bookworm-backports")));

    // The same before the first `apt-get update`, when apt has no candidate to name.
    assert_eq!(commands(&Facts { apt_qemu: None, ..bookworm() }, Purpose::Run), all);

    // If the suite is in the sources already, nothing is added or printed.
    let mut with_backports = bookworm();
    with_backports.apt_sources.push(AptSource {
        uri: MIRROR.into(),
        release: "bookworm-backports".into(),
        component: "main".into(),
    });
    assert_eq!(commands(&with_backports, Purpose::Run), rest);
    assert_eq!(plan(&with_backports, Purpose::Run).note, None);
}

#[test]
fn an_old_qemu_counts_as_missing_and_its_tools_are_brought_to_the_same_release() {
    let facts = Facts { qemu: Some((7, 2)), ..complete(bookworm()) };
    let plan = plan(&facts, Purpose::Run);
    assert_eq!(plan.missing, [Item::Qemu]);
    assert_eq!(
        plan.steps.last().map(ToString::to_string),
        Some(format!("{INSTALL} -t bookworm-backports qemu-system-x86 qemu-utils qemu-system-arm"))
    );
}

#[test]
fn debian_13_and_ubuntu_24_04_have_a_new_enough_qemu_of_their_own() {
    let mut ubuntu = bare("Ubuntu 24.04", "noble", Some((8, 2)), &[]);
    ubuntu.present.remove(&Item::DebianKeyring);
    let tables = [
        (bare("Debian 13", "trixie", Some((10, 0)), &[]), "ovmf mmdebstrap gpg e2fsprogs pkgconf libssl-dev"),
        (bare("Debian 13", "trixie", None, &[]), "ovmf mmdebstrap gpg e2fsprogs pkgconf libssl-dev"),
        (ubuntu, "ovmf mmdebstrap debian-archive-keyring gpg e2fsprogs pkgconf libssl-dev"),
    ];
    for (facts, rest) in tables {
        let install = format!("{INSTALL} {rest} qemu-system-x86 qemu-utils");
        assert_eq!(commands(&facts, Purpose::Run), ["apt-get update".to_owned(), install]);
    }
}

#[test]
fn a_release_without_any_new_qemu_is_told_so() {
    let plan = plan(&bare("Ubuntu 22.04", "jammy", Some((6, 2)), &[]), Purpose::Run);
    assert!(plan.steps.is_empty());
    assert!(plan.by_hand.is_some_and(|reason| reason.contains("Ubuntu 22.04 is older than 8.2")));
}

#[test]
fn without_a_mirror_of_debian_no_source_is_invented() {
    let only_vendors = bare("Debian 12", "bookworm", Some((7, 2)), &[("http://vendor.example/apt", "bookworm")]);
    let plan = plan(&only_vendors, Purpose::Run);
    assert!(plan.steps.is_empty());
    assert!(plan.by_hand.is_some_and(|reason| reason.contains("add the suite bookworm-backports")));
}

#[test]
fn an_ordinary_user_gets_the_commands_with_sudo_and_ids_of_his_own() {
    let with_sudo = Facts { root: false, sudo: true, ..bare("Debian 13", "trixie", Some((10, 0)), &[]) };
    assert_eq!(
        commands(&with_sudo, Purpose::Run),
        [
            "sudo apt-get update".to_owned(),
            format!(
                "sudo {INSTALL} ovmf mmdebstrap gpg e2fsprogs uidmap pkgconf libssl-dev qemu-system-x86 qemu-utils"
            ),
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ada".to_owned(),
        ]
    );
    let mut only_ids = complete(with_sudo.clone());
    only_ids.present.remove(&Item::SubordinateIds);
    assert_eq!(commands(&only_ids, Purpose::Run).len(), 1);

    // Without sudo the commands are printed, to be run as root.
    let plan = plan(&Facts { sudo: false, ..with_sudo }, Purpose::Run);
    assert_eq!(plan.steps.first().map(ToString::to_string).as_deref(), Some("apt-get update"));
    assert!(plan.by_hand.is_some_and(|reason| reason.contains("run the commands as root")));
}

#[test]
fn only_the_tests_need_an_ssh_server_and_busybox() {
    let mut facts = complete(bookworm());
    facts.present.remove(&Item::SshServer);
    facts.present.remove(&Item::Busybox);
    assert_eq!(plan(&facts, Purpose::Run).missing, []);
    assert_eq!(plan(&facts, Purpose::Test).missing, [Item::SshServer, Item::Busybox]);
}

#[test]
fn guests_of_another_kind_of_cpu_need_an_emulator_of_the_same_release_as_the_other_and_only_they_do() {
    let without = |facts: Facts| {
        let mut facts = complete(facts);
        for item in [Item::ForeignQemu, Item::ForeignUefi, Item::ForeignPrograms] {
            facts.present.remove(&item);
        }
        Facts { foreign_qemu: None, ..facts }
    };
    // apt's candidate for an installed package is that package, whatever its origin; for others, the old one of the release.
    let debian_12 = without(Facts { apt_qemu: Some((10, 0)), apt_foreign_qemu: Some((7, 2)), ..bookworm() });
    assert_eq!(plan(&debian_12, Purpose::Run), Plan::default());
    assert_eq!(
        commands(&debian_12, Purpose::Foreign)[1..],
        [
            "apt-get update".to_owned(),
            format!("{INSTALL} qemu-efi-aarch64 qemu-user-static"),
            format!("{INSTALL} -t bookworm-backports qemu-system-x86 qemu-utils qemu-system-arm"),
        ]
    );
    let debian_13 = without(bare("Debian 13", "trixie", Some((10, 0)), &[]));
    let debian_13 = Facts { apt_foreign_qemu: Some((10, 0)), ..debian_13 };
    for purpose in [Purpose::Foreign, Purpose::Test] {
        let install = format!("{INSTALL} qemu-efi-aarch64 qemu-user-static qemu-system-arm");
        assert_eq!(commands(&debian_13, purpose), ["apt-get update".to_owned(), install]);
    }
}

#[test]
fn other_package_managers_get_a_command_to_check_and_run() {
    let on = |installer| Facts { installer, apt_qemu: None, ..bare("another system", "", None, &[]) };
    let command = |installer| {
        let plan = plan(&on(Some(installer)), Purpose::Run);
        assert!(plan.by_hand.is_some_and(|reason| reason.contains(installer.program())));
        plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        command(Installer::Dnf),
        ["dnf install qemu-system-x86-core qemu-img edk2-ovmf mmdebstrap gnupg2 e2fsprogs perl make"]
    );
    assert_eq!(command(Installer::Brew), ["brew install qemu mmdebstrap gnupg e2fsprogs pkgconf openssl@3"]);
    for installer in [Installer::Pacman, Installer::Zypper] {
        assert!(command(installer)[0].starts_with(installer.program()));
    }
    let nothing = plan(&on(None), Purpose::Run);
    assert!(nothing.steps.is_empty() && nothing.by_hand.is_some());
}

#[test]
fn where_no_package_brings_archives_of_openssl_perl_and_make_are_needed_to_build_it() {
    let missing = |installer, present: &[Item]| {
        let mut facts = Facts { installer, ..complete(bookworm()) };
        for item in [Item::PkgConfig, Item::OpenSsl, Item::Perl, Item::Make] {
            facts.present.remove(&item);
        }
        facts.present.extend(present);
        plan(&facts, Purpose::Run).missing
    };
    for installer in [Some(Installer::Dnf), Some(Installer::Pacman), Some(Installer::Zypper), None] {
        assert_eq!(missing(installer, &[]), [Item::Perl, Item::Make], "{installer:?}");
        assert_eq!(missing(installer, &[Item::Perl, Item::Make]), [], "{installer:?}");
        // Locally built archives: pkg-config finds them as usual.
        assert_eq!(missing(installer, &[Item::OpenSsl]), [Item::PkgConfig], "{installer:?}");
    }
    for installer in [Installer::Apt, Installer::Brew] {
        assert_eq!(missing(Some(installer), &[]), [Item::PkgConfig, Item::OpenSsl], "{installer:?}");
    }
}

#[test]
fn what_people_read_names_each_thing_its_use_and_every_command() {
    let mut facts = Facts { root: false, sudo: false, ..complete(bookworm()) };
    facts.present.remove(&Item::OpenSsl);
    assert_eq!(
        plan(&facts, Purpose::Run).to_string(),
        format!(
            "setup: this machine lacks\n  \
             OpenSSL             its headers and static archives: nestmatrix speaks SSH through it\n\
             these commands install it:\n\
             apt-get update\n\
             {INSTALL} libssl-dev\n\
             setup does not run them itself: this is not root and there is no sudo: run the commands as root\n"
        )
    );
}
