//! The RPM family: dnf, zypper or yum, whichever the guest has, or rpm itself.

use super::{
    adapter::Adapter,
    reasons::{Grammar, starts},
};
use crate::payload::signer::Signing;

/// dnf reads its caches and zypper its own; rpm its database.
const REHEARSAL: &str = "\
{
    rpm -q rpm
    if command -v dnf; then dnf --setopt='*.enabled=0' list --installed rpm
    elif command -v zypper; then zypper --non-interactive --disable-repositories search --installed-only rpm
    elif command -v yum; then yum --disablerepo='*' list installed rpm
    fi
} </dev/null >/dev/null 2>&1
:
";

/// zypper adds to a success that something should be started again; yum is content if one of them is there.
const BY_NAME: &str = "\
export LC_ALL=C ZYPP_LOCK_TIMEOUT=60
if command -v dnf >/dev/null; then exec dnf install --assumeyes --setopt=install_weak_deps=0 -- \"$@\"; fi
if command -v zypper >/dev/null; then
    zypper --non-interactive install --no-recommends -- \"$@\"
    code=$?
    case $code in 0 | 102 | 103 | 106) exit 0 ;; *) exit $code ;; esac
fi
yum install --assumeyes -- \"$@\" || exit
for name; do
    case $name in
    @* | *[*?[]*) ;;
    *) rpm --query \"$name\" >/dev/null || rpm --query --whatprovides \"$name\" || exit ;;
    esac
done
";

/// Those that are not there say so in lines that are no facts.
const FACTS: &str = r#"
if has rpm; then
    said=$(rpm -q --qf 'package=%{NAME} %{VERSION} installed\n' dnf dnf5 yum zypper rpm)
    printf '%s\n' "$said"
fi
"#;

/// dnf, zypper, yum and rpm.
pub(super) const ADAPTER: Adapter = Adapter {
    takes: "RPM packages (.rpm)",
    also: |_| &[],
    functions: include_str!("rpm.sh"),
    signing: Some(Signing::OpenPgp),
    by_name: BY_NAME,
    rehearsal: REHEARSAL,
    facts: FACTS,
    grammar: GRAMMAR,
    unsaid: Some(is_failed_script),
};

const GRAMMAR: Grammar = Grammar {
    reason: |line| is_reason(line).then_some(line),
    blames: |line| is_failed_script(line) && !is_announced(line),
    progress: is_progress,
    noise: is_noise,
    locked: &["error: can't create transaction lock on ", "System management is locked by "],
    begun: &["(1/", "[1/", "%pre"],
    missing: &["Requires: ", "is needed by ", "nothing provides "],
    unfetched: &["Cannot download", "No more mirrors to try", "Can't provide "],
    unusable: &[
        // dnf
        "Failed to download metadata for repo ",
        "GPG check FAILED",
        // zypper
        " not found on medium ",
        "Download (curl) error for ",
        "Downloaded data exceeded the expected filesize",
        "Digest verification failed for file ",
        "Signature verification failed",
        "Skipping repository ",
    ],
    // `Problem 1: ` if there is more than one; yum has none.
    unsolvable: &["Problem: ", "Problem 1: ", "Error: Package: "],
    not_missing: &["conflicts with ", "is obsoleted by ", "scriptlet failed"],
};

/// rpm counts a package as installed although its last script failed, and everybody above it does, too.
fn is_failed_script(line: &str) -> bool {
    // rpm, whoever passes it on, and behind whatever the script said last: `%post(hello-2.12-1.noarch) scriptlet failed, signal 9`.
    let rpm = line.find('%').is_some_and(|at| line[at..].contains(") scriptlet failed, "));
    // zypper, which runs these itself and exits with 0.
    let zypper = line.contains(" %posttrans script failed");
    rpm || zypper || line.contains("lua script failed: ") || is_announced(line)
}

/// What dnf and yum say of a script that failed, besides rpm's own words: those come before or after.
fn is_announced(line: &str) -> bool {
    let line = line.strip_prefix(">>> ").unwrap_or(line);
    let said = starts(line, &["Error in ", "Non-fatal ", "Non-critical error in "]) && line.contains(" scriptlet");
    // The first dnf 5 said so of scripts that had not failed.
    said && !line.ends_with(" return code 0")
}

fn is_reason(line: &str) -> bool {
    let reasons = [
        // rpm: `error: Failed dependencies:`
        "error: ",
        // dnf 4 and yum: `Error: `, with more below or behind it
        "Error: ",
        "Error:",
        // dnf 5
        "Failed to resolve the transaction",
        "Failed to access RPM",
        // dnf 5 and zypper
        "Problem: ",
        "Problem reading",
        "Transaction failed",
        // dnf, of a file that is none
        "Can not load RPM file",
        "Could not open: ",
        // zypper
        "File /",
        "Detected ",
        "Package is not signed",
        // zypper, of repositories: under `History:`, or behind a progress of its own
        " - File '",
        " - Can't provide ",
        " - Download (curl) error for ",
        " - Signature verification failed",
        "File '",
        "Download (curl) error for ",
        "Error message: ",
        "Downloaded data exceeded the expected filesize",
        "Warning: Digest verification failed for file ",
        // dnf, before the error that only says so
        "Errors during downloading metadata for repository ",
        "The GPG keys listed for ",
        "Check that the correct key URLs are configured ",
        "[MIRROR] ",
    ];
    // rpm has the conflicting file in a line of its own.
    let conflict = line.trim_start().starts_with("file /") && line.contains(" conflicts with file ");
    let failed = is_failed_script(line) && !is_announced(line);
    // zypper, behind the name of a package of a repository.
    let forged = line.contains("): Signature verification failed [");
    failed || conflict || forged || starts(line, &reasons)
}

fn is_progress(line: &str) -> bool {
    let progress = [
        "Preparing ",
        "Installing ",
        "Upgrading ",
        "Running scriptlet",
        "Running ",
        "Cleanup ",
        "Verifying ",
        "(",
        "[",
        "Additional rpm output:",
        "Checking for file conflicts",
        ">>> Running ",
        ">>> Scriptlet output:",
        ">>> Non-critical error in ",
        ">>> Error in ",
        "Executing %posttrans script",
    ];
    starts(line.trim_start(), &progress)
}

/// What could be done about it at a keyboard.
fn is_noise(line: &str) -> bool {
    let noise = [
        "Solution ",
        "You could try ",
        "You can try ",
        "(try to add ",
        "Please see the above error message",
        "Problem occurred during or after installation",
        "File conflicts happen when",
        "Error in ",
        "Non-fatal ",
        "Error: Transaction failed",
    ];
    starts(line.trim_start(), &noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> String {
        ADAPTER.words(output.as_bytes()).join("\n")
    }

    #[test]
    fn dnf_4_names_what_nothing_provides() {
        // dnf 4.14 of Debian 12.
        insta::assert_snapshot!(shown("\
Unable to detect release version (use '--releasever' to specify release version)
Error: 
 Problem: conflicting requests
  - nothing provides libnothere >= 2 needed by needy-2.12-1.noarch
(try to add '--skip-broken' to skip uninstallable packages)
"), @r"
        Error:
         Problem: conflicting requests
          - nothing provides libnothere >= 2 needed by needy-2.12-1.noarch
        ");
    }

    #[test]
    fn dnf_5_names_what_nothing_provides() {
        insta::assert_snapshot!(shown("\
Updating and loading repositories:
Repositories loaded.
Failed to resolve the transaction:
Problem: conflicting requests
  - nothing provides libnothere >= 2 needed by needy-2.12-1.noarch from @commandline
You can try to add to command line:
  --skip-broken to skip uninstallable packages
"), @r"
        Failed to resolve the transaction:
        Problem: conflicting requests
          - nothing provides libnothere >= 2 needed by needy-2.12-1.noarch from @commandline
        ");
    }

    #[test]
    fn yum_names_what_is_required() {
        // yum 3.4 of CentOS 7.
        insta::assert_snapshot!(shown("\
Examining ./needy-2.12-1.noarch.rpm: needy-2.12-1.noarch
Marking ./needy-2.12-1.noarch.rpm to be installed
Resolving Dependencies
--> Running transaction check
---> Package needy.noarch 0:2.12-1 will be installed
--> Processing Dependency: libnothere >= 2 for package: needy-2.12-1.noarch
--> Finished Dependency Resolution
Error: Package: needy-2.12-1.noarch (/needy-2.12-1.noarch)
           Requires: libnothere >= 2
 You could try using --skip-broken to work around the problem
 You could try running: rpm -Va --nofiles --nodigest
"), @r"
        Error: Package: needy-2.12-1.noarch (/needy-2.12-1.noarch)
                   Requires: libnothere >= 2
        ");
    }

    #[test]
    fn zypper_names_the_problem_and_not_its_solutions() {
        // zypper 1.14.42.
        insta::assert_snapshot!(shown("\
Loading repository data...
Reading installed packages...
Resolving package dependencies...

Problem: nothing provides libnothere >= 2 needed by needy-2.12-1.noarch
 Solution 1: do not install needy-2.12-1.noarch
 Solution 2: break needy-2.12-1.noarch by ignoring some of its dependencies

Choose from above solutions by number or cancel [1/2/c/d/?] (c): c
"), @"Problem: nothing provides libnothere >= 2 needed by needy-2.12-1.noarch");
    }

    #[test]
    fn rpm_names_what_is_needed() {
        // rpm 4.18.
        insta::assert_snapshot!(shown("\
error: Failed dependencies:
\tlibnothere >= 2 is needed by needy-2.12-1.noarch
"), @r"
        error: Failed dependencies:
        	libnothere >= 2 is needed by needy-2.12-1.noarch
        ");
    }

    #[test]
    fn a_file_of_two_packages_is_named_by_each_of_them() {
        insta::assert_snapshot!(shown("\
Transaction check succeeded.
Running transaction test
Error: Transaction test error:
  file /opt/hello from install of clash-2.12-1.noarch conflicts with file from package hello-2.12-1.noarch

"), @r"
        Error: Transaction test error:
          file /opt/hello from install of clash-2.12-1.noarch conflicts with file from package hello-2.12-1.noarch
        ");
        insta::assert_snapshot!(shown("\
Checking for file conflicts: [.....error]
Detected 1 file conflict:

File /opt/hello
  from install of
     clash-2.12-1.noarch (Plain RPM files cache)
  conflicts with file from package
     hello-2.12-1.noarch (@System)

File conflicts happen when two packages attempt to install files with the same name but different contents. If you continue, conflicting files will be replaced losing the previous content.
Continue? [yes/no] (no): no

Problem occurred during or after installation or removal of packages:
Installation has been aborted as directed.
History:
 - ABORT request: 

Please see the above error message for a hint.
"), @r"
        Detected 1 file conflict:
        File /opt/hello
          from install of
             clash-2.12-1.noarch (Plain RPM files cache)
          conflicts with file from package
             hello-2.12-1.noarch (@System)
        ");
        insta::assert_snapshot!(shown("\
\tfile /opt/hello from install of clash-2.12-1.noarch conflicts with file from package hello-2.12-1.noarch
"), @"	file /opt/hello from install of clash-2.12-1.noarch conflicts with file from package hello-2.12-1.noarch");
    }

    #[test]
    fn what_a_script_said_comes_before_what_rpm_says_of_it() {
        // dnf 4.14.
        insta::assert_snapshot!(shown("\
Running transaction
  Preparing        :                                                        1/1 
  Running scriptlet: badpre-2.12-1.noarch                                   1/1 
cannot find /etc/thing
error: %prein(badpre-2.12-1.noarch) scriptlet failed, exit status 3

Error in PREIN scriptlet in rpm package badpre
  Verifying        : badpre-2.12-1.noarch                                   1/1 

Failed:
  badpre-2.12-1.noarch                                                          

Error: Transaction failed
"), @r"
        cannot find /etc/thing
        error: %prein(badpre-2.12-1.noarch) scriptlet failed, exit status 3
        ");
    }

    #[test]
    fn a_script_that_failed_is_seen_although_everybody_says_it_is_complete() {
        // dnf 4.14; exits with 0.
        let output = "\
  Installing       : badpost-2.12-1.noarch                                  1/1 
  Running scriptlet: badpost-2.12-1.noarch                                  1/1 
cannot find /etc/thing
warning: %post(badpost-2.12-1.noarch) scriptlet failed, exit status 3

Error in POSTIN scriptlet in rpm package badpost
  Verifying        : badpost-2.12-1.noarch                                  1/1 

Installed:
  badpost-2.12-1.noarch                                                         

Complete!
";
        assert!(output.lines().any(is_failed_script));
        insta::assert_snapshot!(shown(output), @r"
        cannot find /etc/thing
        warning: %post(badpost-2.12-1.noarch) scriptlet failed, exit status 3
        ");
        // dnf 5; exits with 0.
        let output = "\
[3/3] Installing broken-0:1.0.0-1.noarch 100% |   9.0 KiB/s | 768.0   B |  00m00s
>>> Running %post scriptlet: broken-0:1.0.0-1.noarch
>>> Non-critical error in %post scriptlet: broken-0:1.0.0-1.noarch
>>> Scriptlet output:
>>> cannot find /etc/thing
>>> 
>>> [RPM] %post(broken-1.0.0-1.noarch) scriptlet failed, exit status 1
Complete!
";
        assert!(output.lines().any(is_failed_script));
        insta::assert_snapshot!(shown(output), @r"
        >>> cannot find /etc/thing
        >>>
        >>> [RPM] %post(broken-1.0.0-1.noarch) scriptlet failed, exit status 1
        ");
        // zypper 1.14.42; exits with 0.
        let output = "\
(1/1) Installing: ptrans-1.0-1.noarch [....done]
Additional rpm output:


Executing %posttrans script 'ptrans-1.0-1.noarch.rpm' [..
Warning: ptrans-1.0-1.noarch.rpm %posttrans script failed (returned 4)
..done]
";
        insta::assert_snapshot!(shown(output), @"Warning: ptrans-1.0-1.noarch.rpm %posttrans script failed (returned 4)");
    }

    #[test]
    fn every_way_to_say_that_a_script_failed_is_known() {
        for line in [
            // rpm 4.18, alone and under dnf 4, yum and zypper.
            "warning: %post(a-1.0-1.noarch) scriptlet failed, exit status 3",
            "warning: %post(a-1.0-1.noarch) scriptlet failed, signal 9",
            "warning: %postun(a-1.0-1.noarch) scriptlet failed, exit status 6",
            "warning: %posttrans(a-1.0-1.noarch) scriptlet failed, exit status 4",
            "warning: %triggerin(a-1.0-1.noarch) scriptlet failed, exit status 7",
            "warning: %transfiletriggerin(a-1.0-1.noarch) scriptlet failed, exit status 8",
            "error: %preun(a-1.0-1.noarch) scriptlet failed, exit status 5",
            "error: lua script failed: [string \"%post(a-1.0-1.noarch)\"]:1: failing on post scriptlet",
            "100 %... warning: %post(a-1.0-1.noarch) scriptlet failed, exit status 1",
            // dnf 5 before rpm 6.
            ">>> [RPM] %post(a-1-1.noarch) scriptlet failed, exit status 1",
            ">>> [RPM] lua script failed: [string \"%post(a-0:1.0-1.x86_64)\"]:1: failing on post scriptlet",
            ">>> Non-critical error in %post scriptlet: a-0:1.0-1.x86_64",
            ">>> Error in %pre scriptlet: a-0:1.0-1.x86_64",
            // dnf 4, yum 3.
            "Error in POSTTRANS scriptlet in rpm package a",
            "Non-fatal POSTIN scriptlet failure in rpm package a",
            "Warning: a-1.0-1.noarch.rpm %posttrans script failed (returned 4)",
        ] {
            assert!(is_failed_script(line), "{line}");
        }
        for line in [
            "warning: hello-2.12-1.rpm: Header V4 RSA/SHA256 Signature: NOKEY",
            ">>> Running %post scriptlet: a-0:1.0-1.noarch",
            ">>> Finished %post scriptlet: a-0:1.0-1.noarch",
            ">>> Error in post-transaction scriptlet: kernel-core-0:6.2.10-300.fc38.x86_64 return code 0",
            "  Running scriptlet: a-1.0-1.noarch                                   1/1",
            "Error: Transaction failed",
        ] {
            assert!(!is_failed_script(line), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_no_package_is_named() {
        insta::assert_snapshot!(shown("Can not load RPM file: ./broken-1-1.noarch.rpm.\nCould not open: ./broken-1-1.noarch.rpm\n"), @r"
        Can not load RPM file: ./broken-1-1.noarch.rpm.
        Could not open: ./broken-1-1.noarch.rpm
        ");
        insta::assert_snapshot!(shown("Problem reading the RPM header of ./broken-1-1.noarch.rpm. Is it an RPM file?\nNo valid arguments specified.\n"), @"Problem reading the RPM header of ./broken-1-1.noarch.rpm. Is it an RPM file?");
    }
}
