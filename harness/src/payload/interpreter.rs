//! The `#!` line of a suite's script, obeyed here and not by the guest's kernel: its folder may be mounted noexec, and an interpreter that is
//! not in the guest is to be named.

use super::{quote, words};

/// How the words about an interpreter begin ...
const BEGINS: &str = "nestmatrix: interpreter ";
/// ... and end.
const ENDS: &str = " is not in the guest";
/// What a shell exits with that does not find a program.
const NOT_FOUND: i32 = 127;

/// Shell commands that become the script `file`, which lies in the working directory: by its own interpreter, or by `sh` if it names none.
pub(super) fn become_script(script: &str, file: &str) -> String {
    let Some((program, argument)) = named(script) else { return format!("exec sh ./{file}\n") };
    // As the kernel does: relative to the working directory, never by PATH.
    let program = if program.contains('/') { program.to_owned() } else { format!("./{program}") };
    let mut commands = unless(&format!("[ -e {} ]", quote::word(&program)), &program);
    if let Some(searched) = argument.filter(|_| program.ends_with("/env")).and_then(searched_by_env) {
        commands += &unless(&format!("command -v {} >/dev/null 2>&1", quote::word(searched)), searched);
    }
    let argument = argument.map(|argument| format!(" {}", quote::word(argument))).unwrap_or_default();
    commands + &format!("exec {}{argument} ./{file}\n", quote::word(&program))
}

/// The interpreter that is missing, if a script that exited with `code` and said this on standard error could not be started for want of one.
pub(super) fn missing(code: i32, stderr: &[u8]) -> Option<String> {
    let last = words::last_lines(stderr, 1).pop().filter(|_| code == NOT_FOUND)?;
    Some(last.strip_prefix(BEGINS)?.strip_suffix(ENDS)?.to_owned())
}

fn unless(condition: &str, missing: &str) -> String {
    // A carriage return would not be seen.
    let shown = missing.replace('\r', "\\r (CRLF line ends)");
    let line = quote::word(&format!("{BEGINS}{shown}{ENDS}"));
    format!("{condition} || {{ printf '%s\\n' {line} >&2; exit {NOT_FOUND}; }}\n")
}

/// Program and argument of the first line, as Linux reads it: everything behind the program is one argument.
fn named(script: &str) -> Option<(&str, Option<&str>)> {
    let blank = [' ', '\t'];
    let line = script.strip_prefix("#!")?.lines().next()?;
    // Without the carriage return, which `lines` takes for a part of the line's end.
    let line =
        script.get(2..).filter(|text| text[line.len()..].starts_with("\r\n")).map_or(line, |text| &text[..=line.len()]);
    let line = line.trim_matches(blank);
    let (program, argument) = line.split_once(blank).unwrap_or((line, ""));
    let argument = argument.trim_matches(blank);
    (!program.is_empty()).then_some((program, (!argument.is_empty()).then_some(argument)))
}

/// What `env` looks for, if that is plain.
fn searched_by_env(argument: &str) -> Option<&str> {
    let command = argument.strip_prefix("-S").unwrap_or(argument).trim_start();
    let first = command.split([' ', '\t']).next()?;
    let plain = !first.is_empty() && !first.starts_with('-') && !first.contains(['=', '\'', '"', '\\', '$']);
    plain.then_some(first)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn scripts_are_started_by_what_their_first_line_names() {
        let of = |script: &str| become_script(script, "s");
        assert_eq!(of("echo hi\n"), "exec sh ./s\n");
        assert_eq!(of("#!\necho hi\n"), "exec sh ./s\n");
        assert_eq!(of("#! /bin/sh  -e -u \n").lines().last(), Some("exec '/bin/sh' '-e -u' ./s"));
        assert_eq!(of("#!/bin/sh").lines().last(), Some("exec '/bin/sh' ./s"));
        assert_eq!(of("#!tool\n").lines().last(), Some("exec './tool' ./s"));
        assert_eq!(of("#!/usr/bin/env python3\n").lines().last(), Some("exec '/usr/bin/env' 'python3' ./s"));
        assert_eq!(of("#!/bin/sh\r\necho hi\r\n").lines().last(), Some("exec '/bin/sh\r' ./s"));
    }

    #[test]
    fn an_interpreter_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = |script: &str| {
            fs::write(dir.path().join("s"), script).unwrap();
            let mut shell = Command::new("sh");
            let output = shell.args(["-c", &become_script(script, "s")]).current_dir(dir.path()).output().unwrap();
            missing(output.status.code().unwrap(), &output.stderr)
        };
        assert_eq!(missing("#!/opt/no/python3 -u\n").as_deref(), Some("/opt/no/python3"));
        assert_eq!(missing("#!/usr/bin/env no-such-python\n").as_deref(), Some("no-such-python"));
        assert_eq!(missing("#!/usr/bin/env -S no-such-python -u\n").as_deref(), Some("no-such-python"));
        assert_eq!(missing("#!/bin/sh\r\necho hi\r\n").as_deref(), Some("/bin/sh\\r (CRLF line ends)"));
        assert_eq!(missing("#!no-such\n").as_deref(), Some("./no-such"));
        assert_eq!(missing("#!/usr/bin/env -S X=1 sh\n"), None);
        // What a script says itself about something else.
        assert_eq!(missing("#!/bin/sh\nno-such-program\n"), None);
        assert_eq!(missing("#!/bin/sh\necho nestmatrix: interpreter x is not in the guest >&2; exit 1\n"), None);
        assert_eq!(missing("#!/bin/sh -e\nexit 0\n"), None);
    }
}
