//! Names in guests that reach nothing: who asks for one is refused at once, and does not wait for a resolver's patience to end.

use crate::lab::Lab;

/// A question that nobody answers takes 5 seconds and more. Programs of an emulated guest take one of them to begin, on a busy machine
/// two; so the same program is run for a name that needs no answer, and the others may take two seconds longer.
const MATRIX: &str = r#"
images = ["debian-12-minimal"]
[[suite]]
name = "names"
inline = '''
set -e
now() { read -r up _ </proc/uptime; echo "${up%.*}${up#*.}"; }
took() {
    began=$(now)
    "$@" || code=$?
    lasted=$(($(now) - began))
    echo "$lasted hundredths of a second: $*"
}
took getent ahosts localhost
most=$((lasted + 200))
quick() { took "$@"; test "$lasted" -lt "$most"; }
quick getent ahosts "$(hostname)" >own
cat own
grep '^::1 ' own
grep '^127.0.1.1 ' own
quick getent hosts "$(hostname)"
quick getent hosts example.com
test "$code" = 2
quick getent ahosts nobody.example.com
quick hostname -f
test "$(hostname -f)" = "$(hostname)"
'''
"#;

#[test]
fn a_guest_that_is_isolated_knows_its_own_name_and_is_refused_all_others_at_once() {
    let lab = Lab::forking();
    let run = lab.run(MATRIX, "out", &[]);
    let id = "debian-12-minimal.names";
    let said = ["stdout.log", "stderr.log"].map(|log| run.file(&format!("cells/{id}/attempt-1/{log}"))).concat();
    assert_eq!(run.verdict(id), "passed", "{}\n{said}\n{}", run.reason(id), run.stderr);
    assert!(!run.stderr.contains("root file system"), "it fills its disk: {}", run.stderr);
    lab.assert_nothing_left();
}
