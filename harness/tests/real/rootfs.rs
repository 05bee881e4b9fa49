//! A system without a kernel: a distribution's root file system in a tarball, with a package of its own kind.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use sha2::Digest as _;

use crate::{endings::assert_counts_agree, lab::Lab};

const ALPINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../images/tests/fixtures/alpine-minirootfs-3.20.3-x86_64.tar.gz");
const DIGEST: &str = "d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c";

const MATRIX: &str = r#"
package = { name = "greeting", version = "1.0", artifacts = ["greeting.apk"] }
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
apk info -e greeting
grep hello /usr/share/greeting
test "$(readlink /proc/1/exe)" = /init
# Nothing of what brought the guest up is in it, nor in the environment of what runs in it.
! mount | grep -v -e ' on /dev' -e ' on /proc' -e ' on /sys' -e ' on /run' | grep -v '^/dev/vda on / '
! env | grep ^LD_
test "$(stat -c %a /etc/shadow) $(stat -c %U:%G /etc/shadow)" = "640 root:shadow"
test "$(stat -c %h /etc/hostname)" = 1
hostname | grep -x alpine
ip addr show eth0 | grep 10.0.2.15
test "$(stat -c %a /tmp /var/tmp | sort -u)" = 1777
echo x >/dev/shm/x; test -c /dev/pts/ptmx; test -e /sys/fs/cgroup/cgroup.controllers
# The dead are buried.
(sleep 0.1 &)
sleep 1
! ps -o stat,comm | grep '^Z'
'''
[[suite]]
name = "unique"
identity = "unique"
inline = "hostname | grep -x alpine-unique"
[[suite]]
name = "fails"
inline = "exit 7"
[[suite]]
name = "poweroff"
inline = "poweroff; sleep 60"
"#;

/// A package of Alpine's: two tarballs one after the other, without a signature (its wiki: "Apk spec").
fn package(lab: &Lab) {
    let tarball = |name: &str, text: &str, cut: usize| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        let mut bytes = tar.into_inner().unwrap();
        bytes.truncate(bytes.len() - cut);
        let mut gzip = Command::new("gzip").arg("-nc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        gzip.stdin.take().unwrap().write_all(&bytes).unwrap();
        gzip.wait_with_output().unwrap().stdout
    };
    let data = tarball("usr/share/greeting", "hello\n", 0);
    let digest = sha2::Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let info = format!(
        "pkgname = greeting\npkgver = 1.0-r0\npkgdesc = a package\narch = noarch\nsize = 6\nlicense = MIT\ndatahash = {digest}\n"
    );
    // The first has no end of its own: the second goes on where it stops.
    let control = tarball(".PKGINFO", &info, 1024);
    fs::write(lab.path("greeting.apk"), [control, data].concat()).unwrap();
}

#[test]
fn a_tarball_with_a_system_in_it_is_a_guest_like_any_other() {
    let lab = Lab::warm();
    package(&lab);
    assert!(Path::new(ALPINE).exists());
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

    let system = &run.cell("alpine.system")["attempts"][0]["system"];
    assert_eq!((system["id"].as_str(), system["version"].as_str()), (Some("alpine"), Some("3.20.3")), "{system}");
    assert!(system["libc"].as_str().unwrap().starts_with("musl"), "{system}");

    assert_eq!(run.verdict("another.system"), "error(image)", "{}", run.stderr);
    let reason = run.reason("another.system");
    assert!(reason.contains("not what was stated") && reason.contains(DIGEST), "{reason}");
    assert_counts_agree(&run);
    lab.assert_nothing_left();
}
