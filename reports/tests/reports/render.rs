//! All reports of a run, also of one that crashed.

use std::fs;

use reports::journal;

use crate::fixture;

#[test]
fn the_summary_fits_the_page_of_a_ci_job() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fixture::write(dir.path());
    let rendered = reports::render::all(dir.path()).expect("rendered");
    insta::assert_snapshot!(fs::read_to_string(rendered.summary_md).expect("written"), @"
    ## ❌ hello 2.12: does not install on 1 of 4 systems; tests fail on 1 of 4 systems

    **8 cells**: 2 passed, 3 failed, 1 error, 1 not-run, 1 skipped. **10 tests**: 3 passed, 3 failed, 1 error, 1 not-run, 2 skipped. Took 5m 46s. Exit code 1.

    **Guests**: 2 forked, 4 cold, 1 cold (no template of debian-13-minimal: the guest did not answer over SSH in 1m 00s).

    **Network**: 3 files (3.0 MiB) fetched, 2 of them from the cache; refused: telemetry.example.com:443 (2 attempts in 1 cell).

    > Warning: little disk space left: 1.2 GiB

    | image | smoke | service |
    |---|---|---|
    | debian-11-minimal | ❌ **failed** in install | ❌ **failed** in install |
    | debian-12-minimal | ✅ passed 28.0s | ❌ **failed** in test |
    | debian-13-minimal | ✅ passed 27.7s | ⚠️ **error** in boot |
    | debian-sid-minimal | ➖ skipped | ⚪ **not-run** |

    ### What went wrong

    **`debian-11-minimal.smoke`, `debian-11-minimal.service`**: failed in install: hello 2.12 does not install: dpkg exited with 1

    ```text
    Selecting previously unselected package hello.
    (Reading database ... 9241 files and directories currently installed.)
    Preparing to unpack .../hello_2.12-1_amd64.deb ...
    Unpacking hello (2.12-1) ...
    dpkg: dependency problems prevent configuration of hello:
     hello depends on libc6 (>= 2.34); however:
      Version of libc6:amd64 on system is 2.31-13+deb11u13.

    dpkg: error processing package hello (--install):
     dependency problems - leaving unconfigured
    Errors were encountered while processing:
     hello
    ```

    *install.log has every word of it; the package asks for more than this system has*

    **`debian-12-minimal.service`**: failed in test: service: exit code 3

    ```text
    $ systemctl is-active hello
    failed
    hello.service: Failed with result 'exit-code'.
    ```

    **`debian-13-minimal.service`**: error in boot: the guest's kernel panicked

    Attempt 1: error in runner: runner 1 was lost; tried again.

    ```text
    [    1.902] VFS: Unable to mount root fs on unknown-block(0,0)
    [    1.903] Kernel panic - not syncing: VFS
    ```

    *boot it by hand: nestmatrix shell debian-13-minimal.service*

    **`debian-sid-minimal.service`**: not-run: the run's time was up

    <details><summary>Systems</summary>

    | image | system | kernel | libc | init |
    |---|---|---|---|---|
    | debian-11-minimal | Debian GNU/Linux 11 (bullseye) | 5.10.0-35-cloud-amd64 | glibc 2.31 | systemd 247 |
    | debian-12-minimal | Debian GNU/Linux 12 (bookworm) | 6.1.0-39-cloud-amd64 | glibc 2.36 | systemd 252 |

    </details>

    <sub>Guests ran on runner 1 (qemu) with kvm (a guest under it came up in 3.1s), QEMU 10.0.2, kernel 6.12.43+deb13-cloud-amd64; nesting depth 2: guests in the L1, the L1 on bare metal; time limits are 4.5 times longer: this machine is slower than the reference. The L1 is a virtual machine of image debian-13-runner: 1 CPU, 4.0 GiB, tcg (emulated SVM), QEMU 10.0.2. It was lost: it no longer answers: no heartbeat for 30s.</sub>

    <sub>Guests ran on runner 2 (qemu) with kvm (a guest under it came up in 3.1s), QEMU 10.0.2, kernel 6.12.43+deb13-cloud-amd64; nesting depth 2: guests in the L1, the L1 on bare metal; time limits are 4.5 times longer: this machine is slower than the reference. The L1 is a virtual machine of image debian-13-runner: 1 CPU, 4.0 GiB, tcg (emulated SVM), QEMU 10.0.2.</sub>
    ");
}

#[test]
fn run_json_has_a_version_counts_and_every_attempt() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fixture::write(dir.path());
    let rendered = reports::render::all(dir.path()).expect("rendered");
    let text = fs::read_to_string(rendered.run_json).expect("written");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["format"], 3);
    assert_eq!(value["cells"].as_array().map(Vec::len), Some(rendered.run.cells.len()));
    insta::assert_snapshot!(serde_json::to_string_pretty(&value["counts"]).expect("JSON"), @r#"
    {
      "cells": {
        "error": 1,
        "failed": 3,
        "not_run": 1,
        "passed": 2,
        "skipped": 1,
        "total": 8
      },
      "tests": {
        "error": 1,
        "failed": 3,
        "not_run": 1,
        "passed": 3,
        "skipped": 2,
        "total": 10
      }
    }
    "#);
    let attempt = &value["cells"][5]["attempts"][0];
    insta::assert_snapshot!(serde_json::to_string(attempt).expect("JSON"), @r#"{"artifacts":[],"cases":[],"elapsed_ms":23600,"ended":"2026-11-22T10:35:18.8Z","guest":{"accelerator":"kvm","boot":{"how":"cold","reason":null},"image":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","machine":"pc-q35-10.0","pid":4711,"runner":1},"installed":[],"kept":null,"network":[],"number":1,"outcome":{"phase":"runner","reason":"runner 1 was lost","verdict":"error"},"phases":[{"after_ms":0,"elapsed_ms":21400,"phase":"boot","started":"2026-11-22T10:34:55.2Z","timeout_ms":810000},{"after_ms":21400,"elapsed_ms":1900,"phase":"connect","started":"2026-11-22T10:35:16.6Z","timeout_ms":600000},{"after_ms":23300,"elapsed_ms":300,"phase":"prepare","started":"2026-11-22T10:35:18.5Z","timeout_ms":600000}],"retried":true,"running":null,"started":"2026-11-22T10:34:55.2Z","system":null,"trouble":{"evidence":[],"help":null,"kind":"host","phase":"runner","reason":"runner 1 was lost"}}"#);
}

#[test]
fn a_run_that_crashed_has_all_its_reports_and_they_say_so() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fixture::write(dir.path());
    let path = dir.path().join(journal::FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    fs::write(&path, &whole[..whole.len() / 2]).expect("writable");
    let rendered = reports::render::all(dir.path()).expect("rendered");
    assert_ne!(rendered.run.exit_code(), 0);
    for report in [&rendered.report_html, &rendered.summary_md, &rendered.run_json] {
        let text = fs::read_to_string(report).expect("written");
        assert!(text.contains("crashed or was killed"), "{}", report.display());
    }
}

#[test]
fn rendering_again_replaces_the_reports_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fixture::write(dir.path());
    let first = reports::render::all(dir.path()).expect("rendered");
    let before = fs::read(&first.report_html).expect("written");
    reports::render::all(dir.path()).expect("rendered again");
    assert_eq!(fs::read(&first.report_html).expect("written"), before);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["cells", "events.jsonl", "junit.xml", "plan.json", "report.html", "run.json", "summary.md"]);
}

#[test]
fn a_folder_without_a_run_is_a_clear_error() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let error = reports::render::all(dir.path()).expect_err("no plan").to_string();
    assert!(error.contains("plan.json"), "{error}");
}
