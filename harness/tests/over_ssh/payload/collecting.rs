//! Files that come back: which, how many, and what is said of the others.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nestmatrix::payload::{self, Limits};

use super::guest::Guest;
use crate::sshd::{Tools, within};

#[tokio::test]
async fn artifacts_come_back_under_their_paths_and_what_is_missing_or_too_large_is_said() {
    let guest = Guest::start().await;
    let there = guest.here("there");
    fs::create_dir_all(there.join("deep/er")).unwrap();
    fs::write(there.join("a b.log"), "one").unwrap();
    fs::write(there.join("deep/er/x.txt"), "two").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", there.join("deep/link")).unwrap();
    // Sparse: a terabyte that takes no room and would never end on the wire.
    fs::File::create(there.join("deep/huge[1].bin")).unwrap().set_len(1 << 40).unwrap();
    let at = |path: &str| format!("{}/{path}", there.display());
    let collection = guest.collect(&[at("*.log"), at("deep"), at("no such*")]).await;

    let root = there.strip_prefix("/").unwrap().display().to_string();
    let mut paths: Vec<_> = collection.files.iter().map(|file| (file.path.replace(&root, ""), file.bytes)).collect();
    paths.sort();
    assert_eq!(paths, [("/a b.log".to_owned(), 3), ("/deep/er/x.txt".to_owned(), 3)]);
    assert_eq!(fs::read_to_string(guest.here("into").join(&root).join("deep/er/x.txt")).unwrap(), "two");
    let warnings = collection.warnings.join("\n").replace(&root, "ROOT");
    insta::assert_snapshot!(warnings, @r"
    /ROOT/deep/huge[1].bin was not fetched: it has 1099511627776 bytes, 1048576 may be
    /ROOT/deep/link was not fetched: it is a symbolic link below a folder
    nothing matches /ROOT/no such*
    ");
}

#[tokio::test]
async fn links_are_followed_where_they_are_named_and_hard_links_and_long_names_are_files_like_others() {
    let guest = Guest::start().await;
    let there = guest.here("there");
    fs::create_dir_all(there.join("run-7")).unwrap();
    let long = "n".repeat(255);
    fs::write(there.join("run-7/one.log"), "one").unwrap();
    fs::hard_link(there.join("run-7/one.log"), there.join("run-7").join(&long)).unwrap();
    std::os::unix::fs::symlink("run-7", there.join("latest")).unwrap();
    std::os::unix::fs::symlink("run-7/one.log", there.join("latest.log")).unwrap();
    // Ways without an end, and to nowhere.
    std::os::unix::fs::symlink("..", there.join("run-7/up")).unwrap();
    std::os::unix::fs::symlink("round.log", there.join("round.log")).unwrap();
    std::os::unix::fs::symlink("/proc/kmsg", there.join("kernel.log")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, there.join("pipe.log"), rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    let at = |path: &str| format!("{}/{path}", there.display());
    let collection = guest.collect(&[at("latest"), at("*.log"), "/dev/null".to_owned(), "/proc/kmsg".to_owned()]).await;

    let root = there.strip_prefix("/").unwrap().display().to_string();
    let paths: Vec<_> = collection.files.iter().map(|file| (file.path.replace(&root, ""), file.bytes)).collect();
    let expected = [
        (format!("/latest/{long}"), 3),
        ("/latest/one.log".into(), 3),
        ("/kernel.log".into(), 0),
        ("/latest.log".into(), 3),
    ];
    assert_eq!(paths, expected);
    let warnings = collection.warnings.join("\n").replace(&root, "ROOT");
    insta::assert_snapshot!(warnings, @r"
    /ROOT/latest/up was not fetched: it is a symbolic link below a folder
    /ROOT/pipe.log was not fetched: it is a pipe
    /ROOT/round.log was not fetched: it is a symbolic link that leads nowhere
    /dev/null was not fetched: it is a device
    /proc/kmsg was not fetched: it is a file of the kernel, without a size
    ");
}

#[tokio::test]
async fn of_more_files_than_may_be_the_first_are_fetched_whatever_their_number() {
    let guest = Guest::start().await;
    let there = guest.here("many");
    fs::create_dir(&there).unwrap();
    for n in 0..5_000 {
        fs::write(there.join(format!("{n:04}")), "x").unwrap();
    }
    let collection = guest.collect(&[format!("{}/*", there.display())]).await;
    assert_eq!(collection.files.len(), 100);
    assert_eq!(collection.warnings, ["more than 100 files match: the rest was not fetched"]);
}

#[tokio::test]
async fn what_came_before_a_time_limit_is_kept_and_it_is_said_that_there_is_more() {
    let guest = Guest::start_with(Tools::Few).await;
    let there = guest.here("there");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("1"), "first").unwrap();
    fs::write(there.join("2"), "second").unwrap();
    // It trickles, and never ends.
    let cat = guest.here("tools/cat");
    fs::remove_file(&cat).unwrap();
    fs::write(&cat, "#!/bin/sh\ncase $1 in */2) echo half; exec /bin/sleep 60 ;; esac\nexec /bin/cat \"$@\"\n")
        .unwrap();
    fs::set_permissions(&cat, fs::Permissions::from_mode(0o755)).unwrap();
    let limits = Limits::default();
    let globs = [format!("{}/*", there.display())];
    let collection = payload::collect(&guest.session, &globs, &guest.here("into"), &limits, within(3)).await.unwrap();
    let kept: Vec<_> = collection.files.iter().map(|file| file.bytes).collect();
    assert_eq!(kept, [5, 5], "{:?}", collection.warnings);
    let warnings = collection.warnings.join("\n").replace(&there.display().to_string(), "ROOT");
    insta::assert_snapshot!(warnings, @r"
    files of the guest are not complete: time limit of phase collect reached; raise `timeout.collect`
    the files of the guest did not all come: ROOT/2 breaks off: 5 of 6 bytes came
    ");
    // For results the same is no pass.
    let results = payload::collect_results(&guest.session, &globs[0], within(3)).await.unwrap();
    assert!(results.missing.is_some_and(|line| line.contains("time limit of phase collect reached")));
}

#[tokio::test]
async fn too_much_to_fetch_is_cut_and_said() {
    let guest = Guest::start().await;
    let there = guest.here("there");
    fs::create_dir(&there).unwrap();
    for n in 0..9 {
        fs::write(there.join(format!("{n}")), vec![7; 1 << 20]).unwrap();
    }
    let collection = guest.collect(&[format!("{}/*", there.display())]).await;
    assert_eq!(collection.files.len(), 4);
    assert!(collection.warnings.iter().any(|line| line.contains("4194304 bytes")), "{:?}", collection.warnings);
}
