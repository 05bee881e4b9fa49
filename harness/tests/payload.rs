//! Upload, suite and collection against a real SSH server on loopback; its "guest" is this machine, in a folder of its own.
//!
//! `payload_busybox.rs` is the same in a "guest" that has busybox for its tools.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod sshd;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use matrix::{Arch, Artifact, Digest, PackageFamily, UploadFile};
use nestmatrix::{
    payload::{self, Collection, Limits, Suite, SuiteOutcome, SuiteRun, Upload, UploadError},
    ssh::{Session, SshError},
};
use sshd::{Server, Tools, within};

/// Kills the watcher and says so. A suite knows its own mark, which the watcher carries on its command line.
const KILL_WATCHER: &str = "said=
    until [ -n \"$said\" ]; do
        for file in $(grep -ls \"$NESTMATRIX_GUARD\" /proc/[0-9]*/cmdline); do
            file=${file#/proc/}
            kill -KILL ${file%/*} && said=killed
        done 2>/dev/null
    done
    echo $said";

/// A server, a session on it, and a folder for what comes back.
struct Guest {
    server: Server,
    session: Session,
    /// Where suites leave their results.
    results: Option<String>,
}

impl Guest {
    async fn start() -> Self {
        let busybox = env!("CARGO_CRATE_NAME") == "payload_busybox";
        Self::start_with(if busybox { Tools::Busybox } else { Tools::Own }).await
    }

    async fn start_with(tools: Tools) -> Self {
        let server = Server::start_with(tools).await;
        let session = server.session().await;
        Self { server, session, results: None }
    }

    fn here(&self, name: &str) -> PathBuf {
        self.server.dir.path().join(name)
    }

    async fn upload(&self, script: &str, env: &[(&str, &str)], files: &[UploadFile]) -> Result<(), UploadError> {
        let env: IndexMap<String, String> = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let (family, arch) = (None, Arch::X86_64);
        let upload = Upload { script, env: &env, files, artifacts: &[], family, arch, network: None, facts: false };
        payload::upload(&self.session, &upload, within(30)).await.map(drop)
    }

    async fn run_for(&self, limit: Duration) -> Result<SuiteRun, SshError> {
        let (stdout, stderr) = (self.here("stdout.log"), self.here("stderr.log"));
        let deadline = Instant::now() + limit;
        let grace = Duration::from_millis(700);
        let suite = Suite { stdout: &stdout, stderr: &stderr, deadline, grace, results: self.results.as_deref() };
        payload::run(&self.session, &suite).await
    }

    /// Uploads a script and runs it.
    async fn suite(&self, script: &str) -> SuiteRun {
        self.upload(script, &[], &[]).await.unwrap();
        self.run_for(Duration::from_secs(30)).await.unwrap()
    }

    fn stdout_log(&self) -> String {
        fs::read_to_string(self.here("stdout.log")).unwrap()
    }

    fn stdout_log_or_empty(&self) -> String {
        fs::read_to_string(self.here("stdout.log")).unwrap_or_default()
    }

    fn stderr_log(&self) -> String {
        fs::read_to_string(self.here("stderr.log")).unwrap()
    }

    async fn collect(&self, globs: &[String]) -> Collection {
        let limits = Limits { per_file: 1 << 20, total: 4 << 20, count: 100 };
        payload::collect(&self.session, globs, &self.here("into"), &limits, within(30)).await.unwrap()
    }
}

/// Command lines of running processes that begin like this; the "guest" is this machine.
fn running(start: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(start)).collect()
}

fn upload_file(path: &PathBuf, relative: &str) -> UploadFile {
    let content = fs::read(path).unwrap();
    let digest = Digest::of(&content);
    UploadFile { path: path.clone(), relative: relative.to_owned(), bytes: content.len() as u64, digest }
}

#[tokio::test]
async fn a_suite_finds_its_files_its_environment_and_a_folder_for_temporary_files() {
    let guest = Guest::start().await;
    let tool = guest.here("tool");
    fs::write(&tool, "#!/bin/sh\necho tool ran\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let files = [upload_file(&tool, "bin/tool"), upload_file(&tool, "copy of tool.txt")];
    let script = "#!/bin/sh\nbin/tool; cat 'copy of tool.txt' | wc -l; printf '[%s]\\n' \"$TEXT\"; touch \"$TMPDIR/x\" && echo tmp; \
                  read line || echo no input; echo err >&2; echo $PATH; exit 3";
    guest.upload(script, &[("TEXT", "it's a \"test\"\n$HOME `id`")], &files).await.unwrap();
    let run = guest.run_for(Duration::from_secs(30)).await.unwrap();
    assert_eq!(run.outcome, SuiteOutcome::Exited(3));
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("tool ran\n2\n[it's a \"test\"\n$HOME `id`]\ntmp\nno input\n{path}\n");
    assert_eq!(guest.stdout_log(), expected);
    assert_eq!(guest.stderr_log(), "err\n");
    assert_eq!(String::from_utf8(run.stdout_tail).unwrap(), expected);
    assert_eq!((run.stdout_bytes, run.stderr_bytes), (expected.len() as u64, 4));
}

#[tokio::test]
async fn a_script_names_its_interpreter_or_gets_sh() {
    let guest = Guest::start().await;
    assert_eq!(guest.suite("echo plain").await.outcome, SuiteOutcome::Exited(0));
    assert_eq!(guest.stdout_log(), "plain\n");
    assert_eq!(guest.suite("#!/usr/bin/perl\nprint \"perl $^X\\n\"; exit 9").await.outcome, SuiteOutcome::Exited(9));
    assert_eq!(guest.stdout_log(), "perl /usr/bin/perl\n");
    let missing = guest.suite("#!/nonexistent/interpreter\n").await.outcome;
    let SuiteOutcome::NotStarted { reason, .. } = missing else { panic!("{missing:?}") };
    assert_eq!(reason, "interpreter /nonexistent/interpreter of the suite's script is not in the guest");
    assert_eq!(guest.suite("#!/bin/sh\nno-such-program").await.outcome, SuiteOutcome::Exited(127));
}

#[tokio::test]
async fn a_second_upload_starts_from_an_empty_folder() {
    let guest = Guest::start().await;
    guest.suite("touch left-over").await;
    assert_eq!(guest.suite("ls -A").await.outcome, SuiteOutcome::Exited(0));
    assert_eq!(guest.stdout_log(), ".nestmatrix-suite\n");
}

#[tokio::test]
async fn exit_codes_signals_and_skips_are_told_apart() {
    let guest = Guest::start().await;
    assert_eq!(guest.suite("kill -9 $$").await.outcome, SuiteOutcome::Signal("KILL".to_owned()));
    assert_eq!(guest.suite("kill -SEGV $$").await.outcome, SuiteOutcome::Signal("SEGV".to_owned()));
    assert_eq!(guest.suite("exit 137").await.outcome, SuiteOutcome::Exited(137));
    let skipped = SuiteOutcome::Skipped { reason: "no printer here".to_owned() };
    assert_eq!(guest.suite("echo looking; echo no printer here; exit 77").await.outcome, skipped);
}

#[tokio::test]
async fn a_daemon_that_keeps_the_streams_open_does_not_hold_the_suite() {
    let guest = Guest::start().await;
    let run = guest.suite("echo before; (setsid sleep 15; :) & echo after; exit 4").await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(4));
    assert!(run.elapsed < Duration::from_secs(8), "{:?}", run.elapsed);
    assert_eq!(guest.stdout_log(), "before\nafter\n");
    assert_eq!(guest.stderr_log(), "", "nothing but the suite's own words");
}

#[tokio::test]
async fn a_daemon_that_never_stops_talking_does_not_hold_the_suite_either() {
    let guest = Guest::start().await;
    let run = guest.suite("timeout 15 yes & exit 0").await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    assert!(run.elapsed < Duration::from_secs(12), "{:?}", run.elapsed);
}

#[tokio::test]
async fn a_script_that_kills_its_own_group_or_waits_for_all_its_children_does_not_meet_the_watcher() {
    let guest = Guest::start().await;
    assert_eq!(guest.suite("trap 'exit 5' TERM; kill -TERM 0; sleep 1").await.outcome, SuiteOutcome::Exited(5));
    let run = guest.suite("#!/usr/bin/perl\n1 while wait() != -1; print \"alone\\n\"").await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
}

#[tokio::test]
async fn nothing_that_a_suite_prints_ends_it_before_it_exits() {
    let guest = Guest::start().await;
    // Everything it can know of how it is run, in the form of any mark there may be.
    let script = "printf '<nestmatrix:%s:over>' \"$NESTMATRIX_GUARD\" >&2; env >&2; set >&2; cat /proc/[0-9]*/cmdline >&2; sleep 3; exit 1";
    assert_eq!(guest.suite(script).await.outcome, SuiteOutcome::Exited(1));
}

#[tokio::test]
async fn a_suite_that_killed_its_watcher_and_left_a_daemon_has_ended_as_it_exited() {
    let guest = Guest::start().await;
    for code in [0, 1] {
        let run = guest.suite(&format!("{KILL_WATCHER}; sleep 20 & exit {code}")).await;
        assert_eq!(run.outcome, SuiteOutcome::Exited(code));
        assert!(run.elapsed < Duration::from_secs(12), "the daemon was waited for: {:?}", run.elapsed);
    }
}

#[tokio::test]
async fn a_time_out_kills_the_whole_family_and_keeps_its_last_words() {
    let guest = Guest::start().await;
    let script = "trap 'echo told to stop; exit 1' TERM
        # A child, a child that ignores TERM, a daemon with a session of its own, one without our environment in our group.
        sleep 47.1 &
        sh -c 'trap \"\" TERM; sleep 47.2; sleep 47.3' &
        setsid sh -c 'trap \"\" TERM HUP; sleep 47.4; sleep 47.5' >/dev/null 2>&1 </dev/null &
        env -i sleep 47.6 &
        echo started
        while :; do sleep 0.1; done";
    guest.upload(script, &[], &[]).await.unwrap();
    let started = Instant::now();
    let run = guest.run_for(Duration::from_secs(2)).await.unwrap();
    assert_eq!(run.outcome, SuiteOutcome::TimedOut { leftovers: false });
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(guest.stdout_log(), "started\ntold to stop\n");
    assert_eq!(running("sleep\x0047."), [""; 0]);
}

#[tokio::test]
async fn a_time_out_holds_against_a_suite_that_killed_its_watcher() {
    let guest = Guest::start().await;
    guest.upload(&format!("{KILL_WATCHER}; sleep 48.1"), &[], &[]).await.unwrap();
    let run = guest.run_for(Duration::from_secs(4)).await.unwrap();
    assert_eq!(run.outcome, SuiteOutcome::TimedOut { leftovers: false });
    assert_eq!(guest.stdout_log(), "killed\n");
    assert_eq!(running("sleep\x0048."), [""; 0]);
}

#[tokio::test]
async fn a_guest_that_is_silent_at_the_time_limit_no_longer_answers_and_was_not_killed() {
    let guest = Guest::start().await;
    guest.upload("echo started; sleep 3; exit 1", &[], &[]).await.unwrap();
    let server = rustix::process::Pid::from_raw(guest.server.pids()[0] as i32).unwrap();
    let freeze = async {
        while !guest.stdout_log_or_empty().contains("started") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rustix::process::kill_process(server, rustix::process::Signal::STOP).unwrap();
    };
    let started = Instant::now();
    let (ran, ()) = tokio::join!(guest.run_for(Duration::from_secs(5)), freeze);
    let error = ran.unwrap_err();
    assert!(matches!(error, SshError::Frozen { .. }) && error.to_string().contains("no longer answers"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_suite_is_told_from_everything_else() {
    let guest = Guest::start().await;
    guest.upload("echo started; sleep 20", &[], &[]).await.unwrap();
    let cut = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        guest.server.kill();
    };
    let (ran, ()) = tokio::join!(guest.run_for(Duration::from_secs(20)), cut);
    assert!(ran.unwrap_err().is_connection_lost());
    assert_eq!(guest.stdout_log(), "started\n", "what came before is kept");
}

#[tokio::test]
async fn a_file_that_changed_since_the_plan_is_named_and_nothing_runs() {
    let guest = Guest::start().await;
    let path = guest.here("data.bin");
    fs::write(&path, vec![1; 300_000]).unwrap();
    let planned = upload_file(&path, "data.bin");

    let mut content = vec![1; 300_000];
    content[299_999] = 2;
    fs::write(&path, content).unwrap();
    let error = guest.upload("true", &[], std::slice::from_ref(&planned)).await.unwrap_err();
    assert!(matches!(&error, UploadError::Changed { path: named, .. } if *named == path), "{error}");

    fs::write(&path, "shorter").unwrap();
    let error = guest.upload("true", &[], std::slice::from_ref(&planned)).await.unwrap_err();
    assert!(error.to_string().contains("300000 bytes then, 7 now"), "{error}");

    fs::remove_file(&path).unwrap();
    let error = guest.upload("true", &[], &[planned]).await.unwrap_err();
    assert!(matches!(error, UploadError::Read { .. }), "{error}");
    // The session is as good as before.
    assert_eq!(guest.suite("exit 0").await.outcome, SuiteOutcome::Exited(0));
}

#[tokio::test]
async fn only_artifacts_the_guest_can_install_are_sent() {
    let guest = Guest::start().await;
    let artifacts: Vec<Artifact> = ["a.deb", "b_arm64.deb", "c.rpm", "d-any.pkg.tar.zst"]
        .iter()
        .map(|name| {
            let path = guest.here(name);
            fs::write(&path, *name).unwrap();
            Artifact {
                path,
                file_name: (*name).to_owned(),
                bytes: name.len() as u64,
                digest: Digest::of(name.as_bytes()),
            }
        })
        .collect();
    let env = IndexMap::new();
    for (family, expected) in [
        (Some(PackageFamily::Deb), "a.deb\n"),
        (Some(PackageFamily::Rpm), "c.rpm\n"),
        (Some(PackageFamily::Pacman), "d-any.pkg.tar.zst\n"),
        (None, ""),
    ] {
        let (script, arch) = ("ls ../artifacts", Arch::X86_64);
        let upload =
            Upload { script, env: &env, files: &[], artifacts: &artifacts, family, arch, network: None, facts: false };
        payload::upload(&guest.session, &upload, within(30)).await.unwrap();
        guest.run_for(Duration::from_secs(20)).await.unwrap();
        assert_eq!(guest.stdout_log(), expected, "{family:?}");
    }
}

#[tokio::test]
async fn a_guest_says_what_it_is_while_the_payload_arrives() {
    let guest = Guest::start().await;
    let env = IndexMap::new();
    let (script, arch) = ("ls ..", Arch::X86_64);
    let upload =
        Upload { script, env: &env, files: &[], artifacts: &[], family: None, arch, network: None, facts: true };
    let facts = payload::upload(&guest.session, &upload, within(30)).await.unwrap().unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(facts.kernel.as_deref(), Some(kernel.trim()), "{facts:?}");
    assert!(facts.name.is_some() && facts.cgroups.is_some() && facts.init.is_some(), "{facts:?}");
    assert_eq!(guest.run_for(Duration::from_secs(20)).await.unwrap().outcome, SuiteOutcome::Exited(0));
}

#[tokio::test]
async fn a_guest_whose_family_nobody_tells_is_asked_for_it() {
    let guest = Guest::start().await;
    let found = payload::detect_family(&guest.session, within(30)).await.unwrap();
    let here = ["/usr/bin/apt-get", "/usr/bin/dnf", "/usr/bin/zypper", "/sbin/apk", "/usr/bin/pacman"];
    assert_eq!(found.is_some(), here.iter().any(|path| fs::exists(path).unwrap()), "{found:?}");
}

#[tokio::test]
async fn a_guest_that_cannot_unpack_says_why_in_its_own_words() {
    let guest = Guest::start().await;
    let large = guest.here("large.bin");
    fs::write(&large, vec![0; 20 << 20]).unwrap();
    let planned = upload_file(&large, "large.bin");
    guest.server.set_root("/proc/nestmatrix");
    let guest = Guest { session: guest.server.session().await, ..guest };
    let error = guest.upload("true", &[], &[planned]).await.unwrap_err();
    let UploadError::Unpack { words } = &error else { panic!("{error}") };
    assert!(words.contains("/proc/nestmatrix"), "{words}");
}

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
    assert!(!results.complete);
}

#[tokio::test]
async fn a_guest_with_a_shell_and_few_tools_takes_a_payload_and_gives_back_files() {
    let guest = Guest::start_with(Tools::Few).await;
    let (tool, text) = (guest.here("tool"), guest.here("text"));
    fs::write(&tool, "#!/bin/sh\necho tool ran >../tmp/said\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&text, vec![7; 300_000]).unwrap();
    let files = [upload_file(&tool, "bin/deep/tool"), upload_file(&text, "it's text.txt")];
    let env = IndexMap::from([("TEXT".to_owned(), "a\nb".to_owned())]);
    let script = "bin/deep/tool; cat 'it'\\''s text.txt' >../tmp/copy; echo \"$TEXT\"; exit 4";
    let upload = Upload {
        script,
        env: &env,
        files: &files,
        artifacts: &[],
        family: None,
        arch: Arch::X86_64,
        network: None,
        facts: true,
    };
    // Without `timeout` it is not asked what it is.
    assert_eq!(payload::upload(&guest.session, &upload, within(30)).await.unwrap(), None);
    assert_eq!(guest.run_for(Duration::from_secs(20)).await.unwrap().outcome, SuiteOutcome::Exited(4));
    assert_eq!(guest.stdout_log(), "a\nb\n");
    let collection = guest.collect(&[format!("{}/guest/tmp", guest.here("").display())]).await;
    let names = collection.files.iter().map(|file| (file.path.rsplit('/').next().unwrap(), file.bytes));
    assert_eq!(names.collect::<Vec<_>>(), [("copy", 300_000), ("said", 9)]);
    assert_eq!(collection.warnings, [""; 0]);

    fs::write(&text, vec![8; 300_000]).unwrap();
    let error = payload::upload(&guest.session, &upload, within(30)).await.unwrap_err();
    assert!(matches!(error, UploadError::Changed { .. }), "{error}");
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
    assert!(results.complete);
    // The folder itself says the same.
    let mut folder = payload::collect_results(&guest.session, &there.display().to_string(), within(20)).await.unwrap();
    folder.files.sort();
    assert_eq!((folder.files, folder.complete), (results.files, true));

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
    assert!(!results.complete, "{:?}", results.warnings);
}

#[tokio::test]
async fn results_from_before_the_suite_are_not_its_own() {
    let mut guest = Guest::start().await;
    let there = guest.here("results");
    let glob = format!("{}/*.xml", there.display());
    guest.results = Some(glob.clone());
    fs::create_dir(&there).unwrap();
    fs::write(there.join("stale.xml"), "<all-went-well/>").unwrap();
    fs::write(there.join("other.txt"), "kept").unwrap();
    let run = guest.suite(&format!("echo '<new/>' >{}/new.xml", there.display())).await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    let stale = there.join("stale.xml").display().to_string();
    assert_eq!(run.warnings, [format!("{stale} was there before the suite started: it is removed")]);
    let results = payload::collect_results(&guest.session, &glob, within(20)).await.unwrap();
    assert_eq!(results.files, [(there.join("new.xml").display().to_string(), b"<new/>\n".to_vec())]);
    assert!(there.join("other.txt").exists());
}

#[tokio::test]
async fn results_from_before_the_suite_do_not_come_back_behind_a_link() {
    let mut guest = Guest::start().await;
    let (link, old) = (guest.here("latest.xml"), guest.here("old.xml"));
    fs::write(&old, "<all-went-well/>").unwrap();
    std::os::unix::fs::symlink(&old, &link).unwrap();
    guest.results = Some(link.display().to_string());
    let run = guest.suite(&format!("ln -s {} {}", old.display(), link.display())).await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    let results = payload::collect_results(&guest.session, &link.display().to_string(), within(20)).await.unwrap();
    assert_eq!(results.files, [(link.display().to_string(), Vec::new())]);
}

#[tokio::test]
async fn a_suite_whose_old_results_cannot_be_removed_is_not_started() {
    let mut guest = Guest::start_with(Tools::Few).await;
    let there = guest.here("stale.xml");
    fs::write(&there, "<all-went-well/>").unwrap();
    guest.results = Some(there.display().to_string());
    let rm = guest.here("tools/rm");
    fs::remove_file(&rm).unwrap();
    // The suite's folder can be had, and nothing else is removed.
    fs::write(&rm, "#!/bin/sh\ncase $* in *.xml) exit 1 ;; esac\nexec /bin/rm \"$@\"\n").unwrap();
    fs::set_permissions(&rm, fs::Permissions::from_mode(0o755)).unwrap();
    let run = guest.suite("exit 0").await;
    let SuiteOutcome::NotStarted { reason, .. } = &run.outcome else { panic!("{:?}", run.outcome) };
    let there = there.display();
    assert_eq!(*reason, format!("results from before the suite started cannot be removed: {there} cannot be removed"));
}

#[tokio::test]
async fn results_that_are_no_files_do_not_hang_and_are_not_complete() {
    let guest = Guest::start().await;
    let there = guest.here("pipe.xml");
    rustix::fs::mknodat(rustix::fs::CWD, &there, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    for glob in [there.display().to_string(), "/dev/zero".to_owned(), "/dev/null".to_owned()] {
        let results = payload::collect_results(&guest.session, &glob, within(20)).await.unwrap();
        assert!(results.files.is_empty() && !results.complete, "{glob}: {results:?}");
    }
}
