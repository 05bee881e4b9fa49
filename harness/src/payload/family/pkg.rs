//! FreeBSD's family: pkg.

use super::{
    adapter::Adapter,
    reasons::{Grammar, starts},
};

/// pkg's database. Where only the program that fetches pkg is there, nothing.
const REHEARSAL: &str = "\
{ pkg -N && pkg info -q; } </dev/null >/dev/null 2>&1
:
";

const BY_NAME: &str = "export ASSUME_ALWAYS_YES=yes\nexec pkg install -y -- \"$@\"\n";

/// Not of the one that only fetches pkg.
const FACTS: &str = r#"
if [ -x /usr/local/sbin/pkg ]; then say package "pkg $(first /usr/local/sbin/pkg -v) installed"; fi
"#;

/// pkg.
pub(super) const ADAPTER: Adapter = Adapter {
    takes: "FreeBSD packages (.pkg)",
    also: |_| &[],
    functions: include_str!("pkg.sh"),
    signing: None,
    by_name: BY_NAME,
    rehearsal: REHEARSAL,
    facts: FACTS,
    grammar: GRAMMAR,
    unsaid: Some(is_failed_script),
};

const GRAMMAR: Grammar = Grammar {
    reason: |line| starts(line, &["pkg: ", "Missing dependency ", "Failed to install the following "]).then_some(line),
    blames: is_failed_script,
    progress: |line| starts(line, &["Installing ", "Extracting ", "===> ", "Upgrading "]),
    noise: |_| false,
    locked: &["pkg: Cannot get an exclusive lock "],
    begun: &["[1/", "Installing ", "Extracting "],
    missing: &["Missing dependency "],
    unfetched: &[],
    unusable: &[],
    unsolvable: &["No packages available to install matching", "Missing dependency "],
    not_missing: &["conflicts with "],
};

/// pkg counts a package as installed although its last script failed; and where it replaces one, although it is for another system.
fn is_failed_script(line: &str) -> bool {
    let failed =
        line.ends_with(" script failed") || starts(line, &["pkg: Failed to execute lua ", "pkg: wrong architecture: "]);
    line.starts_with("pkg: ") && failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> String {
        ADAPTER.words(output.as_bytes()).join("\n")
    }

    #[test]
    fn what_is_missing_is_named() {
        insta::assert_snapshot!(shown("\
Installing hello-2.12...
pkg: Missing dependency 'gettext-runtime'

Failed to install the following 1 package(s): ./hello-2.12.pkg
"), @r"
        pkg: Missing dependency 'gettext-runtime'
        Failed to install the following 1 package(s): ./hello-2.12.pkg
        ");
    }

    #[test]
    fn a_package_for_another_system_is_named() {
        insta::assert_snapshot!(shown("\
pkg: wrong architecture: FreeBSD:13:amd64 instead of FreeBSD:14:amd64

Failed to install the following 1 package(s): ./hello-2.12.pkg
"), @r"
        pkg: wrong architecture: FreeBSD:13:amd64 instead of FreeBSD:14:amd64
        Failed to install the following 1 package(s): ./hello-2.12.pkg
        ");
    }

    #[test]
    fn what_a_script_said_comes_before_what_pkg_says_of_it() {
        let output = "\
Installing hello-2.12...
Extracting hello-2.12: 100%
cannot find /etc/thing
pkg: POST-INSTALL script failed
";
        insta::assert_snapshot!(shown(output), @r"
        cannot find /etc/thing
        pkg: POST-INSTALL script failed
        ");
        assert!(output.lines().any(is_failed_script));
        // As its source has them.
        for line in [
            "pkg: lua script failed",
            "pkg: Failed to execute lua script: [string]:1: no",
            "pkg: DEINSTALL script failed",
        ] {
            assert!(is_failed_script(line), "{line}");
        }
    }
}
