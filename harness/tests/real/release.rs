//! What the tool is for: a package on the releases it claims to support.

use std::process::Command;

use crate::{endings::assert_counts_agree, lab::Lab, store};

/// Builds a package that needs a newer C library than Debian 11 has.
fn package(lab: &Lab) {
    let root = lab.path("root");
    lab.write(
        "root/DEBIAN/control",
        "Package: needs-new-libc\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
         Depends: libc6 (>= 2.36)\nDescription: a package\n",
    );
    lab.write("root/usr/share/needs-new-libc/greeting", "hello\n");
    let mut build = Command::new("dpkg-deb");
    let built = build.args(["--root-owner-group", "--build"]).arg(&root).arg(lab.path("new.deb")).output().unwrap();
    assert!(built.status.success(), "{built:?}");
}

#[test]
fn a_package_that_needs_a_newer_libc_is_red_where_it_is_too_old_and_green_elsewhere() {
    store::the_rest();
    let lab = Lab::forking();
    package(&lab);
    let matrix = r#"
images = ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal"]
package = { name = "needs-new-libc", version = "1.0", artifacts = ["new.deb"], dependencies = "artifacts" }
[[suite]]
name = "smoke"
env = { WANTED = "{{ package.version }} on {{ image.name }}" }
inline = '''
grep -q hello /usr/share/needs-new-libc/greeting
case "$WANTED" in "1.0 on debian-12-minimal" | "1.0 on debian-13-minimal") ;; *) exit 1 ;; esac
'''
"#;
    let run = lab.run(matrix, "out", &[]);
    run.assert_code(1);
    assert_eq!(run.verdict("debian-11-minimal.smoke"), "failed(install)", "{}", run.stderr);
    for image in ["debian-12-minimal", "debian-13-minimal"] {
        assert_eq!(run.verdict(&format!("{image}.smoke")), "passed", "{}", run.stderr);
    }
    let separates = "`smoke: installation` fails on 1 of 1 guest with `glibc` < 2.36, passes on 2 of 2 others";
    assert!(run.stderr.contains(separates), "{}", run.stderr);
    let installed = &run.cell("debian-12-minimal.smoke")["attempts"][0]["installed"];
    assert_eq!(*installed, serde_json::json!([{"name": "needs-new-libc", "version": "1.0"}]));
    for report in ["junit.xml", "summary.md", "report.html", "run.json"] {
        let text = run.file(report);
        assert!(text.contains("libc6"), "{report} has the package manager's own words: {text}");
    }
    assert!(run.stderr.contains("libc6"), "and so has the terminal: {}", run.stderr);
    assert_counts_agree(&run);
    lab.assert_nothing_left();
}

#[test]
fn the_matrix_that_nestmatrix_ships_is_green() {
    store::the_rest();
    let lab = Lab::forking();
    let child = lab.nestmatrix().args(["run", "release", "--out"]).arg(lab.path("out")).spawn().unwrap();
    let run = lab.finish(child, "out");
    run.assert_code(0);
    assert_eq!(run.json()["counts"]["cells"]["passed"], 6, "{}", run.stderr);
    lab.assert_nothing_left();
}

#[test]
fn a_guest_reaches_neither_the_host_nor_the_outside() {
    let lab = Lab::forking();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    server.set_nonblocking(true).unwrap();
    let matrix = format!(
        r#"
images = ["debian-12-minimal"]
[[suite]]
name = "closed"
inline = '''
# The host's loopback is 10.0.2.2 to a guest with an open network.
if timeout 5 bash -c 'echo > /dev/tcp/10.0.2.2/{port}'; then echo the host answered; exit 1; fi
if timeout 5 bash -c 'echo > /dev/tcp/10.0.2.3/53'; then echo the name server answered; exit 1; fi
exit 0
'''
[[suite]]
name = "closed-too"
boot = "cold"
inline = "! timeout 5 bash -c 'echo > /dev/tcp/10.0.2.2/{port}'"
[[suite]]
name = "open"
guest = {{ network = "open" }}
inline = "timeout 20 bash -c 'echo > /dev/tcp/10.0.2.2/{port}'"
"#
    );
    let run = lab.run(&matrix, "out", &[]);
    run.assert_code(0);
    // The open guest proves that the closed one had something to reach.
    assert_eq!(run.verdict("debian-12-minimal.open"), "passed");
    assert!(server.accept().is_ok());
    assert!(server.accept().is_err(), "one guest only");
    lab.assert_nothing_left();
}

#[test]
fn a_kept_guest_is_entered_with_the_command_that_was_printed() {
    let lab = Lab::forking();
    let matrix =
        "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"red\"\ninline = \"echo 42 > /root/evidence; exit 1\"\n";
    let run = lab.run(matrix, "out", &["--keep", "failed"]);
    run.assert_code(1);
    let kept = run.cell("debian-12-minimal.red")["attempts"][0]["kept"].clone();
    let (ssh, stop) = (kept["ssh"].as_str().unwrap(), kept["stop"].as_str().unwrap());
    assert!(run.stderr.contains(stop), "{}", run.stderr);
    let looked = Command::new("sh").arg("-c").arg(format!("{ssh} cat /root/evidence")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&looked.stdout), "42\n", "{looked:?}");

    // Another run leaves it alone; once stopped, the next one tidies up.
    let quick = "images = [\"debian-12-minimal\"]\n[[suite]]\nname = \"green\"\ninline = \"true\"\n";
    lab.run(quick, "other", &[]).assert_code(0);
    assert_eq!(lab.guests().len(), 1);
    assert!(Command::new("sh").arg("-c").arg(stop).status().unwrap().success());
    for _ in 0..100 {
        if lab.guests().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    lab.run(quick, "third", &[]).assert_code(0);
    lab.assert_nothing_left();
}
