//! Runs external tools: output line by line, cancellation, and a time limit in every case.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, BufRead as _, BufReader, PipeReader, Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    error::{Failure, PrepareErrorKind},
    lock::POLL,
};

/// Number of last lines of a tool that are kept.
const TAIL_LINES: usize = 40;
/// Maximum length of a line, in bytes; longer ones are cut.
const LINE_BYTES: u64 = 4096;
/// Time limit for reading the last lines of a tool that has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit of a build: a mirror that sends a byte a minute must not hold it forever.
pub(crate) const BUILD_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A command with the environment of all our tools: messages in English, and the system tools in PATH.
pub(crate) fn command(program: &str) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(if path.is_empty() { "/usr/bin:/bin:/usr/sbin:/sbin" } else { ":/usr/sbin:/sbin" });
    let mut command = Command::new(program);
    command.env("PATH", path).env("LC_ALL", "C.UTF-8").env_remove("LANGUAGE");
    command
}

/// The first of these programs that is not in PATH.
pub(crate) fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().copied().find(|program| find(program).is_none())
}

/// The path of a program in PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path: OsString =
        command("").get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value)?.to_owned();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a tool to its end in a process group of its own and calls `line` with each line of its output.
///
/// Its standard input is a pipe that ends with this process, so that the tool can end with us. When `cancel` is set, or after
/// `limit`, the whole group is killed. `name` is the tool's name in errors.
pub(crate) fn run(
    mut command: Command,
    name: &str,
    limit: Duration,
    cancel: &AtomicBool,
    mut line: impl FnMut(&str),
) -> Result<(), Failure> {
    if cancel.load(Ordering::Relaxed) {
        return Err(PrepareErrorKind::Cancelled.into());
    }
    let cannot_start = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => PrepareErrorKind::ToolMissing { tool: name.to_owned() },
        _ => PrepareErrorKind::ToolFailed { tool: name.to_owned(), status: format!("could not be started: {error}") },
    };
    let (reader, writer) = io::pipe().map_err(cannot_start)?;
    command.process_group(0).stdin(Stdio::piped()).stderr(writer);
    let mut child = command.spawn().map_err(cannot_start)?;
    // The command holds our copies of the pipe's other end and of its other files.
    drop(command);
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let mut hear = |text: String| {
        line(&text);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    };
    let ended = follow(&mut child, lines_of(reader), limit, cancel, &mut hear);
    let kind = match ended {
        Ended::By(Ok(status)) if status.success() => return Ok(()),
        Ended::By(Ok(status)) => PrepareErrorKind::ToolFailed { tool: name.to_owned(), status: status.to_string() },
        Ended::By(Err(error)) => PrepareErrorKind::ToolFailed { tool: name.to_owned(), status: error.to_string() },
        Ended::Cancelled => return Err(PrepareErrorKind::Cancelled.into()),
        Ended::TookTooLong => PrepareErrorKind::Stalled { tool: name.to_owned(), limit },
    };
    Err(Failure { kind, tail: tail.into() })
}

/// The first line that a tool of e2fsprogs prints besides its version: some of them always exit with 0.
pub(crate) fn complaint(name: &str, line: &str, first: &mut Option<String>) {
    if first.is_none() && !line.starts_with(&format!("{name} 1.")) {
        *first = Some(line.to_owned());
    }
}

/// Runs a tool as [`run`] does and returns its standard output; more than `most` bytes are an error, because a truncated answer
/// is useless.
pub(crate) fn output(
    mut command: Command,
    name: &str,
    limit: Duration,
    most: u64,
    cancel: &AtomicBool,
) -> Result<Vec<u8>, Failure> {
    let folder = std::env::temp_dir();
    let mut out = tempfile::tempfile().map_err(PrepareErrorKind::io("create a file in", &folder))?;
    let copy = out.try_clone().map_err(PrepareErrorKind::io("copy a handle in", &folder))?;
    command.stdout(Stdio::from(copy));
    run(command, name, limit, cancel, |_| {})?;
    let mut said = Vec::new();
    let read = out.rewind().and_then(|()| out.take(most + 1).read_to_end(&mut said));
    read.map_err(PrepareErrorKind::io("read what a tool wrote in", &folder))?;
    if said.len() as u64 > most {
        let status = format!("it wrote more than {most} bytes");
        return Err(PrepareErrorKind::ToolFailed { tool: name.to_owned(), status }.into());
    }
    Ok(said)
}

enum Ended {
    By(io::Result<std::process::ExitStatus>),
    Cancelled,
    TookTooLong,
}

fn follow(
    child: &mut Child,
    lines: Receiver<String>,
    limit: Duration,
    cancel: &AtomicBool,
    hear: &mut dyn FnMut(String),
) -> Ended {
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(POLL) {
            Ok(text) => hear(text),
            Err(RecvTimeoutError::Timeout) => {}
            // It closed its output; only its end is awaited.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL / 10),
        }
        let ended = match child.try_wait() {
            Ok(None) if cancel.load(Ordering::Relaxed) => Ended::Cancelled,
            Ok(None) if Instant::now() >= deadline => Ended::TookTooLong,
            Ok(None) => continue,
            Ok(Some(status)) => {
                // Closes its life line: processes it left behind may depend on it.
                drop(child.stdin.take());
                // The last output is still in the pipe; a process it left behind may keep the pipe open, so the wait has a limit.
                let deadline = Instant::now() + OUTPUT_TIMEOUT;
                while let Ok(text) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    hear(text);
                }
                return Ended::By(Ok(status));
            }
            Err(error) => Ended::By(Err(error)),
        };
        kill(child);
        return ended;
    }
}

/// Kills the child's whole group and reaps the child. The group exists as long as the child is not reaped.
fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The only possible error is that it is gone already.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

/// The lines of a pipe, without control characters; ends with the pipe or with the receiver.
fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(256);
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while let Ok(1..) = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut bytes) {
            // A progress bar overwrites its line: only its last state matters.
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
            let text: String = text.chars().filter(|&c| c == '\t' || !c.is_control()).collect();
            bytes.clear();
            if !text.is_empty() && sender.send(text).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    fn shell(script: &str) -> Command {
        let mut shell = command("sh");
        shell.args(["-c", script]).stdout(Stdio::null());
        shell
    }

    fn idle() -> AtomicBool {
        AtomicBool::new(false)
    }

    #[test]
    fn a_tool_that_fails_is_quoted_with_its_last_lines() {
        let _alone = alone();
        let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i >&2; done; exit 3";
        let failure = run(shell(script), "sh", BUILD_TIMEOUT, &idle(), |_| {}).expect_err("it exits with 3");
        assert_eq!(failure.kind.to_string(), "`sh` failed (exit status: 3)");
        assert_eq!((failure.tail.len(), failure.tail.last().map(String::as_str)), (TAIL_LINES, Some("line 100")));
    }

    #[test]
    fn what_a_tool_says_cannot_reach_the_terminal_as_control_sequences() {
        let _alone = alone();
        let mut heard = Vec::new();
        run(shell(r"printf '10%%\r\033[31m99%%\n' >&2"), "sh", BUILD_TIMEOUT, &idle(), |line| {
            heard.push(line.to_owned())
        })
        .expect("it succeeds");
        assert_eq!(heard, ["[31m99%"]);
    }

    #[test]
    fn a_missing_tool_is_named() {
        let _alone = alone();
        let failure =
            run(command("nestmatrix-no-such-tool"), "nestmatrix-no-such-tool", BUILD_TIMEOUT, &idle(), |_| {});
        let failure = failure.expect_err("there is none");
        assert_eq!(failure.kind.to_string(), "`nestmatrix-no-such-tool` is not installed");
        assert_eq!(missing(&["sh", "nestmatrix-no-such-tool"]), Some("nestmatrix-no-such-tool"));
        assert_eq!(missing(&["sh"]), None);
    }

    #[test]
    fn cancelling_kills_the_children_of_the_tool_too() {
        let _alone = alone();
        let (ended, still_writing) = io::pipe().expect("pipe");
        let mut script = shell("sleep 300 & sleep 300");
        script.stdout(still_writing);
        let cancel = idle();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                cancel.store(true, Ordering::Relaxed);
            });
            let failure = run(script, "sh", BUILD_TIMEOUT, &cancel, |_| {}).expect_err("cancelled");
            assert!(matches!(failure.kind, PrepareErrorKind::Cancelled), "{failure:?}");
        });
        // Every process of the tree held the other end of this pipe.
        assert_eq!(BufReader::new(ended).read(&mut [0]).expect("pipe"), 0);
    }

    #[test]
    fn a_tool_that_takes_too_long_is_killed() {
        let _alone = alone();
        let soon = Duration::from_millis(100);
        let failure = run(shell("sleep 300"), "sh", soon, &idle(), |_| {}).expect_err("too long");
        assert_eq!(failure.kind.to_string(), "timeout: `sh` still ran after 0.1 s");
        let failure = output(shell("sleep 300"), "sh", soon, 1, &idle()).expect_err("too long");
        assert!(matches!(failure.kind, PrepareErrorKind::Stalled { .. }), "{failure:?}");
    }

    #[test]
    fn half_of_what_a_tool_answers_is_no_answer() {
        let _alone = alone();
        let said = |most| output(shell("echo hello; echo not this >&2"), "sh", BUILD_TIMEOUT, most, &idle());
        assert_eq!(said(6).expect("all of it"), b"hello\n");
        let failure = said(5).expect_err("a part of it");
        assert_eq!(failure.kind.to_string(), "`sh` failed (it wrote more than 5 bytes)");
    }
}
