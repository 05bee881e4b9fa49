//! Whose fault it is that a package is not installed, by what its package manager said.

use super::{super::inventory::Artifact, *};

#[test]
fn two_versions_of_one_package_are_told_apart_from_one_for_two_cpus() {
    let survey = |of: &[(&str, &str, &str)]| {
        let id = |(name, version, arch): &(&str, &str, &str)| Id {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            arch: (*arch).to_owned(),
        };
        let artifact = |of| Artifact { id: id(of), identity: String::new(), file: String::new() };
        Survey(Inventory { artifacts: of.iter().map(artifact).collect(), ..Inventory::default() }).versions()
    };
    assert_eq!(survey(&[("a", "1", "amd64"), ("a", "1", "i386"), ("b", "2", "amd64")]), None);
    let words = "a is among the artifacts more than once (1, 2): name the file that is to be tested";
    assert_eq!(survey(&[("a", "1", "amd64"), ("b", "1", "amd64"), ("a", "2", "amd64")]).as_deref(), Some(words));
}

#[test]
fn a_lock_of_another_program_is_told_apart_from_one_that_a_package_runs_into() {
    let ended = |code, said: &str| exit(End::Exited(code), said, said.len() as u64);
    let apt = "Reading package lists...\nE: Could not get lock /var/lib/dpkg/lock - open (11)\nE: Unable to lock the administration directory\n";
    let locked = |family, exit: &Exit| super::locked(family::of(family), exit);
    let line = locked(PackageFamily::Deb, &ended(100, apt));
    assert_eq!(line.as_deref(), Some("E: Could not get lock /var/lib/dpkg/lock - open (11)"));
    let rpm = "error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)\n";
    assert!(locked(PackageFamily::Rpm, &ended(1, rpm)).is_some());
    assert_eq!(locked(PackageFamily::Deb, &ended(0, apt)), None, "it was waited for");
    // A script of the package calls apt.
    let script =
        format!("Unpacking x (1) ...\nSetting up x (1) ...\n{apt}dpkg: error processing package x (--configure):\n");
    assert_eq!(locked(PackageFamily::Deb, &ended(100, &script)), None);
    assert_eq!(
        locked(
            PackageFamily::Rpm,
            &ended(1, &format!("{rpm}error: %prein(x-1-1.noarch) scriptlet failed, exit status 1\n"))
        ),
        None
    );
    assert_eq!(locked(PackageFamily::Deb, &ended(100, "E: Unable to correct problems\n")), None);
    for (family, line) in [
        (PackageFamily::Rpm, "System management is locked by the application with pid 7 (zypper)."),
        (PackageFamily::Apk, "ERROR: Unable to lock database: Resource temporarily unavailable"),
        (PackageFamily::Pacman, "error: failed to init transaction (unable to lock database)"),
        (PackageFamily::Pkg, "pkg: Cannot get an exclusive lock on a database, it is locked by another process"),
    ] {
        assert_eq!(locked(family, &ended(1, &format!("{line}\n"))).as_deref(), Some(line));
    }
    let script =
        "Installing x-1...\npkg: Cannot get an exclusive lock on a database\npkg: POST-INSTALL script failed\n";
    assert_eq!(locked(PackageFamily::Pkg, &ended(3, script)), None);
    let cut = Exit { stdout_bytes: 1 << 30, ..ended(100, apt) };
    assert_eq!(locked(PackageFamily::Deb, &cut), None, "what came before is not known");
}

#[test]
fn a_refusal_reads_as_one_line() {
    let words = [
        "The following packages have unmet dependencies:",
        " hello : Depends: libc6 (>= 2.34) but 2.31-13+deb11u14 is to be installed",
        "E: Unable to correct problems, you have held broken packages.",
    ];
    let refused = |family, words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        InstallError::refused(family::of(family), words, &exit(End::Exited(1), "", 0))
    };
    let error = refused(PackageFamily::Deb, &words);
    assert!(error.is_of_dependencies());
    let script = [
        "dpkg: error processing package b (--configure):",
        " installed b package post-installation script subprocess returned error exit status 1",
        "dpkg: dependency problems prevent configuration of a:",
        " a depends on b; however:",
        "  Package b is not configured yet.",
    ];
    assert!(!refused(PackageFamily::Deb, &script).is_of_dependencies());
    for (family, line) in [
        (PackageFamily::Rpm, "nothing provides libx needed by hello-2.12-1.noarch"),
        (PackageFamily::Apk, "  so:libnothere.so.2 (no such package):"),
        (PackageFamily::Apk, "  libnothere (missing):"),
        (PackageFamily::Pacman, ":: unable to satisfy dependency 'x' required by hello"),
        (PackageFamily::Pkg, "pkg: Missing dependency 'gettext-runtime'"),
    ] {
        assert!(refused(family, &[line]).is_of_dependencies(), "{line}");
    }
    let conflict = "error: Failed dependencies: hello conflicts with goodbye";
    assert!(!refused(PackageFamily::Rpm, &[conflict]).is_of_dependencies());
    insta::assert_snapshot!(error, @"The following packages have unmet dependencies: hello : Depends: libc6 (>= 2.34) but 2.31-13+deb11u14 is to be installed; E: Unable to correct problems, you have held broken packages.");
}

#[tokio::test]
async fn a_script_that_failed_is_found_however_much_follows() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let failed = "warning: %post(a-1-1.noarch) scriptlet failed, exit status 1";
    let rest = "x".repeat(3 * LINE as usize);
    // The last one lies across the place where a long line is cut.
    let bar = "x".repeat(LINE as usize - 30);
    for text in [
        format!("{failed}\n{rest}\nComplete!\n"),
        format!("{rest}\n\r\x1b[1m{failed}\x1b[0m\nComplete!\n"),
        format!("{bar}\r{failed}\r{rest}\nComplete!\n"),
    ] {
        std::fs::write(log.path(), text).unwrap();
        assert_eq!(failed_script(PackageFamily::Rpm, log.path()).await.unwrap().as_deref(), Some(failed));
        assert_eq!(failed_script(PackageFamily::Deb, log.path()).await.unwrap(), None, "dpkg's exit code says it");
    }
    std::fs::write(log.path(), rest).unwrap();
    assert_eq!(failed_script(PackageFamily::Rpm, log.path()).await.unwrap(), None);
    assert!(failed_script(PackageFamily::Rpm, Path::new("/nonexistent")).await.is_err());
}

#[test]
fn whoever_is_at_fault_if_dependencies_are_not_got_is_told_by_what_was_said() {
    use PackageFamily::{Apk, Deb, Pacman, Rpm};
    let fault = |family, code, said: &str| {
        not_got(family::of(family), &exit(End::Exited(code), &format!("{said}\n"), said.len() as u64 + 1))
    };
    // dnf 4.14, zypper 1.14.42, pacman 6.0.2, apk-tools 2.14.4.
    for (family, said) in [
        (Rpm, "Error: \n Problem: conflicting requests\n  - nothing provides x needed by hello-1-1.noarch"),
        (
            Rpm,
            "Error: \n Problem: problem with installed package a-1-1.noarch\n  - package hello-1-1.noarch conflicts with a",
        ),
        (
            Rpm,
            "Problem: hello-1-1.noarch conflicts with a provided by a-1-1.noarch\n Solution 1: deinstallation of a-1-1.noarch",
        ),
        (
            Pacman,
            "error: failed to prepare transaction (could not satisfy dependencies)\n\n:: unable to satisfy dependency 'x' required by hello",
        ),
        (Apk, "ERROR: unable to select packages:\n  x (no such package):\n    required by: hello-1-r0[x]"),
        (Deb, "The following packages have unmet dependencies:\n hello : Depends: x but it is not installable"),
    ] {
        assert!(matches!(fault(family, 1, said), InstallError::Refused { .. }), "{said}");
        assert!(matches!(fault(family, UNUSABLE, said), InstallError::Repositories { .. }), "{said}");
    }
    for (family, said) in [
        (
            Rpm,
            "Error: Error downloading packages:\n  x-1-1.noarch: Cannot download, all mirrors were already tried without success",
        ),
        (Rpm, "GPG key at file:///k (0xAA20A412) is already installed\nError: GPG check FAILED"),
        (
            Rpm,
            "File './x-1-1.noarch.rpm' not found on medium 'http://r.example'\nAbort, retry, ignore? [a/r/i/...? shows all options] (a): a",
        ),
        // It goes on without the repository, and then of course misses what is in there.
        (
            Rpm,
            "Warning: Skipping repository 'r' because of the above error.\n\nProblem: nothing provides x needed by hello-1-1.noarch",
        ),
        (
            Pacman,
            "error: failed retrieving file 'x-1-1-any.pkg.tar.gz' from r.example : The requested URL returned error: 404",
        ),
        (
            Pacman,
            "error: x: signature from \"r\" is invalid\nerror: failed to commit transaction (invalid or corrupted package (PGP signature))",
        ),
        (
            Apk,
            "WARNING: opening from cache http://r.example: No such file or directory\nERROR: unable to select packages:\n  x (no such package):",
        ),
        (Deb, "E: Failed to fetch http://r.example/x.deb  404  Not Found"),
    ] {
        let error = fault(family, 1, said);
        assert!(matches!(error, InstallError::Repositories { .. }), "{said}");
    }
    let killed = not_got(family::of(Rpm), &exit(End::Killed("KILL".into()), "Problem: nothing provides x\n", 28));
    assert!(matches!(killed, InstallError::Repositories { .. }), "what else it would have said is not known");
}

#[test]
fn what_is_still_missing_once_it_was_got_is_not_the_packages_fault() {
    let refused = |code, said: &str| {
        let exit = exit(End::Exited(code), said, said.len() as u64);
        check_end(family::of(PackageFamily::Rpm), &exit).unwrap_err().after_dependencies()
    };
    assert!(matches!(refused(1, "Problem: nothing provides x needed by a\n"), InstallError::Repositories { .. }));
    assert!(matches!(refused(1, "Problem: a conflicts with b\n"), InstallError::Refused { .. }));
    let script =
        "(1/2) Installing: x\nerror: %pre(a-1-1.noarch) scriptlet failed, exit status 1\nProblem: nothing provides y\n";
    assert!(matches!(refused(1, script), InstallError::Refused { .. }), "a package's script said so");
}

fn exit(end: End, stdout: &str, bytes: u64) -> Exit {
    let (stdout_tail, stderr_tail, warnings) = (stdout.into(), Vec::new(), Vec::new());
    Exit { end, at: Instant::now(), stdout_tail, stderr_tail, stdout_bytes: bytes, stderr_bytes: 0, warnings }
}

#[test]
fn only_exit_code_0_is_a_success() {
    let said = |end| check_end(family::of(PackageFamily::Rpm), &exit(end, "", 0)).map_err(|error| error.to_string());
    assert_eq!(said(End::Exited(0)), Ok(()));
    assert_eq!(said(End::Exited(90)), Err("the package manager ended without a word: exit code 90".to_owned()));
    assert_eq!(said(End::Killed("KILL".into())), Err("the package manager was killed by signal KILL".to_owned()));
    assert!(said(End::Cut).is_err());
}

#[tokio::test]
async fn output_that_cannot_be_read_as_a_whole_is_no_success() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let said = async |family, exit: &Exit| check_scripts(family::of(family), exit, log.path()).await.is_err();
    let fine = exit(End::Exited(0), "Complete!\n", 10);
    let long = exit(End::Exited(0), "Complete!\n", DEFAULT_CAP + 1);
    let full = Exit { warnings: vec!["the disk is full".to_owned()], ..exit(End::Exited(0), "", 0) };
    assert!(!said(PackageFamily::Rpm, &fine).await);
    assert!(said(PackageFamily::Rpm, &long).await);
    assert!(said(PackageFamily::Rpm, &full).await);
    assert!(!said(PackageFamily::Deb, &full).await, "dpkg's exit code says it");
}

#[test]
fn a_system_that_nothing_is_for_says_what_it_takes() {
    let error = InstallError::Nothing {
        takes: family::of(PackageFamily::Rpm).takes,
        arch: Arch::Aarch64,
        left_out: Vec::new(),
    };
    insta::assert_snapshot!(error, @"no artifact of the package can be installed on this system, which takes RPM packages (.rpm) for aarch64 or for any CPU");
}
