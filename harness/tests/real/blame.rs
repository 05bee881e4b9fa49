//! Who is to blame when the machine under a test goes: the test that took it down, the image, or the machine below.

use std::process::Command;

use serde_json::Value;

use crate::lab::Lab;

const ENDS: &str = r#"
images = ["debian-12-minimal"]

[timeout]
suite = "12s"

[[suite]]
name = "qemu-killed"
inline = "sleep 5"

[[suite]]
name = "halts"
inline = "sync; halt -f; sleep 600"

[[suite]]
name = "kills-everything"
inline = "kill -9 -1; sleep 600"

[[suite]]
name = "off-the-net"
boot = "cold"
inline = "(sleep 1; ip link set eth0 down; ip link set enp0s2 down; ip link set ens2 down) 2>/dev/null & sleep 3; exit 1"
"#;

/// The process id of the guest of this cell's first attempt, once its test runs.
fn guest_under_test(lab: &Lab, out: &str, cell: &str) -> String {
    let event = |name: &str| format!("\"event\":\"{name}\",\"cell\":\"{cell}\"");
    let started: Value = serde_json::from_str(&lab.wait_for_event(out, &event("guest-started"))).unwrap();
    lab.wait_for_event(out, &event("test-started"));
    started["guest"]["pid"].to_string()
}

#[test]
fn what_takes_its_guest_down_has_failed_and_what_loses_it_to_the_machine_below_is_tried_again() {
    let lab = Lab::forking();
    let child = lab.start(ENDS, "out", &[]);
    let pid = guest_under_test(&lab, "out", "debian-12-minimal.qemu-killed");
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let run = lab.finish(child, "out");
    run.assert_code(1);
    let check = |suite: &str, verdict: &str, words: &str| {
        let id = format!("debian-12-minimal.{suite}");
        let (got, reason) = (run.verdict(&id), run.reason(&id));
        assert_eq!(got, verdict, "{id}: {reason}\n{}", run.stderr);
        assert!(reason.contains(words), "{id}: {reason}");
        run.cell(&id)["attempts"].as_array().unwrap().clone()
    };
    let attempts = check("qemu-killed", "passed", "");
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0]["outcome"]["verdict"], "error", "{attempts:?}");
    assert!(attempts[0].to_string().contains("signal: 9"), "{attempts:?}");

    assert_eq!(check("halts", "failed(test)", "the guest halted itself").len(), 1);
    assert_eq!(check("kills-everything", "failed(test)", "machine still runs").len(), 1);
    assert_eq!(check("off-the-net", "failed(test)", "the guest no longer answers").len(), 1);
    lab.assert_nothing_left();
}
