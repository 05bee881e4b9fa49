//! SSH sessions against a real OpenSSH server on loopback.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use nestmatrix::ssh::{End, Exec, Exit, Keys, Open, Session, Sink, SshError, Stdin, Until};
use tokio_util::sync::CancellationToken;

use crate::sshd::{Server, Tools, within};

const MIB: u64 = 1024 * 1024;
/// What was left behind is not waited for after so much silence.
const QUIET: Duration = Duration::from_secs(1);

/// A command of which only the tails are kept.
fn command(command: &str) -> Exec {
    Exec {
        command: command.to_owned(),
        stdin: Stdin::None,
        stdout: Sink::Tail,
        stderr: Sink::Tail,
        deadline: within(60),
        until: Until::Silent,
    }
}

/// Its standard output as text.
fn stdout(exit: &Exit) -> String {
    String::from_utf8_lossy(&exit.stdout_tail).into_owned()
}

#[tokio::test]
async fn commands_run_one_after_the_other_and_tell_their_exit_code_and_both_streams() {
    let server = Server::start().await;
    let session = server.session().await;
    for code in [0, 1, 77, 255] {
        let exit = session.exec(command(&format!("echo out{code}; echo err >&2; exit {code}"))).await.unwrap();
        assert_eq!(exit.end, End::Exited(code));
        assert_eq!(stdout(&exit), format!("out{code}\n"));
        assert_eq!(exit.stderr_tail, b"err\n");
    }
    assert_eq!(server.pids().len(), 1, "one connection for all");
}

#[tokio::test]
async fn two_commands_asked_for_at_once_both_get_their_own_answer() {
    let server = Server::start().await;
    let session = server.session().await;
    let (one, two) = tokio::join!(session.exec(command("sleep 0.3; echo one")), session.exec(command("echo two")));
    assert_eq!((stdout(&one.unwrap()), stdout(&two.unwrap())), ("one\n".to_owned(), "two\n".to_owned()));
}

#[tokio::test]
async fn a_command_killed_by_a_signal_is_told_from_one_that_exits_with_the_same_number() {
    let server = Server::start().await;
    let session = server.session().await;
    let killed = session.exec(command("exec sh -c 'kill -KILL $$'")).await.unwrap();
    assert_eq!(killed.end, End::Killed("KILL".to_owned()));
    let exited = session.exec(command("exit 137")).await.unwrap();
    assert_eq!(exited.end, End::Exited(137));
}

#[tokio::test]
async fn two_hundred_megabytes_of_output_neither_stall_nor_fill_the_disk() {
    let server = Server::start().await;
    let session = server.session().await;
    let log = server.dir.path().join("stdout.log");
    let exit = session
        .exec(Exec {
            stdout: Sink::File { path: log.clone(), cap: MIB, after: None },
            deadline: within(120),
            ..command("head -c 209715200 /dev/zero; echo the end")
        })
        .await
        .unwrap();
    assert_eq!(exit.end, End::Exited(0));
    assert_eq!(exit.stdout_bytes, 200 * MIB + 8);
    assert!(exit.stdout_tail.ends_with(b"\0the end\n"));
    let size = std::fs::metadata(log).unwrap().len();
    assert!((MIB..MIB + 70_000).contains(&size), "{size}");
}

#[tokio::test]
async fn both_streams_at_once_beyond_the_ssh_window_do_not_deadlock() {
    let server = Server::start().await;
    let session = server.session().await;
    let script = "i=0; while [ $i -lt 64 ]; do head -c 65536 /dev/zero; head -c 65536 /dev/zero >&2; i=$((i+1)); done";
    let exit = session.exec(command(script)).await.unwrap();
    assert_eq!((exit.end, exit.stdout_bytes, exit.stderr_bytes), (End::Exited(0), 4 * MIB, 4 * MIB));
    // And the other way round: all of one, then all of the other.
    let exit = session.exec(command("head -c 3145728 /dev/zero >&2; head -c 3145728 /dev/zero")).await.unwrap();
    assert_eq!((exit.end, exit.stdout_bytes, exit.stderr_bytes), (End::Exited(0), 3 * MIB, 3 * MIB));
}

#[tokio::test]
async fn input_and_output_flow_at_the_same_time() {
    let server = Server::start().await;
    let session = server.session().await;
    let (mut writer, stdin) = session.stdin_stream();
    let writing = tokio::task::spawn_blocking(move || {
        for _ in 0..1024 {
            writer.write_all(&[7; 32 * 1024]).unwrap();
        }
    });
    let exit = session.exec(Exec { stdin, ..command("tee /dev/stderr") }).await.unwrap();
    writing.await.unwrap();
    assert_eq!((exit.end, exit.stdout_bytes, exit.stderr_bytes), (End::Exited(0), 32 * MIB, 32 * MIB));
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_ends_its_writer() {
    let server = Server::start().await;
    let session = server.session().await;
    let (mut writer, stdin) = session.stdin_stream();
    let writing = tokio::task::spawn_blocking(move || {
        loop {
            if writer.write_all(&[7; 32 * 1024]).is_err() {
                break;
            }
        }
    });
    let exit = session.exec(Exec { stdin, ..command("exit 3") }).await.unwrap();
    assert_eq!(exit.end, End::Exited(3));
    tokio::time::timeout(Duration::from_secs(5), writing).await.expect("the writer ends").unwrap();
}

#[tokio::test]
async fn input_is_still_delivered_to_a_command_that_has_closed_its_output() {
    let server = Server::start().await;
    let session = server.session().await;
    let copy = server.dir.path().join("copy");
    let exit = session
        .exec(Exec { stdin: Stdin::Bytes(vec![1; 5 << 20]), ..command(&format!("exec cat > {} 2>&-", copy.display())) })
        .await
        .unwrap();
    assert_eq!(exit.end, End::Exited(0));
    assert_eq!(std::fs::metadata(copy).unwrap().len(), 5 * MIB);
}

#[tokio::test]
async fn a_wrong_host_key_is_refused_before_login_and_both_fingerprints_are_shown() {
    for kind in ["ecdsa-sha2-nistp256", "ssh-ed25519"] {
        let server = Server::start_configured(Tools::Own, &format!("HostKeyAlgorithms {kind}\n")).await;
        let other = Keys::generate("other").unwrap();
        let error = server.try_open(&other, &CancellationToken::new()).await.unwrap_err();
        let SshError::HostKey { expected, offered } = &error else { panic!("{error}") };
        assert_ne!(expected, offered);
        assert!(expected.starts_with("SHA256:") && offered.starts_with("SHA256:"), "{error}");
    }
}

#[tokio::test]
async fn unknown_login_keys_are_refused_as_such() {
    let mut server = Server::start().await;
    server.login = Keys::generate("stranger").unwrap();
    let host = server.host.clone();
    let error = server.try_open(&host, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SshError::Auth { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("ecdsa-sha2-nistp256 key") && words.contains("ssh-ed25519 key"), "{words}");
}

#[tokio::test]
async fn a_server_that_takes_one_kind_of_key_only_is_logged_in_to_whichever_it_is() {
    // ssh-audit's guide for hardened servers, and a FIPS mode.
    let hardened = "sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256";
    let fips = "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,rsa-sha2-256,rsa-sha2-512";
    let ed25519 = "ssh-ed25519";
    for (host, login) in [(hardened, hardened), (fips, fips), (ed25519, fips), (fips, ed25519)] {
        let more = format!("HostKeyAlgorithms {host}\nPubkeyAcceptedAlgorithms {login}\n");
        let server = Server::start_configured(Tools::Own, &more).await;
        let exit = server.session().await.exec(command("exit 4")).await.unwrap();
        assert_eq!(exit.end, End::Exited(4), "{more}");
    }
}

#[tokio::test]
async fn a_key_of_each_kind_is_tried_and_the_kind_that_the_server_has_shown_goes_first() {
    let kinds = ["ecdsa-sha2-nistp256", "ssh-ed25519"];
    for kind in kinds {
        // It ends the connection at the first key that it does not take.
        let more = format!("HostKeyAlgorithms {kind}\nPubkeyAcceptedAlgorithms {kind}\nMaxAuthTries 1\n");
        let server = Server::start_configured(Tools::Own, &more).await;
        assert_eq!(server.session().await.exec(command("exit 4")).await.unwrap().end, End::Exited(4), "{kind}");
    }
}

#[tokio::test]
async fn a_server_that_takes_neither_kind_of_key_is_named_at_once_with_what_it_offers() {
    let server = Server::start_configured(Tools::Own, "HostKeyAlgorithms rsa-sha2-512\n").await;
    // It has a key of that kind, which is not pinned.
    let rsa = server.dir.path().join("host_ecdsa");
    std::fs::remove_file(&rsa).unwrap();
    let made = std::process::Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-N", "", "-f"]).arg(&rsa).status();
    assert!(made.unwrap().success());
    let error = server.try_open(&server.host, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SshError::NoCommon { .. }) && error.is_the_images_fault(), "{error}");
    let words = error.to_string();
    for named in ["host key", "rsa-sha2-512", "ecdsa-sha2-nistp256", "ssh-ed25519"] {
        assert!(words.contains(named), "{words}");
    }
}

#[tokio::test]
async fn a_server_that_takes_only_what_fips_mode_allows_is_logged_in_to() {
    let fips = "HostKeyAlgorithms ecdsa-sha2-nistp256,rsa-sha2-256,rsa-sha2-512\n\
                PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,rsa-sha2-256,rsa-sha2-512\n\
                KexAlgorithms ecdh-sha2-nistp256,ecdh-sha2-nistp384,diffie-hellman-group14-sha256\n\
                Ciphers aes256-gcm@openssh.com,aes256-ctr,aes128-ctr\nMACs hmac-sha2-256,hmac-sha2-512\n";
    let server = Server::start_configured(Tools::Own, fips).await;
    assert_eq!(server.session().await.exec(command("exit 4")).await.unwrap().end, End::Exited(4));
}

#[tokio::test]
async fn where_the_two_sides_have_no_algorithm_in_common_both_lists_are_named() {
    let server = Server::start_configured(Tools::Own, "KexAlgorithms sntrup761x25519-sha512@openssh.com\n").await;
    let error = server.try_open(&server.host, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SshError::NoCommon { .. }) && error.is_the_images_fault(), "{error}");
    let words = error.to_string();
    for named in ["key exchange", "sntrup761x25519-sha512@openssh.com", "ecdh-sha2-nistp256"] {
        assert!(words.contains(named), "{words}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_after_its_banner_ends_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-Mute\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
    let cancel = CancellationToken::new();
    let key = Keys::generate("k").unwrap();
    let stream = nestmatrix::ssh::banner(addr, within(5), &cancel).await.unwrap();
    let started = Instant::now();
    let error = Session::open(Open {
        sudo: false,
        stream,
        user: "root",
        login: &key,
        host_keys: key.public(),
        deadline: started + Duration::from_secs(1),
        silence: Session::SILENCE,
        cancel,
    })
    .await
    .unwrap_err();
    assert!(matches!(error, SshError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    silent.abort();
}

#[tokio::test]
async fn a_connection_cut_in_mid_command_is_lost_and_not_an_exit_code() {
    let server = Server::start().await;
    let session = server.session().await;
    let cut = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.kill();
    };
    let started = Instant::now();
    let (answer, ()) = tokio::join!(session.exec(command("echo started; sleep 20")), cut);
    let error = answer.unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }) && error.is_connection_lost(), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let next = session.exec(command("true")).await.unwrap_err();
    assert!(next.is_connection_lost(), "{next}");
}

#[tokio::test]
async fn a_frozen_guest_is_noticed_long_before_the_deadline_and_a_merely_silent_command_is_not_taken_for_one() {
    let server = Server::start().await;
    let session = server.try_open_silent(Duration::from_secs(4)).await.unwrap();
    assert_eq!(session.exec(command("sleep 7")).await.unwrap().end, End::Exited(0));

    let freeze = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.freeze();
    };
    let started = Instant::now();
    let (answer, ()) = tokio::join!(session.exec(command("sleep 20")), freeze);
    let error = answer.unwrap_err();
    assert!(matches!(error, SshError::Frozen { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_command_past_its_deadline_is_a_timeout_and_the_session_lives_on() {
    let server = Server::start().await;
    let session = server.session().await;
    let log = server.dir.path().join("log");
    let started = Instant::now();
    let error = session
        .exec(Exec {
            stdout: Sink::File { path: log.clone(), cap: MIB, after: None },
            deadline: started + Duration::from_secs(4),
            ..command("echo so far; sleep 20")
        })
        .await
        .unwrap_err();
    assert!(matches!(error, SshError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(std::fs::read_to_string(log).unwrap(), "so far\n");
    assert_eq!(stdout(&session.exec(command("echo still here")).await.unwrap()), "still here\n");
}

#[tokio::test]
async fn a_deadline_holds_against_a_command_that_prints_for_ever() {
    let server = Server::start().await;
    let session = server.session().await;
    let started = Instant::now();
    let error =
        session.exec(Exec { deadline: started + Duration::from_secs(1), ..command("exec yes") }).await.unwrap_err();
    assert!(matches!(error, SshError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(6));
    assert_eq!(session.exec(command("exit 4")).await.unwrap().end, End::Exited(4));
}

#[tokio::test]
async fn a_full_spool_cuts_the_command_short() {
    let server = Server::start().await;
    let session = server.session().await;
    let file = tempfile::tempfile().unwrap();
    let spool = Sink::Spool { file: file.try_clone().unwrap(), cap: MIB };
    let exit = session.exec(Exec { stdout: spool, ..command("exec yes") }).await.unwrap();
    assert!(exit.end == End::Cut && !exit.success());
    assert_eq!(file.metadata().unwrap().len(), MIB);
    assert_eq!(session.exec(command("exit 4")).await.unwrap().end, End::Exited(4));
}

#[tokio::test]
async fn a_command_is_over_when_its_process_is_whoever_still_holds_its_output_open() {
    let server = Server::start().await;
    let session = server.session().await;
    for code in [0, 1] {
        let started = Instant::now();
        let exit = session
            .exec(Exec {
                until: Until::Ended { quiet: QUIET },
                deadline: within(600),
                ..command(&format!("sleep 300 & echo out; echo err >&2; exit {code}"))
            })
            .await
            .unwrap();
        assert_eq!(stdout(&exit), "out\n");
        assert_eq!((exit.end, exit.stderr_tail), (End::Exited(code), b"err\n".to_vec()));
        assert!(started.elapsed() < Duration::from_secs(200), "the daemon was waited for");
    }
}

#[tokio::test]
async fn what_a_command_exits_with_decides_even_if_its_deadline_comes_while_its_last_words_are_awaited() {
    let server = Server::start().await;
    let session = server.session().await;
    // Last words are waited for as long as they come.
    let chatty = "(while :; do echo still here; sleep 0.1; done) & exit 1";
    let (deadline, until) = (Instant::now() + Duration::from_secs(2), Until::Ended { quiet: QUIET });
    let exit = session.exec(Exec { until, deadline, ..command(chatty) }).await.unwrap();
    assert_eq!(exit.end, End::Exited(1));
    assert!(exit.at < deadline);
    // Whoever wants all of the output has not got it.
    let deadline = Instant::now() + Duration::from_secs(2);
    let error = session.exec(Exec { deadline, ..command(chatty) }).await.unwrap_err();
    assert!(
        matches!(error, SshError::Timeout { .. }) && error.to_string().contains("holds its output open"),
        "{error}"
    );
}

/// A login shell that does this first.
fn login(first: &str) -> String {
    format!("{first}; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"")
}

#[tokio::test]
async fn what_a_login_shell_prints_is_not_part_of_any_stream() {
    let server = Server::start_with_login(&login("echo hello; echo world >&2; printf 'no end of line'")).await;
    let session = server.session().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let stdin = Stdin::Bytes(bytes.clone());
    let exit = session.exec(Exec { stdin, ..command("cat; echo err >&2; exit 3") }).await.unwrap();
    assert_eq!((exit.stdout_tail, exit.stdout_bytes), (bytes, 256));
    assert_eq!((exit.end, exit.stderr_tail), (End::Exited(3), b"err\n".to_vec()));
}

#[tokio::test]
async fn a_login_shell_that_exits_with_0_first_is_no_success_of_the_command() {
    let server = Server::start_with_login("echo this account is closed; exit 0").await;
    let error = server.try_open(&server.host, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SshError::NotStarted { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("exit code 0") && words.contains("this account is closed"), "{words}");
}

#[tokio::test]
async fn a_login_shell_that_prints_without_end_is_named() {
    let server = Server::start_with_login("yes").await;
    let error = server.try_open(&server.host, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SshError::NotStarted { .. }) && error.to_string().contains("bytes"), "{error}");
}

#[tokio::test]
async fn a_start_up_file_that_reads_does_not_get_the_input_of_the_command() {
    let server = Server::start_with_login(&login("read -r first; echo \"$first\" >&2")).await;
    // Commands without an input are at its end at once.
    let session = server.try_open_silent(Duration::from_secs(4)).await.unwrap();
    assert_eq!(stdout(&session.exec(command("echo ok")).await.unwrap()), "ok\n");
    // Nothing would ever come for it to read.
    let stdin = Stdin::Bytes(b"one\ntwo\n".to_vec());
    let error = session.exec(Exec { stdin, ..command("cat") }).await.unwrap_err();
    assert!(matches!(error, SshError::NotStarted { .. }) && error.to_string().contains("4 s"), "{error}");
}

#[tokio::test]
async fn commands_run_whatever_the_login_shell_is() {
    // One that is missing fails here: `cargo xtask setup --test` installs them.
    for shell in ["bash", "zsh", "tcsh", "fish"] {
        let server = Server::start_with_login(&format!("exec {shell} -c \"$SSH_ORIGINAL_COMMAND\"")).await;
        let session = server.session().await;
        let stdin = Stdin::Bytes(b"input".to_vec());
        let script = "x='it'\\''s !1 \\'\ncat\nprintf '%s' \"$x\"\nsleep 20 & exit 5";
        let exit = session.exec(Exec { stdin, until: Until::Ended { quiet: QUIET }, ..command(script) }).await.unwrap();
        assert_eq!(stdout(&exit), "inputit's !1 \\", "{shell}");
        assert_eq!(exit.end, End::Exited(5), "{shell}");
    }
}

#[tokio::test]
async fn cancelling_ends_the_command_the_thread_and_the_connection() {
    let server = Server::start().await;
    let cancel = CancellationToken::new();
    let session = server.try_open(&server.host, &cancel).await.unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    };
    let (answer, ()) = tokio::join!(session.exec(command("sleep 20")), stop);
    assert!(matches!(answer, Err(SshError::Cancelled)), "{answer:?}");
    // Nothing was dropped: the token alone has ended it, and the server sees the connection closed.
    connection_closes(&server).await;
    drop(session);
}

#[tokio::test]
async fn dropping_a_session_in_mid_command_closes_the_connection() {
    let server = Server::start().await;
    let session = server.session().await;
    let answer = tokio::time::timeout(Duration::from_millis(300), session.exec(command("sleep 20"))).await;
    assert!(answer.is_err());
    drop(session);
    connection_closes(&server).await;
}

#[tokio::test]
async fn a_command_nobody_waits_for_any_more_does_not_hold_up_the_next() {
    let server = Server::start().await;
    let session = server.session().await;
    assert!(tokio::time::timeout(Duration::from_millis(300), session.exec(command("sleep 20"))).await.is_err());
    let started = Instant::now();
    assert_eq!(session.exec(command("exit 6")).await.unwrap().end, End::Exited(6));
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Waits until the server has seen its client go: only then does sshd exit by itself.
async fn connection_closes(server: &Server) {
    let started = Instant::now();
    while !server.have_exited() {
        assert!(started.elapsed() < Duration::from_secs(5), "the connection is still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
