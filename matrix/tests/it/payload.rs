//! The files a matrix names.

use std::os::unix::fs::symlink;

use insta::assert_snapshot;
use matrix::Digest;

use crate::folder::Folder;

const IMAGE: &str = "images = [\"debian-12-minimal\"]\n";

fn suite_with(lines: &str) -> Folder {
    Folder::with(&format!("{IMAGE}[[suite]]\nname = \"a\"\ninline = \"true\"\n{lines}\n"))
}

#[test]
fn artifacts_are_found_by_glob_hashed_and_ordered_by_name() {
    let folder = Folder::with(&format!(
        "{IMAGE}package = {{ name = \"p\", artifacts = [\"[x]*/*.deb\", \"z/b.deb\", \"**/b.deb\"] }}\nsuite = [{{ name = \"a\", inline = \"true\" }}]\n"
    ))
    .file("x/c.deb", "c")
    .file("x/a.deb", "a")
    .file("z/b.deb", "b")
    .file("x/folder.deb/ignored.txt", "");
    let artifacts = folder.load().plan.package.expect("named").artifacts;
    let names: Vec<_> = artifacts.iter().map(|artifact| artifact.file_name.as_str()).collect();
    assert_eq!(names, ["a.deb", "b.deb", "c.deb"]);
    assert_eq!((artifacts[1].digest, artifacts[1].bytes), (Digest::of(b"b"), 1));
    assert_eq!(artifacts[1].path, folder.path("z/b.deb"));
}

#[test]
fn artifacts_that_are_no_packages_are_warned_of_once_for_each_glob() {
    let folder = Folder::with(&format!(
        "{IMAGE}package = {{ name = \"p\", artifacts = [\"dist/*\", \"NOTES\"] }}\nsuite = [{{ name = \"a\", inline = \"true\" }}]\n"
    ))
    .file("dist/a.deb", "")
    .file("dist/a.pkg.tar.zst", "")
    .file("dist/a.pkg.tar.zst.sig", "")
    .file("dist/sums", "")
    .file("NOTES", "");
    let loaded = folder.load();
    assert_eq!(loaded.plan.package.unwrap().artifacts.len(), 5);
    let said: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let said = |words: &str| assert_eq!(said.iter().filter(|line| line.contains(words)).count(), 1, "{said:#?}");
    said("2 artifacts are not packages: no guest installs them; the first is `a.pkg.tar.zst.sig`");
    said("`NOTES` is not a package: no guest installs it");
}

#[test]
fn a_package_of_files_that_are_all_no_packages_is_a_mistake() {
    let folder = Folder::with(&format!(
        "{IMAGE}package = {{ name = \"p\", artifacts = [\"NOTES\"] }}\nsuite = [{{ name = \"a\", inline = \"true\" }}]\n"
    ))
    .file("NOTES", "");
    let error = folder.try_load().expect_err("nothing to install").to_string();
    assert!(error.contains("`NOTES` is not a package: no guest installs it"), "{error}");
}

#[test]
fn files_of_a_suite_keep_their_path_below_the_matrix_file() {
    let folder = suite_with("files = [\"./data/**\", \"data/one.txt\"]")
        .file("data/one.txt", "1")
        .file("data/deep/two.txt", "22");
    let files = folder.load().plan.cells.remove(0).files;
    let files: Vec<_> = files.iter().map(|file| (file.relative.as_str(), file.bytes)).collect();
    assert_eq!(files, [("data/deep/two.txt", 2), ("data/one.txt", 1)]);
}

#[test]
fn files_of_a_suite_stay_inside_the_folder() {
    assert_snapshot!(suite_with("files = [\"../secret\", \"/etc/passwd\"]").plain(), @"
    m.toml:5: `../secret` is outside of the matrix file's folder
    m.toml:5: `/etc/passwd` is outside of the matrix file's folder
    ");
    let folder = suite_with("files = [\"link\"]");
    symlink("/etc/passwd", folder.path("link")).expect("a link");
    assert_snapshot!(folder.plain(), @"m.toml:5: link is a link that leads out of the matrix file's folder");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = suite_with("files = [\"*.txt\"]");
    symlink("nowhere", folder.path("dangling.txt")).expect("a link");
    assert_snapshot!(folder.plain(), @"m.toml:5: cannot read dangling.txt: No such file or directory (os error 2)");
}

#[test]
fn a_folder_of_any_name_can_hold_a_matrix() {
    let folder = suite_with("files = [\"data.txt\"]").file("[odd]*/data.txt", "x");
    std::fs::rename(folder.path("m.toml"), folder.path("[odd]*/m.toml")).expect("moved");
    let loaded = matrix::load(&folder.path("[odd]*/m.toml"), &["debian-12-minimal"]).expect("a plan");
    assert_eq!(loaded.plan.cells[0].files[0].relative, "data.txt");
}
