//! Keys about guests: valid values, and the messages for invalid ones.

use insta::assert_snapshot;
use matrix::{ByteSize, DataDisk, DiskInterface, Firmware};

use crate::folder::Folder;

/// A matrix whose one image has a `prepare` table with these lines, its header at line 4.
fn prepared(lines: &str) -> Folder {
    Folder::with(&format!(
        "package = {{ name = \"hello\" }}\n[[image]]\nname = \"debian-12-minimal\"\n[image.prepare]\n{lines}\n[[suite]]\nname = \"a\"\ninline = \"true\"\n"
    ))
}

#[test]
fn a_preparation_does_something_and_has_one_script() {
    assert_snapshot!(prepared("network = \"open\"").error(), @r#"
     × m.toml:4: this `prepare` prepares nothing
      ╭─[m.toml:4:1]
    3 │ name = "debian-12-minimal"
    4 │ [image.prepare]
      · ───────┬───────
      ·        ╰── nothing to do
    5 │ network = "open"
      ╰────
     help: add `packages = ["gcc"]`, `run = "prepare.sh"` or `inline = "..."`, or remove it
    "#);
    assert_snapshot!(prepared("packages = []").plain(), @"m.toml:4: this `prepare` prepares nothing");
    assert_snapshot!(prepared("inline = \"true\"\nrun = \"a.sh\"").error(), @r#"
     × m.toml:5: the table `prepare` has two scripts
      ╭─[m.toml:5:10]
    4 │ [image.prepare]
    5 │ inline = "true"
      ·          ───┬──
      ·             ╰── a script
    6 │ run = "a.sh"
      ·       ───┬──
      ·          ╰── and another
    7 │ [[suite]]
      ╰────
     help: keep `run` or `inline`, not both
    "#);
    assert_snapshot!(prepared("inline = \" \"").error(), @r#"
     × m.toml:5: the inline script is empty
      ╭─[m.toml:5:10]
    4 │ [image.prepare]
    5 │ inline = " "
      ·          ─┬─
      ·           ╰── this script
    6 │ [[suite]]
      ╰────
     help: write the commands to run
    "#);
    assert_snapshot!(prepared("run = \"a.sh\"").error(), @r#"
     × m.toml:5: the script `a.sh` does not exist
      ╭─[m.toml:5:7]
    4 │ [image.prepare]
    5 │ run = "a.sh"
      ·       ───┬──
      ·          ╰── looked in (folder)
    6 │ [[suite]]
      ╰────
     help: the folder holds m.toml
    "#);
    assert_snapshot!(prepared("runn = \"a.sh\"\npackages = [\"gcc\"]\ntimeout = \"25h\"").plain(), @"
    m.toml:5: unknown key `runn`
    m.toml:7: the time limit `25h` is out of range
    ");
}

#[test]
fn a_package_for_a_guest_is_a_name_and_never_an_option() {
    assert_snapshot!(prepared("packages = [\"gcc\", \"-y\"]").error(), @r#"
     × m.toml:5: "-y" is not the name of a package
      ╭─[m.toml:5:20]
    4 │ [image.prepare]
    5 │ packages = ["gcc", "-y"]
      ·                    ──┬─
      ·                      ╰── not a package
    6 │ [[suite]]
      ╰────
     help: write one name as the guest's package manager knows it, such as `gcc` or `libssl-dev`: letters, digits and `+._:=~-`, not beginning with a sign
    "#);
    for good in ["gcc", "g++", "libssl-dev:i386", "gcc=4:12.2.0-3", "python3.11", "a~b", "x_y", "7zip"] {
        assert!(prepared(&format!("packages = [{good:?}]")).try_load().is_ok(), "{good}");
    }
    let long = "x".repeat(300);
    for bad in ["", " ", "gcc make", "gcc\\n", "-", "--root=/", "a;b", "a/b", "$(x)", "a\\u0000", "größe", "*", &long]
    {
        let plain = prepared(&format!("packages = [\"{bad}\"]")).plain();
        assert!(plain.starts_with("m.toml:5: ") && plain.ends_with("is not the name of a package"), "{bad}: {plain}");
    }
}

#[test]
fn a_preparation_knows_nothing_of_the_cells() {
    assert_snapshot!(prepared("inline = \"echo {{ suite.name }}\"").error(), @r#"
     × m.toml:5: template: Variable `suite` is not defined. Available variables: image, package
      ╭─[m.toml:5:19]
    4 │ [image.prepare]
    5 │ inline = "echo {{ suite.name }}"
      ·                   ──┬──
      ·                     ╰── in this template
    6 │ [[suite]]
      ╰────
     help: `prepare` runs once for all cells of an image: it can use package.name, image.name, image.from
    "#);
    assert_snapshot!(prepared("inline = \"echo {{ axes.locale }}\"").plain(), @"m.toml:5: template: Variable `axes` is not defined. Available variables: image, package");
}

#[test]
fn how_a_guest_comes_to_be_and_whose_it_is_are_choices() {
    let suite = |line: &str| {
        Folder::with(&format!("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\n{line}\n"))
    };
    assert_snapshot!(suite("boot = \"hot\"").error(), @r#"
     × m.toml:5: invalid value `hot`
      ╭─[m.toml:5:8]
    4 │ inline = "true"
    5 │ boot = "hot"
      ·        ──┬──
      ·          ╰── invalid value
      ╰────
     help: valid values: warm, cold
    "#);
    assert_snapshot!(suite("identity = \"own\"").error(), @r#"
     × m.toml:5: invalid value `own`
      ╭─[m.toml:5:12]
    4 │ inline = "true"
    5 │ identity = "own"
      ·            ──┬──
      ·              ╰── invalid value
      ╰────
     help: valid values: shared, unique
    "#);
}

/// A matrix with these lines in its guest table, from line 4 on.
fn guests(lines: &str) -> Folder {
    Folder::with(&format!(
        "images = [\"debian-12-minimal\"]\nsuite = [{{ name = \"a\", inline = \"true\" }}]\n[guest]\n{lines}\n"
    ))
}

#[test]
fn more_disks_have_a_size_and_may_have_a_serial_number_and_an_interface() {
    let plan = guests("disks = [\"10GiB\", { size = \"1GiB\", serial = \"data\", interface = \"nvme\" }]").load().plan;
    let disk = |serial: &str, gib: u64, interface| DataDisk {
        serial: serial.to_owned(),
        size: ByteSize::from_mib(gib << 10),
        interface,
    };
    assert_eq!(
        plan.cells[0].guest.disks,
        [disk("disk-1", 10, DiskInterface::Virtio), disk("data", 1, DiskInterface::Nvme)]
    );
    let plain = guests("").load().plan;
    let guest = &plain.cells[0].guest;
    assert_eq!((guest.disks.len(), guest.nics, guest.firmware, guest.tpm), (0, 1, None, false));
    assert_ne!(plan.digest, plain.digest);
}

#[test]
fn what_a_guest_is_made_of_is_said_most_narrowly_by_its_suite() {
    let folder = Folder::with(
        r#"
guest = { disks = ["1GiB"], nics = 2, tpm = true, firmware = "uefi" }
[[image]]
name = "debian-12-minimal"
guest = { nics = 3 }
[[suite]]
name = "usual"
inline = "true"
[[suite]]
name = "own"
inline = "true"
guest = { disks = [], nics = 8, tpm = false, firmware = "uefi-secure" }
"#,
    );
    let plan = folder.load().plan;
    let [usual, own] = [0, 1].map(|cell| &plan.cells[cell].guest);
    assert_eq!((usual.disks.len(), usual.nics, usual.firmware, usual.tpm), (1, 3, Some(Firmware::Uefi), true));
    assert_eq!((own.disks.len(), own.nics, own.firmware, own.tpm), (0, 8, Some(Firmware::UefiSecure), false));
}

#[test]
fn what_is_wrong_with_a_disk_is_said_where_it_stands() {
    assert_snapshot!(guests("disks = [\"1GB\"]").error(), @r#"
     × m.toml:4: `1GB` is not a size
      ╭─[m.toml:4:10]
    3 │ [guest]
    4 │ disks = ["1GB"]
      ·          ──┬──
      ·            ╰── not a size
      ╰────
     help: write a whole number and one of KiB, MiB, GiB, TiB, for example `1GiB`
    "#);
    assert_snapshot!(guests("disks = [{ size = \"1GiB\", serial = \"my data\" }]").error(), @r#"
     × m.toml:4: "my data" is not a serial number
      ╭─[m.toml:4:36]
    3 │ [guest]
    4 │ disks = [{ size = "1GiB", serial = "my data" }]
      ·                                    ────┬────
      ·                                        ╰── not a serial number
      ╰────
     help: write 1 to 20 letters, digits, `-` and `_`, such as `data`
    "#);
    assert_snapshot!(guests("disks = [\"1GiB\", { size = \"1GiB\", serial = \"disk-1\" }]").error(), @r#"
     × m.toml:4: two disks of a guest have the serial number `disk-1`
      ╭─[m.toml:4:44]
    3 │ [guest]
    4 │ disks = ["1GiB", { size = "1GiB", serial = "disk-1" }]
      ·          ───┬──                            ────┬───
      ·             │                                  ╰── the second
      ·             ╰── the first
      ╰────
     help: name one of them differently: `{ size = "1GiB", serial = "data" }`
    "#);
    assert_snapshot!(guests("disks = [{ size = \"1GiB\", serial = \"seed\" }]").error(), @r#"
     × m.toml:4: the serial number `seed` is reserved for a disk of nestmatrix
      ╭─[m.toml:4:36]
    3 │ [guest]
    4 │ disks = [{ size = "1GiB", serial = "seed" }]
      ·                                    ───┬──
      ·                                       ╰── reserved
      ╰────
     help: choose another, such as `data`
    "#);
    assert_snapshot!(guests("disks = [{ size = \"1GiB\", interface = \"scsi\" }]").error(), @r#"
     × m.toml:4: invalid value `scsi`
      ╭─[m.toml:4:39]
    3 │ [guest]
    4 │ disks = [{ size = "1GiB", interface = "scsi" }]
      ·                                       ───┬──
      ·                                          ╰── invalid value
      ╰────
     help: valid values: virtio, nvme
    "#);
    assert_snapshot!(guests("disks = [{ size = \"1GiB\", sreial = \"data\" }]").error(), @r#"
     × m.toml:4: unknown key `sreial`
      ╭─[m.toml:4:27]
    3 │ [guest]
    4 │ disks = [{ size = "1GiB", sreial = "data" }]
      ·                           ───┬──
      ·                              ╰── unknown key
      ╰────
     help: did you mean `serial`? known keys: interface, serial, size
    "#);
    assert_snapshot!(guests("disks = [{ serial = \"data\" }]").error(), @r#"
     × m.toml:4: missing key `size`
      ╭─[m.toml:4:10]
    3 │ [guest]
    4 │ disks = [{ serial = "data" }]
      ·          ─────────┬─────────
      ·                   ╰── in this table
      ╰────
     help: add `size = ...` to this table
    "#);
    assert_snapshot!(guests(&format!("disks = [{}]", "'1GiB', ".repeat(17))).plain(), @"m.toml:4: 17 disks, the limit is 16");
    assert_snapshot!(guests("disks = \"1GiB\"").plain(), @r#"m.toml:4: invalid type: string "1GiB", expected a list"#);
    assert_snapshot!(guests("disks = [true]").plain(), @r#"m.toml:4: invalid type: boolean `true`, expected a size such as "10GiB", or a table such as { size = "1GiB", serial = "data" }"#);
    let long = "x".repeat(21);
    for bad in ["512KiB", "128TiB", "1536KiB"] {
        let plain = guests(&format!("disks = [\"{bad}\"]")).plain();
        assert!(plain.starts_with(&format!("m.toml:4: the size `{bad}` is ")), "{plain}");
    }
    for bad in ["", "a,b", "a/b", "größe", &long] {
        let plain = guests(&format!("disks = [{{ size = \"1GiB\", serial = \"{bad}\" }}]")).plain();
        assert!(plain.starts_with("m.toml:4: ") && plain.ends_with("is not a serial number"), "{plain}");
    }
}

#[test]
fn what_is_wrong_with_the_other_parts_of_a_guest_is_said_where_it_stands() {
    assert_snapshot!(guests("nics = 9").error(), @"
     × m.toml:4: `9` is out of range
      ╭─[m.toml:4:8]
    3 │ [guest]
    4 │ nics = 9
      ·        ┬
      ·        ╰── out of range
      ╰────
     help: write a number from 1 to 8
    ");
    assert_snapshot!(guests("nics = 0").plain(), @"m.toml:4: `0` is out of range");
    assert_snapshot!(guests("firmware = \"efi\"").error(), @r#"
     × m.toml:4: invalid value `efi`
      ╭─[m.toml:4:12]
    3 │ [guest]
    4 │ firmware = "efi"
      ·            ──┬──
      ·              ╰── invalid value
      ╰────
     help: did you mean `uefi` or `uefi-secure`? valid values: bios, uefi, uefi-secure
    "#);
    assert_snapshot!(guests("tpm = 2").plain(), @"m.toml:4: invalid type: integer `2`, expected a boolean");
}

#[test]
fn firmware_starts_only_what_has_a_boot_loader_and_what_is_made_for_it() {
    let image = |lines: &str, more: &str| {
        Folder::with(&format!(
            "[[image]]\nname = \"own\"\n{lines}\n[[suite]]\nname = \"a\"\ninline = \"true\"\n\
             guest = {{ firmware = \"uefi-secure\" }}\n[[suite]]\nname = \"b\"\ninline = \"true\"\n{more}"
        ))
        .file("own.tar", "x")
    };
    assert_snapshot!(image("rootfs = \"own.tar\"", "").error(), @r#"
     × m.toml:7: guests of `own` have no boot loader that firmware could start
      ╭─[m.toml:7:22]
    6 │ inline = "true"
    7 │ guest = { firmware = "uefi-secure" }
      ·                      ──────┬──────
      ·                            ╰── nothing to start
    8 │ [[suite]]
      ╰────
     help: nestmatrix boots them with its own kernel: remove `firmware`, or exclude the image from this suite
    "#);
    assert_snapshot!(image("path = \"own.tar\"\narch = \"aarch64\"", "").error(), @r#"
     × m.toml:8: Secure Boot is supported for x86_64 guests only
      ╭─[m.toml:8:22]
    7 │ inline = "true"
    8 │ guest = { firmware = "uefi-secure" }
      ·                      ──────┬──────
      ·                            ╰── not on aarch64
    9 │ [[suite]]
      ╰────
     help: write `firmware = "uefi"`, or remove it
    "#);
    assert!(image("path = \"own.tar\"\narch = \"x86_64\"", "").try_load().is_ok());
    let excluded = image("rootfs = \"own.tar\"", "[[exclude]]\nimage = \"own\"\nsuite = \"a\"\n");
    assert!(excluded.try_load().is_ok(), "that cell is left out");
}
