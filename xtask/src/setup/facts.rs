//! Facts about this machine. Read-only.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::item::{FOREIGN, Installer, Item, OWN, SHELLS};
use crate::{command::output, openssl};

/// Major and minor version.
pub(super) type Version = (u32, u32);

/// Facts about this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// We are root.
    pub(super) root: bool,
    /// `sudo` is installed.
    pub(super) sudo: bool,
    /// Our user name.
    pub(super) user: String,
    /// `PRETTY_NAME` of os-release.
    pub(super) system: String,
    /// `VERSION_CODENAME` of os-release, for example `bookworm`; may be empty.
    pub(super) codename: String,
    /// The package manager, if we know it.
    pub(super) installer: Option<Installer>,
    /// Version of the installed QEMU for this machine's own architecture.
    pub(super) qemu: Option<Version>,
    /// The same for the other architecture.
    pub(super) foreign_qemu: Option<Version>,
    /// Installed items; QEMU in any version.
    pub(super) present: BTreeSet<Item>,
    /// The first id above every range in /etc/subuid and /etc/subgid.
    pub(super) free_subordinate_id: u32,
    /// Version of QEMU that a plain `apt-get install` would install; `None`: unknown (yet) to apt.
    pub(super) apt_qemu: Option<Version>,
    /// The same for the other architecture.
    pub(super) apt_foreign_qemu: Option<Version>,
    /// The repositories in apt's sources, one per component.
    pub(super) apt_sources: Vec<AptSource>,
}

/// One repository of apt, in any of its file formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AptSource {
    pub(super) uri: String,
    pub(super) release: String,
    pub(super) component: String,
}

/// Debian's own keys, where apt and mmdebstrap look for them.
pub(super) const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Facts {
    /// Inspects this machine.
    pub(super) fn of_this_machine() -> Self {
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let installer = Installer::ALL.into_iter().find(|installer| on_path(installer.program()));
        let apt = installer == Some(Installer::Apt);
        let user = output(&["id", "-un"]).unwrap_or_default().trim().to_owned();
        let subuid = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let subgid = fs::read_to_string("/etc/subgid").unwrap_or_default();
        let present = Item::ALL.into_iter().filter(|item| match item {
            Item::SubordinateIds => has_range(&subuid, &user) && has_range(&subgid, &user),
            item => is_present(*item),
        });
        Self {
            root: output(&["id", "-u"]).is_some_and(|id| id.trim() == "0"),
            sudo: on_path("sudo"),
            system: os_release_value(&os_release, "PRETTY_NAME").unwrap_or("this system").to_owned(),
            codename: os_release_value(&os_release, "VERSION_CODENAME").unwrap_or_default().to_owned(),
            installer,
            qemu: installed(OWN),
            foreign_qemu: installed(FOREIGN),
            present: present.collect(),
            free_subordinate_id: free_subordinate_id(&[&subuid, &subgid]),
            apt_qemu: apt.then(|| available(Item::Qemu)).flatten(),
            apt_foreign_qemu: apt.then(|| available(Item::ForeignQemu)).flatten(),
            apt_sources: apt.then(|| output(&INDEX_TARGETS)).flatten().as_deref().map(apt_sources).unwrap_or_default(),
            user,
        }
    }
}

/// apt itself reads its sources, in all their formats. Without release information, so that it also works before the first
/// `apt-get update`.
const INDEX_TARGETS: [&str; 6] = [
    "apt-get",
    "indextargets",
    "--no-release-info",
    "--format",
    "$(REPO_URI) $(RELEASE) $(COMPONENT)",
    "Created-By: Packages",
];

/// Perl, if it has the modules that OpenSSL's configuration and build use.
const PERL: [&str; 8] =
    ["perl", "-MFile::Compare", "-MFile::Copy", "-MFindBin", "-MIPC::Cmd", "-MTime::Piece", "-e", "1"];

fn is_present(item: Item) -> bool {
    match item {
        Item::Qemu | Item::ForeignQemu => on_path(item.about().0),
        Item::Uefi => has_uefi(OWN),
        Item::ForeignUefi => has_uefi(FOREIGN),
        // Newer distributions leave out the suffix.
        Item::ForeignPrograms => ["-static", ""].iter().any(|end| on_path(&format!("qemu-{FOREIGN}{end}"))),
        Item::QemuImg => on_path("qemu-img"),
        Item::Mmdebstrap => on_path("mmdebstrap"),
        Item::DebianKeyring => Path::new(DEBIAN_KEYRING).exists(),
        Item::Gpg => on_path("gpg"),
        Item::Mke2fs => on_path("mke2fs"),
        Item::Newuidmap => on_path("newuidmap") && on_path("newgidmap"),
        Item::SubordinateIds => false,
        Item::CCompiler => on_path("cc"),
        Item::PkgConfig => openssl::is_elsewhere() || on_path("pkg-config") || on_path("pkgconf"),
        Item::OpenSsl => openssl::is_there(),
        // Fedora's bare interpreter comes without most of Perl's own modules.
        Item::Perl => output(&PERL).is_some(),
        Item::Make => on_path("make"),
        Item::DpkgDeb => on_path("dpkg-deb"),
        Item::SshServer => on_path("sshd"),
        Item::Busybox => on_path("busybox"),
        Item::Partitioner => on_path("sfdisk"),
        Item::Mtools => on_path("mformat"),
        Item::Zstd => on_path("zstd"),
        Item::Swtpm => on_path("swtpm"),
        Item::Shells => SHELLS.into_iter().all(on_path),
        Item::SshClient => on_path("ssh") && on_path("ssh-keygen"),
    }
}

/// Debian keeps mke2fs and sshd out of an ordinary user's PATH, so the system's own folders are searched as well.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| {
        let file = folder.join(program);
        fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

fn installed(arch: &str) -> Option<Version> {
    qemu_version(&output(&[&format!("qemu-system-{arch}"), "--version"])?)
}

/// The version that apt would install.
fn available(item: Item) -> Option<Version> {
    candidate(&output(&["apt-cache", "policy", item.packages(Installer::Apt).first()?])?)
}

/// True if a firmware description for QEMU names this architecture (QEMU docs: interop/firmware.json).
fn has_uefi(arch: &str) -> bool {
    ["/etc/qemu/firmware", "/usr/share/qemu/firmware"].iter().flat_map(fs::read_dir).flatten().flatten().any(|file| {
        fs::read_to_string(file.path()).is_ok_and(|text| text.contains(&format!("\"architecture\": \"{arch}\"")))
    })
}

fn os_release_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']))
}

fn qemu_version(text: &str) -> Option<Version> {
    version(text.split_once("version ")?.1)
}

/// The candidate in what `apt-cache policy` prints.
fn candidate(text: &str) -> Option<Version> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    version(value.split_once(':').map_or(value, |(_epoch, rest)| rest))
}

fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn apt_sources(text: &str) -> Vec<AptSource> {
    let source = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some(AptSource { uri: words.next()?, release: words.next()?, component: words.next()? })
    };
    text.lines().filter_map(source).collect()
}

/// True if /etc/subuid (or subgid) gives this user the 65,536 ids a Debian system needs.
fn has_range(text: &str, user: &str) -> bool {
    ranges(text).any(|(name, _, count)| name == user && count >= 65_536)
}

fn free_subordinate_id(texts: &[&str]) -> u32 {
    let ends = texts.iter().flat_map(|text| ranges(text)).map(|(_, start, count)| start.saturating_add(count));
    ends.max().unwrap_or(0).max(100_000)
}

fn ranges(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some((fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_tools_print() {
        assert_eq!(qemu_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some((10, 0)));
        assert_eq!(qemu_version("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)"), Some((8, 2)));
        assert_eq!(qemu_version("something else"), None);
        assert_eq!(candidate("qemu-system-x86:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7\n"), Some((7, 2)));
        assert_eq!(candidate("qemu-system-x86:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn every_repository_that_apt_names_is_one_source() {
        let text = "http://m.example/debian/ bookworm main\nhttp://m.example/debian/ bookworm-backports contrib\n\n";
        let source = |release: &str, component: &str| AptSource {
            uri: "http://m.example/debian/".into(),
            release: release.into(),
            component: component.into(),
        };
        assert_eq!(apt_sources(text), [source("bookworm", "main"), source("bookworm-backports", "contrib")]);
    }

    #[test]
    fn quotes_around_os_release_values_are_not_part_of_them() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(os_release_value(text, "PRETTY_NAME"), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(os_release_value(text, "VERSION_CODENAME"), Some("bookworm"));
        assert_eq!(os_release_value(text, "VERSION"), None);
    }

    #[test]
    fn subordinate_ids_never_overlap_those_of_another_user() {
        let text = "ada:100000:65536\nbob:165536:65536\nnonsense\n";
        assert!(has_range(text, "ada"));
        assert!(!has_range(text, "eve"));
        assert!(!has_range("eve:100000:10\n", "eve"));
        assert_eq!(free_subordinate_id(&[text, "bob:300000:65536\n"]), 365_536);
        assert_eq!(free_subordinate_id(&[""]), 100_000);
    }
}
