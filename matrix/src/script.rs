//! A script of the matrix file: a file beside it, or its text.

use std::{io, path::Path};

use crate::{
    error::Mistakes,
    find::{missing, unreadable},
    located::At,
    read::read_file,
};

/// Maximum length of a script: longer content belongs into `files`.
pub(crate) const MAX_SCRIPT_BYTES: u64 = 1 << 20;

/// Where a script comes from.
pub(crate) enum Script {
    /// This file, relative to the matrix file.
    File(At<String>),
    /// This text, a template.
    Inline(At<String>),
}

impl Script {
    /// For people: a path relative to the matrix file, or `inline`.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::File(file) => file.text().to_owned(),
            Self::Inline(_) => "inline".to_owned(),
        }
    }
}

/// Reports that there are two scripts.
pub(crate) fn two_scripts(owner: &str, file: &At<String>, text: &At<String>, mistakes: &mut Mistakes) {
    let problem = mistakes.at(text.span(), format!("the {owner} has two scripts"), "a script");
    mistakes.push(problem.with_label(file.span(), "and another").with_help("keep `run` or `inline`, not both"));
}

/// The text of a script file; `None`, and a mistake, if it does not exist or cannot run.
pub(crate) fn read(file: &At<String>, folder: &Path, mistakes: &mut Mistakes) -> Option<String> {
    let path = folder.join(file.text());
    let bytes = match read_file(&path, MAX_SCRIPT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (looked, help) = missing(file.text(), folder);
            let message = format!("the script `{}` does not exist", file.text());
            mistakes.push(mistakes.at(file.span(), message, &looked).with_help(help));
            return None;
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::FileTooLarge) => {
            let message = format!("the script `{}` is {error}", file.text());
            let help = "name a short script; what it starts or reads goes into a suite's `files`";
            mistakes.push(mistakes.at(file.span(), message, "this script").with_help(help));
            return None;
        }
        Err(error) => {
            unreadable(file, &path, &error, mistakes);
            return None;
        }
    };
    let text = check(bytes).map_err(|(what, help)| {
        let message = format!("the script `{}` {what}", file.text());
        mistakes.push(mistakes.at(file.span(), message, "this script").with_help(help));
    });
    let text = text.ok()?;
    if let Some(line) = text.split('\n').position(|line| line.ends_with('\r')) {
        let message = format!("the script `{}` has mixed line ends: line {} ends with CR LF", file.text(), line + 1);
        mistakes.warn(mistakes.at(file.span(), message, "this script").with_help(CRLF_HELP));
    }
    Some(text)
}

const CRLF_HELP: &str =
    "`sed -i 's/\\r$//' FILE` removes the carriage returns; `*.sh text eol=lf` in .gitattributes keeps them out";

/// Checks the text of a script; `Err` has the mistake and the remedy.
///
/// Refuses text that runs as something else than it looks like: by `sh` instead of its interpreter, or as one long comment. A
/// script that does nothing always succeeds.
pub(crate) fn check(bytes: Vec<u8>) -> Result<String, (&'static str, &'static str)> {
    if bytes.len() as u64 > MAX_SCRIPT_BYTES {
        return Err((
            "is longer than 1 MiB",
            "put programs and data into a suite's `files`, and start them from a short script",
        ));
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(("is not UTF-8 text", "save it as UTF-8; put a program into a suite's `files`"));
    };
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = text.split('\n').next().unwrap_or_default();
    if text.contains('\0') {
        Err(("holds a NUL character", "a script is plain text; put a program into a suite's `files`"))
    } else if text.starts_with('\u{feff}') {
        Err(("begins with a byte order mark (BOM), so its first line cannot be read", "save it as UTF-8 without BOM"))
    } else if text.trim().is_empty() {
        Err(("is empty", "write the commands to run"))
    } else if first.contains('\r') {
        Err((
            "has CR LF line ends: no guest finds an interpreter or a command whose name ends with CR (line 1)",
            CRLF_HELP,
        ))
    } else if !text.starts_with("#!") && text.trim_start().starts_with("#!") {
        Err(("has blanks before `#!`, so `sh` would run it", "begin it with `#!`, or remove that line"))
    } else if !text.lines().any(|line| code(&line)) {
        Err(("holds nothing but comments", "write the commands to run"))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_run_as_something_else_than_it_looks_like_is_no_script() {
        for (text, wrong) in [
            ("", "empty"),
            (" \n\t\n", "empty"),
            ("#!/bin/sh\r\nexit 1\r\n", "CR LF"),
            ("set -eu\r\nfalse\n", "CR LF"),
            // CR line ends make all of it one comment.
            ("#!/bin/sh\rexit 1\r", "CR LF"),
            ("\u{feff}#!/bin/sh\nexit 1\n", "BOM"),
            ("\u{feff}set -e\nfalse\ntrue\n", "BOM"),
            ("\n#!/usr/bin/python3\nprint()\n", "`#!`"),
            ("  #!/bin/bash\nexit 1\n", "`#!`"),
            ("#!/bin/sh\n# exit 1\n\n", "comments"),
            ("true\0", "NUL"),
        ] {
            let (what, _) = check(text.into()).expect_err(text);
            assert!(what.contains(wrong), "{text:?}: {what}");
        }
        assert!(check(b"#!/bin/sh\n\xff".to_vec()).is_err() && check(vec![b'x'; (1 << 20) + 1]).is_err());
        for text in ["true", "#!/bin/sh\ntrue\n", "#!/usr/bin/env python3\nprint('a\r\n')\n", "\n\nexit 1"] {
            assert_eq!(check(text.into()).as_deref(), Ok(text));
        }
    }
}
