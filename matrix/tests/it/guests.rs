//! What a matrix says of how its guests come to be, and what is said when that is wrong.

use insta::assert_snapshot;

use crate::folder::Folder;

/// A matrix whose one image is prepared by a table with these lines, its header at line 4.
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
     help: write down what is to be run
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
     help: an image is prepared for all its cells: it can use package.name, image.name, image.from
    "#);
    assert_snapshot!(prepared("inline = \"echo {{ axes.locale }}\"").plain(), @"m.toml:5: template: Variable `axes` is not defined. Available variables: image, package");
}

#[test]
fn how_a_guest_comes_to_be_and_whose_it_is_are_choices() {
    let suite = |line: &str| {
        Folder::with(&format!("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\n{line}\n"))
    };
    assert_snapshot!(suite("boot = \"hot\"").error(), @r#"
     × m.toml:5: `hot` is not a choice here
      ╭─[m.toml:5:8]
    4 │ inline = "true"
    5 │ boot = "hot"
      ·        ──┬──
      ·          ╰── not a choice
      ╰────
     help: choices: warm, cold
    "#);
    assert_snapshot!(suite("identity = \"own\"").error(), @r#"
     × m.toml:5: `own` is not a choice here
      ╭─[m.toml:5:12]
    4 │ inline = "true"
    5 │ identity = "own"
      ·            ──┬──
      ·              ╰── not a choice
      ╰────
     help: choices: shared, unique
    "#);
}
