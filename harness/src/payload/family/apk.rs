//! Alpine's family: apk.

use super::{
    adapter::Adapter,
    reasons::{Grammar, starts},
};
use crate::payload::signer::Signing;

/// apk's database, and what it works out of it.
const REHEARSAL: &str = "\
{ apk add --simulate --no-network; apk info -e -v apk-tools; } </dev/null >/dev/null 2>&1
:
";

const BY_NAME: &str = "exec apk add --update-cache --no-progress --wait 60 -- \"$@\"\n";

/// `apk-tools 2.14.4, compiled for x86_64.`
const FACTS: &str = r#"
if has apk; then
    said=$(first apk --version)
    say package "${said:+${said%%,*} installed}"
fi
"#;

/// apk.
pub(super) const ADAPTER: Adapter = Adapter {
    takes: "Alpine packages (.apk)",
    also: |_| &[],
    functions: include_str!("apk.sh"),
    signing: Some(Signing::Rsa),
    by_name: BY_NAME,
    rehearsal: REHEARSAL,
    facts: FACTS,
    grammar: GRAMMAR,
    unsaid: Some(is_failed_script),
};

const GRAMMAR: Grammar = Grammar {
    // What cannot be read of a repository is only a warning of apk's.
    reason: |line| starts(line, &["ERROR: ", "WARNING: updating and opening ", "WARNING: opening "]).then_some(line),
    blames: is_failed_script,
    progress: |line| starts(line, &["(", "Executing "]),
    noise: |_| false,
    locked: &["ERROR: Unable to lock database: "],
    begun: &["(1/"],
    missing: &["(no such package)", "(missing):"],
    unfetched: &[],
    unusable: &[
        "WARNING: updating and opening ",
        "WARNING: opening ",
        ": package mentioned in index not found",
        ": BAD ",
        ": UNTRUSTED ",
        ": IO ERROR",
        ": it was not downloaded",
    ],
    unsolvable: &["ERROR: unable to select packages", "ERROR: unsatisfiable constraints"],
    not_missing: &[],
};

fn is_failed_script(line: &str) -> bool {
    line.contains("ERROR: ")
        && [": script exited with error ", ": script killed by signal "].iter().any(|how| line.contains(how))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> String {
        ADAPTER.words(output.as_bytes()).join("\n")
    }

    #[test]
    fn what_is_missing_is_named_with_who_wants_it() {
        // apk-tools 2.12 and later.
        insta::assert_snapshot!(shown("\
ERROR: unable to select packages:
  so:libnothere.so.2 (no such package):
    required by: hello-2.12-r0[so:libnothere.so.2]
"), @r"
        ERROR: unable to select packages:
          so:libnothere.so.2 (no such package):
            required by: hello-2.12-r0[so:libnothere.so.2]
        ");
        // Before.
        insta::assert_snapshot!(shown("\
ERROR: unsatisfiable constraints:
  libnothere (missing):
    required by: hello-2.12-r0[libnothere]
"), @r"
        ERROR: unsatisfiable constraints:
          libnothere (missing):
            required by: hello-2.12-r0[libnothere]
        ");
    }

    #[test]
    fn a_package_for_another_cpu_is_named() {
        insta::assert_snapshot!(shown("\
ERROR: unable to select packages:
  hello-2.12-r0:
    error: uninstallable
    arch: aarch64
    satisfies: world[hello><Q1XNYmyHbxgiMTKgdFOqLKAyvJF5E=]
"), @r"
        ERROR: unable to select packages:
          hello-2.12-r0:
            error: uninstallable
            arch: aarch64
            satisfies: world[hello><Q1XNYmyHbxgiMTKgdFOqLKAyvJF5E=]
        ");
    }

    #[test]
    fn what_a_script_said_comes_before_what_apk_says_of_it() {
        let output = "\
(1/1) Installing hello (2.12-r0)
Executing hello-2.12-r0.post-install
cannot find /etc/thing
ERROR: hello-2.12-r0.post-install: script exited with error 3
1 error; 9 MiB in 26 packages
";
        insta::assert_snapshot!(shown(output), @r"
        cannot find /etc/thing
        ERROR: hello-2.12-r0.post-install: script exited with error 3
        ");
        assert!(output.lines().any(is_failed_script));
        // apk-tools 2.14.
        assert!(is_failed_script("ERROR: hello-2.12-r0.post-install: script killed by signal 9"));
        assert!(is_failed_script("ERROR: busybox-1.36.1-r29.trigger: script exited with error 1"));
    }

    #[test]
    fn a_file_that_is_no_package_is_named() {
        insta::assert_snapshot!(shown("ERROR: ./hello.apk: v2 package format error\n"), @"ERROR: ./hello.apk: v2 package format error");
    }
}
