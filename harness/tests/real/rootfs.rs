//! A system without a kernel: a distribution's root file system in a tarball.

use std::process::Command;

use crate::{endings::assert_counts_agree, lab::Lab};

const ALPINE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../images/tests/fixtures/alpine-minirootfs-3.20.3-x86_64.tar.gz");
const DIGEST: &str = "d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c";

const MATRIX: &str = r#"
package = { name = "nm-hello", version = "1.0", artifacts = ["nm-hello-1.0-r0.apk"] }
guest = { disk = "5GiB" }
[[image]]
name = "alpine"
rootfs = "ALPINE"
digest = "sha256:DIGEST"
[[image]]
name = "another"
rootfs = "ALPINE"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
[[suite]]
name = "system"
inline = '''
set -e
apk --version; busybox | head -n 1
ldd /bin/busybox | grep musl
apk info -e musl
nm-hello | grep "hello from an apk"
apk info -e nm-hello
test "$(readlink /proc/1/exe)" = /init
# Nothing of what brought the guest up is in it, nor in the environment of what runs in it.
if mount | grep -v -e ' on /dev' -e ' on /proc' -e ' on /sys' -e ' on /run' | grep -v '^/dev/vda on / '; then exit 1; fi
if env | grep ^LD_; then exit 1; fi
test "$(stat -c %a /etc/shadow) $(stat -c %U:%G /etc/shadow)" = "640 root:shadow"
test "$(stat -c %h /etc/hostname)" = 1
hostname | grep -x alpine
ip addr show eth0 | grep 10.0.2.15
test "$(stat -c %a /tmp /var/tmp | sort -u)" = 1777
echo x >/dev/shm/x; test -c /dev/pts/ptmx; test -e /sys/fs/cgroup/cgroup.controllers
# Its file system has grown with its disk.
test "$(df -P -m / | tail -n 1 | { read -r _ size _; echo "$size"; })" -gt 4500
# Names that nobody can look up are refused at once: musl alone would wait for 5 seconds. Its own is known.
seconds() { cut -d. -f1 /proc/uptime; }
began=$(seconds)
if getent hosts example.com; then exit 1; fi
getent hosts alpine
test $(($(seconds) - began)) -lt 4
# The dead are buried.
(sleep 0.1 &)
sleep 1
if ps -o stat,comm | grep '^Z'; then exit 1; fi
'''
[[suite]]
name = "unique"
identity = "unique"
install = false
inline = "hostname | grep -x alpine-unique"
[[suite]]
name = "fails"
install = false
inline = "exit 7"
[[suite]]
name = "poweroff"
install = false
inline = "poweroff; sleep 60"
"#;

/// The table of such an image, `alpine`.
pub(crate) fn alpine() -> String {
    format!("[[image]]\nname = \"alpine\"\nrootfs = \"{ALPINE}\"\ndigest = \"sha256:{DIGEST}\"\n")
}

#[test]
fn a_tarball_with_a_system_in_it_is_a_guest_like_any_other() {
    let lab = Lab::warm();
    let made = Command::new("sh").args(["-c", include_str!("make-apk.sh"), "sh"]).arg(lab.path("")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let run = lab.run(&MATRIX.replace("ALPINE", ALPINE).replace("DIGEST", DIGEST), "out", &[]);
    run.assert_code(1);
    let check = |suite: &str, verdict: &str, words: &str| {
        let id = format!("alpine.{suite}");
        let (got, reason) = (run.verdict(&id), run.reason(&id));
        let log = run.file(&format!("cells/{id}/attempt-1/stderr.log"));
        assert_eq!(got, verdict, "{id}: {reason}\n{log}\n{}", run.stderr);
        assert!(reason.contains(words), "{id}: {reason}");
        let boot = &run.cell(&id)["attempts"][0]["guest"]["boot"];
        assert_eq!(boot["how"], "forked", "{id}: {boot}\n{}", run.stderr);
    };
    check("system", "passed", "");
    check("unique", "passed", "");
    check("fails", "failed(test)", "exited with 7");
    check("poweroff", "failed(test)", "powered itself off");

    let installed = &run.cell("alpine.system")["attempts"][0]["installed"];
    assert_eq!(*installed, serde_json::json!([{"name": "nm-hello", "version": "1.0-r0"}]));
    let system = &run.cell("alpine.system")["attempts"][0]["system"];
    assert_eq!((system["id"].as_str(), system["version"].as_str()), (Some("alpine"), Some("3.20.3")), "{system}");
    assert!(system["libc"].as_str().unwrap().starts_with("musl"), "{system}");
    assert_eq!(system["kernel_lent"], true, "{system}");
    for report in ["summary.md", "report.html", "junit.xml"] {
        let text = run.file(report);
        assert!(text.contains("(lent by nestmatrix)"), "{report} says whose kernel it is");
    }

    assert_eq!(run.verdict("another.system"), "error(image)", "{}", run.stderr);
    let reason = run.reason("another.system");
    assert!(reason.contains("digest mismatch of") && reason.contains(DIGEST), "{reason}");
    assert_counts_agree(&run);
    lab.assert_nothing_left();
}
