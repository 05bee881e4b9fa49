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
files = ["note"]
inline = "test $(cat note) = first"
"#;

pub(crate) fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn the_first_ctrl_c_lets_running_cells_finish_and_starts_no_more_and_the_rest_is_resumed_with_the_same_files() {
    let lab = Lab::forking();
    lab.write("note", "first");
    let child = lab.start(TWO, "out", &["--jobs", "1"]);
    lab.wait_for_event("out", "test-started");
    interrupt(child.id());
    let run = lab.finish(child, "out");
    run.assert_code(130);
    assert_eq!(run.verdict("debian-12-minimal.first"), "passed");
    assert_eq!(run.verdict("debian-12-minimal.second"), "not-run");
    assert!(run.file("junit.xml").contains("interrupted"));

    let resume = || lab.nestmatrix().args(["run", "--resume"]).arg(lab.path("out")).output().unwrap();
    lab.write("note", "other");
    let refused = resume();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has changed since the run began"), "{refused:?}");
    lab.write("note", "first");
    let resumed = resume();
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    lab.assert_nothing_left();
}

#[test]
fn the_second_ctrl_c_ends_everything_at_once() {
    let lab = Lab::forking();
    lab.write("note", "first");
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
