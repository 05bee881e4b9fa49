//! Images as publishers make them: a real one, made for it, in every format, by both firmwares, over a network that breaks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
};

use crate::{
    lab::Lab,
    server::{Act, Served, Server},
    store,
};

/// The folder of the disks, with the one that all others are made of: once, of Debian's packages, and kept with the images of the tests.
static DISKS: LazyLock<PathBuf> = LazyLock::new(|| {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud");
    let recipe = ["build.sh", "customize.sh"].map(|name| fs::read_to_string(scripts.join(name)).unwrap()).concat();
    let folder = store::kept().join(format!("cloud-{}", matrix::Digest::of(recipe.as_bytes()).short()));
    let raw = folder.join("cloud.raw");
    if !raw.exists() {
        fs::create_dir_all(&folder).unwrap();
        let work = tempfile::Builder::new().prefix("nestmatrix-cloud-").tempdir_in("/var/tmp").unwrap();
        sh("chmod 711 \"$1\"", &[work.path()]);
        let (new, build) = (folder.join("new.raw"), scripts.join("build.sh"));
        sh("exec \"$1\" '' \"$2\" \"$3\"", &[&build, work.path(), &new]);
        fs::rename(new, &raw).unwrap();
    }
    folder
});

/// The disk in this format, which is made of the first one when somebody wants it.
fn disk(format: &str) -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _alone = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let (raw, to) = (DISKS.join("cloud.raw"), DISKS.join(format!("cloud.{format}")));
    if to.exists() {
        return to;
    }
    let new = to.with_extension("new");
    let convert = |options: &str| {
        sh(&format!("qemu-img convert {options} \"$1\" \"$2\""), &[&raw, &new]);
    };
    match format {
        "qcow2" => convert("-O qcow2 -c"),
        "vmdk" | "vhdx" | "vdi" => convert(&format!("-O {format}")),
        "ova" => {
            // As appliances have it: packed, and to be read from front to back.
            let folder = tempfile::tempdir_in(&*DISKS).unwrap();
            fs::write(folder.path().join("box.ovf"), OVF).unwrap();
            let vmdk = folder.path().join("box.vmdk");
            sh("qemu-img convert -O vmdk -o subformat=streamOptimized \"$1\" \"$2\"", &[&raw, &vmdk]);
            sh("tar -C \"$1\" -cf \"$2\" box.ovf box.vmdk", &[folder.path(), &new]);
        }
        // cloud-init does what its configuration says, and fails.
        "broken" => {
            let folder = tempfile::tempdir_in(&*DISKS).unwrap();
            fs::write(folder.path().join("broken.cfg"), "runcmd: [[sh, -c, 'echo no such tenant >&2; exit 3']]\n")
                .unwrap();
            let broken = "cp --sparse=always \"$1\" \"$2\" && cd \"$3\" && \
                          debugfs -w -R 'write broken.cfg /etc/cloud/cloud.cfg.d/95_broken.cfg' \"$2?offset=18874368\"";
            sh(broken, &[&raw, &new, folder.path()]);
        }
        // Neither its partition nor its file system grows.
        "ungrown" => {
            let folder = tempfile::tempdir_in(&*DISKS).unwrap();
            fs::write(folder.path().join("ungrown.cfg"), "growpart: { mode: 'off' }\nresize_rootfs: false\n").unwrap();
            let ungrown = "cp --sparse=always \"$1\" \"$2\" && cd \"$3\" && \
                           debugfs -w -R 'write ungrown.cfg /etc/cloud/cloud.cfg.d/95_ungrown.cfg' \"$2?offset=18874368\"";
            sh(ungrown, &[&raw, &new, folder.path()]);
        }
        _ => panic!("no format {format}"),
    }
    fs::rename(new, &to).unwrap();
    to
}

/// As little of a descriptor as names one disk.
const OVF: &str = r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:href="box.vmdk" ovf:id="file1"/></References>
</Envelope>
"#;

#[track_caller]
fn sh(script: &str, arguments: &[&Path]) {
    let mut command = Command::new("sh");
    command
        .args(["-euc", script, "sh"])
        .args(arguments)
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn digest(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    format!("sha256:{}", String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap())
}

/// What every one of these guests must have: its own name, a user of ours who may do what root may, all of its disk, and a first boot
/// that is over.
const SUITE: &str = r#"
[timeout]
boot = "2m"
[[suite]]
name = "first"
inline = '''
set -e
test "$(hostname)" = "$NESTMATRIX_IMAGE"
test "$(id -u)" = 0
test "$(sudo -u nestmatrix sudo -n id -u)" = 0
if [ -d /sys/firmware/efi ]; then test -e /prepared; fi
test -e /run/cloud-init/result.json
test "$(df --output=size -m / | tail -n 1)" -gt 3000
test "$(echo /etc/ssh/ssh_host_*_key)" = "/etc/ssh/ssh_host_ecdsa_key /etc/ssh/ssh_host_ed25519_key"
if [ -d /sys/firmware/efi ]; then echo uefi; else echo bios; fi
'''
"#;

/// Runs the suite on these images; what it says of the firmware they were started by, and how their guests came to be.
fn run(lab: &Lab, images: &str, expected: &[(&str, &str, &str)]) {
    let run = lab.run(&format!("{images}{SUITE}"), "out", &[]);
    run.assert_code(0);
    for (image, firmware, boot) in expected {
        let id = format!("{image}.first");
        assert_eq!(run.verdict(&id), "passed", "{id}: {}\n{}", run.reason(&id), run.stderr);
        let said = run.file(&format!("cells/{id}/attempt-1/stdout.log"));
        assert_eq!(said.trim(), *firmware, "{id}");
        assert_eq!(run.cell(&id)["attempts"][0]["guest"]["boot"]["how"], *boot, "{id}: {}", run.stderr);
    }
}

#[test]
fn a_published_disk_is_downloaded_from_a_server_that_breaks_started_by_uefi_prepared_and_forked() {
    // Others run guests while it is made.
    let made = disk("qcow2");
    let lab = Lab::without_images();
    // What is downloaded is packed, and the server breaks off in the middle, once.
    let packed = lab.path("cloud.qcow2.zst");
    sh("zstd -q -1 -f -o \"$2\" \"$1\"", &[&made, &packed]);
    let body: std::sync::Arc<[u8]> = fs::read(&packed).unwrap().into();
    let half = body.len() / 2;
    let server = Server::start(move |seen| {
        let served = Served::new(&body);
        Act::File(if seen.number == 0 { served.breaking_after(half) } else { served })
    });
    // Whoever logs in need not be root.
    let downloaded = format!(
        "[[image]]\nname = 'downloaded'\nurl = '{}'\ndigest = '{}'\nlogin = 'nestmatrix'\nfirmware = 'uefi'\n\
         prepare = {{ inline = 'touch /prepared' }}\n",
        server.url("/cloud.qcow2.zst"),
        digest(&packed)
    );
    run(&lab, &downloaded, &[("downloaded", "uefi", "forked")]);
    assert_eq!(server.seen().len(), 2, "it went on where it had been broken off");
    let grown = bytes_of(&lab.store().join("images"));
    let most = fs::metadata(disk("qcow2")).unwrap().len() + (1 << 20);
    assert!(grown < most, "{grown} bytes, at the most {most}: the disk, and nothing else of it");

    // Nothing is booted for what is not what was stated.
    let another = image("another", "qcow2", &format!("digest = 'sha256:{}'", "0".repeat(64)));
    let run = lab.run(&format!("{another}{SUITE}"), "another", &[]);
    run.assert_code(3);
    assert_eq!(run.verdict("another.first"), "error(image)");
    let reason = run.reason("another.first");
    assert!(reason.contains(&"0".repeat(64)) && reason.contains(&digest(&disk("qcow2"))), "{reason}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "each of the formats costs a minute and more where guests are emulated: cargo xtask test -- --ignored"]
fn the_same_disk_is_used_as_it_is_in_every_format() {
    let lab = Lab::without_images();
    let raw = format!("digest = '{}'", digest(&disk("raw")));
    let stated = |format: &str| if format == "raw" { raw.as_str() } else { "" };
    let formats = ["raw", "qcow2", "vmdk", "vhdx", "vdi", "ova"];
    let text: Vec<String> = formats.into_iter().map(|format| image(format, format, stated(format))).collect();
    // Of the formats only these two can be frozen.
    let forked = ["raw", "qcow2"].map(|name| (name, "bios", "forked"));
    let booted = ["vmdk", "vhdx", "vdi", "ova"].map(|name| (name, "bios", "cold"));
    run(&lab, &text.concat(), &[&forked[..], &booted[..]].concat());
    // The store has what was in the archive, and nothing of the others.
    let grown = bytes_of(&lab.store().join("images"));
    let most = fs::metadata(disk("ova")).unwrap().len() + (1 << 20);
    assert!(grown < most, "{grown} bytes, at the most {most}");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "an emulated guest takes a minute and more for its first boot: cargo xtask test -- --ignored"]
fn a_first_boot_that_fails_is_the_images_fault_and_cloud_init_says_why() {
    let lab = Lab::open();
    let run = lab.run(&format!("{}{SUITE}", image("broken", "broken", "")), "out", &[]);
    run.assert_code(3);
    assert_eq!(run.verdict("broken.first"), "error(image)", "{}", run.stderr);
    let reason = run.reason("broken.first");
    assert!(reason.contains("cloud-init failed") && reason.contains("scripts"), "{reason}");
    assert_eq!(run.cell("broken.first")["attempts"].as_array().unwrap().len(), 1, "no other guest would do better");
    lab.assert_nothing_left();
}

#[test]
#[ignore = "on request: an emulated guest takes a minute and more for its first boot"]
fn a_root_file_system_that_does_not_grow_with_its_disk_is_said_once_with_both_sizes() {
    let lab = Lab::open();
    let suites =
        ["one", "two"].map(|name| format!("[[suite]]\nname = '{name}'\ninline = 'getent hosts example.com; exit 0'\n"));
    let matrix = format!(
        "guest = {{ disk = '8GiB' }}\n[timeout]\nboot = '2m'\n{}{}",
        image("ungrown", "ungrown", ""),
        suites.concat()
    );
    let run = lab.run(&matrix, "out", &[]);
    run.assert_code(0);
    let events = run.file("events.jsonl");
    let said: Vec<&str> = events.lines().filter(|line| line.contains("root file system of")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("MiB on a disk of 8GiB"), "{said:?}");
    assert_eq!(run.file("summary.md").matches("a root file system of").count(), 1);
    lab.assert_nothing_left();
}

/// An image of the matrix: the disk in this format, where it lies.
pub(crate) fn image(name: &str, format: &str, more: &str) -> String {
    format!("[[image]]\nname = '{name}'\npath = '{}'\n{more}\n", disk(format).display())
}

/// What the files below a folder take.
fn bytes_of(folder: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "-B1", "-L"]).arg(folder).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split('\t').next().unwrap().parse().unwrap()
}
