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
name = "ends-its-session"
inline = "kill -9 $PPID; sleep 600"

[[suite]]
name = "halts"
inline = "sync; halt -f; sleep 600"

[[suite]]
name = "kills-everything"
inline = "kill -9 -1; sleep 600"

[[suite]]
name = "off-the-net"
boot = "cold"
timeout = { suite = "6s" }
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
    // Whether its service manager has started the server again by then is up to the guest.
    assert_eq!(check("kills-everything", "failed(test)", "; in phase test the guest ").len(), 1);
    assert_eq!(check("ends-its-session", "failed(test)", "its SSH server takes new ones").len(), 1);
    assert_eq!(check("off-the-net", "failed(test)", "the guest no longer answers").len(), 1);
    lab.assert_nothing_left();
}

/// An image with a unit of its own that reboots it once, at this place in the order of its start.
fn reboots_once(name: &str, order: &str) -> String {
    format!(
        r#"
[[image]]
name = "{name}"
from = "debian-12-minimal"
[image.prepare]
inline = '''
cat >/etc/systemd/system/once.service <<X
[Unit]
ConditionPathExists=!/var/once
{order}=ssh.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'touch /var/once; sync; systemctl reboot'
[Install]
WantedBy=multi-user.target
X
systemctl enable once.service
'''
"#
    )
}

#[test]
#[ignore = "on request: two templates and four boots"]
fn an_image_that_reboots_itself_once_before_or_after_its_ssh_server_is_up_is_waited_for() {
    let lab = Lab::warm();
    let (early, late) = (reboots_once("early", "Before"), reboots_once("late", "After"));
    let suite = "[[suite]]\nname = \"cold\"\nboot = \"cold\"\ninline = \"[ -e /var/once ]\"\n";
    let run = lab.run(&format!("{early}{late}{suite}"), "out", &[]);
    run.assert_code(0);
    for id in ["early.cold", "late.cold"] {
        let cell = run.cell(id);
        assert_eq!(cell["attempts"].as_array().unwrap().len(), 1, "{cell}");
        assert!(run.file("events.jsonl").contains("rebooted itself before its boot was over (1 of"), "{}", run.stderr);
    }
    lab.assert_nothing_left();
}
