//! Arch's family: pacman.

use super::{
    adapter::Adapter,
    reasons::{self, Grammar, starts},
    words::stated,
};

/// pacman's database.
const REHEARSAL: &str = "\
{ pacman --query; pacman --query --info pacman; } </dev/null >/dev/null 2>&1
:
";

const BY_NAME: &str = "exec pacman --sync --refresh --needed --noconfirm --noprogressbar -- \"$@\"\n";

const REMOVE: &str = "exec pacman --remove --noconfirm --noprogressbar -- \"$@\" 2>&1\n";

const QUERY: &str = "\
pacman --query -- \"$@\" 2>/dev/null | while read -r name version; do
    echo \"nestmatrix: $name $version is installed\"
done
";

/// pacman.
pub(super) const ADAPTER: Adapter = Adapter {
    takes: "Arch packages (.pkg.tar.*)",
    stem,
    also: |_| &[],
    install: include_str!("pacman.sh"),
    by_name: BY_NAME,
    remove: REMOVE,
    query: QUERY,
    installed: stated,
    rehearsal: REHEARSAL,
    words: |output| reasons::of(output, &GRAMMAR),
    unsaid: is_failed_script,
};

/// Not the signature beside it.
fn stem(name: &str) -> Option<&str> {
    let (stem, packed) = name.rsplit_once(".pkg.tar")?;
    ["", ".zst", ".xz", ".gz", ".bz2", ".lz4", ".lrz", ".lzo", ".Z"].contains(&packed).then_some(stem)
}

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
            ],
        )
    },
    noise: |_| false,
};

/// pacman counts a package as installed although its script failed.
fn is_failed_script(line: &str) -> bool {
    line.ends_with("error: command failed to execute correctly")
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
        (ADAPTER.words)(output.as_bytes()).join("\n")
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
badpost 2.12-1
";
        assert!(output.lines().any(ADAPTER.unsaid));
        insta::assert_snapshot!(shown(output), @r"
        cannot find /etc/thing
        error: command failed to execute correctly
        ");
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

    #[test]
    fn a_signature_is_no_package() {
        assert_eq!(stem("hello-2.12-1-any.pkg.tar.zst"), Some("hello-2.12-1-any"));
        assert_eq!(stem("hello-2.12-1-any.pkg.tar"), Some("hello-2.12-1-any"));
        assert_eq!(stem("hello-2.12-1-any.pkg.tar.zst.sig"), None);
    }
}
