//! `repositories.lock`: what guests got from repositories once is what they get again.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{apt_repository::index, lab::Lab, packages::package, repository_server::RepositoryServer};

/// The repository has this version of the library, and no other, from now on; its lists are valid until then.
fn has(lab: &Lab, server: &RepositoryServer, version: &str, valid_until: &str) {
    let folder = lab.path("apt");
    fs::create_dir_all(&folder).unwrap();
    for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            fs::remove_file(file).unwrap();
        }
    }
    let name = format!("nm-library_{version}_all");
    let control = format!("Package: nm-library\nVersion: {version}\nArchitecture: all\n");
    package(lab, &name, &control, &[("usr/share/nm/library", version)]);
    fs::rename(lab.path(&format!("dist/{name}.deb")), folder.join(format!("{name}.deb"))).unwrap();
    package(lab, "extra", "Package: nm-extra\nVersion: 1\nArchitecture: all\n", &[]);
    fs::rename(lab.path("dist/extra.deb"), folder.join("nm-extra_1_all.deb")).unwrap();
    index(&folder, valid_until, &format!("Snapshots: http://{}/snapshots/@SNAPSHOTID@\n", server.host()));
}

fn matrix(server: &RepositoryServer) -> String {
    let host = server.host();
    format!(
        r#"
package = {{ name = "nm-hello", version = "1", artifacts = ["dist/hello.deb"] }}
network = {{ private = ["{host}"] }}
[[image]]
name = "debian-12-minimal"
prepare = {{ inline = "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*" }}
[[repository]]
name = "tiny"
deb = "deb http://{host}/apt ./"
key = "apt/key.asc"
[[suite]]
name = "version"
inline = "cat /usr/share/nm/library; grep -qx 1.0 /usr/share/nm/library"
"#
    )
}

fn lock(lab: &Lab) -> String {
    fs::read_to_string(lab.path("repositories.lock")).unwrap()
}

fn remove_cache(store: &Path) {
    fs::remove_dir_all(store.join("packages")).unwrap();
}

#[test]
#[ignore = "it runs six guests, one after the other"]
fn what_a_run_locked_is_what_later_runs_get_or_their_cells_are_errors_that_name_both_versions() {
    let lab = Lab::forking();
    let server = RepositoryServer::start();
    has(&lab, &server, "1.0", "+90 seconds");
    let expired = Instant::now() + Duration::from_secs(91);
    server.serve("apt", &lab.path("apt"));
    package(&lab, "hello", "Package: nm-hello\nVersion: 1\nArchitecture: all\nDepends: nm-library\n", &[]);
    let (matrix, cell) = (matrix(&server), "debian-12-minimal.version");

    let none = lab.run(&matrix, "none", &["--locked"]);
    none.assert_code(2);
    assert!(none.stderr.contains("repositories.lock") && none.stderr.contains("--lock` makes it"), "{}", none.stderr);

    let first = lab.run(&matrix, "first", &["--lock"]);
    first.assert_code(0);
    assert!(first.stderr.contains("repositories.lock: debian-12-minimal: 1 package, "), "{}", first.stderr);
    let written = lock(&lab);
    let pinned = format!("name = \"nm-library\"\nversion = \"1.0\"\nurl = \"http://{}/apt/", server.host());
    assert!(written.contains(&pinned), "{written}");

    lab.run(&matrix, "kept", &["--locked"]).assert_code(0);

    // What a service keeps of it; it has no state of the first moment that it is asked for.
    let date = written.split("date = \"").nth(1).and_then(|rest| rest.split('"').next());
    let date: jiff::Timestamp = date.expect(&written).parse().unwrap();
    let kept =
        lab.path("snapshots").join((date + jiff::SignedDuration::from_hours(1)).strftime("%Y%m%dT%H%M%SZ").to_string());
    fs::create_dir_all(&kept).unwrap();
    for file in ["InRelease", "Packages", "nm-library_1.0_all.deb"] {
        fs::copy(lab.path("apt").join(file), kept.join(file)).unwrap();
    }

    // Its lists are no longer valid when they are used again.
    has(&lab, &server, "1.1", "+1 day");
    thread::sleep(expired.saturating_duration_since(Instant::now()));
    lab.run(&matrix, "newer", &["--locked"]).assert_code(0);
    lab.run(&matrix, "offline", &["--locked", "--offline"]).assert_code(0);

    remove_cache(lab.store());
    let other = lab.run(&matrix, "other", &["--locked"]);
    other.assert_code(3);
    assert_eq!(other.verdict(cell), "error(install)");
    let reason = other.reason(cell);
    assert!(reason.contains("nm-library: repositories.lock pins 1.0 (sha256:"), "{reason}");
    assert!(reason.contains("the repository offers 1.1 (sha256:") && reason.contains("--lock renews it"), "{reason}");
    assert_eq!(lock(&lab), written, "only `--lock` writes it");
    let other_lists = other.cell(cell)["warnings"].to_string();
    assert!(other_lists.contains("is not the list that repositories.lock pins"), "{other_lists}");

    // A service that has it as it was, named by the Release file.
    server.serve("snapshots", &lab.path("snapshots"));
    let as_it_was = lab.run(&matrix, "as-it-was", &["--locked"]);
    as_it_was.assert_code(0);
    let asked = server.answered();
    let library = "/nm-library_1.0_all.deb";
    assert!(
        asked.iter().any(|(path, status)| path.starts_with("/snapshots/") && path.ends_with(library) && *status == 200),
        "{asked:?}"
    );

    // Also where a suite does not mind.
    let more = "[[suite]]\nname = \"more\"\nguest = { network = \"repositories\" }\ninline = \"apt-get install -y nm-extra || true\"\n";
    let more = lab.run(&format!("{matrix}{more}"), "more", &["--locked", "--cell", "*.more"]);
    more.assert_code(3);
    assert_eq!(more.verdict("debian-12-minimal.more"), "error(test)");
    let reason = more.reason("debian-12-minimal.more");
    assert!(reason.contains("nm-extra 1 (sha256:") && reason.contains("is not in repositories.lock"), "{reason}");

    let renewed = lab.run(&matrix, "renewed", &["--lock"]);
    renewed.assert_code(1);
    assert!(renewed.stderr.contains("; nm-library 1.0 -> 1.1"), "{}", renewed.stderr);
    lab.assert_nothing_left();
}
