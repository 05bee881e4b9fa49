//! Guests that reboot: by their suite, by a step, by what prepares their image; announced and not.

use crate::{
    lab::{Finished, Lab},
    store,
};

/// Reboots twice, each time in another way, and sees what it left before.
const TWICE: &str = r#"
timeout = { suite = "60s" }
images = ["IMAGE"]

[[suite]]
name = "twice"
reboot = true
results = "junit:/var/results/*.xml"
artifacts = ["/var/log/words"]
inline = '''
set -e
echo "out $NESTMATRIX_REBOOT"; echo "err $NESTMATRIX_REBOOT" >&2
echo "word $NESTMATRIX_REBOOT" >>/var/log/words
case $NESTMATRIX_REBOOT in
0)
    test ! -e "$NESTMATRIX_MARK"
    cat /proc/sys/kernel/random/boot_id >"$NESTMATRIX_MARK"
    echo kept >in-the-working-directory
    reboot
    ;;
1)
    if grep -qF "$(cat /proc/sys/kernel/random/boot_id)" "$NESTMATRIX_MARK"; then exit 3; fi
    cat in-the-working-directory >>"$NESTMATRIX_MARK"
    reboot
    # It ends with the guest.
    sleep 600
    ;;
2)
    grep -q kept "$NESTMATRIX_MARK"
    if getent hosts nestmatrix.invalid; then exit 4; fi
    mkdir -p /var/results
    echo '<testsuite name="a"><testcase name="after two reboots"/></testsuite>' >/var/results/a.xml
    ;;
*) exit 5 ;;
esac
'''
[[suite]]
name = "own-identity"
reboot = true
identity = "unique"
inline = '''
set -e
case $(hostname) in *own-identity*) ;; *) exit 3 ;; esac
if [ "$NESTMATRIX_REBOOT" = 0 ]; then
    cat /etc/machine-id >"$NESTMATRIX_MARK"
    # Long after it has ended well: what it wrote says that this was not all.
    (sleep 5; reboot) >/dev/null 2>&1 &
    exit 0
fi
cmp /etc/machine-id "$NESTMATRIX_MARK"
'''
"#;

/// Both suites of [`TWICE`] in one image.
fn assert_survived(run: &Finished, image: &str) {
    run.assert_code(0);
    let id = format!("{image}.twice");
    // What `reboot` itself says is not the point.
    let said = |name: &str| {
        let log = run.file(&format!("cells/{id}/attempt-1/{name}.log"));
        log.lines()
            .filter(|line| line.starts_with(&name[3..]) || line.starts_with('['))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let expected = |word: &str| {
        format!(
            "{word} 0\n[nestmatrix: the guest was rebooted, run 2 follows]\n{word} 1\n\
             [nestmatrix: the guest was rebooted, run 3 follows]\n{word} 2\n"
        )
    };
    assert_eq!([said("stdout"), said("stderr")], [expected("out"), expected("err")]);
    assert_eq!(run.file(&format!("cells/{id}/attempt-1/artifacts/var/log/words")), "word 0\nword 1\nword 2\n");
    let cell = run.cell(&id);
    let attempts = cell["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{cell}");
    assert_eq!(attempts[0]["cases"][0]["name"], "after two reboots", "{cell}");
    let phases = attempts[0]["phases"].as_array().unwrap();
    let count = |name: &str| phases.iter().filter(|phase| phase["phase"] == name).count();
    assert_eq!((count("test"), count("collect")), (3, 1), "{cell}");
    assert!(count("reboot") >= 6, "{cell}");
    // Each of them is one.
    assert!(cell["warnings"].as_array().unwrap().is_empty(), "{cell}");
    assert_eq!(run.verdict(&format!("{image}.own-identity")), "passed");
}

const UNANNOUNCED: &str = r#"
images = ["debian-12-minimal"]
suite = [
    { name = "unannounced", inline = "reboot; sleep 600" },
    { name = "silent", reboot = true, inline = "reboot; sleep 600" },
]
"#;

#[test]
fn a_suite_that_may_reboot_its_guest_goes_on_after_it_and_one_that_may_not_has_failed() {
    let lab = Lab::forking();
    let run = lab.run(&TWICE.replace("IMAGE", "debian-12-minimal"), "out", &[]);
    assert_survived(&run, "debian-12-minimal");
    assert_eq!(run.cell("debian-12-minimal.twice")["attempts"][0]["guest"]["boot"]["how"], "forked");
    let run = lab.run(UNANNOUNCED, "unannounced", &[]);
    run.assert_code(1);
    assert_eq!(run.verdict("debian-12-minimal.unannounced"), "failed(test)");
    assert!(run.reason("debian-12-minimal.unannounced").contains("rebooted itself"), "{}", run.stderr);
    assert_eq!(run.verdict("debian-12-minimal.silent"), "failed(test)");
    assert!(run.reason("debian-12-minimal.silent").contains("had not announced it"), "{}", run.stderr);
    lab.assert_nothing_left();
}

#[test]
#[ignore = "on request: 18 boots and three templates"]
fn a_suite_that_reboots_goes_on_in_every_debian_forked_and_booted() {
    store::the_rest();
    // One after the other: each takes a place of the two that there are.
    for lab in [Lab::forking, Lab::open] {
        let lab = lab();
        for image in ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal"] {
            assert_survived(&lab.run(&TWICE.replace("IMAGE", image), image, &[]), image);
        }
        lab.assert_nothing_left();
    }
}

#[test]
#[ignore = "on request: 6 boots and a template"]
fn a_suite_that_reboots_goes_on_in_a_system_without_a_kernel_forked_and_booted() {
    let image = crate::rootfs::alpine();
    for lab in [Lab::warm, Lab::open] {
        let lab = lab();
        let run = lab.run(&TWICE.replace("images = [\"IMAGE\"]", &image), "out", &[]);
        assert_survived(&run, "alpine");
        lab.assert_nothing_left();
    }
}

const ENDS: &str = r#"
images = ["debian-12-minimal"]
package = { name = "nm-boot", version = "1.0", artifacts = ["dist/*.deb"] }

[[suite]]
name = "for-ever"
install = false
reboot = true
inline = "echo $NESTMATRIX_REBOOT >$NESTMATRIX_MARK; sync; echo b >/proc/sysrq-trigger; sleep 600"

[[suite]]
name = "step"
steps = ["prepare", "reboot", "install", "reboot", "run"]
inline = "cmp /proc/sys/kernel/random/boot_id /var/lib/nm-boot-started"

[[suite]]
name = "no-way-back"
install = false
reboot = true
timeout = { boot = "20s" }
inline = "systemctl mask ssh.service; reboot"

[[suite]]
name = "red-then-gone"
steps = ["prepare", "run", "reboot"]
timeout = { boot = "20s" }
inline = "systemctl mask ssh.service; echo nothing is well >&2; exit 9"
"#;

const UNIT: &str = "[Service]\nType=oneshot\nExecStart=cp /proc/sys/kernel/random/boot_id /var/lib/nm-boot-started\n\
                    [Install]\nWantedBy=multi-user.target\n";

#[test]
#[ignore = "on request: 14 boots"]
fn reboots_have_a_limit_and_a_guest_that_a_package_or_a_suite_keeps_from_booting_is_theirs() {
    let lab = Lab::forking();
    let control = "Package: nm-boot\nVersion: 1.0\nArchitecture: all\n";
    let postinst = "#!/bin/sh\nset -e\nsystemctl enable nm-boot.service\n";
    let files = [("DEBIAN/postinst", postinst), ("lib/systemd/system/nm-boot.service", UNIT)];
    crate::packages::package(&lab, "nm-boot", control, &files);
    let run = lab.run(ENDS, "out", &[]);
    run.assert_code(1);
    let check = |suite: &str, verdict: &str, words: &str| {
        let id = format!("debian-12-minimal.{suite}");
        let (got, reason) = (run.verdict(&id), run.reason(&id));
        assert_eq!(got, verdict, "{id}: {reason}\n{}", run.stderr);
        assert!(reason.contains(words), "{id}: {reason}");
        assert_eq!(run.cell(&id)["attempts"].as_array().unwrap().len(), 1, "{id}");
    };
    check("for-ever", "failed(test)", "the suite rebooted its guest 11 times, at most 10 are allowed");
    check("step", "passed", "");
    let phases = run.cell("debian-12-minimal.step")["attempts"][0]["phases"].clone();
    let phases: Vec<_> = phases.as_array().unwrap().iter().map(|phase| phase["phase"].as_str().unwrap()).collect();
    let order = |phase: &str| phases.iter().position(|name| *name == phase);
    assert!(order("prepare") < order("reboot") && order("reboot") < order("install"), "{phases:?}");
    assert!(phases.iter().rposition(|name| *name == "reboot") > order("install"), "{phases:?}");
    check("red-then-gone", "failed(test)", "exited with 9");
    check("no-way-back", "failed(reboot)", "no longer answers, its machine still runs");
    lab.assert_nothing_left();
}

/// An image whose preparation reboots as often, and a suite that sees what it left.
fn prepared(reboots: u32) -> String {
    format!(
        r#"
[[image]]
name = "prepared"
from = "debian-12-minimal"
[image.prepare]
inline = """
echo run $NESTMATRIX_REBOOT; echo $NESTMATRIX_REBOOT >>/var/lib/prepared
[ $NESTMATRIX_REBOOT = {reboots} ] || {{ echo $NESTMATRIX_REBOOT >>$NESTMATRIX_MARK; reboot; }}
"""
[[suite]]
name = "sees"
inline = '[ "$(cat /var/lib/prepared)" = "$(printf "0\n1")" ] && [ ! -e /var/lib/nestmatrix-mark ]'
"#
    )
}

#[test]
#[ignore = "on request: two templates and 7 boots"]
fn what_prepares_an_image_may_reboot_its_guest_and_forks_have_that_behind_them() {
    let lab = Lab::warm();
    let run = lab.run(&prepared(1), "once", &[]);
    run.assert_code(0);
    assert_eq!(run.cell("prepared.sees")["attempts"][0]["guest"]["boot"]["how"], "forked", "{}", run.stderr);
    let run = lab.run(&prepared(9), "for-ever", &[]);
    run.assert_code(3);
    let reason = run.reason("prepared.sees");
    assert!(reason.contains("the prepare script rebooted its guest 4 times, at most 3 are allowed"), "{reason}");
    lab.assert_nothing_left();
}
