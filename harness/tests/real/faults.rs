//! When the machine below the test fails: the right phase, tried again where that can help, and nothing left behind.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{lab::Lab, rootfs::alpine};

const BROKEN: &str = r#"
[runner]
retries = 1

[timeout]
boot = "8s"

[[image]]
name = "panics"
from = "debian-12-minimal"
kernel_args = "init=/bin/false"

[[image]]
name = "hangs"
from = "debian-12-minimal"
kernel_args = "init=/bin/cat"

[[image]]
name = "no-sshd"
from = "debian-12-minimal"
kernel_args = "systemd.mask=ssh.service systemd.mask=ssh.socket"

[[suite]]
name = "smoke"
inline = "true"
"#;

#[test]
fn a_guest_that_does_not_come_up_is_an_error_of_phase_boot_and_is_tried_again() {
    let lab = Lab::open();
    let run = lab.run(BROKEN, "out", &[]);
    run.assert_code(3);
    for image in ["panics", "hangs", "no-sshd"] {
        let id = format!("{image}.smoke");
        assert_eq!(run.verdict(&id), "error(boot)", "{}", run.stderr);
        let attempts = run.cell(&id)["attempts"].as_array().unwrap().len();
        assert_eq!(attempts, 2, "one retry, on a fresh guest, and both are visible");
        assert!(run.file(&format!("cells/{id}/attempt-2/console.log")).contains("Linux version"), "{id}");
    }
    assert!(run.reason("panics.smoke").contains("panicked: Attempted to kill init"), "{}", run.reason("panics.smoke"));
    assert!(run.stderr.contains("Attempted to kill init"), "and so is it on the terminal: {}", run.stderr);
    assert!(run.reason("hangs.smoke").contains("no SSH server answered"), "{}", run.reason("hangs.smoke"));
    // A panic is known when it happens, not when the time is up.
    let boot = |id: &str| run.cell(id)["attempts"][0]["phases"][1]["elapsed_ms"].as_u64().unwrap();
    let limit = run.cell("panics.smoke")["attempts"][0]["phases"][1]["timeout_ms"].as_u64().unwrap();
    assert!(boot("panics.smoke") < limit && boot("hangs.smoke") >= limit, "limit {limit} ms");
    crate::endings::assert_counts_agree(&run);
    lab.assert_nothing_left();
}

/// One cell; no guest is up sooner than its.
fn long() -> String {
    alpine() + "[[suite]]\nname = 'long'\ninline = 'echo running; sleep 60'\n"
}

/// The same with a suite that ends at once.
fn short() -> String {
    long().replace("sleep 60", "true")
}

fn pid_of_guest(event: &str) -> i32 {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    event["guest"]["pid"].as_i64().unwrap() as i32
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn qemu_killed_while_booting_is_tried_again_and_the_cell_still_gets_its_verdict() {
    let lab = Lab::open();
    let child = lab.start(&short(), "out", &[]);
    let guest = lab.wait_for_event("out", "guest-started");
    kill(pid_of_guest(&guest) as u32, "-KILL");
    let run = lab.finish(child, "out");
    run.assert_code(0);
    let cell = run.cell("alpine.long");
    assert_eq!(cell["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(cell["attempts"][0]["outcome"]["verdict"], "error");
    assert!(run.file("junit.xml").contains("attempt 1"), "a retry is visible in every report");
    lab.assert_nothing_left();
}

#[test]
fn after_kill_9_of_nestmatrix_its_guests_are_gone_and_the_next_start_cleans_up() {
    let lab = Lab::forking();
    for keep in ["never", "failed"] {
        let out = format!("killed-{keep}");
        let mut child = lab.start(&long(), &out, &["--keep", keep]);
        lab.wait_for_event(&out, "test-started");
        kill(child.id(), "-KILL");
        child.wait().unwrap();
        if keep == "never" {
            // The kernel ends them; it is not instant.
            for _ in 0..100 {
                if lab.guests().is_empty() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            assert!(lab.guests().is_empty(), "guests die with their run");
        }
        let report = lab.nestmatrix().arg("report").arg(lab.path(&out)).output().unwrap();
        assert_eq!(report.status.code(), Some(3), "what was on record is reported: {report:?}");
        let record = fs::read_to_string(lab.path(&out).join("run.json")).unwrap();
        assert!(record.contains("not-run"), "{record}");

        let next = lab.run(&short(), &format!("next-{keep}"), &[]);
        next.assert_code(0);
        assert!(next.stderr.contains("dead run"), "it says what it removed: {}", next.stderr);
        lab.assert_nothing_left();
    }
}

#[test]
fn two_runs_at_once_share_one_store() {
    let lab = Lab::forking();
    let matrix = short();
    let (one, two) = (lab.start(&matrix, "one", &[]), lab.start(&matrix, "two", &[]));
    lab.finish(one, "one").assert_code(0);
    lab.finish(two, "two").assert_code(0);
    lab.assert_nothing_left();
}

/// Starts a run whose scratch folder is a file system of `size`, seen by that process alone.
fn run_with_small_scratch(lab: &Lab, size: &str, out: &str) -> crate::lab::Finished {
    let scratch = lab.store().join("scratch");
    fs::create_dir_all(&scratch).unwrap();
    let fill = "[runner]\nretries = 0\n[[suite]]\nname = 'fill'\n\
                inline = 'head -c 100000000 /dev/zero > /big; sync; sleep 600'\n";
    let matrix = lab.write("fill.toml", &(alpine() + fill));
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs '{}' && exec '{}' run '{}' --out '{}'",
        scratch.display(),
        env!("CARGO_BIN_EXE_nestmatrix"),
        matrix.display(),
        lab.path(out).display()
    );
    // A mount namespace of its own: whatever happens, nobody else sees the mount and nobody must undo it.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    command
        .env("NESTMATRIX_COLD", "1")
        .env("NESTMATRIX_STORE", lab.store())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    lab.finish(command.spawn().unwrap(), out)
}

#[test]
fn a_store_on_a_full_disk_is_the_machines_fault_and_says_where_room_is_needed() {
    let lab = Lab::open();
    let id = "alpine.fill";
    let at_once = run_with_small_scratch(&lab, "100k", "at-once");
    at_once.assert_code(3);
    assert_eq!(at_once.verdict(id), "error(runner)");
    assert!(at_once.reason(id).contains("disk is full: 0 MiB are free"), "{}", at_once.reason(id));
    assert!(at_once.stderr.contains("make room"), "{}", at_once.stderr);

    let midway = run_with_small_scratch(&lab, "48m", "midway");
    midway.assert_code(3);
    assert_eq!(midway.verdict(id), "error(test)", "{}", midway.stderr);
    assert!(midway.reason(id).contains("host's disk is full"), "{}", midway.reason(id));
    lab.assert_nothing_left();
}
