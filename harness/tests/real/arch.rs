//! Guests of another kind of CPU than this machine's: the same as all others, but emulated, and never forked.

use std::{os::unix::fs::symlink, path::PathBuf};

use crate::{
    lab::{Finished, Lab},
    store,
};

/// The image of another kind. These tests run on x86_64.
const IMAGE: &str = "debian-12-minimal-aarch64";
const ARCH: &str = "aarch64";
const MACHINE: &str = "virt-";

fn matrix(suite: &str) -> String {
    format!("images = [\"{IMAGE}\"]\n[guest]\nmemory = \"512MiB\"\n[[suite]]\nname = \"smoke\"\n{suite}")
}

fn cell() -> String {
    format!("{IMAGE}.smoke")
}

#[test]
#[ignore = "its image takes minutes to build, through emulated programs: cargo xtask test -- --ignored"]
fn a_guest_of_another_kind_of_cpu_runs_its_suite_emulated_and_it_is_said() {
    let lab = Lab::warm();
    store::also(IMAGE);
    let run =
        lab.run(&matrix(&format!("inline = 'test \"$(uname -m)\" = {ARCH} && dpkg --print-architecture'")), "out", &[]);
    run.assert_code(0);
    assert_eq!(run.verdict(&cell()), "passed");
    let guest = run.cell(&cell())["attempts"][0]["guest"].clone();
    assert_eq!(guest["accelerator"], "tcg");
    assert!(guest["machine"].as_str().unwrap().starts_with(MACHINE), "{guest}");
    assert_eq!(guest["boot"]["how"], "cold");
    assert!(guest["boot"]["reason"].as_str().unwrap().contains("another kind of CPU"), "{guest}");
    let scale = lab.store().join(format!("probe-{ARCH}.json"));
    assert!(std::fs::read_to_string(scale).unwrap().contains("\"speed\""), "its time limits are of its own measure");
    lab.assert_nothing_left();
}

/// A folder with the programs that guests of this machine's own kind need.
fn own_programs(lab: &Lab) -> PathBuf {
    let folder = lab.path("programs");
    std::fs::create_dir(&folder).unwrap();
    for program in ["qemu-system-x86_64", "qemu-img"] {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
        symlink(found.unwrap(), folder.join(program)).unwrap();
    }
    folder
}

#[test]
fn without_its_emulator_nothing_is_built_for_it_and_what_brings_it_is_named() {
    let lab = Lab::without_guests();
    let programs = own_programs(&lab);
    let file = lab.write("m.toml", &matrix("inline = 'true'"));
    let mut command = lab.nestmatrix();
    command.env("PATH", programs).arg("run").arg(file).arg("--out").arg(lab.path("out"));
    let run: Finished = lab.finish(command.spawn().unwrap(), "out");
    run.assert_code(3);
    assert_eq!(run.verdict(&cell()), "error(image)");
    let reason = run.reason(&cell());
    for word in ["qemu-system-aarch64", "cargo xtask setup --arch aarch64", "qemu-system-arm"] {
        assert!(reason.contains(word), "{reason}");
    }
    assert_eq!(std::fs::read_dir(lab.store().join("images")).unwrap().count(), 0, "nothing was built");
}

#[test]
fn an_l1_is_not_booted_for_guests_that_it_cannot_run() {
    let lab = Lab::without_guests();
    let run = lab.run(&matrix("inline = 'true'"), "out", &["--runner", "qemu"]);
    run.assert_code(2);
    // The terminal breaks long lines anywhere, in the middle of a name, too.
    let flat: String = run.stderr.split_whitespace().filter(|word| *word != "│").collect();
    assert!(flat.contains(&cell()) && flat.contains("--runnerhost"), "{}", run.stderr);
    assert!(!run.out.exists(), "nothing was started");
}
