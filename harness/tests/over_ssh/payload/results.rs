//! Results that a suite leaves: all of them, and no others.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nestmatrix::payload::{self, SuiteOutcome};

use super::guest::Guest;
use crate::sshd::{Tools, within};

#[tokio::test]
async fn result_files_come_into_memory_under_their_path_in_the_guest() {
    let guest = Guest::start().await;
    let there = guest.here("results");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("one.xml"), "<one/>").unwrap();
    fs::write(there.join("two.xml"), "<two/>").unwrap();
    // Two names of one file.
    std::os::unix::fs::symlink("two.xml", there.join("latest.xml")).unwrap();
    let glob = format!("{}/*.xml", there.display());
    let mut results = payload::collect_results(&guest.session, &glob, within(20)).await.unwrap();
    results.files.sort();
    let path = |name: &str| there.join(name).display().to_string();
    assert_eq!(results.files, [(path("latest.xml"), b"<two/>".to_vec()), (path("one.xml"), b"<one/>".to_vec())]);
    assert_eq!(results.warnings, [""; 0]);
    assert_eq!(results.missing, None);
    // The folder itself says the same.
    let mut folder = payload::collect_results(&guest.session, &there.display().to_string(), within(20)).await.unwrap();
    folder.files.sort();
    assert_eq!((folder.files, folder.missing), (results.files, None));

    let none = payload::collect_results(&guest.session, "/nonexistent/*.xml", within(20)).await.unwrap();
    assert!(none.files.is_empty());
    assert_eq!(none.warnings, ["nothing matches /nonexistent/*.xml"]);
}

#[tokio::test]
async fn results_that_do_not_come_whole_are_not_taken_for_all_there_is() {
    let guest = Guest::start().await;
    let there = guest.here("results");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("small.xml"), "<one/>").unwrap();
    fs::write(there.join("large.xml"), vec![b' '; (16 << 20) + 1]).unwrap();
    let glob = format!("{}/*.xml", there.display());
    let results = payload::collect_results(&guest.session, &glob, within(20)).await.unwrap();
    assert_eq!(results.files.len(), 1);
    assert!(results.missing.is_some_and(|line| line.contains("large.xml")));
}

#[tokio::test]
async fn results_from_before_the_suite_are_not_its_own() {
    let guest = Guest::start().await;
    let there = guest.here("results");
    let glob = format!("{}/*.xml", there.display());
    fs::create_dir(&there).unwrap();
    fs::write(there.join("stale.xml"), "<all-went-well/>").unwrap();
    fs::write(there.join("other.txt"), "kept").unwrap();
    let removed = payload::remove_results(&guest.session, &glob, within(20)).await.unwrap();
    let stale = there.join("stale.xml").display().to_string();
    assert_eq!(removed, Ok(vec![format!("{stale} was there before the suite started: it is removed")]));
    let run = guest.suite(&format!("echo '<new/>' >{}/new.xml", there.display())).await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    let results = payload::collect_results(&guest.session, &glob, within(20)).await.unwrap();
    assert_eq!(results.files, [(there.join("new.xml").display().to_string(), b"<new/>\n".to_vec())]);
    assert!(there.join("other.txt").exists());
}

#[tokio::test]
async fn results_from_before_the_suite_do_not_come_back_behind_a_link() {
    let guest = Guest::start().await;
    let (link, old) = (guest.here("latest.xml"), guest.here("old.xml"));
    fs::write(&old, "<all-went-well/>").unwrap();
    std::os::unix::fs::symlink(&old, &link).unwrap();
    payload::remove_results(&guest.session, &link.display().to_string(), within(20)).await.unwrap().unwrap();
    let run = guest.suite(&format!("ln -s {} {}", old.display(), link.display())).await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    let results = payload::collect_results(&guest.session, &link.display().to_string(), within(20)).await.unwrap();
    assert_eq!(results.files, [(link.display().to_string(), Vec::new())]);
}

#[tokio::test]
async fn old_results_that_cannot_be_removed_are_named() {
    let guest = Guest::start_with(Tools::Few).await;
    let there = guest.here("stale.xml");
    fs::write(&there, "<all-went-well/>").unwrap();
    let rm = guest.here("tools/rm");
    fs::remove_file(&rm).unwrap();
    fs::write(&rm, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&rm, fs::Permissions::from_mode(0o755)).unwrap();
    let there = there.display().to_string();
    let left = payload::remove_results(&guest.session, &there, within(20)).await.unwrap();
    assert_eq!(left, Err(format!("{there} cannot be removed")));
}

#[tokio::test]
async fn results_that_are_no_files_do_not_hang_and_are_not_complete() {
    let guest = Guest::start().await;
    let there = guest.here("pipe.xml");
    rustix::fs::mknodat(rustix::fs::CWD, &there, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    for glob in [there.display().to_string(), "/dev/zero".to_owned(), "/dev/null".to_owned()] {
        let results = payload::collect_results(&guest.session, &glob, within(20)).await.unwrap();
        assert!(results.files.is_empty() && results.missing.is_some(), "{glob}: {results:?}");
    }
}
