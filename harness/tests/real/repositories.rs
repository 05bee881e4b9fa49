//! What an artifact depends on comes from a repository of the guest's system, through the proxy: with every package manager but apt, and
//! whatever the repository does wrong.

use std::{fs, path::Path, process::Command, sync::LazyLock};

use serde_json::{Value, json};

use crate::{
    lab::{Finished, Lab},
    repository_server::{Lie, RepositoryServer},
};

/// The package managers, as images are named here; and what serves each of them.
const MANAGERS: [(&str, &str); 4] = [("dnf", "rpm"), ("zypper", "rpm"), ("pacman", "pacman"), ("apk", "apk")];
const ALPINE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../images/tests/fixtures/alpine-minirootfs-3.20.3-x86_64.tar.gz");

const MATRIX: &str = r#"
package = { name = "nm-needy", version = "1.0", artifacts = ["MADE/*/artifacts/*"] }
timeout = { prepare = "5m" }
runner = { retries = 0 }
network = { private = ["HOST"] }

[[repository]]
name = "of-rpms"
images = ["dnf", "zypper"]
key = "MADE/rpm/key"
rpm = """
[nm]
name=nm
baseurl=http://HOST/rpm
enabled=1
gpgcheck=1
repo_gpgcheck=1
pkg_gpgcheck=1
"""

[[repository]]
name = "of-pacman"
images = ["pacman"]
key = "MADE/pacman/key"
pacman = """
[nm]
SigLevel = Required
Server = http://HOST/pacman
[nm-newer]
SigLevel = Required
Server = http://HOST/pacman
"""

[[repository]]
name = "of-apk"
images = ["apk"]
key = "MADE/apk/nm.rsa.pub"
apk = "http://HOST/apk"

[[suite]]
name = "s"
inline = "nm-needy && nm-hello"
"#;

/// Systems and repositories, which all tests here share.
static MADE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let made = tempfile::tempdir().unwrap();
    let built = Command::new("sh")
        .args([
            "-euc",
            "mkdir \"$1/made\" && chmod 777 \"$1/made\" && chmod 711 \"$1\" && exec \"$2\" \"$1/made\" \"$3\"",
            "sh",
        ])
        .arg(made.path())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/repositories.sh"))
        .arg(ALPINE)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    made
});

/// Guests that have nm-hello from the repository already, in the version of the artifact and with other content; and what serves them.
struct Repositories {
    lab: Lab,
    server: RepositoryServer,
    matrix: String,
}

impl Repositories {
    fn open() -> Self {
        let made = MADE.path().join("made");
        let server = RepositoryServer::start();
        let images = MANAGERS.map(|(manager, family)| {
            let family = if family == "apk" { String::new() } else { format!("family = \"{family}\"\n") };
            format!(
                "[[image]]\nname = \"{manager}\"\nrootfs = \"MADE/{manager}.tar\"\n{family}\
                 prepare = {{ packages = [\"nm-hello\"], network = \"repositories\" }}\n"
            )
        });
        let matrix = format!("{MATRIX}{}", images.concat());
        let matrix = matrix.replace("MADE", made.to_str().unwrap()).replace("HOST", &server.host());
        let repositories = Self { lab: Lab::warm(), server, matrix };
        repositories.serve("good");
        repositories
    }

    /// Serves these trees from now on.
    fn serve(&self, tree: &str) {
        for family in ["rpm", "pacman", "apk"] {
            self.server.serve(family, &MADE.path().join("made").join(family).join(tree));
        }
    }

    fn run(&self, out: &str) -> Finished {
        self.lab.run(&self.matrix, out, &[])
    }

    /// A run in which every cell has failed of this, with a package manager's own words among these.
    fn assert_all(&self, run: &Finished, verdict: &str, words: [&str; 4]) {
        for ((manager, _), words) in MANAGERS.into_iter().zip(words) {
            let id = format!("{manager}.s");
            let reason = run.reason(&id);
            let log = |name: &str| {
                fs::read_to_string(run.out.join(format!("cells/{id}/attempt-1/{name}"))).unwrap_or_default()
            };
            let logs = || format!("{}\n{}", log("dependencies.log"), log("install.log"));
            assert_eq!(run.verdict(&id), verdict, "{id}: {reason}\n{}", logs());
            assert!(reason.contains(words), "{id}: {reason}\n{}", logs());
            let blames = reason.contains("the guest's repositories cannot be used: ");
            assert_eq!(blames, verdict.starts_with("error"), "{id}: {reason}");
        }
    }
}

/// What a cell asked for while its package was installed.
fn fetched(run: &Finished, manager: &str) -> Value {
    let attempt = run.cell(&format!("{manager}.s"))["attempts"][0].clone();
    let phases = attempt["network"].as_array().unwrap();
    phases.iter().find(|summary| summary["phase"] == "install").cloned().unwrap_or_else(|| panic!("{attempt}"))
}

#[test]
#[ignore = "its systems take minutes to build and to boot: cargo xtask test -- --ignored"]
fn what_an_artifact_depends_on_is_got_from_a_signed_repository_and_the_artifact_wins() {
    let repositories = Repositories::open();
    let server = &repositories.server;
    let run = repositories.run("out");
    for (manager, _) in MANAGERS {
        let id = format!("{manager}.s");
        assert_eq!(run.verdict(&id), "passed", "{id}: {}\n{}", run.reason(&id), run.stderr);
        let said = run.file(&format!("cells/{id}/attempt-1/stdout.log"));
        assert_eq!(said, "needy of the artifact, lib of the repository\nhello of the artifact\n", "{id}");
        let release = if manager == "apk" { "r0" } else { "1" };
        let version = format!("1.0-{release}");
        let installed = &run.cell(&id)["attempts"][0]["installed"];
        let named = |name: &str| {
            installed.as_array().unwrap().iter().any(|found| *found == json!({"name": name, "version": version}))
        };
        assert!(named("nm-needy") && named("nm-hello"), "{id}: {installed}");
        let files = ["from_cache", "revalidated", "from_server"]
            .map(|from| fetched(&run, manager)[from]["count"].as_u64().unwrap());
        assert!(files.iter().sum::<u64>() >= 1, "{id}: {files:?}");
    }
    let answered = server.answered();
    for (family, file) in [
        ("rpm", "nm-lib-1.0-1.noarch.rpm"),
        ("pacman", "nm-lib-1.0-1-any.pkg.tar.gz"),
        ("apk", "x86_64/nm-lib-1.0-r0.apk"),
    ] {
        let asked = answered.iter().filter(|(path, status)| *path == format!("/{family}/{file}") && *status == 200);
        assert_eq!(asked.count(), 1, "guests share what was downloaded: {answered:?}");
    }
    assert!(!answered.iter().any(|(path, _)| path.contains("nm-needy")), "artifacts are not downloaded: {answered:?}");

    let run = repositories.run("again");
    run.assert_code(0);
    for (manager, _) in MANAGERS {
        let fetched = fetched(&run, manager);
        assert_eq!(fetched["from_server"]["count"], 0, "{manager}: {fetched}");
        let kept = ["from_cache", "revalidated"].map(|from| fetched[from]["count"].as_u64().unwrap());
        assert!(kept.iter().sum::<u64>() >= 1, "{manager}: {fetched}");
    }
    let answered = server.answered();
    assert!(!answered.is_empty() && answered.iter().all(|(_, status)| *status != 200), "{answered:?}");
    repositories.lab.assert_nothing_left();
}

/// Changes the signed list of the artifacts' own repository, and reads it again: a package manager that checks signatures refuses.
const TAMPER: &str = r#"
set -e
own=nestmatrix-package_under_test payload=/var/tmp/nestmatrix/tmp
cd /var/tmp/nestmatrix-repository
if command -v apk >/dev/null; then
    cd x86_64
    signature=$(($(wc -c <APKINDEX.tar.gz) - $(wc -c <$payload/unsigned)))
    head -c $signature APKINDEX.tar.gz >/tmp/signed
    apk index --allow-untrusted --description forged --output /tmp/forged ../noarch/*.apk >/dev/null 2>&1
    refresh() { apk update --repositories-file $payload/repositories 2>&1 | tee /tmp/update; ! grep -q WARNING /tmp/update; }
    change() { cat /tmp/signed /tmp/forged >APKINDEX.tar.gz; }
elif ls *.db >/dev/null 2>&1; then
    refresh() { pacman --config $payload/pacman.conf -Syy 2>&1; }
    change() { echo >>$own.db.tar.gz; }
elif command -v dnf >/dev/null; then
    refresh() { dnf makecache --refresh --repo=$own 2>&1; }
    change() { echo >>repodata/repomd.xml; }
else
    refresh() { zypper --non-interactive refresh --force $own 2>&1; }
    change() { echo >>repodata/repomd.xml; }
fi
refresh >/tmp/said || { cat /tmp/said; exit 1; }
change
if refresh >/tmp/said; then cat /tmp/said; exit 2; fi
grep -i signature /tmp/said >/dev/null
echo refused
"#;

#[test]
#[ignore = "its systems take minutes to build and to boot: cargo xtask test -- --ignored"]
fn artifacts_are_installed_by_name_from_their_own_signed_repository_whatever_others_have() {
    let mut repositories = Repositories::open();
    // What the system's repository has of nm-needy is newer, and of nm-hello of the same version.
    repositories.matrix = repositories
        .matrix
        .replace("/*/artifacts/*\"] }", "/*/artifacts/*\"], install = \"repository\" }")
        .replace("inline = \"nm-needy && nm-hello\"", &format!("inline = '''\nnm-needy\nnm-hello\n{TAMPER}'''"));
    let run = repositories.run("out");
    assert_artifacts(&run, false);
    let answered = repositories.server.answered();
    let of_artifacts = |(path, _): &(String, u16)| path.contains("nm-needy");
    assert!(!answered.iter().any(of_artifacts), "artifacts are not downloaded: {answered:?}");

    // The newer one is installed already.
    let prepared = "packages = [\"nm-hello\", \"nm-needy\"]";
    repositories.matrix = repositories.matrix.replace("packages = [\"nm-hello\"]", prepared);
    assert_artifacts(&repositories.run("newer"), true);
    repositories.lab.assert_nothing_left();
}

/// The artifacts are what is installed, by name; their signatures are checked; and nothing was missing if that is `complete`.
fn assert_artifacts(run: &Finished, complete: bool) {
    for (manager, _) in MANAGERS {
        let id = format!("{manager}.s");
        let log =
            |name: &str| fs::read_to_string(run.out.join(format!("cells/{id}/attempt-1/{name}"))).unwrap_or_default();
        let logs = ["repository.log", "dependencies.log", "install.log", "stdout.log", "stderr.log"].map(log);
        let logs = logs.join("\n---\n");
        assert_eq!(run.verdict(&id), "passed", "{id}: {}\n{logs}", run.reason(&id));
        let said = "needy of the artifact, lib of the repository\nhello of the artifact\nrefused\n";
        assert_eq!(log("stdout.log"), said, "{id}: {logs}");
        assert_eq!(log("dependencies.log").is_empty(), complete, "{id}: {logs}");
    }
}

#[test]
#[ignore = "its systems take minutes to build and to boot: cargo xtask test -- --ignored"]
fn a_repository_that_does_wrong_is_an_error_and_a_package_that_cannot_be_installed_a_failure() {
    let mut repositories = Repositories::open();
    let cannot = "error(install)";

    repositories.server.lie("/nm-lib-1.0-1.noarch.rpm", Lie::Missing);
    repositories.server.lie("/nm-lib-1.0-1-any.pkg.tar.gz", Lie::Missing);
    repositories.server.lie("/nm-lib-1.0-r0.apk", Lie::Missing);
    let run = repositories.run("missing");
    run.assert_code(3);
    let words =
        ["404", "not found on medium", "failed retrieving file", "nm-lib-1.0-r0: package mentioned in index not found"];
    repositories.assert_all(&run, cannot, words);

    repositories.server.repent();
    repositories.server.lie("/nm-lib-1.0-1.noarch.rpm", Lie::Flipped);
    repositories.server.lie("/nm-lib-1.0-1-any.pkg.tar.gz", Lie::Flipped);
    repositories.server.lie("/nm-lib-1.0-r0.apk", Lie::Flipped);
    let run = repositories.run("damaged");
    run.assert_code(3);
    let words = [
        "checksum",
        "nm-lib-1.0-1.noarch (nm): Signature verification failed",
        "signature from \"nm\" is invalid",
        "nm-lib-1.0-r0: ",
    ];
    repositories.assert_all(&run, cannot, words);
    repositories.server.repent();

    repositories.serve("forged");
    let run = repositories.run("forged");
    run.assert_code(3);
    let words = ["Bad GPG signature", "Signature verification failed", "(PGP signature)", "BAD signature"];
    repositories.assert_all(&run, cannot, words);

    // Of apk, lists are signed and packages have digests there.
    repositories.serve("forged-package");
    repositories.server.serve("apk", &MADE.path().join("made/apk/forged"));
    let run = repositories.run("forged-package");
    run.assert_code(3);
    // pacman 6.0 crashes.
    repositories.assert_all(
        &run,
        cannot,
        ["GPG check FAILED", "nm-lib-1.0-1.noarch (nm): Signature verification failed", "error: ", "BAD signature"],
    );
    repositories.serve("good");

    let right = repositories.matrix.clone();
    repositories.matrix = right.replace("/*/artifacts/", "/*/lost/");
    let run = repositories.run("lost");
    run.assert_code(1);
    repositories.assert_all(&run, "failed(install)", ["nm-nowhere"; 4]);

    repositories.matrix = right.replace("/*/artifacts/", "/*/clash/");
    let run = repositories.run("clash");
    run.assert_code(1);
    repositories.assert_all(&run, "failed(install)", ["nm-hello"; 4]);

    repositories.matrix = right;
    let host = repositories.server.host();
    // Nobody else is at its place as long as nobody asks for one of that number.
    repositories.server = RepositoryServer::start();
    let run = repositories.run("vanished");
    run.assert_code(3);
    repositories.assert_all(&run, cannot, [host.as_str(); 4]);
    repositories.lab.assert_nothing_left();
}
