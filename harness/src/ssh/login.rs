//! A script on its way through a login shell that may be any shell, and the mark at which its own output starts.
//!
//! An SSH server runs what it is sent by the login shell of the account. That may be no POSIX shell: csh and tcsh cut a quoted word
//! at the end of its line and take `!` for history even there, fish gives a backslash in quotes another meaning. So the script
//! goes as words of one line in which only what all of them understand alike is used, one word for each of its lines, and a POSIX
//! shell that takes the login shell's place puts them together again, without another process.
//!
//! A login shell may also read start-up files that print, and for the reader of the streams that comes before what the script
//! says. So that POSIX shell first says a mark, fresh for each command, on both streams. What comes before it is not the script's;
//! and where it never comes, the script has not run, whatever the exit status.

/// Most bytes of output before the mark.
pub(super) const MOST_BEFORE: usize = 64 * 1024;
/// Most bytes of a command: with what goes around it, it must fit into one packet of libssh2 (35,000 bytes).
pub(super) const LONGEST: usize = 34_000;

/// A mark that nothing has said yet.
pub(super) fn fresh_mark() -> String {
    format!("nestmatrix-{:032x}", rand::random::<u128>())
}

/// What the login shell is sent so that `script` is run by `sh`, of root if by `sudo`.
pub(super) fn line(script: &str, mark: &str, sudo: bool) -> String {
    let lines: Vec<&str> = script.split('\n').collect();
    let places: String = (1..=lines.len()).map(|number| format!("$n${{{number}}}")).collect();
    // Of the default value of IFS (space, tab, newline) the last is what no word may hold.
    let join = format!("echo {mark};echo {mark} >&2;n=${{IFS#??}};eval \"unset n;set --{places}\"");
    let words: String = lines.into_iter().map(|line| format!(" {}", word(line))).collect();
    let sudo = if sudo { "sudo -n -- " } else { "" };
    format!("exec {sudo}sh -c {} sh{words}", word(&join))
}

/// A line as one word of whatever shell: in quotes, but for the characters that are not safe there.
fn word(line: &str) -> String {
    let mut word = String::from("'");
    for c in line.chars() {
        match c {
            '\'' | '\\' | '!' => {
                word.push_str("'\\");
                word.push(c);
                word.push('\'');
            }
            // No shell can pass it on.
            '\0' => {}
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

/// Takes away what comes before the mark, of a stream that comes in pieces.
#[derive(Debug)]
pub(super) struct Start {
    /// `None`: it has come.
    mark: Option<Vec<u8>>,
    /// What came before it, as long as it has not come.
    before: Vec<u8>,
}

/// More than [`MOST_BEFORE`] bytes came, and the mark was not among them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Start {
    pub(super) fn new(mark: &str) -> Self {
        Self { mark: Some(format!("{mark}\n").into_bytes()), before: Vec::new() }
    }

    /// Whether the mark has come.
    pub(super) fn seen(&self) -> bool {
        self.mark.is_none()
    }

    /// What of these bytes comes after the mark.
    pub(super) fn pass<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], TooMuch> {
        let Some(mark) = &self.mark else { return Ok(bytes) };
        let before = self.before.len();
        self.before.extend_from_slice(bytes);
        // It may have begun in an earlier piece.
        let from = before.saturating_sub(mark.len() - 1);
        if let Some(at) = self.before[from..].windows(mark.len()).position(|window| window == mark) {
            let end = from + at + mark.len();
            self.mark = None;
            self.before = Vec::new();
            return Ok(&bytes[end - before..]);
        }
        if self.before.len() > MOST_BEFORE { Err(TooMuch) } else { Ok(&[]) }
    }

    /// What came instead of the mark.
    pub(super) fn instead(&self) -> &[u8] {
        &self.before
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        path::Path,
        process::{Command, Output, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    /// What a login shell makes of a script, and what comes after the mark on each stream.
    fn through(shell: &str, script: &str) -> (Output, Vec<u8>, Vec<u8>) {
        let mark = fresh_mark();
        // As sshd starts it, and with an input for the script.
        let mut command = Command::new(shell);
        command.args(["-c", &line(script, &mark, false)]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"input\n");
        let output = child.wait_with_output().unwrap();
        let after = |stream: &[u8]| {
            let mut start = Start::new(&mark);
            let rest = start.pass(stream).unwrap().to_vec();
            assert!(start.seen(), "{shell}: no mark in {:?}", String::from_utf8_lossy(stream));
            rest
        };
        let (stdout, stderr) = (after(&output.stdout), after(&output.stderr));
        (output, stdout, stderr)
    }

    /// Shells that people have as their login shell: those that are installed for the tests, and others where they are here.
    fn shells() -> Vec<&'static str> {
        let installed = ["/bin/sh", "/bin/bash", "/usr/bin/zsh", "/usr/bin/tcsh", "/usr/bin/fish"];
        for shell in installed {
            assert!(Path::new(shell).exists(), "{shell} is missing: `cargo xtask setup --test` installs it");
        }
        let more = ["/usr/bin/csh", "/usr/bin/mksh"].into_iter().filter(|shell| Path::new(shell).exists());
        installed.into_iter().chain(more).collect()
    }

    #[test]
    fn a_script_comes_through_any_login_shell_unchanged() {
        let script = "set -u
if [ $# != 0 ] || [ -n \"${n-}\" ]; then exit 9; fi
read -r line; printf '%s|' \"$line\"
printf '%s|' 'it'\\''s' \"a\\\\b\" '!x !! !1' '$HOME `id` ~ * ? [a] {a,b} #% ^x^y' \"tab\there\" 'é' \\
    'in two
lines'
printf 'err\\n' >&2
cat <<'END'
here: $x \\ ' \" !
END
exit 7
";
        for shell in shells() {
            let (output, stdout, stderr) = through(shell, script);
            let expected = "input|it's|a\\b|!x !! !1|$HOME `id` ~ * ? [a] {a,b} #% ^x^y|tab\there|é|in two\nlines|here: $x \\ ' \" !\n";
            assert_eq!(String::from_utf8_lossy(&stdout), expected, "{shell}: {output:?}");
            assert_eq!((stderr, output.status.code()), (b"err\n".to_vec(), Some(7)), "{shell}: {output:?}");
        }
    }

    #[test]
    fn a_long_script_comes_through_any_login_shell() {
        let script: String = (0..300).map(|number| format!("x=$(({number} + 1)) # {}\n", "'!\\".repeat(5))).collect();
        for shell in shells() {
            let (output, stdout, _) = through(shell, &format!("{script}echo $x"));
            assert_eq!(String::from_utf8_lossy(&stdout), "300\n", "{shell}: {output:?}");
        }
        assert!(line(&script, &fresh_mark(), true).len() < LONGEST);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_text_comes_through_any_login_shell_unchanged(text in "[^\0]{0,40}") {
            // dash loses a byte of a character that follows what a line has in common with the beginning of this word.
            let begins = ['e', 'q', 'z'].into_iter().find(|begins| !text.contains(*begins));
            prop_assume!(begins.is_some());
            let end = format!("{} of text", begins.unwrap_or_default());
            let script = format!("cat <<'{end}'\n{text}\n{end}\n");
            for shell in shells() {
                let (_, stdout, _) = through(shell, &script);
                prop_assert_eq!(String::from_utf8_lossy(&stdout), format!("{}\n", text), "{}", shell);
            }
        }
    }

    proptest! {
        #[test]
        fn what_comes_before_the_mark_is_taken_away_however_the_stream_is_split(
            before in "[ab\n]{0,20}", after in prop::collection::vec(any::<u8>(), 0..30),
            sizes in prop::collection::vec(1_usize..5, 1..60),
        ) {
            let stream = [before.as_bytes(), b"abac\n", &after].concat();
            let (mut start, mut out, mut rest) = (Start::new("abac"), Vec::<u8>::new(), &stream[..]);
            for size in sizes.into_iter().chain([usize::MAX]) {
                let (piece, tail) = rest.split_at(size.min(rest.len()));
                out.extend(start.pass(piece).unwrap());
                rest = tail;
            }
            prop_assert!(start.seen());
            prop_assert_eq!(out, after);
        }

        #[test]
        fn of_a_stream_without_the_mark_nothing_passes(pieces in prop::collection::vec("[abc\n]{0,7}", 0..9)) {
            let mut start = Start::new("abac!");
            for piece in &pieces {
                prop_assert_eq!(start.pass(piece.as_bytes()), Ok(&b""[..]));
            }
            prop_assert!(!start.seen());
            prop_assert_eq!(String::from_utf8_lossy(start.instead()), pieces.concat());
        }
    }

    #[test]
    fn a_login_shell_that_prints_without_end_is_not_kept_in_memory() {
        let mut start = Start::new("mark");
        let piece = [b'x'; 1024];
        let taken = (0..100).take_while(|_| start.pass(&piece).is_ok()).count();
        assert_eq!(taken, MOST_BEFORE / 1024);
    }
}
