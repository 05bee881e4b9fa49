//! How a guest is brought to rest, in "guests" of each init whose programs only write down what they are asked.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use super::freeze::QUIESCE;

/// A guest in which these folders exist, and programs that go on like this. What its programs were asked, one line each; they find
/// their folder as `$guest`. Nothing of this machine is found by the script.
fn settled(folders: &[&str], programs: &[(&str, &str)]) -> Vec<String> {
    let guest = tempfile::tempdir().unwrap();
    for folder in folders.iter().chain(&["payload", "bin"]) {
        fs::create_dir_all(guest.path().join(folder)).unwrap();
    }
    for (name, then) in programs.iter().chain(&[("sleep", ""), ("sync", ""), ("rm", "")]) {
        let path = guest.path().join("bin").join(name);
        // The first one of a name is the test's own.
        if !path.exists() {
            fs::write(&path, format!("#!/bin/sh\necho \"{name} $*\" >>\"$guest/asked\"\n{then}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let root = guest.path().display().to_string();
    let script = QUIESCE.replace("/run/", &format!("{root}/run/"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).env("PATH", guest.path().join("bin")).env("guest", guest.path());
    let output = shell.env("NESTMATRIX_ROOT", guest.path().join("payload")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let asked = fs::read_to_string(guest.path().join("asked")).unwrap().replace(&root, "GUEST");
    asked.lines().map(str::to_owned).collect()
}

#[test]
fn timers_of_systemd_are_stopped_when_it_is_up() {
    let systemctl = "if [ -e \"$guest/up\" ]; then echo degraded; else echo starting; fi";
    let sleep = ("sleep", ": >\"$guest/up\"");
    let asked = settled(&["run/systemd/system"], &[("systemctl", systemctl), sleep]);
    insta::assert_snapshot!(asked.join("\n"), @r"
    rm -rf GUEST/payload
    systemctl is-system-running
    sleep 1
    systemctl is-system-running
    systemctl stop *.timer
    sync
    ");
}

#[test]
fn openrc_is_waited_for_while_it_changes_the_runlevel() {
    let sleep = "read -r _ 2>/dev/null <\"$guest/once\" && exec /bin/rmdir \"$guest/run/openrc/rc.starting\"; echo x >\"$guest/once\"";
    let asked = settled(&["run/openrc/rc.starting"], &[("sleep", sleep)]);
    insta::assert_snapshot!(asked.join("\n"), @r"
    rm -rf GUEST/payload
    sleep 1
    sleep 1
    sync
    ");
}

#[test]
fn a_guest_whose_start_never_ends_is_not_waited_for_for_ever() {
    let asked = settled(&[], &[("pgrep", "exit 0")]);
    assert_eq!(asked.iter().filter(|line| *line == "sleep 1").count(), 40, "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("sync "), "{asked:?}");
}

#[test]
fn a_guest_with_nothing_that_is_known_is_only_tidied() {
    assert_eq!(settled(&[], &[]), ["rm -rf GUEST/payload", "sync "]);
}
