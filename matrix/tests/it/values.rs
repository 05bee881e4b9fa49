//! The messages for invalid values: globs, sizes, durations, templates.

use insta::assert_snapshot;

use crate::folder::{Folder, with};

#[test]
fn a_glob_that_is_bad_name_by_name_is_not_taken_for_no_artifacts() {
    let bad = with("[package]\nname = \"x\"\nartifacts = [\"[a/b].deb\"]\n");
    assert!(bad.plain().starts_with("m.toml:5: `[a/b].deb` is not a glob"), "{}", bad.plain());
}

#[test]
fn a_bad_glob_is_shown_where_it_stands() {
    assert_snapshot!(with("[package]\nname = \"x\"\nartifacts = [\"dist/[*.deb\"]\n").error(), @r#"
     × m.toml:5: `dist/[*.deb` is not a glob: invalid range pattern
      ╭─[m.toml:5:14]
    4 │ name = "x"
    5 │ artifacts = ["dist/[*.deb"]
      ·              ──────┬──────
      ·                    ╰── this glob
      ╰────
     help: `*` and `?` match within a name, `**` any folders (alone between slashes), `[a-c]` one of these; write `[[]` for a plain `[`
    "#);
    assert_snapshot!(with("[[exclude]]\nimage = \"debian-{12\"\n").error(), @r#"
     × m.toml:4: `debian-{12` is not a glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
      ╭─[m.toml:4:9]
    3 │ [[exclude]]
    4 │ image = "debian-{12"
      ·         ──────┬─────
      ·               ╰── not a glob
      ╰────
     help: `*` and `?` match within a name, `**` any folders (alone between slashes), `[a-c]` one of these; write `[[]` for a plain `[`
    "#);
    let suite = |lines: &str| {
        Folder::with(&format!(
            "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"true\"\n{lines}\n"
        ))
        .error()
    };
    assert_snapshot!(suite("artifacts = [\"/var/log/**.log\"]"), @r#"
     × m.toml:5: `/var/log/**.log` is not a glob: recursive wildcards must form a single path component
      ╭─[m.toml:5:14]
    4 │ inline = "true"
    5 │ artifacts = ["/var/log/**.log"]
      ·              ────────┬────────
      ·                      ╰── a path in the guest
      ╰────
     help: `*` and `?` match within a name, `**` any folders (alone between slashes), `[a-c]` one of these; write `[[]` for a plain `[`
    "#);
    assert_snapshot!(suite("results = \"junit:results.xml\""), @r#"
     × m.toml:5: `results.xml` is not an absolute path in the guest
      ╭─[m.toml:5:11]
    4 │ inline = "true"
    5 │ results = "junit:results.xml"
      ·           ─────────┬─────────
      ·                    ╰── a path in the guest
      ╰────
     help: write an absolute path or glob, for example `/var/log/hello*.log`
    "#);
    assert_snapshot!(suite("results = \"/tmp/results.xml\""), @r#"
     × m.toml:5: `/tmp/results.xml` does not say where results are
      ╭─[m.toml:5:11]
    4 │ inline = "true"
    5 │ results = "/tmp/results.xml"
      ·           ─────────┬────────
      ·                    ╰── not `junit:` and a path
      ╰────
     help: write the format and an absolute glob in the guest, for example `junit:/tmp/results/*.xml`
    "#);
}

#[test]
fn a_bad_size_is_answered_with_a_good_one() {
    assert_snapshot!(with("[guest]\nmemory = \"2G\"\n").error(), @r#"
     × m.toml:4: `2G` is not a size
      ╭─[m.toml:4:10]
    3 │ [guest]
    4 │ memory = "2G"
      ·          ──┬─
      ·            ╰── not a size
      ╰────
     help: write a whole number and one of KiB, MiB, GiB, TiB, for example `2GiB`
    "#);
    assert_snapshot!(with("[guest]\nmemory = \"64MiB\"\n").error(), @r#"
     × m.toml:4: the size `64MiB` is out of range
      ╭─[m.toml:4:10]
    3 │ [guest]
    4 │ memory = "64MiB"
      ·          ───┬───
      ·             ╰── out of range
      ╰────
     help: write a size from 128MiB to 16TiB
    "#);
    assert_snapshot!(with("[guest]\ndisk = 4096\n").error(), @"
     × m.toml:4: `4096` is not a size
      ╭─[m.toml:4:8]
    3 │ [guest]
    4 │ disk = 4096
      ·        ──┬─
      ·          ╰── not a size
      ╰────
     help: write a whole number and one of KiB, MiB, GiB, TiB, for example `4GiB`
    ");
    assert_snapshot!(with("[guest]\nmemory = \"200000KiB\"\n").error(), @r#"
     × m.toml:4: the size `200000KiB` is not a whole number of mebibytes
      ╭─[m.toml:4:10]
    3 │ [guest]
    4 │ memory = "200000KiB"
      ·          ─────┬─────
      ·               ╰── not whole
      ╰────
     help: write `195MiB` or `196MiB`
    "#);
}

#[test]
fn a_guest_has_to_fit_into_the_runner() {
    assert_snapshot!(with("[runner]\nmemory = \"1GiB\"\n[guest]\nmemory = \"2GiB\"\n").error(), @r#"
     × m.toml:6: the guest has more memory than the runner
      ╭─[m.toml:6:10]
    3 │ [runner]
    4 │ memory = "1GiB"
      ·          ───┬──
      ·             ╰── the runner's
    5 │ [guest]
    6 │ memory = "2GiB"
      ·          ───┬──
      ·             ╰── the guest's
      ╰────
     help: lower the guest's or raise the runner's
    "#);
    assert_snapshot!(with("[runner]\nmemory = \"256MiB\"\n").error(), @r#"
     × m.toml:4: the guest has more memory than the runner: 512MiB by default
      ╭─[m.toml:4:10]
    3 │ [runner]
    4 │ memory = "256MiB"
      ·          ────┬───
      ·              ╰── the runner's
      ╰────
     help: raise it, or write a smaller `memory` in `[guest]`
    "#);
    let small = with("[runner]\nmemory = \"256MiB\"\n[guest]\nmemory = \"256MiB\"\n");
    assert_eq!(small.load().plan.cells.len(), 2);
}

#[test]
fn a_bad_duration_is_answered_with_a_good_one() {
    for (written, said) in [
        ("90", "`90` is not a duration"),
        ("\"fast\"", "`fast` is not a duration"),
        ("\"0s\"", "the time limit `0s` is out of range"),
        ("\"25h\"", "the time limit `25h` is out of range"),
        ("\"-3m\"", "the time limit `-3m` is out of range"),
    ] {
        assert_eq!(with(&format!("[timeout]\nboot = {written}\n")).plain(), format!("m.toml:4: {said}"));
    }
    assert_snapshot!(with("[timeout]\nboot = 90\n").error(), @"
     × m.toml:4: `90` is not a duration
      ╭─[m.toml:4:8]
    3 │ [timeout]
    4 │ boot = 90
      ·        ─┬
      ·         ╰── not a duration
      ╰────
     help: write a number and a unit, for example `90s`, `3m` or `1h30m`
    ");
}

#[test]
fn a_template_error_is_shown_at_the_very_word() {
    let suite = |lines: &str| {
        Folder::with(&format!(
            "images = [\"debian-12-minimal\"]\n[axes]\nlocale = [\"C\"]\n[[suite]]\nname = \"a\"\n{lines}\n"
        ))
        .error()
    };
    assert_snapshot!(suite("inline = '''\necho {{ axes.local }}\n'''"), @"
     × m.toml:7: template: Field `local` is not defined. Available fields: locale
      ╭─[m.toml:7:14]
    6 │ inline = '''
    7 │ echo {{ axes.local }}
      ·              ──┬──
      ·                ╰── in this template
    8 │ '''
      ╰────
     help: a template of this matrix can use image.name, image.from, suite.name, axes.locale
    ");
    assert_snapshot!(suite("inline = \"true\"\nenv = { V = \"{{ package.version }}\" }"), @r#"
     × m.toml:7: template: Variable `package` is not defined. Available variables: image, suite
      ╭─[m.toml:7:17]
    6 │ inline = "true"
    7 │ env = { V = "{{ package.version }}" }
      ·                 ───┬───
      ·                    ╰── in this template
      ╰────
     help: a template of this matrix can use image.name, image.from, suite.name, axes.locale
    "#);
    assert_snapshot!(suite("inline = \"{% if %}\""), @r#"
     × m.toml:6: template: Found `%}` but expected one of: integer, float, string, bool, ident, `-`, `not`, `<`, `{`, `[` or `(`
      ╭─[m.toml:6:17]
    5 │ name = "a"
    6 │ inline = "{% if %}"
      ·                 ─┬
      ·                  ╰── in this template
      ╰────
     help: `{{ package.version }}` inserts a value; wrap text that is not a template in {% raw %} and {% endraw %}
    "#);
    assert_snapshot!(suite("inline = \"echo {{ image.name | uper }}\""), @r#"
     × m.toml:6: template: Unknown filter `uper`
      ╭─[m.toml:6:10]
    5 │ name = "a"
    6 │ inline = "echo {{ image.name | uper }}"
      ·          ───────────────┬──────────────
      ·                         ╰── in this template
      ╰────
     help: `{{ package.version }}` inserts a value; wrap text that is not a template in {% raw %} and {% endraw %}
    "#);
}

#[test]
fn a_template_cannot_fill_the_memory() {
    let inline =
        "{% for a in range(end=100000) %}{% for b in range(end=100000) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}";
    let folder =
        Folder::with(&format!("images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"{inline}\"\n"));
    assert_eq!(folder.plain(), "m.toml:4: template: the text is longer than 1 MiB");
}
