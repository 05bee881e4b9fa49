//! Bad input starts nothing, and says where and what to do.

use std::path::Path;

use crate::lab::{Finished, Lab};

const GOOD: &str = "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"smoke\"\ninline = \"true\"\n";

/// Runs the matrix; it must end with 2, name file and line, and leave no results.
#[track_caller]
fn refused(matrix: &str, words: &[&str]) -> Finished {
    let lab = Lab::without_guests();
    let run = lab.run(matrix, "out", &[]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    // The terminal breaks long lines anywhere.
    let flat: String = run.stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "`{word}` is missing in:\n{}", run.stderr);
    }
    assert!(!run.out.exists(), "nothing was started");
    run
}

#[test]
fn an_unknown_key_names_its_line_and_the_key_that_was_meant() {
    refused(&GOOD.replace("inline", "inlien"), &["out.toml:4", "inlien", "inline"]);
}

#[test]
fn a_missing_artifact_says_where_it_was_looked_for() {
    refused(&format!("{GOOD}[package]\nname = \"p\"\nartifacts = [\"dist/*.deb\"]\n"), &["out.toml:7", "dist/*.deb"]);
}

#[test]
fn a_matrix_without_images_or_with_unknown_ones_is_refused() {
    refused("[[suite]]\nname = \"smoke\"\ninline = \"true\"\n", &["image"]);
    refused(&GOOD.replace("debian-12-minimal", "debian-12-minmal"), &["out.toml:1", "debian-12-minimal"]);
    refused(&GOOD.replace("\"debian-12-minimal\"", "\"debian-12-minimal\", \"debian-12-minimal\""), &["out.toml:1"]);
}

#[test]
fn bad_sizes_durations_globs_and_templates_are_refused() {
    refused(&format!("{GOOD}[guest]\nmemory = \"lots\"\n"), &["out.toml:6", "lots", "512MiB"]);
    refused(&format!("{GOOD}[timeout]\nboot = \"soon\"\n"), &["out.toml:6", "soon"]);
    refused(&format!("{GOOD}[package]\nname = \"p\"\nartifacts = [\"a[\"]\n"), &["out.toml:7", "a["]);
    refused(&GOOD.replace("true\"", "echo {{ package.vresion }}\""), &["out.toml:4", "vresion"]);
}

#[test]
fn a_matrix_of_no_cells_or_of_too_many_is_refused() {
    refused(&format!("{GOOD}[[exclude]]\nimage = \"*\"\n"), &["cell"]);
    let axis: Vec<String> = (0..400).map(|value| format!("\"v{value}\"")).collect();
    let axis = axis.join(", ");
    refused(&format!("{GOOD}[axes]\na = [{axis}]\nb = [{axis}]\n"), &["more than 100000 cells", "400 a x 400 b"]);
}

#[test]
fn a_results_folder_that_holds_something_is_not_touched() {
    let lab = Lab::without_guests();
    let precious = lab.write("out/precious.txt", "mine");
    let run = lab.run(GOOD, "out", &[]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("is not empty"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&run.out).unwrap().count(), 1);
}

#[test]
fn a_guest_larger_than_the_machine_is_refused_before_anything_starts() {
    refused(&format!("{GOOD}[guest]\nmemory = \"4TiB\"\n"), &["4194432 MiB", "runner.memory"]);
}

#[test]
fn an_unknown_cell_glob_or_matrix_name_says_what_there_is() {
    let lab = Lab::without_guests();
    let run = lab.run(GOOD, "out", &["--cell", "nothing-like-it"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("nothing-like-it"), "{}", run.stderr);
    let unknown = lab.nestmatrix().args(["run", "relaese"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("release"), "{unknown:?}");
}

#[test]
fn without_qemu_the_remedy_is_named() {
    let lab = Lab::without_guests();
    let file = lab.write("good.toml", GOOD);
    let run = lab.nestmatrix().arg("run").arg(&file).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stderr).contains("cargo xtask setup"), "{run:?}");
    assert!(!Path::new(&lab.path(".nestmatrix")).exists());
}

#[test]
fn a_runner_that_does_not_exist_or_is_larger_than_this_machine_is_refused_before_anything_starts() {
    let qemu = format!("{GOOD}[runner]\nkind = \"qemu\"\n");
    refused(&qemu.replace("qemu", "qmeu"), &["out.toml:6", "qmeu", "qemu"]);
    refused(&format!("{qemu}memory = \"4TiB\"\n"), &["runner.memory", "4282709 MiB"]);
    refused(&format!("{qemu}image = \"debian-13-runer\"\n"), &["out.toml:7", "debian-13-runner"]);
    refused(&format!("{qemu}[guest]\nmemory = \"4TiB\"\n"), &["debian-12-minimal.smoke", "MiB"]);

    let lab = Lab::without_guests();
    let unknown = lab.run(GOOD, "unknown", &["--runner", "cloud"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("write `auto`, `host`, `qemu`, `gce` or `ssh:user@host:port`"),
        "{}",
        unknown.stderr
    );
    let keep = lab.run(&qemu, "keep", &["--keep", "failed"]);
    assert_eq!(keep.code, 2, "{}", keep.stderr);
    assert!(keep.stderr.contains("--runner host"), "{}", keep.stderr);
    let resume = lab.nestmatrix().args(["run", "--resume", "nowhere"]).output().unwrap();
    assert_eq!(resume.status.code(), Some(2), "{resume:?}");
    assert!(String::from_utf8_lossy(&resume.stderr).contains("no run nowhere"), "{resume:?}");
}
