//! Matrix files damaged by typing errors, editors and merges: the result is always a plan or a mistake with its place, within
//! bounded time and size.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;

use crate::folder::Folder;

const VALID: [&str; 4] = [
    r#"
images = ["debian-11-minimal"]
package = { name = "hello", version = "2.12", artifacts = ["*.deb"] }
[runner]
kind = "qemu"
memory = "4GiB"
cpus = 2
retries = 0
[guest]
cpus = 2
memory = "512MiB"
network = "open"
[network]
unexpected = "fail"
allow = ["*.example.com:8080", "192.0.2.7"]
private = ["[fd00::1]", "mirror.lan"]
[[repository]]
name = "vendor"
images = ["debian-1*", "old"]
key = "vendor.asc"
deb = """
Types: deb
URIs: http://apt.example.com:8080/debian
Suites: stable
Components: main
"""
pkg = 'vendor: { url: "pkg+https://user@pkg.example.com/${ABI}/latest" }'
[timeout]
boot = "1m30s"
collect = "90s"
[[image]]
name = "debian-12-minimal"
kernel_args = "quiet lockdown=integrity"
guest = { disk = "8GiB", disks = ["1GiB", { size = "64MiB", serial = "data", interface = "nvme" }], nics = 2, tpm = true }
prepare = { inline = "locale-gen {{ image.name }}", packages = ["gcc", "make"], network = "open", timeout = "3m" }
[[image]]
name = "old"
from = "debian-11-minimal"
install = "repository"
[axes]
locale = ["C", "tr_TR.UTF-8", "ä€𝄞"]
level = [1, true]
[[exclude]]
image = "debian-1[12]*"
locale = ["tr*", "C"]
[[exclude]]
level = "{1,true}"
locale = "ä€𝄞"
[[include]]
image = "old"
suite = "smoke"
locale = "de"
level = 9
[[suite]]
name = "smoke"
run = "smoke.sh"
results = "junit:/tmp/*.xml"
artifacts = ["/var/log/*.log"]
files = ["data/*"]
boot = "cold"
env = { LANG = "{{ axes.locale }}", V = "{{ package.version }}" }
[[suite]]
name = "own"
inline = '''
#!/bin/sh
{% if axes.level %}echo ${#LANG} {{ suite.name }}{% endif %}
'''
timeout = { suite = "1m" }
install = false
identity = "unique"
dependencies = "artifacts"
[[suite]]
name = "again"
run = "smoke.sh"
steps = ["prepare", "install", "reboot", "run"]
reboot = true
"#,
    "images=[\"debian-12-minimal\"]\r\nsuite=[{name=\"a\",inline=\"\"\"\r\ntrue\r\n\"\"\"}]\r\n",
    "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\ninline = \"echo ZWNobyBoZWxsbyB3b3JsZA== | base64 -d | sh\"\n",
    r#"
images = ["debian-12-minimal"]
suite = [{ name = "a", inline = "true" }]
[runner]
kind = "gce"
project = "example.com:tests"
zones = ["us-central1-a", "europe-west4-b"]
disk = "20GiB"
spot = true
image = "debian-cloud/debian-13"
subnet = "projects/host-project/regions/us-central1/subnetworks/tests"
labels = { team = "qa", empty = "" }
max_duration = "1d 2h"
"#,
];

/// One mutation.
#[derive(Clone, Debug)]
enum Slip {
    Replace(u8),
    Insert(&'static str),
    Remove(usize),
    /// A piece of this many bytes, repeated, at another place.
    Repeat(usize, usize, prop::sample::Index),
    /// The rest is removed.
    Cut,
}

fn slips() -> impl Strategy<Value = Vec<(prop::sample::Index, Slip)>> {
    const ODD: [&str; 24] = [
        "\0",
        "\t",
        "\r",
        "\r\n",
        "\u{feff}",
        "\u{1b}[31m",
        "\u{202e}",
        "é",
        "\u{301}",
        "漢",
        "🦀",
        "\"",
        "'''",
        "\\",
        "\\u0000",
        "\\u001b[2J",
        "{{",
        "{%",
        "}}",
        "*",
        "[",
        "[[",
        "\n",
        "#",
    ];
    let slip = prop_oneof![
        4 => any::<u8>().prop_map(Slip::Replace),
        4 => prop::sample::select(ODD.to_vec()).prop_map(Slip::Insert),
        3 => (1usize..60).prop_map(Slip::Remove),
        3 => (1usize..200, 1usize..4, any::<prop::sample::Index>()).prop_map(|(length, times, to)| Slip::Repeat(length, times, to)),
        1 => (1usize..4, 20_000usize..40_000, any::<prop::sample::Index>()).prop_map(|(length, times, to)| Slip::Repeat(length, times, to)),
        1 => Just(Slip::Cut),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), slip), 1..4)
}

fn slipped(mut text: Vec<u8>, slips: &[(prop::sample::Index, Slip)]) -> Vec<u8> {
    for (at, slip) in slips {
        let at = at.index(text.len() + 1);
        let rest = text.len() - at;
        match slip {
            Slip::Replace(byte) => text.splice(at..at + rest.min(1), [*byte]).for_each(drop),
            Slip::Insert(odd) => text.splice(at..at, odd.bytes()).for_each(drop),
            Slip::Remove(length) => drop(text.drain(at..at + rest.min(*length))),
            Slip::Repeat(length, times, to) => {
                let piece = text[at..at + rest.min(*length)].repeat(*times);
                let to = to.index(text.len() + 1);
                text.splice(to..to, piece).for_each(drop);
            }
            Slip::Cut => text.truncate(at),
        }
    }
    text
}

/// As drawn for people, on terminals of two widths.
#[track_caller]
fn drawn(diagnostic: &dyn Diagnostic) -> String {
    let mut text = String::new();
    for width in [80, 500] {
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(width);
        handler.render_report(&mut text, diagnostic).expect("it can be drawn");
    }
    assert!(text.len() < 200 << 10, "{} bytes are drawn", text.len());
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    assert!(widest <= 1200, "a line of {widest} characters is drawn");
    assert!(!text.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{text:?}");
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_damaged_matrix_file_is_a_plan_or_mistakes_with_their_places(which in 0..VALID.len(), slips in slips()) {
        let text = slipped(VALID[which].into(), &slips);
        let folder = Folder::new().file("m.toml", text).file("hello.deb", "x").file("smoke.sh", "true\n").file("data/d", "d").file("vendor.asc", "key");
        match folder.try_load() {
            Ok(loaded) => {
                prop_assert!(!loaded.plan.cells.is_empty() && !loaded.plan.images.is_empty());
                loaded.warnings.iter().for_each(|warning| drop(drawn(warning)));
            }
            Err(error) => {
                drawn(&error);
                for problem in error.problems() {
                    let text = problem.to_string();
                    prop_assert!(text.contains("m.toml") && !problem.message().is_empty(), "{}", text);
                }
            }
        }
    }
}

#[test]
fn what_the_damage_is_done_to_is_valid() {
    for text in VALID {
        let folder = Folder::with(text)
            .file("hello.deb", "x")
            .file("smoke.sh", "true\n")
            .file("data/d", "d")
            .file("vendor.asc", "key");
        assert!(folder.load().warnings.is_empty());
    }
}

const SMALL: &str = "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"a\"\n";

fn list(length: usize, element: impl Fn(usize) -> String) -> String {
    (0..length).map(element).collect()
}

#[test]
fn long_lines_are_cut_around_the_mistake() {
    // Beyond column 65,535 the drawing would panic.
    let base64 = "QUJD".repeat(20_000);
    let folder = Folder::with(&format!("{SMALL}inline = \"{base64}{{{{ nothing }}}}{base64}\"\n"));
    let shown = folder.error();
    assert!(shown.contains("{{ nothing }}") && shown.contains("m.toml:4:80014]"), "{shown}");
    for (text, said) in [
        (format!("{}\0", "#".repeat(1_000_000)), "invalid comment character"),
        (format!("{SMALL}{}", base64), "key with no value"),
        (format!("{SMALL}inline = \"true\"\n{base64} = 1\n"), "unknown key `QUJD"),
        (
            format!("{SMALL}inline = \"true\"\n[[exclude]]\nimage = \"{}\"\n", "*".repeat(900_000)),
            "it has 900000 bytes, the limit is 1000",
        ),
        (format!("{SMALL}inline = \"true\"\nx = \"{}\"\n", "e\u{301}".repeat(100_000)), "unknown key `x`"),
        (format!("{SMALL}inline = \"\"\"{}\"\"\"\n", "\n{{ y }}".repeat(50_000)), "Variable `y` is not defined"),
        (format!("{SMALL}inline = \"true\"\n{}x = 1\n", "\t".repeat(1_000_000)), "unknown key `x`"),
    ] {
        let shown = drawn(&Folder::with(&text).try_load().expect_err("a mistake"));
        assert!(shown.contains(said), "{said}: {shown}");
        assert!(shown.len() < 6000, "{} bytes are drawn", shown.len());
    }
}

#[test]
fn a_file_of_nothing_but_mistakes_is_answered_in_time_and_in_bounds() {
    for line in ["= 1\n", "a b\n", "[", "[[", "a=[", "{a=", "a.", "\"\n", "k{} = 1\n"] {
        let text = list(8_000, |number| line.replace("{}", &number.to_string()));
        let error = Folder::with(&text).try_load().expect_err("mistakes");
        assert!((1..=20).contains(&error.problems().count()), "{line:?}");
        drawn(&error);
    }
}

#[test]
fn excludes_of_many_values_are_looked_up() {
    let axis = format!("inline = \"true\"\n[axes]\nv = [{}]\n", list(10_000, |value| format!("\"v{value}\",")));
    let rules = list(20_000, |rule| format!("[[exclude]]\nv = \"v{}\"\n", rule / 3));
    let plan = Folder::with(&format!("{SMALL}{axis}{rules}")).load().plan;
    assert_eq!((plan.cells.len(), plan.cells[0].axes["v"].as_str()), (3333, "v6667"));
    let lists = list(5, |_| format!("[[exclude]]\nv = [{}]\n", list(5000, |value| format!("\"v{value}\","))));
    assert_eq!(Folder::with(&format!("{SMALL}{axis}{lists}")).load().plan.cells.len(), 5000);
}

#[test]
fn what_would_take_too_long_is_refused_with_the_numbers() {
    let values = |length| format!("inline = \"true\"\n[axes]\nv = [{}]\n", list(length, |value| format!("{value},")));
    let refused = |lines: String| Folder::with(&format!("{SMALL}{lines}")).plain();
    let globs = values(10_000) + &list(400, |rule| format!("[[exclude]]\nv = \"{rule}*\"\n"));
    let said = refused(globs);
    assert!(said.ends_with("the globs of the excludes take more than 2000000 comparisons with 10000 values"), "{said}");
    let broad = values(10_000) + &list(3000, |_| "[[exclude]]\nv = \"*\"\n".to_owned());
    let said = refused(broad);
    assert!(
        said.ends_with("3000 excludes take 30000000 comparisons with 10000 cells, the limit is 20000000"),
        "{said}"
    );
    let axes = format!("inline = \"true\"\n[axes]\n{}", list(5000, |axis| format!("a{axis} = [1]\n")));
    let said = refused(axes);
    assert!(said.ends_with("the matrix has 5000 axes, the limit is 100"), "{said}");
    let env = list(2000, |name| format!("e{name} = \"{{{{ axes.v }}}}\"\n"));
    let said = refused(format!(
        "inline = \"true\"\n[suite.env]\n{env}[axes]\nv = [{}]\n",
        list(2000, |value| format!("{value},"))
    ));
    assert!(said.ends_with("2000 cells take 4000001 renderings of templates, the limit is 2000000"), "{said}");
}
