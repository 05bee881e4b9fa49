//! The end of a guest's boot: an SSH server may answer long before, and an image may reboot itself once in between.

use std::time::{Duration, Instant};

use super::quote;
use crate::ssh::{Exec, Session, SshError, Stdin};

const WAIT: &str = include_str!("boot-over.sh");
/// How long a system may go on starting after its SSH server answered, before it is used as it is. Not scaled: what takes longer waits
/// for something that does not come.
pub const STARTING: Duration = Duration::from_secs(60);
/// What asking takes besides, before scaling.
const ASKING: Duration = Duration::from_secs(30);

/// What a guest is up to once its SSH server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterBoot {
    /// Its boot is over.
    Up,
    /// It still starts something after [`STARTING`].
    Slow,
    /// It is about to reboot or to power off.
    Down,
    /// It will, in so long.
    Soon(Duration),
}

/// Waits until the guest's boot is over, at most [`STARTING`] and what asking takes; `speed` is what time limits are multiplied by.
///
/// # Errors
///
/// The connection's, which a guest that goes down closes, or the cancellation.
pub async fn boot_over(session: &Session, speed: f64) -> Result<AfterBoot, SshError> {
    let deadline = Instant::now() + STARTING + ASKING.mul_f64(speed);
    let seconds = STARTING.as_secs().to_string();
    let exit = session.exec(Exec::new(quote::script_with(WAIT, &[&seconds]), Stdin::None, deadline)).await;
    match exit {
        Ok(exit) => Ok(read(&String::from_utf8_lossy(&exit.stdout_tail))),
        Err(SshError::Timeout { .. }) => Ok(AfterBoot::Slow),
        Err(error) => Err(error),
    }
}

/// What it said, on its last line. Who says nothing that can be understood is taken as it is: what can be said for sure is said by what
/// follows.
fn read(said: &str) -> AfterBoot {
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("up");
    match last.split_once(' ') {
        None if last == "slow" => AfterBoot::Slow,
        None if last == "down" => AfterBoot::Down,
        Some(("soon", seconds)) => seconds
            .parse::<i64>()
            .map_or(AfterBoot::Up, |seconds| AfterBoot::Soon(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))),
        _ => AfterBoot::Up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_is_up_to_is_read_from_its_last_line() {
        assert_eq!(read("up\n"), AfterBoot::Up);
        assert_eq!(read("a .bashrc prints\nslow\n"), AfterBoot::Slow);
        assert_eq!(read("down\n"), AfterBoot::Down);
        assert_eq!(read("soon 58\n"), AfterBoot::Soon(Duration::from_secs(58)));
        assert_eq!(read("soon -2\n"), AfterBoot::Soon(Duration::ZERO), "it is due");
        assert_eq!(read("soon or later\n"), AfterBoot::Up);
        assert_eq!(read(""), AfterBoot::Up);
    }

    /// What the script says in a guest with these files, whose `systemctl` says these things in turn, the last one for ever.
    fn said(files: &[(&str, &str)], states: &[&str]) -> AfterBoot {
        use std::{fs, os::unix::fs::PermissionsExt as _};
        let guest = tempfile::tempdir().unwrap();
        let program = |name: &str, text: String| {
            let path = guest.path().join("bin").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        for (file, text) in files {
            let path = guest.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        // A turn is over when the script has waited.
        let turns: String =
            states.iter().enumerate().map(|(turn, state)| format!("{turn}) echo {state} ;;\n")).collect();
        let last = states.last().unwrap_or(&"");
        program("systemctl", format!("read -r turn <\"$guest/turn\"\ncase $turn in\n{turns}*) echo {last} ;;\nesac"));
        program("sleep", "read -r turn <\"$guest/turn\"; echo $((turn + 1)) >\"$guest/turn\"".to_owned());
        program("date", "echo 1000".to_owned());
        program("pgrep", "exec /bin/grep -qE \"$2\" \"$guest/processes\" 2>/dev/null".to_owned());
        program("sed", "exec /bin/sed \"$@\"".to_owned());
        fs::write(guest.path().join("turn"), "0\n").unwrap();
        let script = WAIT.replace("/run/", &format!("{}/run/", guest.path().display()));
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &script, "sh", "5"]).env("PATH", guest.path().join("bin")).env("guest", guest.path());
        let output = shell.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        read(&String::from_utf8_lossy(&output.stdout))
    }

    const SYSTEMD: (&str, &str) = ("run/systemd/system/x", "");

    #[test]
    fn a_system_is_up_when_its_manager_says_so_and_not_when_it_does_not_answer() {
        assert_eq!(said(&[SYSTEMD], &["initializing", "starting", "degraded"]), AfterBoot::Up);
        assert_eq!(said(&[SYSTEMD], &["starting", "", "running"]), AfterBoot::Up);
        assert_eq!(said(&[SYSTEMD], &["starting", ""]), AfterBoot::Slow, "it may be on its way down");
        assert_eq!(said(&[], &[]), AfterBoot::Up, "there is nobody to ask");
    }

    #[test]
    fn a_system_that_goes_down_is_not_up() {
        assert_eq!(said(&[SYSTEMD], &["starting", "stopping"]), AfterBoot::Down);
        assert_eq!(said(&[("run/openrc/rc.stopping", "")], &[]), AfterBoot::Down);
        let scheduled = ("run/systemd/shutdown/scheduled", "USEC=1058000000\nWARN_WALL=1\nMODE=reboot\n");
        assert_eq!(said(&[SYSTEMD, scheduled], &["running"]), AfterBoot::Soon(Duration::from_secs(58)));
    }

    #[test]
    fn a_system_whose_scripts_start_it_is_up_when_they_are_done() {
        for script in [
            "/bin/sh /etc/init.d/rc 2",
            "/bin/sh /etc/init.d/rcS",
            "/bin/bash /etc/rc.d/rc 3",
            "/bin/sh /etc/rc.d/rc.M",
            "sh /etc/rc autoboot",
        ] {
            assert_eq!(said(&[("processes", script)], &[]), AfterBoot::Slow, "{script}");
        }
        for other in [
            "/bin/sh /etc/rc.common start",
            "/bin/sh /etc/init.d/rc.local",
            "/bin/sh /etc/rc.d/rc.sshd",
            "sh -c pgrep -f 'sh /etc/(rc",
        ] {
            assert_eq!(said(&[("processes", other)], &[]), AfterBoot::Up, "{other}");
        }
    }

    #[test]
    fn a_start_that_never_ends_is_not_waited_for_for_ever() {
        assert_eq!(said(&[SYSTEMD], &["starting"]), AfterBoot::Slow);
        assert_eq!(said(&[("run/openrc/rc.starting", "")], &[]), AfterBoot::Slow);
    }
}
