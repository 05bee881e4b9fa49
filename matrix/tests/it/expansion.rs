//! The expansion of a matrix: which cells, in which order, with which names and values.

use std::{collections::HashSet, time::Duration};

use insta::assert_snapshot;
use matrix::{Boot, ByteSize, Dependencies, Identity, InstallFrom, Network, Plan, Step};
use proptest::prelude::*;

use crate::folder::{CATALOG, Folder};

fn ids(plan: &Plan) -> String {
    plan.cells.iter().map(|cell| cell.id.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn five_lines_are_a_matrix() {
    let folder = Folder::with(
        r#"images = ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal"]
package = { name = "hello", artifacts = ["hello*.deb"] }
[[suite]]
name = "smoke"
inline = "hello"
"#,
    )
    .file("hello_2.10-3_amd64.deb", "not really");
    let plan = folder.load().plan;
    assert_snapshot!(ids(&plan), @"
    debian-11-minimal.smoke
    debian-12-minimal.smoke
    debian-13-minimal.smoke
    ");
    assert!(plan.cells.iter().all(|cell| cell.installs()));
    assert_eq!(plan.package.expect("named").artifacts[0].file_name, "hello_2.10-3_amd64.deb");
}

#[test]
fn cells_come_image_by_image_then_suite_then_axes_the_last_fastest() {
    let folder = Folder::with(
        r#"
images = ["debian-13-minimal"]
[[image]]
name = "old"
from = "debian-11-minimal"
[axes]
locale = ["C.UTF-8", "tr_TR.UTF-8"]
jobs = [1, 2]
[[suite]]
name = "b"
inline = "true"
[[suite]]
name = "a"
inline = "true"
[[exclude]]
image = "old"
suite = "a"
[[exclude]]
suite = ["b", "none*"]
jobs = 2
[[include]]
image = "old"
suite = "b"
locale = "de DE"
jobs = 3
"#,
    );
    assert_snapshot!(ids(&folder.load().plan), @"
    debian-13-minimal.b.locale=C.UTF-8.jobs=1
    debian-13-minimal.b.locale=tr_TR.UTF-8.jobs=1
    debian-13-minimal.a.locale=C.UTF-8.jobs=1
    debian-13-minimal.a.locale=C.UTF-8.jobs=2
    debian-13-minimal.a.locale=tr_TR.UTF-8.jobs=1
    debian-13-minimal.a.locale=tr_TR.UTF-8.jobs=2
    old.b.locale=C.UTF-8.jobs=1
    old.b.locale=tr_TR.UTF-8.jobs=1
    old.b.locale=de-DE.jobs=3-e8274b4ec95b
    ");
}

#[test]
fn an_include_that_is_there_already_is_a_warning() {
    let folder = Folder::with(
        r#"
images = ["debian-12-minimal"]
suite = [{ name = "smoke", inline = "true" }]
[[include]]
image = "debian-12-minimal"
suite = "smoke"
"#,
    );
    let loaded = folder.load();
    assert_eq!(loaded.plan.cells.len(), 1);
    assert_snapshot!(folder.shown(&loaded.warnings[0]), @r#"
     ⚠ m.toml:4: the cell debian-12-minimal.smoke exists already
      ╭─[m.toml:4:1]
    3 │ suite = [{ name = "smoke", inline = "true" }]
    4 │ [[include]]
      · ─────┬─────
      ·      ╰── adds nothing
    5 │ image = "debian-12-minimal"
      ╰────
     help: remove this include
    "#);
}

#[test]
fn names_that_are_no_file_names_are_made_so_and_stay_apart() {
    let long = "x".repeat(100);
    let folder = Folder::with(&format!(
        r#"
image = [{{ name = "../up", from = "debian-12-minimal" }}, {{ name = ".hidden", from = "debian-12-minimal" }}]
[axes]
value = ["a b", "a/b", "{long}", "a=b"]
[[suite]]
name = "größe"
inline = "true"
"#
    ));
    assert_snapshot!(ids(&folder.load().plan), @"
    _.-up.gr--e.value=a-b-70638e13719b
    _.-up.gr--e.value=a-b-daa3cf32b03d
    _.-up.gr--e.value=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-677ccf7b2b63
    _.-up.gr--e.value=a-b-090f79284ca2
    _hidden.gr--e.value=a-b-f5cf3d28aa4d
    _hidden.gr--e.value=a-b-80fac285850f
    _hidden.gr--e.value=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-f376ab66d245
    _hidden.gr--e.value=a-b-971ca0048768
    ");
}

#[test]
fn two_cells_of_one_name_are_a_mistake() {
    let folder = Folder::with(
        r#"
image = [{ name = "a", from = "debian-12-minimal" }, { name = "a.b", from = "debian-12-minimal" }]
suite = [{ name = "b.c", inline = "true" }, { name = "c", inline = "true" }]
"#,
    );
    assert_snapshot!(folder.plain(), @"m.toml:3: two cells would be named a.b.c");
}

#[test]
fn the_suite_says_more_than_the_image_and_the_image_more_than_the_matrix() {
    let folder = Folder::with(
        r#"
[guest]
cpus = 2
memory = "1GiB"
[timeout]
boot = "90s"
suite = "1h30m"
[[image]]
name = "debian-12-minimal"
kernel_args = "panic=0  debug"
guest = { memory = "2GiB", disk = "8GiB", network = "repositories" }
[[suite]]
name = "plain"
inline = "true"
[[suite]]
name = "own"
inline = "true"
guest = { memory = "3 GiB", network = "open" }
timeout = { suite = "20m", collect = "30s" }
"#,
    );
    let plan = folder.load().plan;
    let (plain, own) = (&plan.cells[0], &plan.cells[1]);
    let gib = |gib: u64| ByteSize::from_mib(gib << 10);
    assert_eq!((plain.guest.cpus, plain.guest.memory, plain.guest.disk), (2, gib(2), gib(8)));
    assert_eq!((own.guest.cpus, own.guest.memory, own.guest.disk), (2, gib(3), gib(8)));
    assert_eq!((plain.guest.network, own.guest.network), (Network::Repositories, Network::Open));
    let limits = |cell: &matrix::Cell| {
        let limits = &cell.timeouts;
        [limits.boot, limits.prepare, limits.install, limits.suite, limits.collect].map(|limit| limit.as_secs())
    };
    assert_eq!(limits(plain), [90, 120, 300, 5400, 120]);
    assert_eq!(limits(own), [90, 120, 300, 1200, 30]);
    assert_eq!(plan.images[0].kernel_args, ["panic=0", "debug"]);
}

#[test]
fn where_dependencies_come_from_is_said_most_narrowly_by_the_suite_and_most_widely_by_the_package() {
    let plan = |package: &str| {
        let text = format!(
            r#"
images = ["debian-11-minimal"]
package = {{ name = "hello"{package} }}
[[image]]
name = "debian-12-minimal"
dependencies = "artifacts"
[[suite]]
name = "plain"
inline = "true"
[[suite]]
name = "own"
inline = "true"
dependencies = "repositories"
"#
        );
        Folder::with(&text).load().plan
    };
    let said = |package| plan(package).cells.iter().map(|cell| cell.dependencies).collect::<Vec<_>>();
    use Dependencies::{Artifacts, Repositories};
    assert_eq!(said(""), [Repositories, Repositories, Artifacts, Repositories]);
    assert_eq!(said(", dependencies = \"artifacts\""), [Artifacts, Repositories, Artifacts, Repositories]);
}

#[test]
fn how_the_package_is_installed_is_said_most_narrowly_by_the_suite_and_a_suite_may_still_leave_it_out() {
    let text = r#"
images = ["debian-11-minimal"]
package = { name = "hello", artifacts = ["hello.deb"], install = "repository" }
[[image]]
name = "debian-12-minimal"
install = "file"
[[suite]]
name = "plain"
inline = "true"
[[suite]]
name = "own"
inline = "true"
install = "repository"
steps = ["prepare", "install", "reboot", "run"]
[[suite]]
name = "not"
inline = "true"
install = false
"#;
    let plan = Folder::with(text).file("hello.deb", "deb").load().plan;
    use InstallFrom::{File, Repository};
    let said: Vec<_> = plan.cells.iter().map(|cell| (cell.install_from, cell.installs())).collect();
    let two = |plain| [(plain, true), (Repository, true), (plain, false)];
    assert_eq!(said, [two(Repository), two(File)].concat());
}

#[test]
fn what_is_not_written_has_a_default() {
    let plan =
        Folder::with("images = [\"debian-12-minimal\"]\nsuite = [{ name = \"a\", inline = \"true\" }]\n").load().plan;
    let cell = &plan.cells[0];
    assert_eq!((cell.guest.cpus, cell.guest.memory), (1, ByteSize::from_mib(512)));
    assert_eq!((cell.guest.disk, cell.guest.network), (ByteSize::from_mib(4096), Network::Isolated));
    assert_eq!((cell.dependencies, cell.install_from), (Dependencies::Repositories, InstallFrom::File));
    assert_eq!(cell.timeouts.boot, Duration::from_secs(60));
    assert_eq!((plan.runner.retries, plan.runner.memory, plan.runner.cpus), (2, None, None));
    assert_eq!(cell.options.steps, [Step::Prepare, Step::Run]);
    assert!(!cell.options.reboot && cell.options.results.is_none() && plan.package.is_none());
}

#[test]
fn the_script_sees_its_cell_and_templates_are_shell_text() {
    let folder = Folder::with(
        r#"
images = ["debian-12-minimal"]
package = { name = "hello", version = "2.12" }
[axes]
locale = ["C", "tr"]
root = [true]
[[suite]]
name = "smoke"
inline = '''
set -- '<&>' "{{ axes.locale }}"; echo ${#1} {# kept #} {{ image.from }}
'''
env = { GREETING = "<{{ package.name }}> {{ package.version }} on {{ image.name }}/{{ suite.name }}", PLAIN = "a" }
"#,
    );
    let plan = folder.load().plan;
    let cell = &plan.cells[1];
    let env = cell.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n");
    assert_snapshot!(env, @"
    NESTMATRIX_CELL=debian-12-minimal.smoke.locale=tr.root=true
    NESTMATRIX_IMAGE=debian-12-minimal
    NESTMATRIX_SUITE=smoke
    NESTMATRIX_PACKAGE_NAME=hello
    NESTMATRIX_PACKAGE_VERSION=2.12
    NESTMATRIX_AXIS_LOCALE=tr
    NESTMATRIX_AXIS_ROOT=true
    GREETING=<hello> 2.12 on debian-12-minimal/smoke
    PLAIN=a
    ");
    assert_snapshot!(plan.scripts[&cell.script], @r#"set -- '<&>' "tr"; echo ${#1} {# kept #} debian-12-minimal"#);
    assert_eq!(plan.scripts.len(), 2);
}

#[test]
fn cells_share_equal_scripts() {
    let folder = Folder::with(
        "images = [\"debian-12-minimal\", \"debian-13-minimal\"]\nsuite = [{ name = \"a\", run = \"t/a.sh\" }, { name = \"b\", inline = \"true\" }]\n",
    )
    .file("t/a.sh", "true");
    let plan = folder.load().plan;
    assert_eq!((plan.cells.len(), plan.scripts.len()), (4, 1));
    assert_eq!((plan.cells[0].script_origin.as_str(), plan.cells[1].script_origin.as_str()), ("t/a.sh", "inline"));
}

#[test]
fn a_suite_says_how_its_guests_come_to_be_and_whose_identity_they_have() {
    let folder = Folder::with(
        r#"
images = ["debian-12-minimal"]
[[suite]]
name = "usual"
inline = "true"
[[suite]]
name = "own"
inline = "true"
boot = "cold"
identity = "unique"
[[suite]]
name = "said"
inline = "true"
boot = "warm"
identity = "shared"
"#,
    );
    let cells = folder.load().plan.cells;
    let usual = (Boot::Warm, Identity::Shared);
    let said: Vec<_> = cells.iter().map(|cell| (cell.options.boot, cell.options.identity)).collect();
    assert_eq!(said, [usual, (Boot::Cold, Identity::Unique), usual]);
}

#[test]
fn an_image_says_what_is_done_to_its_guests_before_any_suite() {
    let folder = Folder::with(
        r#"
images = ["debian-11-minimal"]
package = { name = "hello", version = "2.12" }
suite = [{ name = "smoke", inline = "true" }]
[[image]]
name = "deb"
from = "debian-12-minimal"
[image.prepare]
inline = "echo {{ package.name }} {{ package.version }} {{ image.name }} {{ image.from }} ${#1}"
packages = ["gcc", "libssl-dev", "g++-12:amd64"]
network = "open"
timeout = "20m"
[[image]]
name = "debian-13-minimal"
prepare = { run = "prepare.sh" }
"#,
    )
    .file("prepare.sh", "true {{ no template }}\n");
    let plan = folder.load().plan;
    assert_eq!(plan.images[0].prepare, None);
    let (inline, file) = (plan.images[1].prepare.as_ref(), plan.images[2].prepare.as_ref());
    let inline = inline.expect("prepared");
    let text = &plan.scripts[&inline.script.expect("a script")];
    assert_snapshot!(text, @"echo hello 2.12 deb debian-12-minimal ${#1}");
    assert_eq!(inline.script_origin.as_deref(), Some("inline"));
    assert_eq!(inline.packages, ["gcc", "libssl-dev", "g++-12:amd64"]);
    assert_eq!((inline.network, inline.timeout), (Network::Open, Duration::from_secs(20 * 60)));

    let file = file.expect("prepared");
    assert_eq!(plan.scripts[&file.script.expect("a script")], "true {{ no template }}\n");
    assert_eq!(file.script_origin.as_deref(), Some("prepare.sh"));
    assert_eq!((file.network, file.timeout), (Network::Isolated, Duration::from_secs(10 * 60)));
    assert!(file.packages.is_empty());
    // The network of the preparation is not that of the cells.
    assert!(plan.cells.iter().all(|cell| cell.guest.network == Network::Isolated));
}

#[test]
fn packages_of_a_preparation_come_from_the_repositories_and_without_a_network_from_nowhere() {
    let matrix = |more: &str| {
        format!(
            "image = [{{ name = \"debian-12-minimal\", prepare = {{ packages = [\"gcc\"]{more} }} }}]\nsuite = [{{ name = \"a\", inline = \"true\" }}]\n"
        )
    };
    for (more, network) in [
        ("", Network::Repositories),
        (", network = \"repositories\"", Network::Repositories),
        (", network = \"open\"", Network::Open),
    ] {
        let loaded = Folder::with(&matrix(more)).load();
        let prepare = loaded.plan.images[0].prepare.as_ref().expect("prepared");
        assert_eq!(
            (prepare.script, prepare.script_origin.as_deref(), prepare.network),
            (None, None, network),
            "{more}"
        );
        assert!(loaded.warnings.is_empty(), "{more}");
    }
    let folder = Folder::with(&matrix(", network = \"isolated\""));
    let loaded = folder.load();
    assert_eq!(loaded.plan.images[0].prepare.as_ref().expect("prepared").network, Network::Isolated);
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    let shown = folder.shown(warning);
    assert!(
        shown.contains("these packages cannot be downloaded") && shown.contains("network = \"repositories\""),
        "{shown}"
    );
}

/// A matrix of this many images and suites, these axes, and one exclude per entry: an index into each of them.
#[derive(Debug, Clone)]
struct Shape {
    images: usize,
    suites: usize,
    axes: Vec<Vec<String>>,
    excludes: Vec<(usize, usize)>,
}

impl Shape {
    fn text(&self) -> String {
        let images = CATALOG[..self.images].iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let mut text = format!("images = [{images}]\n[axes]\n");
        for (index, values) in self.axes.iter().enumerate() {
            let values = values.iter().map(|value| toml::Value::from(value.clone()).to_string()).collect::<Vec<_>>();
            text += &format!("axis{index} = [{}]\n", values.join(", "));
        }
        for suite in 0..self.suites {
            text += &format!("[[suite]]\nname = \"suite{suite}\"\ninline = \"true {suite}\"\n");
        }
        for (image, suite) in &self.excludes {
            text += &format!("[[exclude]]\nimage = {:?}\nsuite = \"suite{suite}\"\n", CATALOG[*image]);
        }
        text
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let value = prop_oneof!["[a-zA-Z0-9._+=/ -]{0,12}", "\\PC{0,40}", "[a-z]{100,140}"];
    let axis = prop::collection::hash_set(value, 1..4).prop_map(Vec::from_iter);
    (1..=4usize, 1..=3usize, prop::collection::vec(axis, 0..=3)).prop_flat_map(|(images, suites, axes)| {
        let excludes = prop::collection::vec((0..images, 0..suites), 0..4);
        excludes.prop_map(move |excludes| Shape { images, suites, axes: axes.clone(), excludes })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_plan_holds_the_product_less_the_excludes_under_names_that_are_unique_safe_and_stable(shape in shapes()) {
        let choices: usize = shape.axes.iter().map(Vec::len).product();
        let excluded = shape.excludes.iter().collect::<HashSet<_>>().len();
        let expected = (shape.images * shape.suites - excluded) * choices;
        let folder = Folder::with(&shape.text());
        if expected == 0 {
            prop_assert!(folder.try_load().is_err());
            return Ok(());
        }
        let plan = folder.load().plan;
        prop_assert_eq!(plan.cells.len(), expected);

        let ids: HashSet<_> = plan.cells.iter().map(|cell| cell.id.as_str()).collect();
        prop_assert_eq!(ids.len(), expected);
        for id in &ids {
            prop_assert!(id.len() <= 120 && !id.starts_with(['.', '-']), "{}", id);
            prop_assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || "._=+-".contains(c)), "{}", id);
        }

        prop_assert_eq!(&folder.load().plan, &plan);

        // Leaving cells out renames none.
        let whole = Folder::with(&Shape { excludes: Vec::new(), ..shape.clone() }.text()).load().plan;
        let whole: HashSet<_> = whole.cells.iter().map(|cell| cell.id.clone()).collect();
        prop_assert!(plan.cells.iter().all(|cell| whole.contains(&cell.id)));
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "(\\PC|\n|images|suite|axes|[\\[\\]={}\"'.,]){0,200}") {
        let _ = Folder::with(&text).try_load();
    }
}

/// The steps of the only cell of a suite with these lines.
fn steps(package: &str, suite: &str) -> Vec<Step> {
    let text =
        format!("images = [\"debian-12-minimal\"]\n{package}\n[[suite]]\nname = \"a\"\ninline = \"true\"\n{suite}");
    let plan = Folder::with(&text).file("a.deb", "not really").load().plan;
    plan.cells[0].options.steps.clone()
}

#[test]
fn the_usual_steps_are_those_that_have_something_to_do() {
    use Step::{Collect, Install, Prepare, Reboot, Run};
    let package = "package = { name = \"hello\", artifacts = [\"*.deb\"] }";
    assert_eq!(steps("", ""), [Prepare, Run]);
    assert_eq!(steps(package, ""), [Prepare, Install, Run]);
    assert_eq!(steps(package, "install = false"), [Prepare, Run]);
    assert_eq!(steps(package, "results = \"junit:/tmp/*.xml\""), [Prepare, Install, Run, Collect]);
    assert_eq!(steps("", "artifacts = [\"/var/log/a\"]"), [Prepare, Run, Collect]);
    let own = "steps = [\"prepare\", \"reboot\", \"install\", \"reboot\", \"reboot\", \"run\", \"reboot\"]";
    assert_eq!(steps(package, own), [Prepare, Reboot, Install, Reboot, Reboot, Run, Reboot]);
}
