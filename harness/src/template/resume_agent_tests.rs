//! Where what wakes forks is run from, in a "guest" some of whose folders do not let programs run.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{freeze::RESUME_AGENT, resume_agent};

const FOLDERS: [&str; 7] = ["/var/tmp", "/run", "/var/lib", "/root", "/opt", "/dev/shm", "/tmp"];

/// What the script says, and which folder the program that it started was in, if it did.
fn started(noexec: &str) -> (String, Option<String>) {
    let guest = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(guest.path()).unwrap();
    for folder in FOLDERS.iter().chain(&["/bin", "/dev/virtio-ports", "/run/nestmatrix"]) {
        fs::create_dir_all(format!("{}{folder}", root.display())).unwrap();
    }
    let program = |path: &Path, text: &str| {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let bin = root.join("bin");
    for tool in ["rm", "cat", "mktemp", "readlink", "sleep", "sh"] {
        std::os::unix::fs::symlink(Path::new("/bin").join(tool), bin.join(tool)).unwrap();
    }
    let here = root.display();
    // Without the right to be run, a program cannot be run by root either: the same as on such a mount.
    program(
        &bin.join("chmod"),
        &format!("for d in {noexec}; do case $2 in {here}$d/*) exit; esac; done\nexec /bin/chmod \"$@\""),
    );
    program(&bin.join("modprobe"), "exit 1");
    // The server notes who started it.
    program(
        &root.join("run/nestmatrix/sshd"),
        &format!("/bin/readlink /proc/$PPID/exe >{here}/exe; echo $PPID >{here}/pid; exec /bin/sleep 30"),
    );
    let port = root.join("dev/virtio-ports/port");
    rustix::fs::mknodat(rustix::fs::CWD, &port, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();

    let mut script = RESUME_AGENT.replace("/dev/virtio-ports/", &format!("{here}/dev/virtio-ports/"));
    script = script.replace("/run/nestmatrix/sshd", &format!("{here}/run/nestmatrix/sshd"));
    let list = FOLDERS.join(" ");
    assert!(script.contains(&list));
    script = script.replace(&list, &FOLDERS.map(|folder| format!("{here}{folder}")).join(" "));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script, "sh", "port"]).env_clear().env("PATH", &bin);
    let mut shell = shell.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that does not want it closes it.
    let _ = shell.stdin.take().unwrap().write_all(resume_agent::PROGRAM);
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if !output.status.success() {
        return (said, None);
    }
    let until = Instant::now() + Duration::from_secs(20);
    let pid = loop {
        let pid = fs::read_to_string(root.join("pid")).unwrap_or_default();
        if pid.ends_with('\n') || Instant::now() > until {
            break pid;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exe = fs::read_to_string(root.join("exe")).unwrap();
    let folder = exe.trim().strip_prefix(&here.to_string()).unwrap().rsplit_once('/').unwrap().0.to_owned();
    for folder in FOLDERS {
        let left = fs::read_dir(format!("{here}{folder}")).unwrap().flatten().map(|entry| entry.file_name());
        assert_eq!(left.filter(|name| name != "nestmatrix").count(), 0, "nothing is left in {folder}");
    }
    (said, Some(folder))
}

#[test]
fn what_wakes_forks_runs_from_the_first_folder_that_lets_it() {
    assert_eq!(started(""), (String::new(), Some("/var/tmp".to_owned())));
    assert_eq!(started("/var/tmp /tmp /dev/shm"), (String::new(), Some("/run".to_owned())));
    assert_eq!(started("/var /run /tmp"), (String::new(), Some("/root".to_owned())));
    let (said, folder) = started("''");
    assert_eq!(folder, None);
    assert!(said.contains("are mounted noexec"), "{said}");
}
