//! Ctrl-C: once drains, twice ends; what did not run is red, and nothing is left.

use std::process::Command;

use crate::lab::Lab;

const TWO: &str = r#"
images = ["debian-12-minimal"]
[[suite]]
name = "first"
inline = "sleep 8"
[[suite]]
name = "second"
inline = "true"
"#;

pub(crate) fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn the_first_ctrl_c_lets_running_cells_finish_and_starts_no_more() {
    let lab = Lab::forking();
    let child = lab.start(TWO, "out", &["--jobs", "1"]);
    lab.wait_for_event("out", "test-started");
    interrupt(child.id());
    let run = lab.finish(child, "out");
    run.assert_code(130);
    assert_eq!(run.verdict("debian-12-minimal.first"), "passed");
    assert_eq!(run.verdict("debian-12-minimal.second"), "not-run");
    assert!(run.file("junit.xml").contains("interrupted"));
    lab.assert_nothing_left();
}

#[test]
fn the_second_ctrl_c_ends_everything_at_once() {
    let lab = Lab::forking();
    let child = lab.start(&TWO.replace("sleep 8", "sleep 6000"), "out", &["--jobs", "1"]);
    lab.wait_for_event("out", "test-started");
    interrupt(child.id());
    lab.wait_for_event("out", "run-interrupted");
    interrupt(child.id());
    let run = lab.finish(child, "out");
    run.assert_code(130);
    assert_eq!(run.verdict("debian-12-minimal.first"), "not-run");
    assert!(run.reason("debian-12-minimal.first").contains("phase test"), "{}", run.stderr);
    lab.assert_nothing_left();
}
