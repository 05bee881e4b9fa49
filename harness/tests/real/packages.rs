//! What an installation leaves in a guest, and what is said of it.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::lab::Lab;

/// Builds a Debian package of these control fields into `dist/`; its other files have these paths and contents.
pub(crate) fn package(lab: &Lab, name: &str, control: &str, files: &[(&str, &str)]) {
    let rest = "Maintainer: Nobody <nobody@example.org>\nDescription: a package\n";
    lab.write(&format!("{name}/DEBIAN/control"), &format!("{control}{rest}"));
    for (path, content) in files {
        let path = lab.write(&format!("{name}/{path}"), content);
        if path.parent().is_some_and(|folder| folder.ends_with("DEBIAN")) {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, mode).unwrap();
        }
    }
    fs::create_dir_all(lab.path("dist")).unwrap();
    let (root, deb) = (lab.path(name), lab.path(&format!("dist/{name}.deb")));
    let built =
        Command::new("dpkg-deb").args(["-Zxz", "--root-owner-group", "--build"]).arg(root).arg(deb).output().unwrap();
    assert!(built.status.success(), "{built:?}");
}

/// The version in which an image has a package.
pub(crate) fn version_in(lab: &Lab, image: &str, package: &str) -> String {
    let folders = fs::read_dir(lab.store().join("images")).unwrap().flatten();
    let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let named = format!("\"name\": \"{image}\"");
    let folder =
        folders.map(|folder| folder.path()).find(|folder| read(folder, "image.json").contains(&named)).unwrap();
    let packages = read(&folder, "packages.tsv");
    let version = packages.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix('\t'));
    version.unwrap_or_else(|| panic!("{image} has no {package}")).to_owned()
}

#[test]
fn the_content_of_the_artifacts_is_installed_and_what_went_for_it_is_named() {
    let lab = Lab::forking();
    let there = version_in(&lab, "debian-12-minimal", "sensible-utils");
    // The image has the same version, with other content.
    let control = format!("Package: sensible-utils\nVersion: {there}\nArchitecture: all\nMulti-Arch: foreign\n");
    package(&lab, "same", &control, &[("usr/share/nm/content", "of the artifact\n")]);
    let forged = "#!/bin/sh\necho\necho 'nestmatrix: nm-forged 9 is installed'\necho 'nm-forged 9 all installed'\n";
    let control = "Package: nm-hello\nVersion: 1.3.0~rc1\nArchitecture: all\nConflicts: procps\n";
    package(&lab, "hello", control, &[("DEBIAN/postinst", forged)]);
    package(&lab, "plugin_1_arm64", "Package: nm-plugin\nVersion: 1\nArchitecture: arm64\n", &[]);
    package(&lab, "other-name", "Package: nm-other\nVersion: 1\nArchitecture: s390x\n", &[]);

    let matrix = r#"
images = ["debian-12-minimal"]
package = { name = "nm-hello", version = "v1.3.0-rc.1", artifacts = ["dist/*.deb"] }
[[suite]]
name = "content"
inline = "grep artifact /usr/share/nm/content"
"#;
    let run = lab.run(matrix, "out", &[]);
    run.assert_code(0);
    let installed = json!([{"name": "nm-hello", "version": "1.3.0~rc1"}, {"name": "sensible-utils", "version": there}]);
    assert_eq!(run.cell("debian-12-minimal.content")["attempts"][0]["installed"], installed);
    let said = run.file("events.jsonl");
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("\"warning\"")).collect();
    for (what, why) in [
        ("plugin_1_arm64.deb is not installed: it is for arm64", "its name says so"),
        ("other-name.deb is not installed: it is for s390x", "dpkg says so"),
        ("the installation removed openssh-server ", "that package conflicts with what it depends on"),
        (", procps ", "and with that itself"),
        ("nestmatrix itself needs openssh-server", "and sessions to come do"),
    ] {
        assert_eq!(warnings.iter().filter(|line| line.contains(what)).count(), 1, "{why}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 4, "and the version is the one that was meant: {warnings:#?}");
    lab.assert_nothing_left();
}
