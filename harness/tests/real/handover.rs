//! What goes into a guest and what comes out of it, where the guest makes it hard.

use std::fs;

use crate::lab::Lab;

const PLAIN: &str = r#"
images = ["debian-12-minimal"]

[[suite]]
name = "links"
results = "junit:/tmp/results/latest.xml"
artifacts = ["/etc/os-release", "/var/log/run/latest"]
inline = '''
mkdir -p /tmp/results /var/log/run/7
echo '<testsuite><testcase name="good"/></testsuite>' >/tmp/results/2026.xml
ln -s 2026.xml /tmp/results/latest.xml
echo seven >/var/log/run/7/log
ln /var/log/run/7/log /var/log/run/7/same
ln -s 7 /var/log/run/latest
'''

[[suite]]
name = "pipe"
results = "junit:/tmp/results.xml"
inline = "mkfifo /tmp/results.xml"

[[suite]]
name = "python"
inline = '''#!/usr/bin/python3
print("hello")
'''
"#;

#[test]
fn links_lead_to_results_and_what_cannot_be_had_in_a_guest_is_no_fault_of_the_package() {
    let lab = Lab::forking();
    let run = lab.run(PLAIN, "out", &[]);
    let check = |suite: &str, verdict: &str, words: &str| {
        let id = format!("debian-12-minimal.{suite}");
        let (got, reason) = (run.verdict(&id), run.reason(&id));
        assert_eq!(got, verdict, "{id}: {reason}\n{}", run.stderr);
        assert!(reason.contains(words), "{id}: {reason}");
    };
    check("links", "passed", "");
    check("pipe", "error(collect)", "/tmp/results.xml was not fetched: it is a pipe");
    check("python", "error(test)", "interpreter /usr/bin/python3 of the suite's script is not in the guest");
    run.assert_code(3);
    let kept = run.out.join("cells/debian-12-minimal.links/attempt-1/artifacts");
    assert!(fs::read_to_string(kept.join("etc/os-release")).unwrap().contains("Debian"));
    for name in ["log", "same"] {
        assert_eq!(fs::read_to_string(kept.join("var/log/run/latest").join(name)).unwrap(), "seven\n");
    }
    lab.assert_nothing_left();
}

/// No tar, nothing runs from where everybody may write, and results that somebody left.
const HARD: &str = r#"
[[image]]
name = "hard"
from = "debian-12-minimal"

[image.prepare]
inline = '''
rm -f /bin/tar /usr/bin/tar
for folder in /tmp /var/tmp /dev/shm; do echo "tmpfs $folder tmpfs noexec,nosuid,nodev,mode=1777 0 0" >>/etc/fstab; done
mkdir -p /var/results
echo '<testsuite><testcase name="good"/></testsuite>' >/var/results/old.xml
umount /tmp 2>/dev/null
mount /tmp; mount /var/tmp; mount -o remount,noexec /dev/shm
exit 0
'''

[[suite]]
name = "script"
run = "script.sh"
files = ["tool"]
artifacts = ["/etc/os-release"]

[[suite]]
name = "silent"
results = "junit:/var/results/*.xml"
inline = "exit 0"

[[suite]]
name = "booted"
boot = "cold"
inline = "touch $TMPDIR/x"
"#;

#[test]
#[ignore = "on request: a template of its own"]
fn a_hardened_guest_without_tar_is_frozen_and_takes_a_payload() {
    let lab = Lab::warm();
    for (name, text) in
        [("script.sh", "#!/bin/sh\n./tool && readlink /var/tmp/nestmatrix\n"), ("tool", "#!/bin/sh\necho ran\n")]
    {
        let path = lab.write(name, text);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let run = lab.run(HARD, "out", &[]);
    assert_eq!(run.verdict("hard.script"), "passed", "{}", run.stderr);
    assert_eq!(run.file("cells/hard.script/attempt-1/stdout.log"), "ran\n/var/lib/nestmatrix-payload\n");
    assert!(run.out.join("cells/hard.script/attempt-1/artifacts/etc/os-release").exists());
    assert_eq!(run.verdict("hard.silent"), "failed(collect)", "old results are no pass: {}", run.stderr);
    assert!(run.stderr.contains("/var/results/old.xml was there before the suite started"), "{}", run.stderr);
    assert_eq!(run.verdict("hard.booted"), "passed", "{}", run.stderr);
    assert!(!run.file("events.jsonl").contains("mounted noexec"), "it was frozen");
    lab.assert_nothing_left();
}
