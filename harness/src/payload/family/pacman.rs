//! Arch's family: pacman.

use super::{
    adapter::Adapter,
    reasons::{Grammar, starts},
};
use crate::payload::signer::Signing;

/// pacman's database.
const REHEARSAL: &str = "\
{ pacman --query; pacman --query --info pacman; } </dev/null >/dev/null 2>&1
:
";

const BY_NAME: &str = "exec pacman --sync --refresh --needed --noconfirm --noprogressbar -- \"$@\"\n";

const FACTS: &str = r#"
if has pacman; then
    said=$(pacman --query pacman) && say package "$said installed"
fi
"#;

/// pacman.
pub(super) const ADAPTER: Adapter = Adapter {
    takes: "Arch packages (.pkg.tar.*)",
    also: |_| &[],
    functions: include_str!("pacman.sh"),
    signing: Some(Signing::OpenPgp),
    by_name: BY_NAME,
    rehearsal: REHEARSAL,
    facts: FACTS,
    grammar: GRAMMAR,
    unsaid: Some(is_failed_script),
};

const GRAMMAR: Grammar = Grammar {
    reason,
    blames: is_failed_script,
    progress: |line| {
        starts(
            line,
            &[
                "installing ",
                "upgrading ",
                "reinstalling ",
                "downgrading ",
                ":: Processing package changes",
                ":: Running",
                "(",
            ],
        )
    },
    noise: |_| false,
    locked: &["error: failed to init transaction (unable to lock database)"],
    begun: &["(1/"],
    missing: &["unable to satisfy dependency "],
    unfetched: &["error: failed retrieving file "],
    unusable: &[
        "error: failed to synchronize ",
        "(PGP signature)",
        "invalid or corrupted ",
        // 6.0 may crash of a signature by somebody whom it does not know.
        "error: segmentation fault",
    ],
    unsolvable: &["could not satisfy dependencies", "conflicting dependencies"],
    not_missing: &[],
};

/// pacman counts a package as installed although its script or a hook failed. What a script said last may have no end of line.
fn is_failed_script(line: &str) -> bool {
    line.ends_with("error: command failed to execute correctly")
        || ["error: command terminated by signal ", "error: unable to run hook "].iter().any(|how| line.contains(how))
}

fn reason(line: &str) -> Option<&str> {
    // A question that nobody answers has no end of line.
    if line.starts_with(":: ")
        && let Some(at) = line.find("] error: ")
    {
        return line.get(at + 2..);
    }
    let told = starts(line, &["error: ", ":: unable to satisfy ", ":: removing ", ":: installing "])
        || line.starts_with(":: ") && line.ends_with(" are in conflict")
        || line.contains(" exists in filesystem")
        || line.contains(" exists in both ");
    told.then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> String {
        ADAPTER.words(output.as_bytes()).join("\n")
    }

    #[test]
    fn what_is_missing_is_named_with_who_wants_it() {
        // pacman 6.0.2.
        insta::assert_snapshot!(shown("\
loading packages...
resolving dependencies...
warning: cannot resolve \"libnothere>=2\", a dependency of \"needy\"
:: The following package cannot be upgraded due to unresolvable dependencies:
      needy

:: Do you want to skip the above package for this upgrade? [y/N] error: failed to prepare transaction (could not satisfy dependencies)

:: unable to satisfy dependency 'libnothere>=2' required by needy
"), @r"
        error: failed to prepare transaction (could not satisfy dependencies)
        :: unable to satisfy dependency 'libnothere>=2' required by needy
        ");
    }

    #[test]
    fn what_a_script_said_comes_before_what_pacman_says_of_it() {
        // pacman 6.0.2; exits with 0.
        let output = "\
:: Processing package changes...
installing badpost...
cannot find /etc/thing
error: command failed to execute correctly
";
        assert!(output.lines().any(is_failed_script));
        insta::assert_snapshot!(shown(output), @r"
        cannot find /etc/thing
        error: command failed to execute correctly
        ");
    }

    #[test]
    fn a_script_that_was_killed_and_a_hook_that_failed_are_no_success() {
        // pacman 6.0.2; exits with 0 each time.
        let output = "installing postsig...\nerror: command terminated by signal 9: Killed\n";
        assert!(output.lines().any(is_failed_script));
        insta::assert_snapshot!(shown(output), @"error: command terminated by signal 9: Killed");
        let output = ":: Running post-transaction hooks...\n(1/1) failing\nerror: unable to run hook a.hook: could not satisfy dependencies\n";
        assert!(output.lines().any(is_failed_script));
        let output = ":: Running post-transaction hooks...\n(1/1) failing\ncall to execv failed (No such file or directory)\nerror: command failed to execute correctly\n";
        insta::assert_snapshot!(shown(output), @r"
        call to execv failed (No such file or directory)
        error: command failed to execute correctly
        ");
        assert!(is_failed_script("no end of line hereerror: command failed to execute correctly"));
        assert!(!is_failed_script("error: something that the script says of itself"));
    }

    #[test]
    fn a_file_of_two_packages_is_named_by_both() {
        // pacman 6.0.2.
        insta::assert_snapshot!(shown("\
checking for file conflicts...
error: failed to commit transaction (conflicting files)
clash: /opt/pac/hello exists in filesystem (owned by hello)
Errors occurred, no packages were upgraded.
"), @r"
        error: failed to commit transaction (conflicting files)
        clash: /opt/pac/hello exists in filesystem (owned by hello)
        ");
    }

    #[test]
    fn a_file_that_is_no_package_is_named() {
        insta::assert_snapshot!(shown("\
error: could not open file ./broken-1-1-any.pkg.tar.zst: Unrecognized archive format
error: './broken-1-1-any.pkg.tar.zst': cannot open package file
loading packages...
"), @r"
        error: could not open file ./broken-1-1-any.pkg.tar.zst: Unrecognized archive format
        error: './broken-1-1-any.pkg.tar.zst': cannot open package file
        ");
    }
}
