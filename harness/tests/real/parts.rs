//! Guests that are made of more than one disk and one network card: they see what the matrix asks for.

use std::{fs, os::unix::fs::symlink};

use crate::{
    cloud,
    lab::{Finished, Lab},
    store,
};

/// What is seen of disks and cards: serial number and size of each disk, which is empty, and the name of each card. Then each disk is
/// written to, so that a guest that comes later would find something on one that it shares.
const LOOK: &str = r#"
for disk in /sys/class/block/vd? /sys/class/block/nvme?n?; do
    [ -e $disk ] || continue
    serial=$(tr -d ' \000' 2>/dev/null <$disk/serial || tr -d ' \000' <$disk/device/serial)
    [ "$serial" = root ] && continue
    written=$(tr -d '\000' </dev/${disk##*/} | head -c 10)
    echo "disk $serial ${disk##*/} $(($(cat $disk/size) / 2048)) MiB written:$written"
    echo "$NESTMATRIX_CELL" >/dev/${disk##*/}
    sync
done
for card in /sys/class/net/*; do
    [ -e $card/device ] || continue
    echo "card $(ip -brief -4 address show dev ${card##*/} | wc -w) words"
done
"#;

/// What a guest sees that has two more disks, the second one of this name, and a second network card.
fn seen(second: &str) -> String {
    format!("disk disk-1 vdb 64 MiB written:\ndisk data {second} 32 MiB written:\ncard 3 words\ncard 0 words")
}

fn said(run: &Finished, id: &str) -> String {
    run.file(&format!("cells/{id}/attempt-1/stdout.log")).trim().to_owned()
}

#[test]
fn more_disks_and_network_cards_are_there_in_forked_and_in_booted_guests() {
    let lab = Lab::warm();
    let suite = |name: &str, guest: &str| {
        format!("[[suite]]\nname = '{name}'\nguest = {{ {guest}, nics = 2 }}\ninline = '''{LOOK}'''\n")
    };
    let disks = |more: &str| format!("disks = ['64MiB', {{ size = '32MiB', serial = 'data'{more} }}]");
    let matrix = [
        "images = ['debian-12-minimal']\n".to_owned(),
        suite("forked", &disks("")),
        suite("again", &disks("")),
        suite("nvme", &disks(", interface = 'nvme'")),
    ]
    .concat();
    let run = lab.run(&matrix, "out", &[]);
    run.assert_code(0);
    let boot = |suite: &str| run.cell(&format!("debian-12-minimal.{suite}"))["attempts"][0]["guest"]["boot"].clone();
    for suite in ["forked", "again"] {
        assert_eq!(boot(suite)["how"], "forked", "{suite}: {}", run.stderr);
        assert_eq!(said(&run, &format!("debian-12-minimal.{suite}")), seen("vdc"), "{suite}");
    }
    let reason = boot("nvme")["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("NVMe"), "it is said why it was booted: {reason:?}");
    assert_eq!(said(&run, "debian-12-minimal.nvme"), seen("nvme0n1"));
    lab.assert_nothing_left();
}

#[test]
#[ignore = "on request: an emulated L1 and a first boot in it take minutes"]
fn the_same_parts_are_there_in_an_l1() {
    store::the_rest();
    let lab = Lab::warm();
    let matrix = format!(
        "images = ['debian-12-minimal']\n[[suite]]\nname = 'one'\nguest = {{ nics = 2, tpm = true, \
         disks = ['64MiB', {{ size = '32MiB', serial = 'data', interface = 'nvme' }}] }}\ninline = '''{LOOK}'''\n"
    );
    let run = lab.run(&matrix, "out", &["--runner", "qemu"]);
    run.assert_code(0);
    let boot = run.cell("debian-12-minimal.one")["attempts"][0]["guest"]["boot"].clone();
    assert!(boot["reason"].as_str().is_some_and(|reason| reason.contains("TPM")), "{boot}");
    assert_eq!(said(&run, "debian-12-minimal.one"), seen("nvme0n1"));
    lab.assert_nothing_left();
}

#[test]
fn what_a_preparation_writes_to_a_disk_is_there_in_guests_that_cannot_be_frozen_as_well() {
    let lab = Lab::warm();
    let matrix = r#"
[[image]]
name = "prepared"
from = "debian-12-minimal"
prepare = { inline = "echo ready >/dev/vdb && sync" }
[[suite]]
name = "forked"
guest = { disks = ["32MiB"] }
inline = "head -c 5 /dev/vdb"
[[suite]]
name = "booted"
guest = { disks = ["32MiB", { size = "32MiB", interface = "nvme" }], tpm = true }
inline = "head -c 5 /dev/vdb; test -b /dev/nvme0n1 && test $(cat /sys/class/tpm/tpm0/tpm_version_major) = 2"
"#;
    let run = lab.run(matrix, "out", &[]);
    run.assert_code(0);
    for (suite, how) in [("forked", "forked"), ("booted", "cold")] {
        let id = format!("prepared.{suite}");
        assert_eq!(run.cell(&id)["attempts"][0]["guest"]["boot"]["how"], how, "{}", run.stderr);
        assert_eq!(said(&run, &id), "ready");
    }
    // Of what was prepared with a TPM, the template has the disks and nothing else.
    let files = fs::read_dir(lab.store().join("templates")).unwrap().flatten();
    let nvram = files.filter(|template| template.path().join("nvram").exists()).count();
    assert_eq!(nvram, 0);
    lab.assert_nothing_left();
}

#[test]
fn a_part_that_this_machine_has_not_is_named_and_no_guest_is_started() {
    let lab = Lab::resting();
    // All that is needed but the TPM.
    let programs = lab.path("programs");
    fs::create_dir(&programs).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for program in ["qemu-system-x86_64", "qemu-img"] {
        let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.exists());
        symlink(found.unwrap(), programs.join(program)).unwrap();
    }
    let matrix = r#"
images = ["debian-12-minimal"]
[[suite]]
name = "tpm"
guest = { tpm = true }
inline = "true"
"#;
    let file = lab.write("m.toml", matrix);
    let mut command = lab.nestmatrix();
    command.arg("run").arg(file).arg("--out").arg(lab.path("out")).args(["--runner", "host"]).env("PATH", &programs);
    let run = lab.finish(command.spawn().unwrap(), "out");
    run.assert_code(3);
    assert_eq!(run.verdict("debian-12-minimal.tpm"), "error(runner)", "{}", run.stderr);
    let reason = run.reason("debian-12-minimal.tpm");
    assert!(reason.contains("install the package `swtpm`"), "{reason}");
    assert_eq!(run.cell("debian-12-minimal.tpm")["attempts"].as_array().unwrap().len(), 1, "it is not tried again");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "on request: an emulated guest takes minutes for its first boot by UEFI"]
fn a_guest_with_secure_boot_and_a_tpm_says_so_from_inside() {
    let lab = Lab::open();
    let suite = |name: &str, guest: &str| {
        format!(
            "[[suite]]\nname = '{name}'\nguest = {{ {guest} }}\ninline = '''\nmokutil --sb-state\n\
             cat /sys/class/tpm/tpm0/tpm_version_major\n'''\n"
        )
    };
    let matrix = [
        "[timeout]\nboot = '4m'\n".to_owned(),
        cloud::image("signed", "qcow2", ""),
        suite("secure", "firmware = 'uefi-secure', tpm = true"),
        suite("plain", "firmware = 'uefi', tpm = true"),
    ]
    .concat();
    let run = lab.run(&matrix, "out", &[]);
    run.assert_code(0);
    let secure = said(&run, "signed.secure");
    assert!(secure.starts_with("SecureBoot enabled\n2"), "{secure}");
    let plain = said(&run, "signed.plain");
    assert!(plain.contains("disabled") || plain.contains("doesn't support"), "{plain}");
    lab.assert_nothing_left();
}
