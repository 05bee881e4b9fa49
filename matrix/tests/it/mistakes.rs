//! The messages for a wrong matrix file: place, mistake and remedy. Nothing is started.

use insta::assert_snapshot;

use crate::folder::{Folder, with};

#[test]
fn an_unknown_key_is_shown_with_the_key_that_was_meant() {
    assert_snapshot!(with("[timeout]\nsuit = \"3m\"\n").error(), @r#"
     × m.toml:4: unknown key `suit`
      ╭─[m.toml:4:1]
    3 │ [timeout]
    4 │ suit = "3m"
      · ──┬─
      ·   ╰── unknown key
      ╰────
     help: did you mean `suite`? known keys: boot, collect, install, prepare, suite
    "#);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_in_its_order() {
    let folder = Folder::with(
        r#"
images = ["debian-12-minimal", "debian-13-minmal"]
colour = "red"
[package]
name = "hello"
artifacts = ["dist/*.deb"]
[guest]
memory = "2GB"
[timeout]
boot = 90
setup = "1m"
[[suite]]
name = "smoke"
run = "smoke.sh"
env = { GREETING = "{{ package.version" }
"#,
    );
    assert_snapshot!(folder.plain(), @"
    m.toml:2: unknown image `debian-13-minmal`
    m.toml:3: unknown key `colour`
    m.toml:6: no file matches `dist/*.deb`
    m.toml:8: `2GB` is not a size
    m.toml:10: `90` is not a duration
    m.toml:11: unknown key `setup`
    m.toml:14: the script `smoke.sh` does not exist
    m.toml:15: template: Unexpected end of input
    ");
}

#[test]
fn a_log_without_drawings_still_names_file_and_line() {
    let error = with("colour = 1\nflavour = 2\n").try_load().expect_err("unknown keys").to_string();
    assert!(error.ends_with("m.toml:3: unknown key `colour` (and 1 more mistake)"), "{error}");
}

#[test]
fn a_choice_that_is_none_does_not_hide_what_comes_after_it() {
    let folder = Folder::with(
        "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\nboot = \"cod\"\n\
         identity = \"none\"\nfiles = [\"absent\"]\ncolour = 1\n",
    );
    let error = folder.try_load().expect_err("four mistakes");
    let said: Vec<_> = error.problems().map(|problem| problem.message().to_owned()).collect();
    let all = said.join("\n");
    for words in ["invalid value `cod`", "invalid value `none`", "unknown key `colour`", "absent"] {
        assert_eq!(said.iter().filter(|line| line.contains(words)).count(), 1, "{words}: {all}");
    }
    assert_eq!(said.len(), 4, "{all}");
}

#[test]
fn a_missing_artifact_says_where_it_was_looked_for_and_what_lies_there() {
    let matrix = "[package]\nname = \"hello\"\nartifacts = [\"dist/hello_2.10_amd64.deb\"]\n";
    assert_snapshot!(with(matrix).file("dist/hello_2.12_amd64.deb", "x").error(), @r#"
     × m.toml:5: no file matches `dist/hello_2.10_amd64.deb`
      ╭─[m.toml:5:14]
    4 │ name = "hello"
    5 │ artifacts = ["dist/hello_2.10_amd64.deb"]
      ·              ─────────────┬─────────────
      ·                           ╰── looked in dist
      ╰────
     help: did you mean `hello_2.12_amd64.deb`? the folder holds hello_2.12_amd64.deb
    "#);
    assert_snapshot!(with(matrix).error(), @r#"
     × m.toml:5: no file matches `dist/hello_2.10_amd64.deb`
      ╭─[m.toml:5:14]
    4 │ name = "hello"
    5 │ artifacts = ["dist/hello_2.10_amd64.deb"]
      ·              ─────────────┬─────────────
      ·                           ╰── looked in dist
      ╰────
     help: the folder dist cannot be read or does not exist: build the files first?
    "#);
}

#[test]
fn two_artifacts_of_one_name_cannot_lie_side_by_side() {
    let folder = with("[package]\nname = \"hello\"\nartifacts = [\"a/*.deb\", \"b/*.deb\"]\n")
        .file("a/hello.deb", "1")
        .file("b/hello.deb", "2");
    assert_snapshot!(folder.error(), @r#"
     × m.toml:5: two artifacts are named `hello.deb`: a/hello.deb and b/hello.deb
      ╭─[m.toml:5:25]
    4 │ name = "hello"
    5 │ artifacts = ["a/*.deb", "b/*.deb"]
      ·              ────┬────  ────┬────
      ·                  │          ╰── names the second
      ·                  ╰── names the first
      ╰────
     help: all artifacts go into one folder in the guest: rename one, or write narrower globs
    "#);
}

#[test]
fn a_matrix_needs_an_image() {
    assert_snapshot!(Folder::with("[[suite]]\nname = \"smoke\"\ninline = \"true\"\n").error(), @r#"
     × m.toml:1: the matrix has no image
      ╭─[m.toml:1:1]
    1 │ [[suite]]
      · ▲
      · ╰── no image in this file
    2 │ name = "smoke"
      ╰────
     help: name at least one, for example `images = ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal"]`
    "#);
}

#[test]
fn a_matrix_needs_a_suite() {
    assert_snapshot!(Folder::with("images = [\"debian-12-minimal\"]\n").error(), @r#"
     × m.toml:1: the matrix has no suite
      ╭─[m.toml:1:1]
    1 │ images = ["debian-12-minimal"]
      · ▲
      · ╰── no suite in this file
      ╰────
     help: add one: a table `[[suite]]` with a `name` and a script, `run = "tests/smoke.sh"` or `inline = "..."`
    "#);
}

#[test]
fn a_suite_needs_one_script() {
    let image = "images = [\"debian-12-minimal\"]\n";
    assert_snapshot!(Folder::with(&format!("{image}[[suite]]\nname = \"smoke\"\n")).error(), @r#"
     × m.toml:3: the suite `smoke` has no script
      ╭─[m.toml:3:8]
    2 │ [[suite]]
    3 │ name = "smoke"
      ·        ───┬───
      ·           ╰── nothing to run
      ╰────
     help: add `run = "tests/smoke.sh"` or `inline = "..."`
    "#);
    assert_snapshot!(
        Folder::with(&format!("{image}[[suite]]\nname = \"smoke\"\nrun = \"a.sh\"\ninline = \"true\"\n")).error(),
        @r#"
         × m.toml:5: the suite has two scripts
          ╭─[m.toml:5:10]
        3 │ name = "smoke"
        4 │ run = "a.sh"
          ·       ───┬──
          ·          ╰── and another
        5 │ inline = "true"
          ·          ───┬──
          ·             ╰── a script
          ╰────
         help: keep `run` or `inline`, not both
        "#
    );
}

#[test]
fn names_are_taken_once() {
    assert_snapshot!(with("[[image]]\nname = \"debian-13-minimal\"\n").error(), @r#"
     × m.toml:4: two images are named `debian-13-minimal`
      ╭─[m.toml:4:8]
    1 │ images = ["debian-12-minimal", "debian-13-minimal"]
      ·                                ─────────┬─────────
      ·                                         ╰── the first
    2 │ suite = [{ name = "smoke", inline = "true" }]
    3 │ [[image]]
    4 │ name = "debian-13-minimal"
      ·        ─────────┬─────────
      ·                 ╰── the second
      ╰────
     help: rename or remove one: the name of the image is part of its cells' names
    "#);
    assert_snapshot!(
        Folder::with("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"1\"\n[[suite]]\nname = \"a\"\ninline = \"2\"\n")
            .error(),
        @r#"
         × m.toml:6: two suites are named `a`
          ╭─[m.toml:6:8]
        2 │ [[suite]]
        3 │ name = "a"
          ·        ─┬─
          ·         ╰── the first
        4 │ inline = "1"
        5 │ [[suite]]
        6 │ name = "a"
          ·        ─┬─
          ·         ╰── the second
        7 │ inline = "2"
          ╰────
         help: rename or remove one: the name of the suite is part of its cells' names
        "#
    );
    assert_snapshot!(with("[axes]\nlocale = [\"C\", \"tr\", \"C\"]\n").error(), @r#"
     × m.toml:4: the axis `locale` has the value `C` twice
      ╭─[m.toml:4:22]
    3 │ [axes]
    4 │ locale = ["C", "tr", "C"]
      ·                      ─┬─
      ·                       ╰── again
      ╰────
     help: remove one of the two
    "#);
}

#[test]
fn an_unknown_image_is_shown_with_near_names() {
    assert_snapshot!(with("[[image]]\nname = \"old\"\nfrom = \"debian-1l-minimal\"\n").error(), @r#"
     × m.toml:5: unknown image `debian-1l-minimal`
      ╭─[m.toml:5:8]
    4 │ name = "old"
    5 │ from = "debian-1l-minimal"
      ·        ─────────┬─────────
      ·                 ╰── not in the catalog
      ╰────
     help: did you mean `debian-11-minimal` or `debian-12-minimal` or `debian-13-minimal`? `nestmatrix images list` shows the images there are
    "#);
}

#[test]
fn an_exclude_that_matches_nothing_is_a_warning() {
    let folder = with("[axes]\nlocale = [\"C\", \"tr\"]\n[[exclude]]\nimage = \"debian-12*\"\nlocale = \"de*\"\n");
    let loaded = folder.load();
    assert_eq!((loaded.plan.cells.len(), loaded.warnings.len()), (4, 1));
    assert_snapshot!(folder.shown(&loaded.warnings[0]), @r#"
     ⚠ m.toml:5: this exclude matches no cell
      ╭─[m.toml:5:1]
    4 │ locale = ["C", "tr"]
    5 │ [[exclude]]
      · ─────┬─────
      ·      ╰── matches nothing
    6 │ image = "debian-12*"
      ╰────
     help: compare its values with the lists of the axes, or remove it
    "#);
}

#[test]
fn rules_speak_of_what_there_is() {
    assert_snapshot!(
        with("[axes]\nlocale = [\"C\"]\n[[exclude]]\nimage = \"debian-11-minimal\"\nsuite = \"smok\"\nlocal = \"C\"\n").error(),
        @r#"
          × m.toml:6: unknown image `debian-11-minimal` (and 2 more mistakes)
           ╭─[m.toml:6:9]
         5 │ [[exclude]]
         6 │ image = "debian-11-minimal"
           ·         ─────────┬─────────
           ·                  ╰── unknown
         7 │ suite = "smok"
           ╰────
          help: did you mean `debian-12-minimal` or `debian-13-minimal`? this matrix has debian-12-minimal, debian-13-minimal

        Error:
          × m.toml:7: unknown suite `smok`
           ╭─[m.toml:7:9]
         6 │ image = "debian-11-minimal"
         7 │ suite = "smok"
           ·         ───┬──
           ·            ╰── unknown
         8 │ local = "C"
           ╰────
          help: did you mean `smoke`? this matrix has smoke

        Error:
          × m.toml:8: unknown axis `local`
           ╭─[m.toml:8:1]
         7 │ suite = "smok"
         8 │ local = "C"
           · ──┬──
           ·   ╰── neither `image` nor `suite` nor an axis
           ╰────
          help: did you mean `locale`? this matrix has image, suite, locale
        "#
    );
    assert_snapshot!(
        with("[axes]\nlocale = [\"C\"]\n[[include]]\nimage = \"debian-12-minimal\"\nsuite = \"smoke\"\n").error(),
        @r#"
         × m.toml:5: this include does not name `locale`
          ╭─[m.toml:5:1]
        4 │ locale = ["C"]
        5 │ [[include]]
          · ─────┬─────
          ·      ╰── incomplete
        6 │ image = "debian-12-minimal"
          ╰────
         help: an include adds one cell: name its image, its suite and a value of every axis
        "#
    );
}

#[test]
fn a_matrix_without_cells_is_none() {
    assert_snapshot!(with("[axes]\nlocale = []\n").error(), @"
     × m.toml:4: the axis `locale` has no values, so the matrix has no cells
      ╭─[m.toml:4:10]
    3 │ [axes]
    4 │ locale = []
      ·          ─┬
      ·           ╰── empty
      ╰────
     help: give it at least one value, or remove it
    ");
    assert_snapshot!(with("[[exclude]]\nimage = \"*\"\n").error(), @r#"
     × m.toml:3: the matrix has no cells: every one is excluded
      ╭─[m.toml:3:1]
    2 │ suite = [{ name = "smoke", inline = "true" }]
    3 │ [[exclude]]
      · ─────┬─────
      ·      ╰── an exclude
    4 │ image = "*"
      ╰────
     help: remove or narrow an exclude, so that something is left to run
    "#);
}

#[test]
fn too_many_cells_are_told_before_any_is_made() {
    let values = (0..1000).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let axes = (0..9).map(|axis| format!("axis{axis} = [{values}]\n")).collect::<String>();
    let folder = with(&format!("[axes]\n{axes}"));
    assert_snapshot!(folder.plain(), @"m.toml:1: the matrix has more than 100000 cells: 2 images x 1 suites x 1000 axis0 x 1000 axis1 x 1000 axis2 x 1000 axis3 x 1000 axis4 x 1000 axis5 x 1000 axis6 x 1000 axis7 x 1000 axis8");
}

#[test]
fn an_environment_variable_has_a_name_a_shell_can_use_and_none_of_ours() {
    let folder = Folder::with(
        "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\n[suite.env]\n1ST = \"x\"\nNESTMATRIX_CELL = \"x\"\nNUL = \"a\\u0000b\"\n",
    );
    assert_snapshot!(folder.plain(), @r#"
    m.toml:6: "1ST" cannot name an environment variable
    m.toml:7: `NESTMATRIX_CELL` is reserved
    m.toml:8: the value holds a NUL character
    "#);
}

#[test]
fn axes_are_variables() {
    assert_snapshot!(with("[axes]\nimage = [1]\nfoo-bar = [1]\nLang = [1]\nlang = [1]\n").plain(), @r#"
    m.toml:4: an axis cannot be named `image`
    m.toml:5: "foo-bar" cannot name an axis
    m.toml:7: the axis `lang` differs from another one only in case
    "#);
}

#[test]
fn installing_nothing_is_a_mistake() {
    let folder =
        Folder::with("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\ninstall = true\n");
    assert_snapshot!(folder.error(), @r#"
     × m.toml:5: there is nothing to install: the matrix names no package artifacts
      ╭─[m.toml:5:11]
    4 │ inline = "true"
    5 │ install = true
      ·           ──┬─
      ·             ╰── cannot be done
      ╰────
     help: add `artifacts` to `[package]`, or remove this
    "#);
}

#[test]
fn shapes_are_explained_in_the_words_of_toml() {
    assert_snapshot!(Folder::with("images = \"debian-12-minimal\"\n").error(), @r#"
     × m.toml:1: invalid type: string "debian-12-minimal", expected a list
      ╭─[m.toml:1:10]
    1 │ images = "debian-12-minimal"
      ·          ─────────┬─────────
      ·                   ╰── wrong type
      ╰────
     help: write a list here
    "#);
    assert_snapshot!(Folder::with("[[images]]\nname = \"debian-12-minimal\"\n").error(), @r#"
     × m.toml:1: invalid type: table, expected a string
      ╭─[m.toml:1:1]
    1 │ [[images]]
      · ─────┬────
      ·      ╰── wrong type
    2 │ name = "debian-12-minimal"
      ╰────
     help: `images` is a list of names; the table of one image is `[[image]]`
    "#);
    assert_snapshot!(with("[runner]\nkind = \"hots\"\n").error(), @r#"
     × m.toml:4: invalid value `hots`
      ╭─[m.toml:4:8]
    3 │ [runner]
    4 │ kind = "hots"
      ·        ───┬──
      ·           ╰── invalid value
      ╰────
     help: did you mean `host`? valid values: auto, host, qemu, ssh, gce
    "#);
    assert_snapshot!(with("[[image]]\nfrom = \"debian-11-minimal\"\n").error(), @r#"
     × m.toml:3: missing key `name`
      ╭─[m.toml:3:1]
    2 │ suite = [{ name = "smoke", inline = "true" }]
    3 │ [[image]]
      · ────┬────
      ·     ╰── in this table
    4 │ from = "debian-11-minimal"
      ╰────
     help: add `name = ...` to this table
    "#);
    assert_snapshot!(Folder::with("images = [\n").error(), @"
     × m.toml:1: unclosed array, expected `]`
      ╭─[m.toml:1:11]
    1 │ images = [
      ·           ▲
      ·           ╰── here
      ╰────
     help: the file is TOML: text in quotes, lists in [ ], tables in { } on one line; see https://toml.io
    ");
}

#[test]
fn a_script_is_a_short_text_file_that_exists() {
    let folder = || {
        Folder::with("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\nrun = \"tests/smoke.sh\"\n")
            .file("tests/smokey.sh", "true")
    };
    assert_snapshot!(folder().error(), @r#"
     × m.toml:4: the script `tests/smoke.sh` does not exist
      ╭─[m.toml:4:7]
    3 │ name = "a"
    4 │ run = "tests/smoke.sh"
      ·       ────────┬───────
      ·               ╰── looked in tests
      ╰────
     help: did you mean `smokey.sh`? the folder holds smokey.sh
    "#);
    for (content, said) in [
        (vec![b'x'; (1 << 20) + 1], "is too large: 1048577 bytes, the limit is 1048576"),
        (b"\xff\xfe".to_vec(), "is not UTF-8 text"),
        (b"a\0b".to_vec(), "holds a NUL character"),
        (b" \n".to_vec(), "is empty"),
    ] {
        let folder = folder().file("tests/smoke.sh", content);
        assert_eq!(folder.plain(), format!("m.toml:4: the script `tests/smoke.sh` {said}"));
    }
    assert_eq!(folder().file("tests/smoke.sh/x", "").plain(), "m.toml:4: the script `tests/smoke.sh` is not a file");
}

#[test]
fn a_matrix_file_that_cannot_be_read_is_named() {
    assert_snapshot!(Folder::new().file("n.toml", "").error(), @"
    × m.toml: cannot read the matrix file: No such file or directory (os error 2)
    help: did you mean `n.toml`? name a matrix file: a TOML file with images and suites
    ");
    assert_snapshot!(Folder::new().file("m.toml/x", "").error(), @"
    × m.toml: cannot read the matrix file: not a file
    help: name the matrix file itself, a TOML file
    ");
    assert_snapshot!(Folder::new().file("m.toml", "#".repeat((1 << 20) + 1)).error(), @r#"
    × m.toml: the matrix file is too large: 1048577 bytes, the limit is 1048576
    help: put scripts into files of their own (`run = "..."`), or split the matrix
    "#);
    assert_snapshot!(Folder::new().file("m.toml", b"# ok\n\xff").error(), @"
    × m.toml: the matrix file is not UTF-8 text (line 2)
    help: save it as UTF-8
    ");
}

#[test]
fn a_matrix_file_whose_name_no_report_could_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::with("images = []\n");
    let path = folder.path("m.toml").with_file_name(std::ffi::OsStr::from_bytes(b"\xff.toml"));
    std::fs::rename(folder.path("m.toml"), &path).expect("renamed");
    let error = matrix::load(&path, &crate::folder::CATALOG).expect_err("no plan could name it");
    assert!(error.to_string().contains("is not UTF-8"), "{error}");
}

/// The mistake in these steps of a suite, which has something to install.
fn wrong_steps(steps: &str, more: &str) -> String {
    let text = format!(
        "images = [\"debian-12-minimal\"]\npackage = {{ name = \"a\", artifacts = [\"*.deb\"] }}\n[[suite]]\nname = \"a\"\ninline = \"true\"\nsteps = [{steps}]\n{more}"
    );
    Folder::with(&text).file("a.deb", "not really").plain()
}

#[test]
fn steps_that_cannot_be_taken_are_mistakes() {
    let wrong =
        |steps: &[&str]| wrong_steps(&steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>().join(", "), "");
    assert_snapshot!(wrong(&["run"]), @"m.toml:6: `steps` must begin with `prepare`");
    assert_snapshot!(wrong(&["prepare", "install"]), @"m.toml:6: the step `run` is missing: nothing would be tested");
    assert_snapshot!(wrong(&[]), @"m.toml:6: the step `run` is missing: nothing would be tested");
    assert_snapshot!(wrong(&["prepare", "run", "prepare"]), @"m.toml:6: the step `prepare` comes after `run`");
    assert_snapshot!(wrong(&["prepare", "run", "run"]), @"m.toml:6: the step `run` appears twice");
    assert_snapshot!(wrong(&["prepare", "run", "install"]), @"m.toml:6: the step `install` comes after `run`");
    assert_snapshot!(wrong(&["prepare", "collect", "run"]), @"m.toml:6: the step `run` comes after `collect`");
    assert_snapshot!(wrong(&["prepare", "run", "collect", "reboot"]), @"m.toml:6: the step `reboot` comes after `collect`");
    assert_snapshot!(wrong(&["prepare", "run", "collect"]), @"m.toml:6: there is nothing to collect: the suite names neither `results` nor `artifacts`");
    assert_snapshot!(wrong(&[&["prepare", "run"][..], &["reboot"; 11]].concat()), @"m.toml:6: 11 steps `reboot`, the limit is 10");
    assert_snapshot!(wrong(&["prepare", "sleep", "run"]), @"m.toml:6: invalid value `sleep`");
    assert_snapshot!(wrong_steps("\"prepare\", \"run\"", "results = \"junit:/tmp/*.xml\"\n"), @"m.toml:6: the step `collect` is missing: the suite's `results` would not be fetched");
    assert_snapshot!(wrong_steps("\"prepare\", \"run\"", "install = false\n"), @"m.toml:7: `install` and `steps` both say whether the package is installed");
}

#[test]
fn results_that_a_reboot_removes_are_a_mistake() {
    let wrong = |suite: &str| {
        let text = format!("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\n{suite}\n");
        Folder::with(&text).plain()
    };
    assert_snapshot!(wrong("reboot = true\nresults = \"junit:/tmp/results/*.xml\""), @"m.toml:6: `/tmp/results/*.xml` does not survive the reboot of this suite's guest");
    assert_snapshot!(wrong("steps = [\"prepare\", \"run\", \"reboot\", \"collect\"]\nartifacts = [\"/var/log/a\", \"/run/a\"]"), @"m.toml:6: `/run/a` does not survive the reboot of this suite's guest");
    let fine = "steps = [\"prepare\", \"reboot\", \"run\", \"collect\"]\nresults = \"junit:/tmp/*.xml\"";
    let text = format!("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\n{fine}\n");
    assert_eq!(Folder::with(&text).load().plan.cells.len(), 1, "what is written after it stays");
}

#[test]
fn a_list_of_steps_is_mended_where_it_is_wrong() {
    let folder = Folder::with(
        "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\nsteps = [\"prepare\", \"install\", \"run\"]\n",
    );
    assert_snapshot!(folder.error(), @r#"
     × m.toml:5: there is nothing to install: the matrix names no package artifacts
      ╭─[m.toml:5:21]
    4 │ inline = "true"
    5 │ steps = ["prepare", "install", "run"]
      ·                     ────┬────
      ·                         ╰── cannot be done
      ╰────
     help: add `artifacts` to `[package]`, or remove this
    "#);
    let folder = Folder::with(
        "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\nsteps = [\"prepare\", \"run\", \"reboot\", \"prepare\"]\n",
    );
    assert_snapshot!(folder.error(), @r#"
     × m.toml:5: the step `prepare` comes after `run`
      ╭─[m.toml:5:38]
    4 │ inline = "true"
    5 │ steps = ["prepare", "run", "reboot", "prepare"]
      ·                                      ────┬────
      ·                                          ╰── too late
      ╰────
     help: the order is prepare, install, run, collect; `reboot` may stand anywhere between `prepare` and `collect`
    "#);
}

#[test]
fn a_suite_says_whether_or_how_the_package_is_installed_and_nothing_else() {
    let wrong = |value: &str| {
        let text = format!(
            "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\ninstall = {value}\n"
        );
        Folder::with(&text).plain()
    };
    assert_snapshot!(wrong("\"repo\""), @r#"m.toml:5: invalid value: string "repo", expected true, false, "file" or "repository""#);
    assert_snapshot!(wrong("1"), @r#"m.toml:5: invalid value: integer `1`, expected true, false, "file" or "repository""#);
    assert_snapshot!(wrong("\"repository\""), @"m.toml:5: there is nothing to install: the matrix names no package artifacts");
}
