//! Real packages of Debian, each given as one file: what they depend on comes from where this machine has its own packages.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::lab::{Finished, Lab};

const RELEASES: [(&str, &str); 3] =
    [("debian-11-minimal", "bullseye"), ("debian-12-minimal", "bookworm"), ("debian-13-minimal", "trixie")];

/// Packages, each with what proves that it works.
const NGINX: (&str, &str) = ("nginx", "systemctl is-active nginx && nginx -t");
const POSTGRESQL: (&str, &str) = ("postgresql", "su postgres -c \"psql -Atc 'select 41 + 1'\" | grep -x 42");
const PYTHON_REQUESTS: (&str, &str) = ("python3-requests", "python3 -c 'import requests; print(requests.__version__)'");
const JAVA: (&str, &str) = ("default-jre-headless", "java -version");

/// The package as one file, and what proves that it works. `booted`: more lines of the suite whose guest is booted.
fn matrix(lab: &Lab, package: &str, (image, release): (&str, &str), works: &str, booted: &str) -> String {
    let made = lab.path(release);
    std::fs::create_dir_all(&made).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/download-deb.sh");
    let downloaded = Command::new("sh").arg(script).args([release, package]).arg(&made).output().unwrap();
    assert!(downloaded.status.success(), "{}", String::from_utf8_lossy(&downloaded.stderr));
    format!(
        r#"
images = ["{image}"]
package = {{ name = "{package}", artifacts = ["{release}/{package}_*.deb"] }}
guest = {{ memory = "1GiB" }}
timeout = {{ install = "15m" }}
[[suite]]
name = "forked"
inline = '''{works}'''
[[suite]]
name = "booted"
boot = "cold"
inline = '''{works}'''
{booted}
"#
    )
}

/// Numbers of phase install of all cells: files that the cache had, and files that it had not.
fn fetched(run: &Finished) -> (u64, u64) {
    let (mut cached, mut fetched) = (0, 0);
    for cell in run.json()["cells"].as_array().unwrap() {
        for network in cell["attempts"][0]["network"].as_array().unwrap() {
            let count = |key: &str| network[key]["count"].as_u64().unwrap();
            assert_eq!(network["phase"], "install", "{network}");
            assert_eq!(
                (&network["failed"], &network["refused"]),
                (&Value::from(0), &Value::Array(Vec::new())),
                "{network}"
            );
            cached += count("from_cache") + count("revalidated");
            fetched += count("from_server");
        }
    }
    (cached, fetched)
}

/// Installs it twice; the second run fetches nothing. In an L1 it comes through the proxy and the cache of its host, the booted guest installs
/// it by name, and the second run is locked.
fn install_twice(releases: &[(&str, &str)], (package, works): (&str, &str), in_an_l1: bool) {
    let (booted, once, again): (_, &[_], &[_]) = match in_an_l1 {
        true => ("install = 'repository'", &["--runner", "qemu", "--lock"], &["--runner", "qemu", "--locked"]),
        false => ("", &["--runner", "host"], &["--runner", "host"]),
    };
    let lab = Lab::warm();
    for (image, release) in releases.iter().copied() {
        let matrix = matrix(&lab, package, (image, release), works, booted);
        let first = lab.run(&matrix, &format!("{release}-1"), once);
        first.assert_code(0);
        for suite in ["forked", "booted"] {
            let cell = first.cell(&format!("{image}.{suite}"));
            assert_eq!(cell["attempts"][0]["guest"]["boot"]["how"], if suite == "forked" { "forked" } else { "cold" });
        }
        assert!(fetched(&first).1 > 0, "{}", first.stderr);
        let served = lab.path(&format!("{release}-1/cells/{image}.booted/attempt-1/repository.log"));
        assert_eq!(first.cell(&format!("{image}.booted"))["install"] == "repository", in_an_l1);
        assert_eq!(served.exists(), in_an_l1, "{}", served.display());
        let second = lab.run(&matrix, &format!("{release}-2"), again);
        second.assert_code(0);
        assert_eq!(second.json()["locked"].is_string(), in_an_l1, "{}", second.stderr);
        let (cached, fetched) = fetched(&second);
        assert!(cached > 0 && fetched == 0, "{cached} from the cache, {fetched} not: {}", second.stderr);
    }
    lab.assert_nothing_left();
}

#[test]
#[ignore = "tens of guests install from repositories: cargo xtask test -- --ignored"]
fn nginx_serves_on_three_debians() {
    install_twice(&RELEASES, NGINX, false);
}

#[test]
#[ignore = "tens of guests install from repositories: cargo xtask test -- --ignored"]
fn postgresql_answers_on_three_debians() {
    install_twice(&RELEASES, POSTGRESQL, false);
}

#[test]
#[ignore = "tens of guests install from repositories: cargo xtask test -- --ignored"]
fn python_requests_is_imported_on_three_debians() {
    install_twice(&RELEASES, PYTHON_REQUESTS, false);
}

#[test]
#[ignore = "tens of guests install from repositories: cargo xtask test -- --ignored"]
fn java_runs_on_three_debians() {
    install_twice(&RELEASES, JAVA, false);
}

#[test]
#[ignore = "guests in an emulated L1 install from repositories: cargo xtask test -- --ignored"]
fn nginx_serves_in_an_l1_on_debian_11() {
    install_twice(&RELEASES[0..=0], NGINX, true);
}

#[test]
#[ignore = "guests in an emulated L1 install from repositories: cargo xtask test -- --ignored"]
fn nginx_serves_in_an_l1_on_debian_12() {
    install_twice(&RELEASES[1..=1], NGINX, true);
}

#[test]
#[ignore = "guests in an emulated L1 install from repositories: cargo xtask test -- --ignored"]
fn nginx_serves_in_an_l1_on_debian_13() {
    install_twice(&RELEASES[2..=2], NGINX, true);
}

#[test]
#[ignore = "guests in an emulated L1 install from repositories: cargo xtask test -- --ignored"]
fn postgresql_answers_in_an_l1_on_debian_12() {
    install_twice(&RELEASES[1..=1], POSTGRESQL, true);
}

#[test]
#[ignore = "guests in an emulated L1 install from repositories: cargo xtask test -- --ignored"]
fn python_requests_is_imported_in_an_l1_on_debian_12() {
    install_twice(&RELEASES[1..=1], PYTHON_REQUESTS, true);
}

#[test]
#[ignore = "guests in an emulated L1 install from repositories: cargo xtask test -- --ignored"]
fn java_runs_in_an_l1_on_debian_12() {
    install_twice(&RELEASES[1..=1], JAVA, true);
}
