//! Odd environments: whatever surrounds it, nestmatrix ends with one of its exit codes and says why. No guest is started.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Output},
};

use crate::lab::Lab;

const GOOD: &str = "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"smoke\"\ninline = \"true\"\n";

/// Runs a shell command in which `nestmatrix` is the program, with only this in its environment.
fn shell(lab: &Lab, command: &str, environment: &[(&str, &str)]) -> Output {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("nestmatrix() {{ '{}' \"$@\"; }}\n{command}", env!("CARGO_BIN_EXE_nestmatrix")));
    shell.current_dir(lab.path(".")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    shell.envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr)
        .split_whitespace()
        .filter(|word| *word != "│")
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(text.contains(words) && !text.contains("panicked"), "`{words}` is missing in: {text}");
}

#[test]
fn a_copy_alone_in_an_empty_folder_has_its_matrices_with_it() {
    let lab = Lab::without_guests();
    fs::copy(env!("CARGO_BIN_EXE_nestmatrix"), lab.path("copy")).unwrap();
    // Not even a folder of the matrix's name is in the way.
    fs::create_dir(lab.path("release")).unwrap();
    for command in ["./copy plan --format json", "./copy schema", "./copy images list", "./copy plan nested"] {
        let output = shell(&lab, command, &[("HOME", lab.path("home").to_str().unwrap())]);
        assert_ends(&output, 0, "");
        assert!(output.stdout.len() > 100, "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).contains("is a sample matrix that nestmatrix ships");
        assert_eq!(said, command.contains("plan"), "{output:?}");
    }
    let wrong = shell(&lab, "./copy plan relaese", &[("HOME", lab.path("home").to_str().unwrap())]);
    assert_ends(&wrong, 2, "`release`, `nested`");
}

#[test]
fn without_a_place_for_the_store_the_variables_are_named() {
    let lab = Lab::without_guests();
    lab.write("m.toml", GOOD);
    for environment in [&[][..], &[("HOME", "")], &[("HOME", "relative"), ("XDG_CACHE_HOME", "relative/too")]] {
        for command in ["nestmatrix plan", "nestmatrix images list", "nestmatrix run m.toml", "nestmatrix doctor"] {
            assert_ends(&shell(&lab, command, environment), 2, "HOME");
        }
        // These need no store.
        assert_ends(&shell(&lab, "nestmatrix plan m.toml && nestmatrix schema", environment), 0, "");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_and_no_panic() {
    let lab = Lab::without_guests();
    lab.write("m.toml", GOOD);
    let home = lab.path("home");
    let home = [("HOME", home.to_str().unwrap())];
    for verb in ["plan m.toml", "schema", "images list", "completions bash", "--help", "--version"] {
        let output = shell(&lab, &format!("nestmatrix {verb} >/dev/full"), &home);
        assert_eq!(output.status.code(), Some(2), "{verb}: {output:?}");
        assert_ends(&shell(&lab, &format!("nestmatrix {verb} | head -c 1; exit ${{PIPESTATUS[0]}}"), &home), 0, "");
        assert_ends(&shell(&lab, &format!("nestmatrix {verb} >&- 2>&- <&-"), &home), 0, "");
    }
    // The exit code is all that is left to say it.
    assert_ends(&shell(&lab, "nestmatrix plan nothing.toml 2>/dev/full", &home), 2, "");
    assert_ends(&shell(&lab, "nestmatrix images verify 2>/dev/full", &home), 0, "");
}

#[test]
fn limits_of_the_shell_are_met_with_words() {
    let lab = Lab::without_guests();
    lab.write("m.toml", GOOD);
    let home = lab.path("home");
    let home = [("HOME", home.to_str().unwrap())];
    assert_ends(&shell(&lab, "ulimit -f 4; nestmatrix plan release", &home), 2, "File too large");
    for verb in ["plan m.toml", "schema", "images list", "run m.toml --offline --out few"] {
        let output = shell(&lab, &format!("ulimit -n 20; nestmatrix {verb}"), &home);
        assert!(matches!(output.status.code(), Some(0 | 2 | 3)), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    }
}

#[test]
fn a_store_that_is_none_is_named() {
    let lab = Lab::without_guests();
    lab.write("m.toml", GOOD);
    let file = lab.write("file", "");
    for verb in ["plan", "images list", "run m.toml"] {
        let output = shell(&lab, &format!("nestmatrix {verb} --store file"), &[]);
        assert_ends(&output, 2, "file");
    }
    assert_eq!(fs::metadata(file).unwrap().len(), 0);
    assert_ends(&shell(&lab, "nestmatrix plan --store ''", &[]), 2, "--store");
    assert_ends(&shell(&lab, "nestmatrix images list", &[("NESTMATRIX_STORE", "/proc/no/store")]), 2, "/proc/no/store");
}

#[test]
fn odd_names_and_settings_change_nothing() {
    let lab = Lab::without_guests();
    let long = format!("a b/{}/ä 'quoted' $(x)", "x".repeat(200));
    lab.write(&format!("{long}/m.toml"), GOOD);
    let expected = shell(&lab, "nestmatrix plan \"$MATRIX\"", &[("MATRIX", &format!("{long}/m.toml"))]);
    assert_ends(&expected, 0, "");
    for settings in [
        ("TZ", "Nowhere/At_All"),
        ("TERM", "dumb"),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "POSIX"),
        ("NO_COLOR", "1"),
        ("COLUMNS", "0"),
    ] {
        let output = shell(&lab, "nestmatrix plan \"$MATRIX\"", &[("MATRIX", &format!("{long}/m.toml")), settings]);
        assert_ends(&output, 0, "");
        assert_eq!(output.stdout, expected.stdout, "{settings:?}");
    }
    for verb in ["plan", "run", "report", "images prepare", "nonsense"] {
        assert_ends(&shell(&lab, &format!("nestmatrix {verb} $'\\xff\\xfe'"), &[("HOME", "/nonexistent")]), 2, "");
    }
    let odd = lab.path(".").join(std::ffi::OsStr::from_bytes(b"\xff.toml"));
    fs::write(odd, GOOD).unwrap();
    assert_ends(&shell(&lab, "nestmatrix plan $'\\xff.toml'", &[]), 2, "not UTF-8");
}

#[test]
fn what_lies_beside_a_matrix_and_is_no_file_is_neither_ignored_nor_waited_for() {
    let lab = Lab::without_guests();
    lab.write("m.toml", GOOD);
    for name in ["images.toml", "images.lock"] {
        for make in ["mkfifo", "mkdir", "ln -s nowhere"] {
            assert_ends(&shell(&lab, &format!("rm -rf {name}; {make} {name}; nestmatrix plan m.toml"), &[]), 2, name);
        }
        let _ = fs::remove_file(lab.path(name));
    }
    for (line, named) in [
        ("run = \"pipe\"", "pipe"),
        ("inline = \"true\"\nfiles = [\"pipe\"]", "pipe"),
        ("run = \"/proc/kmsg\"", "/proc/kmsg"),
    ] {
        lab.write("p.toml", &GOOD.replace("inline = \"true\"", line));
        assert_ends(&shell(&lab, "rm -f pipe; mkfifo pipe; nestmatrix plan p.toml", &[]), 2, named);
    }
    assert_ends(&shell(&lab, "rm -f pipe; mkfifo pipe; nestmatrix plan pipe", &[]), 2, "not a file");
}

#[test]
fn a_run_that_is_not_whole_is_never_reported_green() {
    let lab = Lab::without_guests();
    lab.write("m.toml", GOOD);
    for (name, text) in [("plan.json", "{}"), ("plan.json", ""), ("events.jsonl", "{}\n")] {
        lab.write(&format!("broken/{name}"), text);
        let output = shell(&lab, "nestmatrix report broken", &[]);
        assert!(matches!(output.status.code(), Some(2 | 3)), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    }
    assert!(!Path::new(&lab.path("broken/junit.xml")).exists());
}
