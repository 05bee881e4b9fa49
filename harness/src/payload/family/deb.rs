//! The dpkg and apt family.

use matrix::Arch;

use super::{
    adapter::Adapter,
    reasons::{Grammar, starts},
};
use crate::payload::signer::Signing;

/// apt's caches of what there is and what is installed, and the files of its programs. Where there is no apt, nothing.
const REHEARSAL: &str = "\
{ apt-get check; dpkg-deb --help; dpkg --audit; dpkg-query -W dpkg; tr </dev/null; } >/dev/null 2>&1
:
";

/// Installs packages by name.
const BY_NAME: &str = "\
set -e
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true NEEDRESTART_SUSPEND=1
apt-get update -o Acquire::Retries=2 -o Acquire::Languages=none
exec apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 -- \"$@\"
";

/// Those that are not there have another state.
const FACTS: &str = r#"
if has dpkg-query; then
    said=$(dpkg-query -W -f 'package=${Package} ${Version} ${db:Status-Status}\n' apt dpkg)
    printf '%s\n' "$said"
fi
"#;

/// dpkg and apt.
pub(super) const ADAPTER: Adapter = Adapter {
    takes: "Debian packages (.deb)",
    also: |arch| match arch {
        Arch::X86_64 => &["i386"],
        Arch::Aarch64 => &["armhf"],
    },
    functions: include_str!("deb.sh"),
    signing: Some(Signing::OpenPgp),
    by_name: BY_NAME,
    rehearsal: REHEARSAL,
    facts: FACTS,
    grammar: GRAMMAR,
    // dpkg's exit code tells.
    unsaid: None,
};

/// Unmet dependencies, because they name the package and the version that are missing; what a maintainer script said before
/// dpkg gave up on it; the error lines themselves.
const GRAMMAR: Grammar = Grammar {
    reason: |line| is_reason(line).then_some(line),
    blames: |line| line.starts_with("dpkg: error"),
    progress: is_progress,
    // apt 3 tells the same again, in the terms of its solver.
    noise: |line| line.contains("The following information from --solver"),
    locked: &[
        "E: Could not get lock ",
        "E: Unable to lock ",
        "E: Unable to acquire the dpkg frontend lock",
        "Error: Could not get lock ",
        "Error: Unable to acquire the dpkg frontend lock",
        "dpkg: error: dpkg frontend lock ",
        "dpkg: error: dpkg status database is locked ",
    ],
    begun: &["Preparing to unpack ", "Unpacking ", "Setting up ", "dpkg: error processing "],
    missing: &["Depends: ", "is not installed."],
    unfetched: &["E: Failed to fetch ", "Error: Failed to fetch "],
    unusable: &[],
    unsolvable: &["unmet dependencies", "Unsatisfied dependencies", "E: Unable to correct problems"],
    not_missing: &["conflicts with ", "subprocess returned"],
};

fn is_reason(line: &str) -> bool {
    let reasons = [
        "The following packages have unmet dependencies",
        // apt 3
        "Unsatisfied dependencies",
        "E: ",
        "Error: ",
        // Why a repository counts as unsigned; without a line of its own that is all that is said of it.
        "W: GPG error: ",
        "Warning: GPG error: ",
        "W: OpenPGP signature verification failed: ",
        "Warning: OpenPGP signature verification failed: ",
        "dpkg: error",
        "dpkg: dependency problems",
        "dpkg: unrecoverable",
        "dpkg-deb: error",
    ];
    starts(line, &reasons)
}

fn is_progress(line: &str) -> bool {
    let progress = [
        "Setting up ",
        "Unpacking ",
        "Preparing to unpack ",
        "Selecting previously ",
        "(Reading database",
        "Processing triggers ",
    ];
    starts(line, &progress)
}

#[cfg(test)]
mod tests {
    use super::{super::reasons::MOST, *};

    fn shown(output: &str) -> String {
        ADAPTER.words(output.as_bytes()).join("\n")
    }

    #[test]
    fn unmet_dependencies_name_what_is_missing() {
        // apt 2.2 of Debian 11, given Debian 12's hello.
        insta::assert_snapshot!(shown("\
Reading package lists...
Building dependency tree...
Reading state information...
Some packages could not be installed. This may mean that you have
requested an impossible situation or if you are using the unstable
distribution that some required packages have not yet been created
or been moved out of Incoming.
The following information may help to resolve the situation:

The following packages have unmet dependencies:
 hello : Depends: libc6 (>= 2.34) but 2.31-13+deb11u14 is to be installed
E: Unable to correct problems, you have held broken packages.
"), @r"
        The following packages have unmet dependencies:
         hello : Depends: libc6 (>= 2.34) but 2.31-13+deb11u14 is to be installed
        E: Unable to correct problems, you have held broken packages.
        ");
    }

    #[test]
    fn the_solver_of_apt_3_does_not_tell_it_twice() {
        insta::assert_snapshot!(shown("\
Solving dependencies...
The following packages have unmet dependencies:
 nm-missing : Depends: libnothere (>= 2) but it is not installable
              Depends: python3 but it is not installable
E: Unable to correct problems, you have held broken packages.
E: The following information from --solver 3.0 may provide additional context:
   Unable to satisfy dependencies. Reached two conflicting decisions:
   1. nm-missing:amd64=1.0 is selected for install
      [no choices]
"), @r"
        The following packages have unmet dependencies:
         nm-missing : Depends: libnothere (>= 2) but it is not installable
                      Depends: python3 but it is not installable
        E: Unable to correct problems, you have held broken packages.
        ");
    }

    #[test]
    fn what_a_maintainer_script_said_comes_before_what_dpkg_says_of_it() {
        insta::assert_snapshot!(shown("\
Unpacking nm-post (1.0) ...
Setting up nm-post (1.0) ...
configuring the thing
cannot find /etc/thing
dpkg: error processing package nm-post (--configure):
 installed nm-post package post-installation script subprocess returned error exit status 3
Errors were encountered while processing:
 nm-post
E: Sub-process /usr/bin/dpkg returned an error code (1)
"), @r"
        configuring the thing
        cannot find /etc/thing
        dpkg: error processing package nm-post (--configure):
         installed nm-post package post-installation script subprocess returned error exit status 3
        E: Sub-process /usr/bin/dpkg returned an error code (1)
        ");
    }

    #[test]
    fn why_a_repository_counts_as_unsigned_is_told() {
        // apt 2.6 of Debian 12, and apt 3.0 of Debian 13.
        insta::assert_snapshot!(shown("\
Hit:1 http://127.0.0.2:1/apt ./ InRelease
Err:1 http://127.0.0.2:1/apt ./ InRelease
  The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 1F2E3D
Reading package lists...
W: GPG error: http://127.0.0.2:1/apt ./ InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 1F2E3D
E: The repository 'http://127.0.0.2:1/apt ./ InRelease' is not signed.
"), @"
        W: GPG error: http://127.0.0.2:1/apt ./ InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 1F2E3D
        E: The repository 'http://127.0.0.2:1/apt ./ InRelease' is not signed.
        ");
        insta::assert_snapshot!(shown("\
Warning: OpenPGP signature verification failed: http://127.0.0.2:1/apt ./ InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 1F2E3D, which is needed to verify signature.
Error: The repository 'http://127.0.0.2:1/apt ./ InRelease' is not signed.
"), @"
        Warning: OpenPGP signature verification failed: http://127.0.0.2:1/apt ./ InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 1F2E3D, which is needed to verify signature.
        Error: The repository 'http://127.0.0.2:1/apt ./ InRelease' is not signed.
        ");
    }

    #[test]
    fn a_broken_package_file_is_named() {
        assert_eq!(
            shown("dpkg-deb: error: './c.deb' is not a Debian format archive\n"),
            "dpkg-deb: error: './c.deb' is not a Debian format archive"
        );
    }

    #[test]
    fn without_an_error_line_the_last_lines_are_shown() {
        assert_eq!(shown("1\n2\n3\n4\n5\n6\n"), "2\n3\n4\n5\n6");
        assert_eq!(shown(""), "");
    }

    #[test]
    fn a_flood_of_errors_is_cut() {
        assert_eq!(ADAPTER.words("E: again\nE: other\n".repeat(1000).as_bytes()).len(), MOST);
    }
}
