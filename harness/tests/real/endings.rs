//! Every way a script can end is told apart, and none of them takes more than its own cell along.

use crate::lab::Lab;

const SCRIPTS: &str = r#"
images = ["debian-12-minimal"]

[[suite]]
name = "flood"
inline = "head -c 200000000 /dev/zero | tr '\\0' x; echo; echo the end"

[[suite]]
name = "bytes"
inline = '''printf 'escape \033[31m, nul \000, cdata ]]>, \377\n' >&2; exit 3'''

[[suite]]
name = "daemon"
inline = "sh -c 'while :; do echo still here; sleep 1; done' & echo started"

[[suite]]
name = "poweroff"
inline = "systemctl poweroff; sleep 600"

[[suite]]
name = "panic"
inline = "echo c > /proc/sysrq-trigger; sleep 600"

[[suite]]
name = "signal"
inline = "kill -SEGV $$"

[[suite]]
name = "endless"
timeout = { suite = "2s" }
inline = "echo before; (sleep 6000 &); sleep 6000"

[[suite]]
name = "disk-full"
inline = '''
fallocate -l $(($(df --output=avail -B1 / | tail -1) - 65536)) /fill
cp /bin/bash /another || exit 5
'''

[[suite]]
name = "skip"
inline = "echo no such hardware; exit 77"

[[suite]]
name = "own-results"
results = "junit:/tmp/results/*.xml"
artifacts = ["/tmp/evidence", "/tmp/absent.log"]
inline = '''
mkdir -p /tmp/results /tmp/evidence
cat > /tmp/results/a.xml <<'XML'
<testsuite name="a"><testcase name="good" classname="k"/><testcase name="bad" classname="k"><failure message="2 is not 3">at line 7</failure></testcase></testsuite>
XML
echo proof > /tmp/evidence/proof.txt
ln -s /etc/shadow /tmp/evidence/link
'''
"#;

#[test]
fn each_way_a_script_can_end_has_its_own_verdict_and_words() {
    let lab = Lab::forking();
    let run = lab.run(SCRIPTS, "out", &[]);
    run.assert_code(1);
    let id = |suite: &str| format!("debian-12-minimal.{suite}");
    let check = |suite: &str, verdict: &str, words: &str| {
        let id = id(suite);
        let (got, reason) = (run.verdict(&id), run.reason(&id));
        assert_eq!(got, verdict, "{id}: {reason}\n{}", run.stderr);
        assert!(reason.contains(words), "{id}: {reason}");
    };
    check("flood", "passed", "");
    check("bytes", "failed(test)", "exited with 3");
    check("daemon", "passed", "");
    check("poweroff", "failed(test)", "powered itself off");
    check("panic", "failed(test)", "kernel panicked");
    check("signal", "failed(test)", "SIGSEGV");
    check("endless", "failed(test)", "time limit");
    check("disk-full", "failed(test)", "exited with 5");
    check("skip", "skipped", "no such hardware");
    check("own-results", "failed(test)", "2 is not 3");

    assert_eq!(run.json()["counts"]["tests"]["skipped"], 1, "a cell that is skipped is one skipped test");

    // 200 MB were counted but not kept, the end is there.
    let log = run.out.join("cells/debian-12-minimal.flood/attempt-1/stdout.log");
    assert!(log.metadata().unwrap().len() < 80 << 20, "{:?}", log.metadata());
    assert!(std::fs::read_to_string(&log).unwrap().ends_with("the end\n"));
    assert!(run.file("cells/debian-12-minimal.disk-full/attempt-1/stderr.log").contains("No space left"));
    assert!(run.file("cells/debian-12-minimal.panic/attempt-1/console.log").contains("sysrq"));
    assert_eq!(
        std::fs::read(run.out.join("cells/debian-12-minimal.panic/attempt-1/screen.png")).unwrap()[..4],
        *b"\x89PNG"
    );

    let artifacts = run.out.join("cells/debian-12-minimal.own-results/attempt-1/artifacts");
    assert_eq!(std::fs::read_to_string(artifacts.join("tmp/evidence/proof.txt")).unwrap(), "proof\n");
    assert!(artifacts.join("tmp/evidence/link").symlink_metadata().is_err(), "links are not fetched");

    // The bytes that break XML and terminals are in the log, and nowhere else.
    let junit = run.file("junit.xml");
    assert!(!junit.contains(['\u{1b}', '\0']));
    assert!(!run.stderr.contains(['\u{1b}', '\0']));
    assert!(run.file("cells/debian-12-minimal.bytes/attempt-1/stderr.log").contains('\u{1b}'));
    assert_counts_agree(&run);
    lab.assert_nothing_left();
}

/// `run.json` and `junit.xml` count the same, and every cell is counted once. (That all outputs do is a property test of `reports`.)
pub(crate) fn assert_counts_agree(run: &crate::lab::Finished) {
    let tests = &run.json()["counts"]["tests"];
    let count = |name: &str| tests[name].as_u64().unwrap();
    let junit = run.file("junit.xml");
    let mut reader = quick_xml::Reader::from_str(&junit);
    let (mut cases, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag) => match tag.name().as_ref() {
                "testcase" => cases += 1,
                "failure" => failures += 1,
                "error" => errors += 1,
                "skipped" => skipped += 1,
                _ => {}
            },
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(cases, count("total"));
    assert_eq!(failures, count("failed"));
    assert_eq!(errors, count("error") + count("not_run"));
    assert_eq!(skipped, count("skipped"));
    let cells = &run.json()["counts"]["cells"];
    let sum: u64 =
        ["passed", "failed", "skipped", "error", "not_run"].iter().map(|name| cells[name].as_u64().unwrap()).sum();
    assert_eq!(Some(sum), cells["total"].as_u64());
    assert_eq!(cells["total"].as_u64().unwrap() as usize, run.json()["cells"].as_array().unwrap().len());
}
