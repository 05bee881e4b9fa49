//! What a machine says of itself when one logs in: read with suspicion, and judged. Pure.

use std::collections::HashMap;

use matrix::{Arch, ByteSize};
use reports::{Phase, Trouble, TroubleKind, clean};

use crate::host;

/// Run there at the beginning of a connection.
pub(super) const SCRIPT: &str = include_str!("probe.sh");
const BEGIN: &str = "nestmatrix-probe-begin\n";
const END: &str = "nestmatrix-probe-end\n";
/// Longest answer, whatever the shell's start files print before it.
pub(super) const LONGEST: usize = 256 << 10;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `Linux`.
    pub(crate) system: String,
    /// `x86_64`.
    pub(crate) arch: String,
    /// Who is logged in.
    pub(crate) user: String,
    /// The folder for all that runs of this user share.
    pub(crate) root: String,
    /// It can be written to; else why not.
    pub(crate) writable: Result<(), String>,
    /// Room below it; `None`: not known.
    pub(crate) free: Option<ByteSize>,
    /// The agent's program is there.
    pub(crate) has_program: bool,
    /// `sha256sum` is.
    pub(crate) has_sha256sum: bool,
    /// `qemu-img` is.
    pub(crate) has_qemu_img: bool,
    /// `swtpm` is.
    pub(crate) has_swtpm: bool,
    /// The first line of QEMU's `--version`.
    pub(crate) qemu: Option<String>,
    /// What can be done with `/dev/kvm`.
    pub(crate) kvm: Kvm,
    /// It is a virtual machine itself.
    pub(crate) is_virtual: bool,
    /// Runs that have a folder there, alive or dead.
    pub(crate) runs: u32,
}

/// Access to `/dev/kvm`. That it opens is no proof that guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kvm {
    /// It can be opened.
    Opens,
    /// There is none.
    Missing,
    /// This user may not.
    Denied,
}

/// Whether all of the answer is there.
pub(super) fn is_whole(text: &str) -> bool {
    text.find(BEGIN).is_some_and(|begin| text[begin..].contains(END))
}

/// Reads the answer; the error is for people.
pub(super) fn read(text: &str) -> Result<Found, String> {
    let answer = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(answer, _)| answer);
    let answer = answer.ok_or_else(|| format!("its shell answered with: {}", clean::line(&last(text))))?;
    let mut said = HashMap::new();
    for line in answer.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        if said.insert(key, clean::line(value.trim())).is_some() {
            return Err(format!("it said `{}` twice", clean::line(key)));
        }
    }
    let text = |key: &str| said.get(key).cloned().ok_or_else(|| format!("it did not say `{key}`"));
    let yes = |key: &str| Ok::<_, String>(!["", "no"].contains(&text(key)?.as_str()));
    let writable = text("writable")?;
    let root = text("root")?;
    if !root.starts_with('/') {
        return Err(format!("its cache folder `{root}` is not absolute: is HOME or XDG_CACHE_HOME set wrongly there?"));
    }
    Ok(Found {
        system: text("system")?,
        arch: text("arch")?,
        user: text("user")?,
        root,
        writable: if writable == "yes" { Ok(()) } else { Err(writable.trim_start_matches("no ").to_owned()) },
        free: text("free-kib")?.parse::<u64>().ok().map(|kib| ByteSize::from_bytes(kib.saturating_mul(1024))),
        has_program: yes("program")?,
        has_sha256sum: yes("sha256sum")?,
        has_qemu_img: yes("qemu-img")?,
        has_swtpm: yes("swtpm")?,
        qemu: if yes("qemu")? { Some(text("qemu-version")?) } else { None },
        kvm: match text("kvm")?.as_str() {
            "opens" => Kvm::Opens,
            "denied" => Kvm::Denied,
            _ => Kvm::Missing,
        },
        is_virtual: yes("virtual")?,
        runs: text("runs")?.parse().map_err(|_| "it did not say how many runs it has".to_owned())?,
    })
}

fn last(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").chars().take(200).collect()
}

impl Found {
    /// What makes it of no use, each with what helps.
    pub(crate) fn lacks(&self) -> Vec<(&'static str, String, String)> {
        let mut lacks = Vec::new();
        let mut lack = |what, why: String, help: String| lacks.push((what, why, help));
        let ours = Arch::here().to_string();
        if self.system != "Linux" || self.arch != ours {
            let why =
                format!("it is a machine of {} on {}, and this program is for Linux on {ours}", self.system, self.arch);
            lack("machine", why, format!("name a machine with Linux on {ours}"));
        }
        if let Err(why) = &self.writable {
            let why = format!("{} cannot be written to by {}: {why}", self.root, self.user);
            lack("store", why, "make room or give the rights there, or set XDG_CACHE_HOME for that user".to_owned());
        }
        if self.qemu.is_none() {
            let why = format!("it has no `qemu-system-{}`", self.arch);
            lack("QEMU", why, "install it there: `sudo apt-get install qemu-system-x86 qemu-utils`".to_owned());
        } else if let Some(why) = self.qemu.as_deref().and_then(host::too_old) {
            let help = "install a newer one there (Debian: from the backports suite)".to_owned();
            lack("QEMU", format!("its `qemu-system-{}` {why}", self.arch), help);
        } else if !self.has_qemu_img {
            lack("qemu-img", "it has no `qemu-img`".to_owned(), "install it there: package `qemu-utils`".to_owned());
        }
        if !self.has_sha256sum {
            lack("sha256sum", "it has no `sha256sum`".to_owned(), "install it there: package `coreutils`".to_owned());
        }
        lacks
    }

    /// Whether guests could run there.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        match self.lacks().into_iter().next() {
            None => Ok(()),
            Some((_, why, help)) => Err(Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, why).with_help(help)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(change: &[(&str, &str)]) -> String {
        let lines = [
            ("system", "Linux"),
            ("arch", Arch::here().name()),
            ("user", "me"),
            ("root", "/home/me/.cache/nestmatrix/runner"),
            ("writable", "yes"),
            ("free-kib", "1024"),
            ("program", "no"),
            ("sha256sum", "/usr/bin/sha256sum"),
            ("qemu-img", "/usr/bin/qemu-img"),
            ("swtpm", ""),
            ("qemu", "/usr/bin/qemu-system-x86_64"),
            ("qemu-version", "QEMU emulator version 10.0.2"),
            ("kvm", "opens"),
            ("virtual", "no"),
            ("runs", "0"),
        ];
        let value = |key: &str, value: &str| {
            change.iter().find(|(changed, _)| *changed == key).map_or(value, |(_, value)| value).to_owned()
        };
        let lines: String = lines.iter().map(|(key, usual)| format!("{key} {}\n", value(key, usual))).collect();
        format!("Welcome!\nkvm denied\n{BEGIN}{lines}{END}")
    }

    #[test]
    fn what_the_start_files_of_a_shell_print_is_no_part_of_the_answer() {
        let found = read(&answer(&[])).unwrap();
        assert_eq!((found.kvm, found.free), (Kvm::Opens, Some(ByteSize::from_mib(1))));
        found.check().unwrap();
    }

    #[test]
    fn each_thing_a_machine_lacks_is_said_with_what_helps() {
        for (change, words, help) in [
            (("system", "Darwin"), "Darwin", "Linux"),
            (("arch", "riscv64"), "riscv64", "Linux"),
            (("writable", "no Read-only file system"), "Read-only file system", "XDG_CACHE_HOME"),
            (("qemu", ""), "qemu-system", "install"),
            (("qemu-version", "QEMU emulator version 7.2.9"), "7.2, but at least 8.2", "newer"),
            (("qemu-version", "cannot execute"), "does not say a version", "newer"),
            (("qemu-img", ""), "qemu-img", "qemu-utils"),
            (("sha256sum", ""), "sha256sum", "coreutils"),
        ] {
            let trouble = read(&answer(&[change])).unwrap().check().unwrap_err();
            assert_eq!(trouble.kind, TroubleKind::RunnerUnusable);
            assert!(trouble.reason.contains(words), "{}", trouble.reason);
            assert!(trouble.help.as_deref().is_some_and(|text| text.contains(help)), "{:?}", trouble.help);
        }
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_with_what_was_said() {
        assert!(read("This account is currently not available.\n").unwrap_err().contains("not available"));
        assert!(read("").unwrap_err().contains("nothing"));
        let doubled = answer(&[]).replace("kvm opens", "kvm opens\nkvm opens");
        assert!(read(&doubled).unwrap_err().contains("twice"));
        assert!(read(&answer(&[]).replace("runs 0\n", "")).unwrap_err().contains("`runs`"));
        assert!(read(&answer(&[("root", ".cache")])).unwrap_err().contains("not absolute"));
        assert!(read(&answer(&[("runs", "many")])).is_err());
        let bell = read(&answer(&[("user", "me\u{1b}[2J\u{7}")])).unwrap();
        assert!(!bell.user.contains('\u{1b}') && !bell.user.contains('\u{7}'), "{:?}", bell.user);
        assert_eq!(read(&answer(&[("free-kib", "")])).unwrap().free, None);
    }

    #[test]
    fn the_script_answers_in_any_posix_shell() {
        use std::{io::Write as _, process};
        let cache = tempfile::tempdir().unwrap();
        let mut child = process::Command::new("sh")
            .args(["-s", "abc"])
            .env("XDG_CACHE_HOME", cache.path())
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(SCRIPT.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(is_whole(&text));
        let found = read(&text).unwrap();
        assert_eq!((found.system.as_str(), found.arch.as_str()), ("Linux", Arch::here().name()));
        assert!(found.writable.is_ok() && found.free.is_some() && !found.has_program, "{found:?}");
        assert!(cache.path().join("nestmatrix/runner/programs").is_dir());
    }
}
