//! Dependencies of a Debian package from a repository on this machine's loopback, through the proxy; and that repository when it is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    lab::{Finished, Lab},
    packages::{package, version_in},
    repository_server::{Lie, RepositoryServer},
};

/// A repository with what `nm-needy` depends on, and with an `nm-needy` of the same version that is another one.
fn repository(lab: &Lab, server: &RepositoryServer) {
    package(lab, "lib", "Package: nm-lib\nVersion: 1.0\nArchitecture: all\n", &[("usr/share/nm/lib", "the library\n")]);
    let needy = "Package: nm-needy\nVersion: 1.0\nArchitecture: all\nDepends: nm-lib (>= 1.0)\n";
    package(lab, "other", needy, &[("usr/share/nm/needy", "of the repository\n")]);
    let folder = lab.path("apt");
    fs::create_dir_all(&folder).unwrap();
    for name in ["lib", "other"] {
        fs::rename(lab.path(&format!("dist/{name}.deb")), folder.join(format!("nm-{name}_1.0_all.deb"))).unwrap();
    }
    package(lab, "needy", needy, &[("usr/share/nm/needy", "of the artifact\n")]);
    index(&folder, "+1 day", "");
    server.serve("apt", &folder);
}

/// Writes the repository's lists, signed; `fields`: what its Release file says besides.
pub(crate) fn index(folder: &Path, valid_until: &str, fields: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/apt-repository.sh");
    let made = Command::new("sh").arg(script).arg(folder).args([valid_until, fields]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The image's own repositories are on the internet, and none of a test's business.
fn matrix(server: &RepositoryServer, key: &str) -> String {
    let host = server.host();
    format!(
        r#"
package = {{ name = "nm-needy", version = "1.0", artifacts = ["dist/needy.deb"] }}
network = {{ private = ["{host}"] }}
[[image]]
name = "debian-12-minimal"
prepare = {{ inline = "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*" }}
[[repository]]
name = "local"
deb = "deb http://{host}/apt ./"
key = "{key}"
[[suite]]
name = "content"
inline = '''
cat /usr/share/nm/lib /usr/share/nm/needy
test -z "$http_proxy"
perl -MIO::Socket::INET -e '
    $proxy = IO::Socket::INET->new(PeerAddr => "10.0.2.100:3128", Timeout => 20) or exit;
    print $proxy "GET http://{host}/apt/Packages HTTP/1.0\r\n\r\n";
    print scalar <$proxy>;
'
'''
"#
    )
}

const CELL: &str = "debian-12-minimal.content";

/// The numbers of a phase of the cell.
fn network(run: &Finished, phase: &str) -> Value {
    let cell = run.cell(CELL);
    let phases = cell["attempts"][0]["network"].as_array().unwrap();
    phases.iter().find(|network| network["phase"] == phase).cloned().unwrap_or_default()
}

#[test]
fn what_a_package_depends_on_comes_from_a_repository_and_the_package_itself_does_not() {
    let lab = Lab::forking();
    let server = RepositoryServer::start();
    repository(&lab, &server);
    let run = lab.run(&matrix(&server, "apt/key.asc"), "out", &[]);
    run.assert_code(0);
    let said = run.file(&format!("cells/{CELL}/attempt-1/stdout.log"));
    // While it is tested nothing is reached.
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["the library", "of the artifact"]);
    assert_eq!(lines[2..], ["HTTP/1.0 403 nestmatrix: the guest may reach nothing now"]);
    let installed = run.cell(CELL)["attempts"][0]["installed"].to_string();
    assert!(installed.contains(r#""name":"nm-lib","version":"1.0""#), "{installed}");
    let fetched = network(&run, "install");
    // The library, and two lists: which of them apt asks for is its own affair.
    assert_eq!(fetched["from_cache"]["count"], 0, "{fetched}");
    assert!(fetched["from_server"]["count"].as_u64().unwrap() >= 3, "{fetched}");
    let asked = server.answered();
    assert!(asked.contains(&("/apt/nm-lib_1.0_all.deb".to_owned(), 200)), "{asked:?}");
    assert_eq!(network(&run, "test")["refused"][0]["attempts"], 1);
    let warnings = run.cell(CELL)["warnings"].to_string();
    assert!(
        warnings.contains(&format!("1 attempt to reach {} in phase test was refused", server.host())),
        "{warnings}"
    );

    // The next run asks whether lists and library are still the same, and gets neither.
    let unexpected = matrix(&server, "apt/key.asc").replace("network = {", "network = { unexpected = \"fail\",");
    let run = lab.run(&unexpected, "again", &[]);
    run.assert_code(1);
    assert_eq!(run.verdict(CELL), "failed(test)", "it reached for what is not allowed, and that is a failure here");
    assert_eq!(network(&run, "install")["from_server"]["count"], 0, "{}", network(&run, "install"));
    assert!(server.answered().iter().all(|(_, status)| *status != 200), "nothing is sent twice");

    // A repository that fails is none of the package's faults.
    server.lie("nm-lib_1.0_all.deb", Lie::Missing);
    fs::remove_dir_all(lab.store().join("packages")).unwrap();
    let run = lab.run(&matrix(&server, "apt/key.asc"), "missing", &[]);
    run.assert_code(3);
    assert_eq!(run.verdict(CELL), "error(install)");
    assert!(
        run.reason(CELL).contains("nm-lib_1.0_all.deb") && run.reason(CELL).contains("404"),
        "{}",
        run.reason(CELL)
    );
    lab.assert_nothing_left();
}

#[test]
#[ignore = "one guest after the other installs from a repository that is wrong: cargo xtask test -- --ignored"]
fn a_repository_that_is_wrong_is_an_error_in_apts_words_and_a_dependency_that_nobody_has_a_failure() {
    let lab = Lab::forking();
    let server = RepositoryServer::start();
    repository(&lab, &server);
    let folder = lab.path("apt");
    let mut number = 0;
    let mut wrong = |matrix: &str, verdict: &str, words: &[&str]| {
        number += 1;
        let _ = fs::remove_dir_all(lab.store().join("packages"));
        let run = lab.run(matrix, &format!("wrong-{number}"), &[]);
        assert_eq!(run.verdict(CELL), verdict, "{words:?}: {}", run.reason(CELL));
        for word in words {
            assert!(run.reason(CELL).contains(word), "{word}: {}", run.reason(CELL));
        }
    };
    let usual = matrix(&server, "apt/key.asc");

    index(&folder, "-1 hour", "");
    wrong(&usual, "error(install)", &["expired"]);
    index(&folder, "+1 day", "");

    // Another repository's key.
    let other = lab.path("other-apt");
    fs::create_dir(&other).unwrap();
    fs::copy(folder.join("nm-lib_1.0_all.deb"), other.join("nm-lib_1.0_all.deb")).unwrap();
    index(&other, "+1 day", "");
    wrong(&matrix(&server, "other-apt/key.asc"), "error(install)", &["not signed", "NO_PUBKEY"]);

    server.lie("nm-lib_1.0_all.deb", Lie::Flipped);
    wrong(&usual, "error(install)", &["nm-lib_1.0_all.deb", "Hash Sum mismatch"]);
    server.repent();
    server.lie("/Packages", Lie::Content(b"nothing".to_vec()));
    wrong(&usual, "error(install)", &["Packages"]);
    server.repent();
    server.lie("/InRelease", Lie::Missing);
    server.lie("/Release", Lie::Missing);
    wrong(&usual, "error(install)", &["does not have a Release file"]);
    server.repent();

    // What none of them has.
    fs::remove_file(folder.join("nm-lib_1.0_all.deb")).unwrap();
    index(&folder, "+1 day", "");
    wrong(&usual, "failed(install)", &["nm-needy : Depends: nm-lib (>= 1.0) but it is not installable"]);

    drop(server);
    wrong(&usual, "error(install)", &["Connection refused"]);
    lab.assert_nothing_left();
}

/// The image's own repository has the package under test as well: in the same version, of the same size and with other content, and in a
/// newer one.
fn artifacts_win(image: &str) {
    let lab = Lab::forking();
    let server = RepositoryServer::start();
    repository(&lab, &server);
    fs::remove_file(lab.path("dist/needy.deb")).unwrap();
    let folder = lab.path("apt");
    let control = |name: &str, version: &str, depends: &str| {
        format!("Package: {name}\nVersion: {version}\nArchitecture: all\nDepends: {depends}\n")
    };
    let needs = "nm-data (= 1.0), nm-lib (>= 1.0)";
    for (file, name, version, depends, content) in [
        ("needed", "nm-needy", "1.0", needs, "needy 1.0 of the artifact\n"),
        ("data", "nm-data", "1.0", "nm-needy (= 1.0)", "data 1.0 of the artifact\n"),
        ("nm-needy_1.0_all", "nm-needy", "1.0", needs, "needy 1.0 of the archives\n"),
        ("nm-needy_2.0_all", "nm-needy", "2.0", "nm-lib", "needy 2.0 of the archives\n"),
        ("nm-data_2.0_all", "nm-data", "2.0", "nm-lib", "data 2.0 of the archives\n"),
    ] {
        package(&lab, file, &control(name, version, depends), &[(&*format!("usr/share/nm/{name}"), content)]);
    }
    let there = version_in(&lab, image, "sensible-utils");
    let same = format!("Package: sensible-utils\nVersion: {there}\nArchitecture: all\nMulti-Arch: foreign\n");
    package(&lab, "same", &same, &[("usr/share/nm/same", "of the artifact, not of the image\n")]);
    for name in ["nm-needy_1.0_all", "nm-needy_2.0_all", "nm-data_2.0_all"] {
        fs::rename(lab.path(&format!("dist/{name}.deb")), folder.join(format!("{name}.deb"))).unwrap();
    }
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    let sizes = [lab.path("dist/needed.deb"), folder.join("nm-needy_1.0_all.deb")].map(size);
    assert_eq!(sizes[0], sizes[1], "or apt would see that they are two");
    index(&folder, "+1 day", "");

    let matrix = matrix(&server, "apt/key.asc")
        .replace("dist/needy.deb\"]", "dist/[nds][ea]*.deb\"], install = \"repository\"")
        .replace(
            "cat /usr/share/nm/lib /usr/share/nm/needy",
            "set -e; cat /usr/share/nm/nm-needy /usr/share/nm/nm-data /usr/share/nm/same",
        );
    // What apt makes of a list that was changed after it was signed, and before.
    let tampered = "
list=/etc/apt/sources.list.d/nestmatrix-package_under_test.list
refresh() { apt-get update -o Dir::Etc::sourcelist=$list -o Dir::Etc::sourceparts=- 2>&1; }
refresh >/dev/null
echo ' ' >>/var/tmp/nestmatrix-repository/Release
! refresh >said
grep -qiE 'BADSIG|signature' said || { cat said; exit 1; }
echo refused
";
    let (matrix, cell) = (matrix.replace("debian-12-minimal", image), CELL.replace("debian-12-minimal", image));
    let matrix = matrix.replace("test -z \"$http_proxy\"", tampered);
    let run = lab.run(&matrix, "out", &[]);
    let log =
        |name: &str| fs::read_to_string(run.out.join(format!("cells/{cell}/attempt-1/{name}"))).unwrap_or_default();
    assert_eq!(run.verdict(&cell), "passed", "{}\n{}{}", run.reason(&cell), log("repository.log"), log("install.log"));
    let said = log("stdout.log");
    let lines: Vec<&str> = said.lines().collect();
    let of_artifacts = ["needy 1.0 of the artifact", "data 1.0 of the artifact", "of the artifact, not of the image"];
    assert_eq!(lines[..3], of_artifacts, "{}", log("install.log"));
    assert_eq!(lines[3], "refused", "the signature is checked: {said}");
    let installed = run.cell(&cell)["attempts"][0]["installed"].to_string();
    assert!(installed.contains(r#""name":"nm-lib","version":"1.0""#), "{installed}");
    let asked = server.answered();
    assert!(asked.contains(&("/apt/nm-lib_1.0_all.deb".to_owned(), 200)), "{asked:?}");
    assert!(!asked.iter().any(|(path, _)| path.contains("nm-needy") || path.contains("nm-data")), "{asked:?}");
    assert!(!log("install.log").contains("dpkg installs"), "apt took the artifacts itself: {}", log("install.log"));
    lab.assert_nothing_left();
}

#[test]
fn artifacts_are_installed_by_name_from_a_signed_repository_whatever_the_systems_own_has() {
    artifacts_win("debian-12-minimal");
}

#[test]
#[ignore = "the same with an older and a newer apt: cargo xtask test -- --ignored"]
fn artifacts_are_installed_by_name_with_an_older_apt_and_one_whose_signatures_are_not_checked_by_gnupg() {
    artifacts_win("debian-11-minimal");
    artifacts_win("debian-13-minimal");
}
