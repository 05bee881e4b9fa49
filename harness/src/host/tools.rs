//! The programs we call: where they are and whether they are new enough.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use matrix::Arch;

/// The oldest QEMU that does all we need: 8.2 has `file:` migration and the templating that is built on it (QEMU docs:
/// vm-templating); it is also what the oldest supported Ubuntu ships.
const OLDEST: Version = Version { major: 8, minor: 2 };

/// A program is missing or unfit. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Not in `PATH`.
    #[error("`{0}` is not installed: run `cargo xtask setup`")]
    Missing(&'static str),
    /// There is no emulator of another kind of CPU in `PATH`.
    #[error(
        "`{program}`, which runs {0} guests here, is not installed: run `cargo xtask setup --arch {0}`, or install `{package}`",
        program = emulator(*.0), package = package(*.0)
    )]
    NoEmulator(Arch),
    /// It does not say its version.
    #[error("`{program} --version` does not say a version: {words}")]
    NoVersion {
        /// The program.
        program: PathBuf,
        /// What it said.
        words: String,
    },
    /// Too old.
    #[error("{program} is version {found}, but at least {OLDEST} is needed: run `cargo xtask setup`")]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// What runs guests of this kind.
const fn emulator(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86_64",
        Arch::Aarch64 => "qemu-system-aarch64",
    }
}

/// What that comes in on Debian and Ubuntu.
const fn package(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86",
        Arch::Aarch64 => "qemu-system-arm",
    }
}

/// A version of QEMU; patch releases do not matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// QEMU as it is installed here, for guests of one kind.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The kind of their CPU.
    arch: Arch,
    /// The emulator.
    pub system: PathBuf,
    /// The disk tool.
    pub img: PathBuf,
    /// What `--version` says, for reports: for example `10.0.2`.
    pub words: String,
    /// The whole line, with the distribution's own number.
    pub line: String,
    /// The same as a value.
    pub version: Version,
}

impl Qemu {
    /// Finds that for guests of this machine's own kind, and asks for its version.
    pub async fn find() -> Result<Self, ToolError> {
        Self::of(Arch::here()).await
    }

    /// Finds that for guests of this kind, and asks for its version.
    pub async fn of(arch: Arch) -> Result<Self, ToolError> {
        let program = emulator(arch);
        let missing = if arch == Arch::here() { ToolError::Missing(program) } else { ToolError::NoEmulator(arch) };
        let system = find(program).ok_or(missing)?;
        let img = find("qemu-img").ok_or(ToolError::Missing("qemu-img"))?;
        let text = first_line(&system).await;
        let (words, version) = parse_version(&text)
            .ok_or_else(|| ToolError::NoVersion { program: system.clone(), words: text.clone() })?;
        if version < OLDEST {
            return Err(ToolError::TooOld { program: system, found: version });
        }
        Ok(Self { arch, system, img, words, line: text, version })
    }

    /// One that nobody starts.
    #[cfg(test)]
    pub fn unused() -> Self {
        let (words, line) = (OLDEST.to_string(), String::new());
        Self { arch: Arch::here(), system: PathBuf::new(), img: PathBuf::new(), words, line, version: OLDEST }
    }

    /// The kind of guests it is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The machine type of this version: what a guest sees stays the same when QEMU is replaced while we run.
    pub fn machine(&self) -> String {
        machine(self.arch, self.version)
    }
}

fn machine(arch: Arch, version: Version) -> String {
    match arch {
        Arch::X86_64 => format!("pc-q35-{version}"),
        Arch::Aarch64 => format!("virt-{version}"),
    }
}

/// Why a QEMU that says this of its version is not new enough; `None`: it is.
pub fn too_old(line: &str) -> Option<String> {
    match parse_version(line) {
        Some((_, version)) if version >= OLDEST => None,
        Some((_, version)) => Some(format!("is version {version}, but at least {OLDEST} is needed")),
        None => Some(format!("does not say a version with `--version`, but: {line}")),
    }
}

/// Looks a program up in `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    // Administration tools are not in an ordinary user's PATH on Debian.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

async fn first_line(program: &Path) -> String {
    let child = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(Duration::from_secs(20), child).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer within 20 s".to_owned(),
    }
}

/// `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)` -> `10.0.2` and 10.0.
fn parse_version(line: &str) -> Option<(String, Version)> {
    let words = line.split_whitespace().skip_while(|word| *word != "version").nth(1)?;
    let mut numbers = words.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((words.to_owned(), Version { major, minor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_distributions_print() {
        let version = |line| parse_version(line).map(|(words, version)| (words, version.to_string()));
        let expect = |words: &str, version: &str| Some((words.to_owned(), version.to_owned()));
        assert_eq!(version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), expect("10.0.2", "10.0"));
        assert_eq!(version("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)"), expect("8.2.2", "8.2"));
        assert_eq!(version("command not found"), None);
        assert_eq!(too_old("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)"), None);
        assert!(too_old("QEMU emulator version 7.2.9 (Debian)").unwrap().contains("7.2, but at least 8.2"));
        assert!(too_old("").is_some());
    }

    #[test]
    fn the_machine_is_that_of_the_guests_kind_and_of_this_version() {
        let (_, version) = parse_version("QEMU emulator version 10.0.2").unwrap();
        assert_eq!(machine(Arch::X86_64, version), "pc-q35-10.0");
        assert_eq!(machine(Arch::Aarch64, version), "virt-10.0");
    }

    #[test]
    fn an_emulator_that_is_missing_is_named_with_what_brings_it() {
        insta::assert_snapshot!(
            ToolError::NoEmulator(Arch::Aarch64),
            @"`qemu-system-aarch64`, which runs aarch64 guests here, is not installed: run `cargo xtask setup --arch aarch64`, or install `qemu-system-arm`"
        );
        insta::assert_snapshot!(
            ToolError::NoEmulator(Arch::X86_64),
            @"`qemu-system-x86_64`, which runs x86_64 guests here, is not installed: run `cargo xtask setup --arch x86_64`, or install `qemu-system-x86`"
        );
    }

    #[test]
    fn a_qemu_before_8_2_is_too_old() {
        let at = |line| parse_version(line).unwrap().1;
        assert!(at("QEMU emulator version 7.2.19") < OLDEST);
        assert!(at("QEMU emulator version 8.2.0") >= OLDEST);
        assert!(at("QEMU emulator version 10.0.2") >= OLDEST);
    }
}
