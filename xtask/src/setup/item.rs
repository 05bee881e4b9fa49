//! The things a machine needs: their purpose, and their package in each package manager.

/// The purpose of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building nestmatrix and running a matrix.
    Run,
    /// The same, with guests of the other architecture.
    Foreign,
    /// The same, and all tests of the workspace.
    Test,
}

/// One thing a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Qemu,
    QemuImg,
    Uefi,
    ForeignQemu,
    ForeignUefi,
    ForeignPrograms,
    Mmdebstrap,
    DebianKeyring,
    Gpg,
    Mke2fs,
    Newuidmap,
    SubordinateIds,
    CCompiler,
    PkgConfig,
    OpenSsl,
    Perl,
    Make,
    DpkgDeb,
    SshServer,
    Busybox,
    Partitioner,
    Mtools,
    Zstd,
    Swtpm,
    Shells,
    SshClient,
}

/// Login shells that the tests need; programs and packages have the same names everywhere.
pub(super) const SHELLS: [&str; 3] = ["tcsh", "zsh", "fish"];
/// QEMU's names of this machine's own architecture, and of the other one.
pub(super) const OWN: &str = if ON_X86 { "x86_64" } else { "aarch64" };
pub(super) const FOREIGN: &str = if ON_X86 { "aarch64" } else { "x86_64" };
const ON_X86: bool = !cfg!(target_arch = "aarch64");

/// A package manager. Only apt is run; for the others the command is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installer {
    Apt,
    Dnf,
    Pacman,
    Zypper,
    Brew,
}

impl Installer {
    /// In the order of detection: Homebrew may be installed beside a system's own.
    pub(super) const ALL: [Self; 5] = [Self::Apt, Self::Dnf, Self::Pacman, Self::Zypper, Self::Brew];

    /// True if its OpenSSL has static archives; else nestmatrix builds one.
    pub(super) const fn has_static_openssl(self) -> bool {
        matches!(self, Self::Apt | Self::Brew)
    }

    /// The program that identifies it.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
            Self::Zypper => "zypper",
            Self::Brew => "brew",
        }
    }
}

impl Item {
    /// All of them, in display order.
    pub(super) const ALL: [Self; 26] = [
        Self::Qemu,
        Self::QemuImg,
        Self::Uefi,
        Self::ForeignQemu,
        Self::ForeignUefi,
        Self::ForeignPrograms,
        Self::Mmdebstrap,
        Self::DebianKeyring,
        Self::Gpg,
        Self::Mke2fs,
        Self::Newuidmap,
        Self::SubordinateIds,
        Self::CCompiler,
        Self::PkgConfig,
        Self::OpenSsl,
        Self::Perl,
        Self::Make,
        Self::DpkgDeb,
        Self::SshServer,
        Self::Busybox,
        Self::Partitioner,
        Self::Mtools,
        Self::Zstd,
        Self::Swtpm,
        Self::Shells,
        Self::SshClient,
    ];

    /// True if this purpose needs it. Root builds images without `newuidmap`; `vendored`: OpenSSL is built with nestmatrix.
    pub(super) const fn needed(self, purpose: Purpose, root: bool, vendored: bool) -> bool {
        match self {
            Self::Newuidmap | Self::SubordinateIds => !root,
            Self::PkgConfig | Self::OpenSsl => !vendored,
            Self::Perl | Self::Make => vendored,
            Self::SshServer
            | Self::Busybox
            | Self::Partitioner
            | Self::Mtools
            | Self::Zstd
            | Self::Swtpm
            | Self::Shells => {
                matches!(purpose, Purpose::Test)
            }
            Self::ForeignQemu | Self::ForeignUefi | Self::ForeignPrograms => !matches!(purpose, Purpose::Run),
            _ => true,
        }
    }

    /// Its name and purpose, in one line.
    pub(super) const fn about(self) -> (&'static str, &'static str) {
        match self {
            Self::Qemu => (qemu_system(ON_X86), "boots the guests; 8.2 or newer"),
            Self::QemuImg => ("qemu-img", "gives each guest a disk of its own"),
            Self::Uefi => ("UEFI", "starts the boot loaders of disks that have one"),
            Self::ForeignQemu => (qemu_system(!ON_X86), "boots guests of another kind of CPU, emulated; 8.2 or newer"),
            Self::ForeignUefi => ("UEFI for others", "starts the boot loaders of disks for another kind of CPU"),
            Self::ForeignPrograms => ("qemu-user", "runs their programs while a Debian image is built for them"),
            Self::Mmdebstrap => ("mmdebstrap", "builds the Debian images"),
            Self::DebianKeyring => ("Debian's keyring", "verifies the packages of Debian images"),
            Self::Gpg => ("gpg", "lets mmdebstrap choose the right keyring"),
            Self::Mke2fs => ("mke2fs", "makes the file system of an image"),
            Self::Newuidmap => ("newuidmap", "lets an ordinary user build images"),
            Self::SubordinateIds => ("subordinate ids", "the ids newuidmap may hand out (/etc/subuid, /etc/subgid)"),
            Self::CCompiler => ("cc", "compiles C parts of nestmatrix"),
            Self::PkgConfig => ("pkg-config", "finds OpenSSL when nestmatrix is built"),
            Self::OpenSsl => ("OpenSSL", "its headers and static archives: nestmatrix speaks SSH through it"),
            Self::Perl => ("perl", "with its own modules: builds OpenSSL, of which this system has no static archives"),
            Self::Make => ("make", "builds OpenSSL, of which this system has no static archives"),
            Self::DpkgDeb => ("dpkg-deb", "builds the packages of the tests"),
            Self::SshServer => {
                ("sshd", "the tests start a server of their own (Debian's package also starts one on port 22)")
            }
            Self::Busybox => {
                ("busybox", "the tests run what is sent into guests with it: some guests have nothing else")
            }
            Self::Partitioner => ("sfdisk", "the tests make a disk with partitions, as published ones have them"),
            Self::Mtools => ("mtools", "the tests put a boot loader onto that disk"),
            Self::Zstd => ("zstd", "the tests pack that disk, as publishers do"),
            Self::Swtpm => ("swtpm", "the TPM of guests that have one (`guest.tpm`)"),
            Self::Shells => ("tcsh, zsh and fish", "the tests send commands through other login shells than sh"),
            Self::SshClient => ("ssh", "`nestmatrix shell` and kept guests are entered with it"),
        }
    }

    /// Its packages; empty if there is none.
    pub(super) const fn packages(self, installer: Installer) -> &'static [&'static str] {
        use Installer::{Apt, Brew, Dnf, Pacman, Zypper};
        match (self, installer) {
            (Self::Qemu | Self::QemuImg | Self::Uefi | Self::ForeignQemu | Self::ForeignUefi, Brew) => &["qemu"],
            (Self::Qemu, _) => emulator(ON_X86, installer),
            (Self::ForeignQemu, _) => emulator(!ON_X86, installer),
            (Self::Uefi, _) => uefi(ON_X86, installer),
            (Self::ForeignUefi, _) => uefi(!ON_X86, installer),
            (Self::ForeignPrograms, Apt | Dnf | Pacman) => &["qemu-user-static"],
            (Self::ForeignPrograms, Zypper) => &["qemu-linux-user"],
            (Self::ForeignPrograms, Brew) => &[],
            (Self::QemuImg, Apt) => &["qemu-utils"],
            (Self::QemuImg, Dnf | Pacman | Zypper) => &["qemu-img"],
            (Self::Mmdebstrap, _) => &["mmdebstrap"],
            (Self::DebianKeyring, Dnf) => &["debian-keyring"],
            (Self::DebianKeyring, _) => &["debian-archive-keyring"],
            (Self::Gpg, Apt) => &["gpg"],
            (Self::Gpg, Dnf) => &["gnupg2"],
            (Self::Gpg, Zypper) => &["gpg2"],
            (Self::Gpg, Pacman | Brew) => &["gnupg"],
            (Self::Mke2fs, _) => &["e2fsprogs"],
            (Self::Newuidmap, Apt) => &["uidmap"],
            (Self::Newuidmap, Dnf) => &["shadow-utils"],
            (Self::Newuidmap, Pacman | Zypper) => &["shadow"],
            (Self::Newuidmap, Brew) | (Self::SubordinateIds, _) => &[],
            (Self::CCompiler, Apt) => &["gcc", "libc6-dev"],
            (Self::CCompiler, Dnf) => &["gcc", "glibc-static"],
            (Self::CCompiler, Zypper) => &["gcc", "glibc-devel-static"],
            (Self::CCompiler, Pacman | Brew) => &["gcc"],
            (Self::PkgConfig, Apt | Brew) => &["pkgconf"],
            (Self::PkgConfig, Dnf | Zypper) => &["pkgconf-pkg-config"],
            (Self::PkgConfig, Pacman) => &["pkgconf"],
            (Self::OpenSsl, Apt) => &["libssl-dev"],
            (Self::OpenSsl, Brew) => &["openssl@3"],
            // They have it without archives, which does not help.
            (Self::OpenSsl, Dnf | Pacman | Zypper) => &[],
            (Self::Perl, _) => &["perl"],
            (Self::Make, _) => &["make"],
            (Self::DpkgDeb, _) => &["dpkg"],
            // Homebrew has none; the affected tests report it.
            (Self::Busybox, Brew) => &[],
            (Self::Busybox, _) => &["busybox"],
            (Self::Partitioner, Apt) => &["fdisk"],
            (Self::Partitioner, Dnf | Pacman | Zypper) => &["util-linux"],
            (Self::Partitioner, Brew) => &[],
            (Self::Mtools, _) => &["mtools"],
            (Self::Zstd, _) => &["zstd"],
            (Self::Swtpm, _) => &["swtpm"],
            (Self::Shells, _) => &SHELLS,
            (Self::SshServer, Apt | Dnf) => &["openssh-server"],
            (Self::SshClient, Apt) => &["openssh-client"],
            (Self::SshClient, Dnf) => &["openssh-clients"],
            (Self::SshServer | Self::SshClient, Pacman | Zypper | Brew) => &["openssh"],
        }
    }
}

const fn qemu_system(x86: bool) -> &'static str {
    if x86 { "qemu-system-x86_64" } else { "qemu-system-aarch64" }
}

/// The emulator's package for an architecture; Homebrew has all in one.
const fn emulator(x86: bool, installer: Installer) -> &'static [&'static str] {
    match (x86, installer) {
        (true, Installer::Apt | Installer::Pacman) => &["qemu-system-x86"],
        (true, Installer::Dnf) => &["qemu-system-x86-core"],
        (true, Installer::Zypper) => &["qemu-x86"],
        (false, Installer::Apt) => &["qemu-system-arm"],
        (false, Installer::Dnf) => &["qemu-system-aarch64-core"],
        (false, Installer::Pacman) => &["qemu-system-aarch64"],
        (false, Installer::Zypper) => &["qemu-arm"],
        (_, Installer::Brew) => &["qemu"],
    }
}

/// The UEFI package for guests of an architecture; Homebrew's QEMU has it.
const fn uefi(x86: bool, installer: Installer) -> &'static [&'static str] {
    match (x86, installer) {
        (true, Installer::Apt) => &["ovmf"],
        (false, Installer::Apt) => &["qemu-efi-aarch64"],
        (true, Installer::Dnf | Installer::Pacman) => &["edk2-ovmf"],
        (false, Installer::Dnf | Installer::Pacman) => &["edk2-aarch64"],
        (true, Installer::Zypper) => &["qemu-ovmf-x86_64"],
        (false, Installer::Zypper) => &["qemu-uefi-aarch64"],
        (_, Installer::Brew) => &["qemu"],
    }
}
